"""An action's steps on a terminal, drawn over one line while it is waited for."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest

from engine.errors import EngineUnavailable
from engine.wire import ActionProgressed, EventFrame, ReceiptStep
from turbotui.client.base import Stream
from turbotui.subcommands import steps
from turbotui.subcommands.steps import step_text, steps_shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeClient:
    """Hands out events until its stream is closed."""

    def __init__(self, *events: ActionProgressed, broken: bool = False) -> None:
        self.events = events
        self.broken = broken
        self.told = threading.Event()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()

    def subscribe(self, on_frame: Callable[[EventFrame], None], *, on_open: Callable[[Stream], None]) -> None:
        if self.broken:
            self.told.set()
            raise EngineUnavailable("nothing answers")
        on_open(self)  # type: ignore[arg-type]
        for seq, event in enumerate(self.events):
            on_frame(EventFrame(seq=seq, event=event))
        self.told.set()
        assert self.closed.wait(5)


def _event(action: str, name: str, done: int | None = None, total: int | None = None) -> ActionProgressed:
    step = ReceiptStep(name=name, bytes=done, total_bytes=total, elapsed_s=0.5)
    return ActionProgressed(action=action, target="x", step=step)


def _shown(client: FakeClient, monkeypatch: pytest.MonkeyPatch, terminal: io.StringIO) -> str:
    monkeypatch.setattr(steps.sys, "stderr", terminal)
    with steps_shown(client, "switch"):  # type: ignore[arg-type]
        if terminal.isatty():
            assert client.told.wait(5)
    return terminal.getvalue()


def test_steps_of_the_action_are_drawn_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(
        _event("switch", "verify", 0),
        _event("load", "load x/dit", 2**30, 2**31),
        _event("warm", "somebody else's"),
    )
    text = _shown(client, monkeypatch, Terminal())
    assert "verify 0 B, 0.50 s" in text
    assert "load x/dit 1.00 GiB of 2.00 GiB, 0.50 s" in text
    assert "somebody" not in text
    assert text.endswith("\r\x1b[K"), "the line is free for the receipt"
    assert client.closed.is_set()


def test_a_pipe_gets_no_steps_and_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(_event("switch", "verify", 0))
    assert _shown(client, monkeypatch, io.StringIO()) == ""
    assert not client.told.is_set()


def test_an_engine_that_gives_no_events_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown(FakeClient(broken=True), monkeypatch, Terminal()) == ""


def test_a_step_may_not_command_the_terminal() -> None:
    assert "\x1b" not in step_text(ReceiptStep(name="load \x1b[2J", elapsed_s=1.0))
