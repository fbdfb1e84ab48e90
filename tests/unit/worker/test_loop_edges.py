"""What ends a worker that would be deaf or idle otherwise, and what does not."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

import pytest

from engine.worker import loop as loop_module
from engine.worker.channel import WorkerLog, WorkerSettings
from engine.worker.cpu import CpuBackend
from engine.worker.loop import Worker, run_worker


class Ended(BaseException):
    """In the place of the process's end."""


class FakeChannel:
    """Raises what the test says instead of a message."""

    def __init__(self, raises: Exception) -> None:
        self._raises = raises
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def receive(self) -> Any:
        raise self._raises


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of the process."""
    found: list[int] = []

    def end(code: int) -> None:
        found.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    return found


def worker(raises: Exception) -> tuple[Worker, FakeChannel]:
    channel = FakeChannel(raises)
    return Worker(channel, CpuBackend(), WorkerSettings(warm_budget_bytes=0)), channel  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.ENOMEM, "no memory"), RuntimeError("no thread")]
)
def test_a_listener_that_fails_ends_the_worker_which_says_why(codes: list[int], error: Exception) -> None:
    """It would send samples for ever and hear of no job."""
    made, channel = worker(error)
    with pytest.raises(Ended):
        made._listen()
    (told,) = channel.sent
    assert codes == [1] and isinstance(told, WorkerLog) and told.level == "error"
    assert told.text.startswith(f"the worker's listener failed: {type(error).__name__}")


def test_where_the_daemon_is_gone_it_ends_without_a_word(codes: list[int]) -> None:
    made, channel = worker(EOFError())
    with pytest.raises(Ended):
        made._listen()
    assert codes == [0] and channel.sent == []


def test_a_loop_that_fails_ends_the_process_whatever_else_runs(
    codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = FakeChannel(EOFError())
    monkeypatch.setattr(loop_module, "Channel", lambda connection, received: channel)
    monkeypatch.setattr(Worker, "listen", lambda self: None)

    def fails(self: Worker) -> None:
        raise MemoryError

    monkeypatch.setattr(Worker, "run", fails)
    with pytest.raises(Ended):
        run_worker(None, "cpu", WorkerSettings(warm_budget_bytes=0))  # type: ignore[arg-type]
    assert codes == [1] and "the worker's loop failed: MemoryError" in channel.sent[-1].text


def test_a_sample_that_there_is_no_memory_for_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _channel = worker(EOFError())
    answers: list[Exception] = [OSError("gone"), MemoryError()]

    def sample(self: CpuBackend, weights: Any) -> Any:
        raise answers.pop()

    monkeypatch.setattr(CpuBackend, "sample", sample)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    made._told_ready.set()
    made._sample()
    assert answers == [], "it ends only where nobody listens"
