"""Unload and free beside what loads: they wait for it, and never count as residue what it has loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.actions import Actions
from engine.daemon.line import DeviceLine
from engine.telemetry.samples import Traced
from engine.wire import Receipt
from engine.worker.channel import Free, Unload

GIB = 2**30


class FakeProbe:
    """Reads what the process holds, by the test's word."""

    def __init__(self) -> None:
        self.bytes = 2 * GIB

    async def trace(self, pid: int, device_id: str, *, until_bytes: int, timeout_s: float) -> Traced:
        reached = self.bytes <= until_bytes
        return Traced(
            trace_id=1, start_bytes=self.bytes, end_bytes=self.bytes, elapsed_s=0.0, reached=reached
        )


class FakeSupervisor:
    def __init__(self, probe: FakeProbe) -> None:
        self.device_lock = DeviceLine()
        self.worker = SimpleNamespace(pid=7, device_id="GPU-1")
        self.probe = probe
        self.resident = 2 * GIB
        self.residents = SimpleNamespace(
            resident_bytes=lambda *_: self.resident,
            of_model=lambda name: {"dit": 1} if name == "here" else {},
        )
        self.used_at = 0.0
        self.asked: list[Any] = []

    async def ensure_worker(self) -> Any:
        return self.worker

    async def ask(self, action: Any, target: str, message: Any) -> Receipt:
        self.asked.append(message(1))
        gone, self.resident = self.resident, 0
        self.probe.bytes -= gone
        return Receipt(
            action=action, target=target, ok=True, expected_bytes=gone, returned_bytes=gone, elapsed_s=0.01,
            proof="allocator",
        )  # fmt: skip

    def issue(self, receipt: Receipt) -> Receipt:
        return receipt


@pytest.fixture
def supervisor() -> FakeSupervisor:
    return FakeSupervisor(FakeProbe())


def actions(supervisor: FakeSupervisor, tmp_path: Path, *, running: int | None = None) -> Actions:
    fakes: Any = (supervisor, supervisor.probe, SimpleNamespace(), SimpleNamespace(), supervisor)
    return Actions(
        *fakes, find=lambda name: None, models=tuple, running=lambda: running, kept_file=tmp_path / "kept"
    )  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("what", ["unload", "free"])
async def test_what_a_switch_loads_meanwhile_is_given_back_and_no_residue(
    supervisor: FakeSupervisor, tmp_path: Path, what: str
) -> None:
    found = actions(supervisor, tmp_path)
    await supervisor.device_lock.acquire()  # a switch has the device
    asked = asyncio.create_task(found.free() if what == "free" else found.unload(None, None))
    late = asyncio.create_task(supervisor.device_lock.acquire())  # and a job waits for it
    await asyncio.sleep(0.01)
    assert supervisor.asked == []
    supervisor.resident, supervisor.probe.bytes = 30 * GIB, 31 * GIB
    supervisor.device_lock.release()
    receipt = await asked
    assert isinstance(supervisor.asked[0], Free if what == "free" else Unload)
    assert (receipt.expected_bytes, receipt.returned_bytes, receipt.residue_bytes) == (30 * GIB, 30 * GIB, 0)
    assert receipt.proof == "nvml-process"
    assert await asyncio.wait_for(late, 1), "who waited has the device next"


async def test_under_a_job_the_worker_serves_it_and_its_own_count_is_the_proof(
    supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    await supervisor.device_lock.acquire()  # the job's
    receipt = await asyncio.wait_for(actions(supervisor, tmp_path, running=3).free(), 1)
    assert receipt.proof == "allocator" and "a job runs" in (receipt.proof_reason or "")


async def test_a_model_of_which_nothing_is_there_is_not_asked_for(
    supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    found = actions(supervisor, tmp_path)
    receipt = await found.unload("elsewhere", None)
    assert receipt.ok and receipt.returned_bytes == 0 and supervisor.asked == []
    assert (await found.unload("here", "dit")).expected_bytes == 2 * GIB


async def test_a_refused_turn_leaves_the_device_to_others(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    async def fail(*_: Any) -> Receipt:
        raise OSError("broken")

    supervisor.ask = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="broken"):
        await actions(supervisor, tmp_path).free()
    assert not supervisor.device_lock.locked()
