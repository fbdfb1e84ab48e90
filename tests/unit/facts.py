"""A clean engine on an H200, as facts that a test may spoil."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.checks.facts import Facts, ProcessFact
from engine.units import GIB, MIB
from engine.wire import Balance, BalancePart, DeviceProcess, DeviceStatus, DeviceView, WorkerStatus
from engine.worker.channel import AllocatorSample

NOW = 1_800_000_000.0
GPU = "GPU-5d2e"
WORKER = WorkerStatus(
    pid=500, device_id=GPU, state="idle", started_at=NOW - 3600, forked=True, rss_bytes=2 * GIB,
    allocator="max_split_size:18446744073709551615,expandable_segments:False,backend:native",
    warm_bytes=10 * GIB,
)  # fmt: skip
OURS = DeviceProcess(
    pid=500, bytes=14 * GIB, user="me", name="tt-worker", program="turbotui worker", start_time=900.0,
    ours="worker",
)  # fmt: skip
PARTS: dict[str, int | None] = {
    "weights": 13 * GIB, "releasable": 100 * MIB, "fragmented": 20 * MIB, "driver": 600 * MIB,
    "unseen": 4 * MIB, "free": 120 * GIB,
}  # fmt: skip


def balance(**parts: int | None) -> Balance:
    """Of the GPU; what is named here takes the place of what a clean one has."""
    return Balance(
        device_id=GPU, taken_at=NOW, coherent=True, total_bytes=140 * GIB, unexplained_bytes=0,
        parts=tuple(
            BalancePart(kind=kind, owner="ours", bytes=size, reason=None if size is not None else "no NVML")  # type: ignore[arg-type]
            for kind, size in {**PARTS, **parts}.items()
        ),
    )  # fmt: skip


def gpu(*others: DeviceProcess, **parts: int | None) -> DeviceStatus:
    return DeviceStatus(
        id=GPU, kind="cuda", index=0, name="NVIDIA H200", total_bytes=140 * GIB, in_use=True,
        balance=balance(**parts), processes=(OURS, *others), age_s=0.1, view=DeviceView(complete=True),
    )  # fmt: skip


def foreign(pid: int = 4242, **changes: Any) -> DeviceProcess:
    """Another process on the GPU."""
    process = DeviceProcess(
        pid=pid, bytes=6 * GIB, user="me", name="python", command="python ComfyUI/main.py", program="ComfyUI",
        start_time=100.0,
    )  # fmt: skip
    return replace(process, **changes)


def process(pid: int = 4242, **changes: Any) -> ProcessFact:
    fact = ProcessFact(
        pid=pid, start_time=100.0, uid=1000, name="python", state="S", parent=1, parent_name="systemd",
        holds_gpu=True, listens=False,
    )  # fmt: skip
    return replace(fact, **changes)


CLEAN = Facts(
    at=NOW, since_boot=10_000.0, host="box", uid=1000, user="me", devices=(gpu(),), workers=(WORKER,),
    counters=AllocatorSample(taken_at=1.0, device_allocs=3, weights={}, num_ooms=0, num_alloc_retries=0),
    versions={"torch": "2.11.0+cu130", "cuda": "13.0", "cudnn": "91900"},
    nursery_state="ready", probe_age_s=0.1, host_total_bytes=128 * GIB, host_available_bytes=90 * GIB,
    processes=(
        process(500, name="tt-worker", role="worker", under_daemon=True, parent=499, start_time=900.0),
    ),
)  # fmt: skip


def spoiled(*more: ProcessFact, **changes: Any) -> Facts:
    """The clean facts with more processes and other changes."""
    return replace(CLEAN, processes=(*CLEAN.processes, *more), **changes)
