"""A made-up night for the console's tests of the past: half a day before NOW, as a recorder keeps it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from engine.recording.entries import (
    NOT_RUN,
    DeviceSeen,
    EngineStarted,
    EngineStopped,
    Entry,
    Gap,
    ProcessCame,
    ProcessWent,
)
from engine.recording.tiers import SECONDS, SPANS
from engine.wire import (
    DeviceProcess,
    DeviceStatus,
    JobChanged,
    Logged,
    LogLine,
    ModelsChanged,
    ModelStatus,
    Receipt,
    ReceiptIssued,
    Snapshot,
)
from tests.unit.recordings import keep, spans
from turbotui.client import scenes

from .conftest import NOW

HOUR = 3600.0
CAME = NOW - 11.5 * HOUR
"""A neighbour comes; eight seconds later there is memory that nobody is seen to hold."""
SPIKE = NOW - 9 * HOUR
FAILED = NOW - 8 * HOUR
STOPPED, STARTED = NOW - 6 * HOUR, NOW - 5 * HOUR
SWITCHED = NOW - 90.0
NEIGHBOUR = DeviceProcess(
    pid=90112, bytes=scenes.gib(6.2), user="liwei", name="python", command="python ComfyUI main.py",
    started_at=CAME, start_time=230000.25,
)  # fmt: skip


def card(at: float) -> DeviceStatus:
    """The GPU as it was at a moment of the night."""
    live = 3.1 + 2.4 * abs(math.sin(at / 600))
    if SPIKE <= at < SPIKE + 10:
        live = 60.0
    weights = 13.7 if at >= SWITCHED else 2.6
    unseen = 14.0 if at > CAME + 8 else 0.0
    balance = replace(scenes.gpu_balance(at, live=live, weights=weights, unseen=unseen), taken_at=at)
    ours, _other = scenes.gpu(at).processes
    if at < CAME:
        parts = tuple(part for part in balance.parts if part.kind not in ("process", "free"))
        free = balance.total_bytes - sum(part.bytes or 0 for part in parts)
        parts += (replace(balance.parts[-1], bytes=free),)
        return replace(scenes.gpu(at, replace(balance, parts=parts)), processes=(ours,))
    return replace(scenes.gpu(at, balance), processes=(ours, NEIGHBOUR))


def _line(at: float, event: str, text: str, **more: object) -> Entry:
    line = LogLine(seq=1, at=at, event=event, text=text, memory=True, **more)  # type: ignore[arg-type]
    return Entry(at, Logged(line=line))


def _before_the_switch(model: ModelStatus) -> ModelStatus:
    """As it stood all night: the small model on the card, nothing of another one."""
    here = model.name == "wan2.1-1.3b"
    parts = tuple(
        replace(part, state="resident", back_in_s=None)
        if here
        else replace(part, state="absent", leased=False, back_in_s=part.back_in_s or 0.3)
        for part in model.components
    )
    return replace(model, active=here, components=parts)


def entries() -> list[Entry]:
    """What happened: a neighbour, a job that runs out of memory, an hour without an engine, a switch."""
    told = scenes.busy(NOW - 12 * HOUR)
    assert isinstance(told, Snapshot)
    early = replace(told, jobs=told.jobs[:1], log=(), receipt=None)
    small = tuple(map(_before_the_switch, scenes.gpu_models(NOW)))
    hello = EngineStarted(instance="a", build="1.0", pid=81200, host="gpubox01", user="me")
    ours = scenes.gpu(NOW).processes[0]
    seen = DeviceSeen(
        id=scenes.GPU, kind="cuda", index=2, name="NVIDIA H200", total_bytes=scenes.gib(140.4), in_use=True
    )
    failed = replace(
        scenes.running_job(FAILED), id=31, status="failed", started_at=FAILED - 40, finished_at=FAILED,
        created_at=FAILED - 50, progress=None, error="out of memory in step 2", error_code="out_of_memory",
    )  # fmt: skip
    switch = Receipt(
        action="switch", target="wan2.2-a14b", ok=True, elapsed_s=1.1, proof="nvml-process",
        returned_bytes=scenes.gib(2.6), expected_bytes=scenes.gib(2.6), residue_bytes=0, at=SWITCHED,
    )  # fmt: skip
    gone = replace(NEIGHBOUR, pid=777, user="chen", command="python train.py")
    found = [Entry(NOW - 12 * HOUR, hello)]
    for hour in range(12):
        at = NOW - (12 - hour) * HOUR
        if STOPPED <= at < STARTED:
            continue
        found += [Entry(at, seen), Entry(at, replace(early, jobs=early.jobs if at < FAILED else (failed,)))]
        found.append(Entry(at, ModelsChanged(models=small)))
        present = (ours, NEIGHBOUR) if at >= CAME else (ours,)
        found += [Entry(at, ProcessCame(device_id=scenes.GPU, process=one, already=True)) for one in present]
    found += [
        Entry(CAME, ProcessCame(device_id=scenes.GPU, process=NEIGHBOUR)),
        _line(CAME + 8, "unseen", "+14.0 GiB, no process we can see"),
        _line(CAME + 10, "check", "1 new finding: unseen 14.0 GiB", level="warning"),
        Entry(FAILED - 40, JobChanged(job=replace(failed, status="running", finished_at=None, error=None))),
        _line(FAILED, "oom", "asked 2.10 GiB, free 0.62", level="error", job_id=31),
        Entry(FAILED, JobChanged(job=failed)),
        Entry(STOPPED, EngineStopped(instance="a")),
        Entry(STARTED, replace(hello, instance="b", pid=81300)),
        Entry(STARTED, Gap(since=STOPPED, reason=NOT_RUN)),
        Entry(STARTED + 60, ProcessCame(device_id=scenes.GPU, process=gone)),
        Entry(
            STARTED + 600,
            ProcessWent(device_id=scenes.GPU, process=gone, came_at=STARTED + 60, peak_bytes=None),
        ),
        Entry(SWITCHED, ReceiptIssued(receipt=switch)),
        Entry(SWITCHED, ModelsChanged(models=scenes.gpu_models(NOW))),
        _line(SWITCHED, "switch", "1.3B to A14B 1.1 s"),
    ]
    return sorted(found, key=lambda entry: (entry.at, not isinstance(entry.what, EngineStarted)))


def night(path: Path) -> Path:
    """The recording: spans of ten seconds for all of it, seconds for the last half hour."""

    def times(since: float, width: int) -> list[float]:
        count = int((NOW - since) / width)
        every = [since + number * width for number in range(count)]
        return [at for at in every if not STOPPED <= at < STARTED]

    coarse = [card(at) for at in times(NOW - 12 * HOUR, 10)]
    fine = [card(at) for at in times(CAME - 300, 1) if at > NOW - 1800 or at < CAME + 300]
    return keep(path, entries(), (SPANS, spans(coarse, 10, samples=100)), (SECONDS, spans(fine, 1)))
