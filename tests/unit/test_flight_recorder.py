"""The engine's side of the recording: nothing waits for it, and it keeps what is news."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.daemon import recording as module
from engine.daemon.recording import PROMPT_CHARS, FlightRecorder
from engine.errors import NotFound
from engine.recording.entries import EngineStarted, EngineStopped, Gap, JobProgressed
from engine.recording.reader import Recording
from engine.recording.writer import Writer
from engine.wire import (
    ActionProgressed,
    Job,
    JobChanged,
    JobProgress,
    JobSpec,
    Logged,
    LogLine,
    ModelsChanged,
    ReceiptStep,
)
from tests.unit.recordings import GIB, device

STARTED = EngineStarted(instance="i", build="1", pid=1, host="h", user="u")
JOB = Job(id=1, spec=JobSpec(model="m", prompt="x" * 4000), status="queued", created_at=1.0)


def recorder_of(folder: Path, said: list[str] | None = None, max_bytes: int = 2**24) -> FlightRecorder:
    told = said if said is not None else []
    return FlightRecorder(folder, max_bytes, on_log=lambda text, level: told.append(f"{level} {text}"))


def kinds(folder: Path) -> list[Any]:
    return [entry.what for entry in Recording(folder).entries()]


async def test_what_it_hears_is_on_disk_after_its_end(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path / "r")
    recorder.start(STARTED)
    for number in range(20):
        recorder.sampled(device(time.time() + number / 10, live=number * GIB))
    recorder.heard(Logged(line=LogLine(seq=1, at=time.time(), event="x", text="y")))
    await recorder.stop()
    found = kinds(tmp_path / "r")
    assert isinstance(found[0], EngineStarted) and isinstance(found[-1], EngineStopped)
    assert [what.line.text for what in found if isinstance(what, Logged)] == ["y"]
    assert len(Recording(tmp_path / "r").rows()) == 20


async def test_a_disk_that_hangs_delays_nobody_and_what_it_cost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, free = threading.Event(), threading.Event()
    flush = Writer.flush

    def slow(self: Writer, *, all: bool = False) -> None:
        hangs.set()
        assert free.wait(20)
        flush(self, all=all)

    monkeypatch.setattr(Writer, "flush", slow)
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    recorder = recorder_of(tmp_path / "r")
    recorder.start(STARTED)
    assert await asyncio.to_thread(hangs.wait, 5)
    base, slowest = time.time(), 0.0
    for number in range(1000):
        status = device(base + number / 1000)
        began = time.perf_counter()
        recorder.sampled(status)
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.05 and len(recorder._waiting) == 100
    began = time.perf_counter()
    await recorder.stop()
    assert time.perf_counter() - began < 1.5
    free.set()
    for thread in threading.enumerate():
        if thread.name == "recording":
            await asyncio.to_thread(thread.join, 5)
    gaps = [what for what in kinds(tmp_path / "r") if isinstance(what, Gap) and what.device_id is None]
    assert [gap.reason for gap in gaps] == ["the disk did not keep up"]


async def test_of_a_job_the_changes_are_kept_and_its_progress_now_and_then(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path / "r")
    recorder.start(STARTED)
    recorder.heard(JobChanged(job=JOB))
    recorder.heard(JobChanged(job=replace(JOB, waits_for="6.2 GiB of others")))
    running = replace(JOB, status="running", attempt=1)
    recorder.heard(JobChanged(job=running))
    for stage in ("load", "denoise"):
        for step in range(50):
            progress = JobProgress(stage=stage, step=step)  # type: ignore[arg-type]
            recorder.heard(JobChanged(job=replace(running, progress=progress)))
    recorder.heard(JobChanged(job=replace(running, status="done", finished_at=2.0)))
    await recorder.stop()
    found = kinds(tmp_path / "r")
    jobs = [what.job for what in found if isinstance(what, JobChanged)]
    assert [job.status for job in jobs] == ["queued", "running", "done"]
    assert {len(job.spec.prompt) for job in jobs} == {PROMPT_CHARS}
    steps = [what.progress.stage for what in found if isinstance(what, JobProgressed)]
    assert steps == ["load", "denoise"]


async def test_what_is_seen_once_a_second_anyway_is_not_kept_twice(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path / "r")
    recorder.start(STARTED)
    recorder.heard(ModelsChanged(models=()))
    step = ReceiptStep(name="unload", elapsed_s=0.1)
    recorder.heard(ActionProgressed(action="switch", target="x", step=step))
    await recorder.stop()
    assert [type(what) for what in kinds(tmp_path / "r")] == [EngineStarted, EngineStopped]


async def test_a_folder_in_the_way_is_said_once_and_again_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.02)
    monkeypatch.setattr("engine.recording.writer.AGAIN_S", 0.05)
    said: list[str] = []
    folder = tmp_path / "r"
    folder.write_text("in the way")
    recorder = recorder_of(folder, said)
    recorder.start(STARTED)
    for _ in range(15):
        recorder.sampled(device(time.time()))
        await asyncio.sleep(0.02)
    assert len(said) == 1 and said[0].startswith("warning the recording pauses")
    assert recorder.problem is not None
    folder.unlink()
    deadline = time.monotonic() + 5
    while recorder.problem is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)
    assert said[1:] == ["info the recording goes on"]
    await recorder.stop()


async def test_a_bound_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path / "r", max_bytes=0)
    recorder.start(STARTED)
    recorder.sampled(device(time.time()))
    assert not recorder._waiting
    await recorder.stop()
    assert not (tmp_path / "r").exists()
    with pytest.raises(NotFound, match="recording_bytes"):
        await recorder.ask(lambda recording: recording.entries())
    assert (await recorder.status()).max_bytes == 0
