"""What a person asks of the weights on the device: each is served, and answered with its receipt.

Unload and free are served between two steps of a job as well; a switch and a reload in their turn.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from engine.errors import EngineError
from engine.wire import Proof, Receipt, ReceiptAction
from engine.worker.channel import (
    FREED,
    ActionEnded,
    ActionStepped,
    Free,
    FromWorker,
    Proceed,
    Restore,
    SwitchTo,
    Unload,
    Unloaded,
)
from engine.worker.store import ComponentStore
from engine.worker.tidy import TIDIED, Tidy
from engine.worker.tidying import Tidier

LOOK_S = 2.0
"""How long a switch waits for what the daemon saw; then it goes by its own count."""
Quick: TypeAlias = Unload | Free | Tidy


class ActionServer:
    """Served by the thread that does all device work; `ask` and `proceed` are for the one that listens."""

    def __init__(
        self, store: ComponentStore, tidier: Tidier, *, proof: Proof, send: Callable[[FromWorker], None]
    ) -> None:
        """`proof` is what an answer of this device rests on."""
        self._store = store
        self._tidier = tidier
        self._proof = proof
        self._send = send
        self._quick: queue.SimpleQueue[Quick] = queue.SimpleQueue()
        self._proceed: queue.SimpleQueue[Proceed] = queue.SimpleQueue()

    def ask(self, message: Quick) -> None:
        """Have it served by the next `serve_quick`."""
        self._quick.put(message)

    def proceed(self, message: Proceed) -> None:
        """The daemon has looked at what a switch gave back."""
        self._proceed.put(message)

    def serve_quick(self) -> None:
        """What was asked for since the last call."""
        while True:
            try:
                message = self._quick.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, Unload):
                unload = partial(self._store.unload, message.model, message.component)
                self._answer(message.action_id, "unload", message.model or "everything", unload)
            elif isinstance(message, Tidy):
                tidy = partial(self._tidier.tidy, message.what)
                self._answer(message.action_id, message.what, TIDIED[message.what], tidy)
            else:
                free = partial(self._store.free, idle=message.idle)
                self._answer(message.action_id, "free", FREED[message.idle], free)

    def switch(self, message: SwitchTo) -> None:
        action_id = message.action_id
        cancels = self._store.cancels
        self._answer(
            action_id,
            "switch",
            message.model.name,
            lambda: self._store.switch(
                message.model,
                message.budget_bytes,
                reserve_bytes=message.reserve_bytes,
                on_step=lambda step: self._send(ActionStepped(action_id=action_id, step=step)),
                unloaded=partial(self._have_looked_at, action_id),
                check=partial(cancels.check, action_id),
            ),
        )
        cancels.ended(action_id)

    def restore(self, message: Restore) -> None:
        action_id = message.action_id
        cancels = self._store.cancels
        names = ", ".join(f"{item.model.name}/{item.component}" for item in message.wanted)
        self._answer(
            action_id,
            "load",
            names,
            lambda: self._store.restore(
                [(item.model, item.component) for item in message.wanted],
                check=partial(cancels.check, action_id),
            ),
        )
        cancels.ended(action_id)

    def _have_looked_at(
        self, action_id: int, num_bytes: int, cache_bytes: int, held_bytes: int
    ) -> tuple[int | None, float]:
        """As `model_switch.Unloaded`: what the daemon sees from outside, if it answers in time."""
        self._send(
            Unloaded(
                action_id=action_id,
                expected_bytes=num_bytes,
                cache_bytes=cache_bytes,
                held_bytes=held_bytes,
            )
        )
        deadline = time.monotonic() + LOOK_S
        while True:
            try:
                answer = self._proceed.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                return None, LOOK_S
            if answer.action_id == action_id:
                return answer.returned_bytes, answer.elapsed_s

    def _answer(self, action_id: int, action: ReceiptAction, target: str, act: Callable[[], Receipt]) -> None:
        """Answer an action with its receipt, or with one that says why there is none."""
        started = time.monotonic()
        try:
            receipt = act()
        except EngineError as error:
            receipt = Receipt(
                action=action,
                target=target,
                ok=False,
                error=str(error),
                elapsed_s=round(time.monotonic() - started, 4),
                proof=self._proof,
            )
        self._send(ActionEnded(action_id=action_id, receipt=receipt))
