"""Owns the questions that take time: each in a thread of ours, its answer handled in the loop.

The threads are daemon threads and never Textual's, since those are waited for at the end: a call that
hangs in a socket must not keep the console from closing.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from textual.app import App

from engine.errors import EngineError
from turbotui.messages import CallEnded
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.bottom import Pending, Tone

if TYPE_CHECKING:
    from turbotui.client.base import Client

Answer = TypeVar("Answer")


class AskingApp(App[None]):
    """An app that asks an engine without ever waiting for it."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.monotonic = monotonic
        self._calls: dict[int, Pending] = {}
        self._call_ids = itertools.count(1)

    @property
    def engine_client(self) -> Client | None:
        """Who is asked; None while no engine answers."""
        raise NotImplementedError

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Show a sentence."""
        raise NotImplementedError

    def key_of(self, name: str) -> str:
        """The key to show for an action."""
        raise NotImplementedError

    def calls_changed(self) -> None:
        """A question was asked or has ended."""
        raise NotImplementedError

    @property
    def pending(self) -> Pending | None:
        """The newest question without an answer."""
        return next(reversed(self._calls.values()), None)

    def ask(
        self,
        label: str,
        work: Callable[[Client], Answer],
        *,
        then: Callable[[Answer], None] | None = None,
        failed: Callable[[str], None] | None = None,
        quiet: bool = False,
        given_up_by: str | None = None,
    ) -> None:
        """Do `work` in a thread; `then` gets its answer and `failed` its error in the loop.

        Without `failed` an error becomes a notice. `quiet` keeps it out of the last line, which
        otherwise names the key of the action `given_up_by`, where there is one.
        """
        client = self.engine_client
        if client is None:
            self._call_failed(t("why.no_engine"), failed)
            return
        self.run_apart(
            label, lambda: work(client), then=then, failed=failed, quiet=quiet, given_up_by=given_up_by
        )

    def run_apart(
        self,
        label: str,
        work: Callable[[], Answer],
        *,
        then: Callable[[Answer], None] | None = None,
        failed: Callable[[str], None] | None = None,
        quiet: bool = False,
        given_up_by: str | None = None,
    ) -> None:
        """As `ask`, for work that needs no engine."""
        call_id = next(self._call_ids)
        if not quiet:
            key = None if given_up_by is None else self.key_of(given_up_by)
            self._calls[call_id] = Pending(label=label, since=self.monotonic(), give_up_key=key)

        def run() -> None:
            try:
                result: Any = work()
                error = None
            except EngineError as problem:
                result, error = None, str(problem)
            except Exception as problem:  # The edge of this thread; the person sees what broke.
                result, error = None, f"{label}: {type(problem).__name__}: {problem}"
            if self.is_running:
                self.post_message(CallEnded(call_id, result=result, error=error, then=then, failed=failed))

        threading.Thread(target=run, name=f"call-{call_id}", daemon=True).start()
        self.calls_changed()

    def on_call_ended(self, message: CallEnded) -> None:
        self._calls.pop(message.call_id, None)
        if message.error is not None:
            self._call_failed(message.error, message.failed)
        elif message.then is not None:
            message.then(message.result)
        self.calls_changed()

    def _call_failed(self, error: str, failed: Callable[[str], None] | None) -> None:
        if failed is not None:
            failed(spoken(error))
        else:
            self.say(spoken(error), "error")
