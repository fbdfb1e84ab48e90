"""A worker that comes to nothing: what is told of it, from a real process."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.last_words import last_words, size_of
from engine.daemon.worker import WorkerExit, WorkerProcess, start_worker
from engine.errors import WorkerDied, WorkerNotStarted
from engine.wire import Job, JobSpec
from engine.worker.channel import WorkerSettings
from turbotui.subcommands.jobs import job_lines, job_table
from turbotui.widgets.queue import _words

SETTINGS = WorkerSettings(warm_budget_bytes=0, stream="auto", ring_rate=None)


async def settled(timeout_s: float | None = None) -> str:
    return "failed"


NO_NURSERY: Any = SimpleNamespace(wait_settled=settled, pid=None)


async def ended(log: Path, nursery: Any = NO_NURSERY) -> WorkerExit:
    """How the worker ended: one that imports everything by itself, or of a nursery."""
    exits: asyncio.Future[WorkerExit] = asyncio.get_running_loop().create_future()
    await start_worker(
        "cpu", nursery, SETTINGS, log_path=log,
        on_message=lambda worker, message: None, on_exit=lambda worker, exit_: exits.set_result(exit_),
    )  # fmt: skip
    return await asyncio.wait_for(exits, 30)


@pytest.mark.parametrize("module", ["torch", "msgspec"])
async def test_one_whose_imports_fail_says_which_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Before it has opened its log by itself, and after."""
    log, broken = tmp_path / "worker.log", tmp_path / "broken"
    log.write_text("MemoryError of an earlier worker\n")
    broken.mkdir()
    (broken / f"{module}.py").write_text("raise MemoryError('failed to map segment')\n")
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{Path(__file__).parents[2]}")
    exit_ = await ended(log)
    assert exit_.code == 1 and exit_.last_words is not None
    assert exit_.last_words.endswith("MemoryError: failed to map segment")
    assert exit_.last_words.startswith("raise MemoryError") and "earlier" not in exit_.last_words
    assert exit_.told().startswith(f"worker {exit_.pid} exited with code 1; its last words: ")


async def test_where_no_thread_can_watch_it_the_process_is_ended_and_the_start_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def refuse(self: WorkerProcess, **given: Any) -> None:
        started.append(given["pid"])
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(WorkerProcess, "__init__", refuse)
    with pytest.raises(WorkerDied, match="no worker can be started: can't start new thread"):
        await ended(tmp_path / "worker.log")
    assert not Path(f"/proc/{started[0]}").exists()


async def test_a_forked_one_that_is_gone_by_then_is_no_other_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It meets the same limit, and its nursery waits for whatever it forked."""
    gone = subprocess.Popen(["true"])
    gone.wait()

    async def ready(timeout_s: float | None = None) -> str:
        return "ready"

    async def fork(*_: object, **__: object) -> Any:
        return SimpleNamespace(pid=gone.pid, exitcode=1, join=lambda: None)

    def refuse(self: WorkerProcess, **given: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(WorkerProcess, "__init__", refuse)
    with pytest.raises(WorkerDied, match="no worker can be started: can't start new thread"):
        await ended(tmp_path / "worker.log", SimpleNamespace(wait_settled=ready, fork=fork, pid=1))


def test_last_words_are_the_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("before\n")
    since = size_of(log)
    assert last_words(log, since) is None
    with log.open("a") as file:
        file.write(
            'one\n  two\n    ^^^^^\nthree\n\nfour \xe9\nnanobind: leaked 64 types!\n - leaked type "x"\n'
        )
    assert last_words(log, since) == "three | four \xe9"
    log.write_text("")  # somebody emptied it
    assert last_words(log, since) is None
    assert (size_of(tmp_path / "none"), last_words(tmp_path / "none", 0)) == (0, None)


def test_a_flood_is_cut_from_its_front(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("x" * 100_000 + " the end")
    told = last_words(log, 0)
    assert told is not None and len(told) == 400 and told.endswith("x the end")


def test_a_job_for_which_there_was_no_worker_says_why_where_it_waits() -> None:
    told = "worker 7 exited with code 1; its last words: MemoryError"
    spec = JobSpec(model="wan", prompt="a cat")
    job = Job(
        id=1, spec=spec, status="queued", created_at=1.0, attempt=3, error=told,
        error_code=WorkerNotStarted.code,
    )  # fmt: skip
    view: Any = SimpleNamespace(paint=SimpleNamespace(text="text", muted="muted"))
    assert any("error" in line and told in line for line in job_lines(job))
    assert told in list(job_table([job]))[1]
    assert _words(view, job) == (told, "text")
    plain = replace(job, error=None, error_code=None)
    assert not any("error" in line for line in job_lines(plain))
    assert _words(view, plain) == ("a cat", "text")
