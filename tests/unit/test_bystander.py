"""Who looks at the devices while no engine runs."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from engine.daemon import bystander
from engine.daemon.bystander import Bystander
from engine.telemetry.samples import DeviceReading, HostReading, ProcessReading
from engine.wire import DeviceStatus

GIB = 2**30
WORKER = ProcessReading(pid=81223, bytes=17 * GIB, user="me", name="tt-worker")


def reading(device_id: str = "GPU-1", *, index: int = 0, taken_at: float = 1.0) -> DeviceReading:
    return DeviceReading(
        taken_at=taken_at, device_id=device_id, index=index, name="NVIDIA H200", total_bytes=140 * GIB,
        used_bytes=18 * GIB, reserved_bytes=GIB // 2, reserved_inside_used=False,
        free_bytes=122 * GIB - GIB // 2, processes=(WORKER,), view_gap=None,
    )  # fmt: skip


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[DeviceStatus]:
    lines: list[DeviceStatus] = []

    def write(_descriptor: int, line: bytes) -> int:
        lines.append(msgspec.json.decode(line, type=DeviceStatus))
        return len(line)

    monkeypatch.setattr(bystander, "os", _Os(write))
    return lines


class _Os:
    """`os` but for what is written."""

    def __init__(self, write: Any) -> None:
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_a_worker_is_a_process_like_others_and_the_parts_add_up(told: list[DeviceStatus]) -> None:
    Bystander("GPU-1")._heard(reading())
    (status,) = told
    assert status.in_use and status.balance is not None
    assert [(process.pid, process.ours) for process in status.processes] == [(81223, None)]
    parts = {part.kind: part.bytes for part in status.balance.parts}
    assert parts["process"] == 17 * GIB
    assert sum(size or 0 for size in parts.values()) + status.balance.unexplained_bytes == 140 * GIB
    assert "weights" not in parts and "live" not in parts


def test_each_device_is_told_at_most_twice_a_second(
    told: list[DeviceStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(bystander.time, "monotonic", lambda: now[0])
    looks = Bystander("GPU-2")
    for step in range(20):
        now[0] = 100 + step / 10
        looks._heard(reading())
        looks._heard(reading("GPU-2", index=1))
    assert len(told) == 2 * 4
    assert [status.in_use for status in told[:2]] == [False, True]


def test_without_a_device_of_before_it_looks_at_the_host_where_there_is_no_gpu(
    told: list[DeviceStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(bystander.Path, "exists", lambda path: False)
    looks = Bystander(None)
    host = HostReading(
        taken_at=1.0, total_bytes=32 * GIB, available_bytes=30 * GIB, limited_by_cgroup=False, rss_bytes={}
    )
    looks._heard(host)
    looks._heard(host)
    assert [status.id for status in told] == ["cpu"]
