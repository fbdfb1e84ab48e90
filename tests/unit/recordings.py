"""Made-up devices for the recorder's tests."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.recording.entries import Entry, pack_entries
from engine.recording.format import HEADER, pack_frame
from engine.recording.rows import Row, pack_rows, row_of
from engine.recording.tiers import EVENTS, Tier
from engine.wire import Balance, BalancePart, DeviceProcess, DeviceStatus

GIB = 2**30
TOTAL = 140 * GIB


def device(
    at: float,
    *,
    device_id: str = "GPU-a",
    index: int = 0,
    weights: dict[str, int] | None = None,
    live: int = 0,
    processes: tuple[DeviceProcess, ...] = (),
    unseen: int = 0,
    watts: float = 90.0,
) -> DeviceStatus:
    """A GPU with so much on it, read at `at`."""
    parts = [
        BalancePart(kind="weights", owner="ours", bytes=size, label=label)
        for label, size in (weights or {}).items()
    ]
    parts += [
        BalancePart(kind="live", owner="ours", bytes=live),
        BalancePart(kind="rounding", owner="ours", bytes=0),
        BalancePart(kind="awaiting_free", owner="ours", bytes=0),
        BalancePart(kind="releasable", owner="ours", bytes=live // 3),
        BalancePart(kind="fragmented", owner="ours", bytes=0),
        BalancePart(kind="context", owner="ours", bytes=None, reason="not measured yet"),
    ]
    parts += [
        BalancePart(kind="process", owner="neighbour", bytes=one.bytes, label=one.name, pid=one.pid)
        for one in processes
    ]
    parts += [
        BalancePart(kind="driver", owner="driver", bytes=600 * 2**20),
        BalancePart(kind="unseen", owner="unseen", bytes=unseen),
    ]
    used = sum(part.bytes or 0 for part in parts)
    parts.append(BalancePart(kind="free", owner="free", bytes=TOTAL - used))
    return DeviceStatus(
        id=device_id,
        kind="cuda",
        index=index,
        name="NVIDIA H200",
        total_bytes=TOTAL,
        in_use=index == 0,
        balance=Balance(
            device_id=device_id,
            taken_at=at,
            coherent=True,
            total_bytes=TOTAL,
            parts=tuple(parts),
            unexplained_bytes=0,
        ),
        processes=processes,
        utilisation_percent=97,
        temperature_c=61,
        power_w=watts,
    )


def busy(at: float, seconds: float, gpus: int, rate: int = 10, seed: int = 0) -> Iterator[DeviceStatus]:
    """Readings of GPUs that work: jobs that come and go on the first, a trainer on every other."""
    dice = random.Random(seed)
    live = 0
    trainer = DeviceProcess(
        pid=4242, bytes=60 * GIB, user="liwei", name="python", command="train.py", start_time=9.0
    )
    for number in range(int(seconds * rate)):
        if number % 3 == 0:
            live = dice.randrange(0, 6 * GIB, 512)
        for gpu in range(gpus):
            weights = {"wan2.1-t2v-14b/dit": 28 * GIB, "wan2.1-t2v-14b/vae": GIB // 4} if gpu == 0 else {}
            yield device(
                at + number / rate,
                device_id=f"GPU-{gpu}",
                index=gpu,
                weights=weights,
                live=live if gpu == 0 and number % 600 < 300 else 0,
                processes=(trainer,) if gpu else (),
                watts=400 + dice.random() * 60,
            )


def keep(path: Path, entries: Sequence[Entry], *told: tuple[Tier, Sequence[Row]]) -> Path:
    """A recording at `path`: what happened, and the rows of each tier in blocks of a minute or ten rows."""
    frames = []
    for chunk in batched(entries):
        times = [int(entry.at * 1000) for entry in chunk]
        frames.append(pack_frame(EVENTS.code, min(times), max(times), pack_entries(chunk)))
    for tier, rows in told:
        for block in batched(rows):
            last = block[-1].at_ms + block[-1].width_ms
            frames.append(pack_frame(tier.code, block[0].at_ms, last, pack_rows(block)))
    path.write_bytes(HEADER + b"".join(frames))
    return path


def spans(statuses: Iterable[DeviceStatus], width_s: int, *, samples: int = 10) -> list[Row]:
    """One reading after the other, each as the only one of a span of so many seconds."""
    rows = [row for status in statuses if (row := row_of(status)) is not None]
    return [replace(row, width_ms=width_s * 1000, samples=samples) for row in rows]


def batched(items: Sequence[Any], most: int = 60) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
