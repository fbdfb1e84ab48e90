"""A nursery that does not answer."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.daemon.nursery import Nursery
from engine.errors import WorkerDied


class HangingProcess:
    """A process that the nursery forks only when the test lets it."""

    def __init__(self) -> None:
        self.may_start = threading.Event()
        self.killed = threading.Event()

    def start(self) -> None:
        self.may_start.wait()

    def kill(self) -> None:
        self.killed.set()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "30"]) as process:
        yield process
        process.kill()


async def test_one_that_does_not_fork_in_time_is_killed_and_what_it_forks_later_ends(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    nursery = Nursery(tmp_path / "memo", on_change=lambda: None, on_log=lambda event, text: log.append(text))
    process = HangingProcess()
    monkeypatch.setattr(nursery, "_context", SimpleNamespace(Process=lambda **_: process))
    nursery._pid = child.pid
    with pytest.raises(WorkerDied, match=f"pid {child.pid}.*did not fork a worker within 2 s.*ask again"):
        await nursery.fork(print, patience_s=2.0)
    assert child.wait(5) == -signal.SIGKILL
    assert log == [f"the nursery (pid {child.pid}) does not answer and is ended"]
    process.may_start.set()
    assert await asyncio.to_thread(process.killed.wait, 5)


async def test_one_that_is_asked_without_patience_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery = Nursery(tmp_path / "memo", on_change=lambda: None, on_log=lambda event, text: None)
    process = HangingProcess()
    monkeypatch.setattr(nursery, "_context", SimpleNamespace(Process=lambda **_: process))
    forking = asyncio.create_task(nursery.fork(print))
    await asyncio.sleep(0.05)
    assert not forking.done()
    process.may_start.set()
    assert await forking is process  # type: ignore[comparison-overlap]
    assert not process.killed.is_set()


async def test_who_waits_for_one_that_rests_starts_nothing_in_its_place(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path / "memo", on_change=lambda: None, on_log=lambda event, text: None)
    waiting = asyncio.create_task(nursery.wait_settled(10))
    await asyncio.sleep(0)
    nursery.rest()
    for asked in (waiting, nursery.wait_settled(10)):
        with pytest.raises(WorkerDied, match="has the GPU to itself"):
            await asyncio.wait_for(asked, 1)
