"""A full cleanup beside other people's processes: offered as they are, ended only as picked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engine.daemon.audit import Asker, AuditLog
from engine.daemon.full_cleanup import FullCleanup
from engine.errors import NotNow, Refused, StorageUnusable
from engine.paths import user_name
from engine.wire import (
    Balance,
    BalancePart,
    DeviceProcess,
    DeviceStatus,
    FullCleanupRequest,
    KillRequest,
    Receipt,
    ReceiptStep,
    ResetRequest,
)

GIB = 2**30
MINE = DeviceProcess(pid=100, bytes=4 * GIB, user=user_name(), command="train.py", start_time=1.0)
ADAS = DeviceProcess(pid=101, bytes=None, user="ada", command="serve.py", start_time=2.0)
OURS = DeviceProcess(pid=9, bytes=GIB, user=user_name(), ours="worker", start_time=3.0)
UNSEEN = BalancePart(kind="unseen", owner="unseen", bytes=3 * GIB)


def gpu(number: int, *processes: DeviceProcess) -> DeviceStatus:
    balance = Balance(
        device_id=f"GPU-{number}", taken_at=0.0, coherent=True, total_bytes=80 * GIB, parts=(UNSEEN,),
        unexplained_bytes=0,
    )  # fmt: skip
    return DeviceStatus(
        id=f"GPU-{number}", kind="cuda", index=number, name="x", total_bytes=80 * GIB, in_use=True,
        balance=balance, processes=processes, age_s=0.0,
    )  # fmt: skip


def receipt(action: Any, *, ok: bool = True) -> Receipt:
    return Receipt(
        action=action, target="x", ok=ok, error=None if ok else "it would not die", expected_bytes=GIB,
        returned_bytes=GIB if ok else 0, residue_bytes=0, elapsed_s=0.1, proof="nvml-process",
    )  # fmt: skip


class Rig:
    """Everything that it asks of others, each answer to be changed."""

    def __init__(self, tmp_path: Path) -> None:
        self.devices = [gpu(0, MINE, ADAS, OURS), gpu(1, MINE)]
        self.refused: dict[int, str] = {}
        self.killed: list[KillRequest] = []
        self.did: list[str] = []
        self.waiting = 0
        self.issued: list[Receipt] = []
        self.worker: Any = None
        self.job_id: int | None = None
        self.kill_ok = True
        self.parked: Receipt | None = receipt("park")
        self.worker_ends = asyncio.Event()
        self.worker_ends.set()
        self.unwritten: str | None = None
        logs = tmp_path / "logs"
        logs.mkdir()
        (logs / "engine.jsonl").write_text("")
        seams: Any = self
        store: Any = SimpleNamespace(
            list_jobs=lambda ended: (), count_waiting=lambda: self.waiting, relocate=self.relocate
        )
        logbook: Any = SimpleNamespace(path=logs / "engine.jsonl")
        memory: Any = SimpleNamespace(
            statuses=lambda: self.devices, device_id="GPU-0", rss_bytes=lambda pid: 5
        )
        self.audit = AuditLog(tmp_path / "audit.jsonl")
        self.cleanup = FullCleanup(
            seams, memory, seams, seams, SimpleNamespace(run=self.kill),  # type: ignore[arg-type]
            SimpleNamespace(run=self.reset), store, seams, logbook, self.audit,  # type: ignore[arg-type]
            output_dir=tmp_path / "videos", hold_queue=self.hold,
        )  # fmt: skip

    def relocate(self, places: dict[str, str]) -> None:
        raise StorageUnusable("the disk is full")

    def hold(self, reason: str) -> str | None:
        self.did.append(reason)
        return self.unwritten

    def pids(self) -> dict[str, int]:
        return {"daemon": 1, "worker": 9, "nursery": 8}

    def named(self, request: KillRequest) -> str:
        return f"process {request.pid} of ada"

    def check(self, request: KillRequest) -> None:
        if (why := self.refused.get(request.pid)) is not None:
            raise Refused(why)

    async def kill(self, request: KillRequest, *, asked_by: str) -> Receipt:
        self.check(request)
        self.killed.append(request)
        self.devices = [
            replace(device, processes=tuple(p for p in device.processes if p.pid != request.pid))
            for device in self.devices
        ]
        return receipt("kill", ok=self.kill_ok)

    async def reset(self, request: ResetRequest, *, asker: Asker | None) -> Receipt:
        self.did.append(f"reset {request.device_id}")
        return receipt("reset")

    def stepped(self, action: str, target: str, step: ReceiptStep) -> None:
        """Nobody watches."""

    def issue(self, made: Receipt) -> Receipt:
        self.issued.append(made)
        return made

    @asynccontextmanager
    async def device(self, why: str) -> AsyncIterator[asyncio.Future[bool]]:
        turn = asyncio.get_running_loop().create_future()
        turn.set_result(True)
        yield turn

    async def end_worker(self, why: str, proofs: Any) -> Receipt | None:
        await self.worker_ends.wait()
        self.did.append("worker ended")
        return self.parked

    async def renew_nursery(self, steps: Any) -> None:
        self.did.append("nursery renewed")

    async def run(self, **request: Any) -> Receipt:
        return await self.cleanup.run(FullCleanupRequest(**request), asker=Asker(uid=5, pid=6))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_the_plan_names_everybody_elses_once_with_all_bytes_and_what_stands_against(rig: Rig) -> None:
    rig.refused = {101: "another user's"}
    plan = await rig.cleanup.plan()
    mine, adas = plan.candidates
    assert (mine.process.pid, mine.bytes, mine.device_ids, mine.mine, mine.refusal) == (
        100, 8 * GIB, ("GPU-0", "GPU-1"), True, None
    )  # fmt: skip
    assert (adas.bytes, adas.mine, adas.refusal) == (None, False, "another user's")
    assert rig.killed == [] and rig.did == []


async def test_only_what_was_picked_is_ended_and_who_still_holds_is_told(rig: Rig) -> None:
    done = await rig.run(also=(KillRequest(pid=100, start_time=1.0),))
    assert done.ok and [kill.pid for kill in rig.killed] == [100]
    assert (done.expected_bytes, done.returned_bytes) == (2 * GIB, 2 * GIB)
    assert "GPU 0: process 101 of ada still holds unknown bytes: serve.py" in done.notes
    assert any("GPU 1: 3.00 GiB are counted by the driver" in note for note in done.notes)
    assert not any("process 100" in note for note in done.notes)
    assert [made.action for made in rig.issued] == ["park", "full_cleanup"]  # kill issues its own
    assert "queue" not in "".join(rig.did)
    await rig.audit.kept()
    entries = [msgspec.json.decode(line) for line in rig.audit.path.read_bytes().splitlines()]
    assert [(entry["action"], entry["result"], entry["uid"]) for entry in entries] == [
        ("full_cleanup", "asked", 5), ("kill", "asked", 5), ("kill", "done", 5), ("full_cleanup", "done", 5)
    ]  # fmt: skip
    assert all("process 100 of ada" in entry["target"] for entry in entries)


async def test_the_whole_is_proved_by_what_its_parts_were_and_names_all_that_it_meant(rig: Rig) -> None:
    rig.parked = None
    rig.devices = []
    done = await rig.run(also=(KillRequest(pid=100, start_time=1.0),))
    assert (done.target, done.proof, done.proof_reason) == (
        "everything of ours and process 100", "nvml-process", None
    )  # fmt: skip
    assert "no GPU is read here, so who holds one is not known" in done.notes
    rig.parked = replace(receipt("park"), proof="process-rss", proof_reason="no GPU", target="worker")
    done = await rig.run(also=(KillRequest(pid=100, start_time=1.0),))
    assert done.proof == "process-rss"
    assert set((done.proof_reason or "").split("; ")) == {
        "worker by process-rss (no GPU)", "x by nvml-process"
    }  # fmt: skip
    rig.parked = None
    done = await rig.run()
    assert (done.proof, done.proof_reason) == ("device-delta", "nothing was ended")
    assert done.target == "everything of ours"


async def test_a_store_that_cannot_tell_where_videos_are_now_fails_nothing(rig: Rig, tmp_path: Path) -> None:
    done = await rig.run(move_outputs=str(tmp_path / "aside"))
    assert done.ok and any("old places: the disk is full" in note for note in done.notes)


async def test_with_jobs_the_queue_is_held_before_the_worker_ends(rig: Rig) -> None:
    rig.waiting = 1
    rig.unwritten = "the hold of the queue cannot be written down yet"
    done = await rig.run()
    assert done.ok and rig.unwritten in done.notes
    assert "resume the queue" in rig.did[0] and rig.did[1:] == ["worker ended", "nursery renewed"]


async def test_a_part_that_fails_keeps_no_other_from_going_on(rig: Rig) -> None:
    rig.kill_ok = False
    rig.refused = {101: "it belongs to ada"}
    done = await rig.run(
        also=(KillRequest(pid=100, start_time=1.0), KillRequest(pid=101, start_time=2.0)),
        reset=ResetRequest(device_id="GPU-0", index=0),
    )
    assert not done.ok and "it would not die" in (done.error or "") and "belongs to ada" in (done.error or "")
    assert rig.did == ["worker ended", "nursery renewed", "reset GPU-0"]


async def test_a_second_one_waits_for_nobody(rig: Rig) -> None:
    rig.worker_ends.clear()
    first = asyncio.create_task(rig.run())
    await asyncio.sleep(0.05)
    with pytest.raises(NotNow, match="already under way"):
        await rig.run()
    rig.worker_ends.set()
    assert (await first).ok
    await rig.audit.kept()
    assert "not_now: a full cleanup is already under way" in rig.audit.path.read_text()
