"""Owns made-up engines for `turbotui.client.scene_console` on hosts of several GPUs, most of them others'."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from engine.wire import (
    Balance,
    BalancePart,
    CardStatus,
    DeviceProcess,
    DeviceStatus,
    JobChanged,
    MemorySampled,
    Snapshot,
)
from turbotui.client import scenes
from turbotui.client.script import Step

TOTAL_GIB = 140.4
RESERVE_GIB = 0.4
OWN = 2
OWN_OF_TWO = 1
"""The engine's own GPU by its number."""
OTHERS: dict[int, tuple[tuple[tuple[str, str, float], ...], float]] = {
    0: ((("liwei", "python -m vllm.entrypoints.openai.api_server", 130.6),), 0.0),
    1: ((), 0.0),
    3: ((), 0.0),
    4: ((("chen", "torchrun train.py --config sft.yaml", 117.6),), 0.0),
    5: ((("chen", "torchrun train.py --config sft.yaml", 112.0), ("zhaomin", "jupyter-lab", 5.5)), 0.0),
    6: ((), 14.0),
    7: ((), 0.0),
}
"""GPU to who holds how much of it, by user and command in GiB, and what nobody is seen to hold."""


def uuid_of(index: int) -> str:
    """Of a GPU on which the engine does not work; its own is that of the other scenes."""
    return f"GPU-{index}2345678-2222-3333-4444-555555555555"


def other_gpu(now: float, index: int, *, tick: int = 0) -> DeviceStatus:
    """GPU `index`, on which the engine does not work."""
    held, unseen = OTHERS[index]
    busy = bool(held)
    parts = [BalancePart(kind="driver", owner="driver", bytes=scenes.gib(RESERVE_GIB))]
    processes = []
    for place, (user, command, size) in enumerate(held):
        pid = 40000 + 100 * index + place
        size += 0.6 * math.sin(tick / 20 + index) if place == 0 else 0.0
        parts.append(
            BalancePart(kind="process", owner="neighbour", bytes=scenes.gib(size), label=user, pid=pid)
        )
        processes.append(
            DeviceProcess(
                pid=pid,
                bytes=scenes.gib(size),
                user=user,
                name=command.partition(" ")[0],
                command=command,
                started_at=now - 90000 - 3600 * index,
                start_time=1000.0 + index,
            )
        )
    if unseen:
        parts.append(BalancePart(kind="unseen", owner="unseen", bytes=scenes.gib(unseen)))
    total = scenes.gib(TOTAL_GIB)
    parts.append(BalancePart(kind="free", owner="free", bytes=total - sum(part.bytes or 0 for part in parts)))
    balance = Balance(
        device_id=uuid_of(index),
        taken_at=now,
        coherent=True,
        total_bytes=total,
        parts=tuple(parts),
        unexplained_bytes=0,
    )
    return DeviceStatus(
        id=uuid_of(index),
        kind="cuda",
        index=index,
        name="NVIDIA H200",
        total_bytes=total,
        in_use=False,
        balance=balance,
        processes=tuple(processes),
        utilisation_percent=100 if busy else 0,
        temperature_c=66 + index if busy else 31 + index,
        power_w=(640.0 + 7 * index) if busy else 76.0 + index,
        age_s=0.05,
        card=CardStatus(clock_limits=("power cap",) if busy else (), recovery_action="none"),
    )


def gpus(now: float, count: int) -> tuple[DeviceStatus, ...]:
    """`count` GPUs, the engine's own among them."""
    own = OWN_OF_TWO if count == 2 else OWN
    return tuple(own_gpu(now, count) if index == own else other_gpu(now, index) for index in range(count))


def own_gpu(now: float, count: int, balance: Balance | None = None) -> DeviceStatus:
    """The engine's own, as in the other scenes."""
    return replace(scenes.gpu(now, balance), index=OWN_OF_TWO if count == 2 else OWN)


def shared(now: float, count: int) -> Snapshot:
    """The busy engine on a host with `count` GPUs."""
    snapshot = scenes.busy(now)
    return replace(snapshot, status=replace(snapshot.status, devices=gpus(now, count)))


def script(scene: str, now: float) -> Iterator[Step]:
    """Ten samples a second of each GPU, without end; scene `two` or `eight`, or one of the other scenes."""
    if scene not in ("two", "eight"):
        yield from scenes.script(scene, now)
    snapshot = shared(now, 2 if scene == "two" else 8)
    yield Step(event=snapshot)
    for tick in itertools.count(1):
        at = now + tick / 10
        for place, device in enumerate(snapshot.status.devices):
            if device.in_use:
                live = 3.1 + 2.4 * abs(math.sin(tick / 17))
                count = len(snapshot.status.devices)
                sample = own_gpu(now, count, scenes.gpu_balance(at, live=live))
            else:
                sample = other_gpu(now, device.index or 0, tick=tick)
            yield Step(event=MemorySampled(device=sample), after_s=0.0 if place else 0.1)
        if tick % 5 == 0:
            yield Step(event=JobChanged(job=scenes.running_job(now, fraction=tick / 5 % 100 / 100)))
