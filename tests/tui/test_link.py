"""The thread that listens: connecting, coming back, ending."""

from __future__ import annotations

import threading
import time

import pytest

from engine.errors import EngineUnavailable
from engine.wire import HistoryColumn, MemoryHistory
from turbotui import link as link_module
from turbotui.client import scenes
from turbotui.client.script import Step
from turbotui.client.scripted import ScriptedClient
from turbotui.history import History
from turbotui.link import Link

from .conftest import NOW, scripted


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "RETRY_S", (0.01,))


def wait_for(condition: object, what: str) -> None:
    deadline = time.monotonic() + 3
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_it_starts_an_engine_once_and_listens() -> None:
    started: list[int] = []
    changed: list[int] = []
    client = scripted(scenes.busy(NOW))
    link = Link(lambda: client, on_change=lambda: changed.append(1), start_engine=lambda: started.append(1))
    link.start()
    wait_for(lambda: link.state.engine is not None, "a snapshot")
    assert link.history(scenes.GPU).highest() > 0
    client.end()
    client._ends = None
    wait_for(lambda: sum(call[0] == "hello" for call in client.asked) > 1, "a second connection")
    link.close()
    assert started == [1] and changed


def test_it_comes_back_when_the_engine_does() -> None:
    attempts: list[int] = []

    def factory() -> ScriptedClient:
        attempts.append(1)
        if len(attempts) < 4:
            raise EngineUnavailable("no engine runs")
        return scripted(scenes.busy(NOW))

    link = Link(factory, on_change=lambda: None)
    link.start()
    wait_for(lambda: link.state.link == "lost", "lost")
    assert link.state.lost_reason == "no engine runs"
    wait_for(lambda: link.state.link == "connected" and link.state.engine is not None, "connected")
    link.close()


def test_a_client_that_breaks_in_an_unknown_way_is_a_loss_and_not_the_end() -> None:
    def factory() -> ScriptedClient:
        raise RuntimeError("out of file handles")

    link = Link(factory, on_change=lambda: None)
    link.start()
    wait_for(lambda: link.state.link == "lost", "lost")
    assert link.state.lost_reason == "RuntimeError: out of file handles"
    link.close()


def test_closing_ends_the_stream_and_the_thread() -> None:
    client = ScriptedClient([Step(event=scenes.busy(NOW)), Step(event=scenes.busy(NOW), after_s=60.0)])
    before = threading.active_count()
    link = Link(lambda: client, on_change=lambda: None)
    link.start()
    wait_for(lambda: link.state.engine is not None, "a snapshot")
    link.close()
    wait_for(lambda: threading.active_count() <= before, "the thread's end")


def test_closing_does_not_wait_for_a_client_that_hangs() -> None:
    hang = threading.Event()

    def factory() -> ScriptedClient:
        hang.wait(30)
        raise EngineUnavailable("late")

    link = Link(factory, on_change=lambda: None)
    link.start()
    started = time.monotonic()
    link.close()
    assert time.monotonic() - started < 0.5
    hang.set()


def test_what_the_engine_saw_before_is_in_the_graph_with_its_gaps() -> None:
    history = History()
    history.fill(
        MemoryHistory(
            device_id="cpu",
            columns=(
                HistoryColumn(
                    at=100.0, samples=10, parts={"weights": (5, 7), "runtime": (1, 2), "free": (9, 9)}
                ),
                HistoryColumn(at=101.0, samples=0, parts={}),
                HistoryColumn(at=105.0, samples=3, parts={"live": (1, 4)}),
            ),
        )
    )
    window = history.window(105, 6)
    assert [None if column is None else column.total_bytes for column in window] == [9, 9, 9, None, None, 4]
