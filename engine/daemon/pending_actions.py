"""What the worker was asked for and has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from engine.daemon.answers import fail
from engine.daemon.cancel import Cancel
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.worker import WorkerProcess
from engine.errors import WorkerDied, WorkerSilent
from engine.wire import Receipt, ReceiptAction, ReceiptStep
from engine.worker.channel import ActionEnded, ActionStepped, CancelAction, ToWorker, Unloaded


@dataclass(kw_only=True, slots=True, eq=False)
class _Pending:
    """One of them."""

    action: ReceiptAction
    target: str
    answer: asyncio.Future[Receipt]
    on_unloaded: Callable[[WorkerProcess, Unloaded], None] | None
    on_step: Callable[[ReceiptStep], None] | None
    late: bool = False
    """Whoever asked was told that the worker is silent; it may end the action all the same."""


class PendingActions:
    """By the number that the worker was given for each. Event loop's thread only."""

    def __init__(
        self, receipts: ReceiptBook, *, on_late: Callable[[ReceiptAction, str, Receipt], None]
    ) -> None:
        """`on_late` has what ended although whoever asked for it was told that the worker is silent."""
        self._receipts = receipts
        self._on_late = on_late
        self._numbers = count(1)
        self._actions: dict[int, _Pending] = {}

    @property
    def loads_late(self) -> bool:
        """Whether a worker that was silent still loads what nobody waits for any more."""
        return any(asked.late and asked.action in ("switch", "load") for asked in self._actions.values())

    async def ask(
        self,
        worker: WorkerProcess,
        action: ReceiptAction,
        target: str,
        message: Callable[[int], ToWorker],
        *,
        on_unloaded: Callable[[WorkerProcess, Unloaded], None] | None,
        on_step: Callable[[ReceiptStep], None] | None,
        cancel: Cancel | None,
    ) -> Receipt:
        """Send `message` with a number of its own, and wait for the receipt; see `Supervisor.ask`."""
        number = next(self._numbers)
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        asked = _Pending(
            action=action, target=target, answer=answer, on_unloaded=on_unloaded, on_step=on_step
        )
        self._actions[number] = asked
        worker.send(message(number))
        if cancel is not None:
            cancel.tell(lambda: worker.send(CancelAction(action_id=number)))
        try:
            return await answer
        finally:
            if not asked.late:
                self._actions.pop(number, None)
            if cancel is not None:
                cancel.tell(None)

    def heard(self, worker: WorkerProcess, message: Unloaded | ActionStepped | ActionEnded) -> None:
        """What the worker says of one of them."""
        asked = self._actions.get(message.action_id)
        if asked is None:
            return
        match message:
            case Unloaded():
                if asked.on_unloaded is not None:
                    asked.on_unloaded(worker, message)
            case ActionStepped():
                if asked.on_step is not None:
                    asked.on_step(message.step)
                self._receipts.stepped(asked.action, asked.target, message.step)
            case ActionEnded() if asked.late:
                del self._actions[message.action_id]
                self._ended_late(asked, message.receipt)
            case ActionEnded():
                if not asked.answer.done():
                    asked.answer.set_result(message.receipt)

    def worker_silent(self, silent_s: float) -> None:
        """Tell whoever waits that the worker has said nothing for so long."""
        for asked in self._actions.values():
            if not asked.answer.done():
                asked.late = True
                asked.answer.set_exception(
                    WorkerSilent(
                        f"{asked.target}: the worker has said nothing for {silent_s:.0f} s; if it speaks "
                        "again it may still do this, and the log tells; `turbotui cleanup` ends it and "
                        "starts another"
                    )
                )

    def worker_died(self, died: WorkerDied) -> None:
        """Nothing of it will be answered."""
        actions, self._actions = self._actions, {}
        for asked in actions.values():
            fail(asked.answer, died)

    def _ended_late(self, asked: _Pending, receipt: Receipt) -> None:
        if receipt.ok and receipt.proof != "page-cache":
            why = "the worker's own count: it was silent for so long that nobody looked from outside"
            receipt = replace(receipt, proof_reason=receipt.proof_reason or why)
        self._on_late(asked.action, asked.target, self._receipts.issue(receipt))
