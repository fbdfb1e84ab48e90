"""Another engine on a GPU is a tenant with a name: by its claim, also a real one of another process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.daemon.claims import ClaimHolder, answer_looks, claim_gpu, find_holder
from engine.daemon.devices import DeviceInUse
from engine.daemon.memory import MemoryView
from engine.daemon.tenants import Tenants
from engine.paths import user_name
from engine.telemetry.samples import DeviceReading, ProcessReading
from engine.wire import DeviceStatus
from tests.proc_tree import ProcTree

GIB = 2**30
HOLDER = """
import subprocess, sys
from engine.daemon.claims import claim_gpu
claim = claim_gpu(sys.argv[1])
worker = subprocess.Popen(["sleep", "60"])
print(worker.pid, flush=True)
sys.stdin.read()
worker.kill()
"""


def reading(device_id: str, *processes: ProcessReading) -> DeviceReading:
    return DeviceReading(
        taken_at=0.0, device_id=device_id, index=0, name="H200", total_bytes=80 * GIB, used_bytes=GIB,
        reserved_bytes=0, reserved_inside_used=True, free_bytes=79 * GIB, processes=processes,
    )  # fmt: skip


@pytest.fixture
def gpu() -> str:
    return f"GPU-{uuid.uuid4()}"


@pytest.fixture
def other(gpu: str) -> Iterator[tuple[int, int]]:
    """The pids of a process that has claimed the GPU, and of its child."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, gpu], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.communicate()


def test_another_engine_and_its_worker_are_shown_by_name(gpu: str, other: tuple[int, int]) -> None:
    engine, worker = other
    tenants, seen = Tenants(), []
    view = MemoryView(EngineConfig(), on_status=seen.append, label=lambda pid: None, tenants=tenants)
    tenants.look([gpu, "GPU-free"])
    view.heard(
        reading(
            gpu,
            ProcessReading(pid=worker, bytes=GIB, start_time=1.0),
            ProcessReading(pid=os.getpid(), bytes=GIB, start_time=2.0),
            ProcessReading(pid=worker, bytes=GIB),  # of another namespace: the number says nothing here
        )
    )
    name = f"turbotui engine of {user_name()}, pid {engine}"
    status: DeviceStatus = seen[-1]
    assert status.tenant == name
    assert [process.tenant for process in status.processes] == [name, None, None]
    view.heard(reading("GPU-free", ProcessReading(pid=worker, bytes=GIB, start_time=1.0)))
    assert seen[-1].tenant is None and seen[-1].processes[0].tenant is None


async def test_a_gpu_that_another_engine_has_is_refused_with_its_name(
    gpu: str, other: tuple[int, int]
) -> None:
    device = DeviceInUse(gpu, None)
    device.choose([reading(gpu)], nvml_fault=None, heard_host=True)
    assert device.id is None and f"(of {user_name()}, pid {other[0]})" in (device.problem or "")


async def test_a_claim_may_be_looked_at_for_ever_and_ones_own_is_no_tenant(gpu: str) -> None:
    claim = claim_gpu(gpu)
    assert claim is not None
    answer_looks(claim)
    for _ in range(100):
        assert find_holder(gpu) == ClaimHolder(pid=os.getpid(), uid=os.getuid())
        await asyncio.sleep(0)
    tenants = Tenants()
    tenants.look([gpu])
    assert tenants.of_device(gpu) is None
    asyncio.get_running_loop().remove_reader(claim)
    claim.close()
    assert find_holder(gpu) is None


def test_a_process_is_an_engines_only_by_its_ancestors(tmp_path: Path) -> None:
    tree = ProcTree(tmp_path)
    for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1)):
        tree.add(pid, parent=parent)
    holders = {"GPU-0": ClaimHolder(pid=10, uid=0), "GPU-1": ClaimHolder(pid=0, uid=0)}
    tenants = Tenants(find=holders.get, proc=tree.proc, own_pid=5)
    tenants.look(["GPU-0", "GPU-1", "GPU-2"])
    of = [tenants.of_process("GPU-0", pid, 1.0) is not None for pid in (10, 11, 12, 20, 99)]
    assert of == [True, True, True, False, False]
    assert tenants.of_device("GPU-1") == "turbotui engine of root"
    assert tenants.of_process("GPU-1", 12, 1.0) is None
    holders.clear()
    tenants.look(["GPU-0"])
    assert tenants.of_device("GPU-0") is None and tenants.of_process("GPU-0", 11, 1.0) is None


def test_who_has_left_is_forgotten_while_the_holder_stays(tmp_path: Path) -> None:
    tree = ProcTree(tmp_path)
    tree.add(10)
    holder = ClaimHolder(pid=10, uid=0)
    tenants = Tenants(find=lambda device_id: holder, proc=tree.proc)
    for number in range(1000):
        tenants.look(["GPU-0"])
        assert tenants.of_process("GPU-0", 10, 1.0) is not None
        tenants.of_process("GPU-0", 100 + number, 1.0)
    assert len(tenants._names) <= 3
