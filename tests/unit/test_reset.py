"""The GPU reset, against a stand-in that the test writes: every code, every message, every obstacle."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engine.config import load_config
from engine.daemon import reset_commands, reset_holders, reset_mark, reset_program
from engine.daemon.audit import Asker, AuditLog
from engine.daemon.host_kind import read_host_kind
from engine.daemon.reset import Reset
from engine.daemon.reset_helper import helper_problem, helper_script
from engine.daemon.reset_holders import Holders, find_holders
from engine.daemon.reset_program import ResetProgram, find_program, run_program
from engine.daemon.reset_words import EXIT_CODES, explain
from engine.errors import InvalidRequest, NotFound, NotNow, Refused
from engine.jobs.liveness import read_boot_id
from engine.telemetry.procfs import read_stat
from engine.wire import DeviceProcess, Receipt, ReceiptStep, ResetHolder, ResetRequest
from tests.conftest import NO_RESET
from tests.proc_tree import ProcTree
from tests.reset_stand_in import BUS_ID, UUID, ResetStandIn

ASKER = Asker(uid=1000, pid=7)
IN_USE = f"""The following GPUs could not be reset:
  GPU {BUS_ID}: In use by another client

1 device(s) is/are currently being used by one or more other processes (e.g., Fabric Manager, CUDA \
application, graphics application such as an X server, or a monitoring application such as another \
instance of nvidia-smi). Please first kill all processes using this device and all compute applications \
running in the system."""
PRIMARY = f"GPU Reset couldn't run because GPU {BUS_ID} is the primary GPU."


class FakeOwn:
    """Our processes, of which there are none: what is done to them is written down."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.left: list[str] = []
        self.away: str | None = None
        self.closed = False
        self.job_id: int | None = 41

    def pids(self) -> dict[str, int]:
        return {"daemon": 10, "worker": 11, "nursery": 12, "probe": 13}

    @asynccontextmanager
    async def device(self, why: str) -> AsyncIterator[asyncio.Future[bool]]:
        self.did.append("device taken")
        turn = asyncio.get_running_loop().create_future()
        turn.set_result(True)
        yield turn
        self.did.append("device given")

    async def end_clients(self, why: str, steps: Any) -> list[str]:
        self.did.append("ended")
        return self.left

    def bring_back(self) -> None:
        if not self.closed:
            self.did.append("back")

    def keep_away(self, why: str | None) -> None:
        self.did.append("let back" if why is None else "kept away")
        self.away = why

    def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, tmp_path: Path, **gpu: Any) -> None:
        self.program = ResetStandIn(tmp_path, **gpu)
        self.own = FakeOwn()
        self.audit = AuditLog(tmp_path / "audit.jsonl")
        self.issued: list[Receipt] = []
        self.steps: list[ReceiptStep] = []
        self.held: list[str] = []
        self.unwritten: str | None = None
        self.log: list[str] = []
        self.marks = tmp_path / "reset-running.json"
        self.holders: list[Holders] = [Holders(known=(), hidden=0, minor=3)]
        self.platform: Any = "bare"
        self.lists: list[list[int]] = []
        """Whom the driver's lists named at each look for holders."""
        own: Any = self.own
        receipts: Any = SimpleNamespace(
            issue=self._issue, stepped=lambda action, target, step: self.steps.append(step)
        )
        self.reset = Reset(
            ResetProgram(str(self.program.path), helper=tmp_path / "helper", is_root=False),
            own,
            receipts,
            self.audit,
            helper=tmp_path / "helper",
            listed=lambda device_id: (DeviceProcess(pid=11, bytes=5, ours="worker"),),
            marks=self.marks,
            log=self.log.append,
            hold_queue=self._hold,
            platform=lambda: self.platform,
            timeout_s=30.0,
            holders=self._look,
        )

    def _hold(self, reason: str) -> str | None:
        self.own.did.append("queue held")
        self.held.append(reason)
        return self.unwritten

    def _look(self, bus_id: str, listed: tuple[DeviceProcess, ...], ours: dict[str, int]) -> Holders:
        self.lists.append([process.pid for process in listed])
        return self.holders.pop(0) if len(self.holders) > 1 else self.holders[0]

    def _issue(self, receipt: Receipt) -> Receipt:
        self.issued.append(receipt)
        return receipt

    async def run(self, index: int = 3) -> Receipt:
        return await self.reset.run(ResetRequest(device_id=UUID, index=index), asker=ASKER)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset_commands, "RESTORE_PAUSE_S", 0.01)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# ------------------------------------------------------------------------- never for real


def test_no_test_can_reach_the_real_program() -> None:
    assert load_config(Path("/nonexistent"), section="engine").engine.reset_program == str(NO_RESET)
    assert find_program(None) is None and reset_program.PLACES == ()
    assert not Path(reset_program.SUDO).exists()
    ran = subprocess.run([NO_RESET, "--gpu-reset"], capture_output=True, check=False)
    assert ran.returncode == 70
    tests = Path(__file__).parents[1]
    places = ("/".join(("", "usr", "bin", "nvidia-smi")), "/".join(("", "usr", "sbin", "nvidia-smi")))
    naming = [path for path in tests.rglob("*.py") if any(place in path.read_text() for place in places)]
    assert naming == []


def test_the_real_program_is_looked_for_in_fixed_places_and_never_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(None) is None
    assert find_program(None, [str(tmp_path / "absent"), str(program)]) == program
    with pytest.raises(Refused, match="no nvidia-smi on this host"):
        ResetProgram(None, helper=tmp_path, is_root=True).command("reset", UUID)


# ------------------------------------------------------------------------- doing it


async def test_a_reset_ends_ours_first_saves_and_restores_persistence_and_looks_after(tmp_path: Path) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    plan = await rig.reset.plan("3")
    assert plan.device_id == UUID and plan.bus_id == BUS_ID and plan.used_bytes == 40 * 2**30
    assert plan.ends == ("nursery 12", "probe 13", "worker 11; job 41 is interrupted and queued again")
    assert rig.program.deeds() == []
    receipt = await rig.run()
    assert receipt.ok, receipt.error
    assert rig.program.deeds() == [
        ["-pm", "0", "-i", UUID],
        ["--gpu-reset", "-i", UUID],
        ["-pm", "1", "-i", UUID],
    ]
    assert [list(command[1:]) for command in plan.commands] == rig.program.deeds()
    assert rig.program.state["gpu"]["persistence_mode"] == "Enabled"
    assert rig.own.did == ["device taken", "ended", "back", "device given"]
    assert rig.lists[-1] == []  # the driver's lists are from before our own ended, and name them still
    assert (receipt.expected_bytes, receipt.returned_bytes) == (40 * 2**30, 40 * 2**30 - 2**20)
    assert receipt.proof == "device-delta" and receipt.proof_reason
    assert f"said: GPU {BUS_ID} was successfully reset." in receipt.notes
    assert any("exit code 0: it succeeded" in note for note in receipt.notes)
    assert [step.name for step in receipt.steps] == [step.name for step in rig.steps]
    assert "persistence mode restored" in [step.name for step in receipt.steps]
    assert rig.issued == [receipt] and rig.held == []
    # sh may add its own; nothing of ours is handed on.
    assert not {"TURBOTUI_HOME", "HOME", "LD_PRELOAD", "PYTHONPATH"} & set(rig.program.environments()[-1])
    await rig.audit.kept()
    lines = rig.audit.path.read_text().splitlines()
    assert ['"asked"' in lines[0], '"done"' in lines[1], '"uid":1000' in lines[0]] == [True] * 3


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        *((code, "", meaning.meaning) for code, meaning in EXIT_CODES.items() if code),
        (255, IN_USE, "another process holds the GPU"),
        (255, f"GPU {BUS_ID} is currently in use by another process.", "another process holds the GPU"),
        (255, PRIMARY, "drives the display"),
        (255, "GPU 0 and GPU 1 are NVLink peers and must be reset together", "in the same command"),
        (4, "Insufficient Permissions", "the permission is missing"),
        (255, "something nobody has ever seen", "its words say more"),
        (77, "what?", "documented nowhere"),
        (0, IN_USE, "exit code 0, but another process holds the GPU"),
    ],
)
async def test_every_end_of_a_reset_is_explained_and_shown_raw(
    tmp_path: Path, code: int, text: str, said: str
) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    rig.program.set(reset_code=code, reset_text=text, used_after=40 * 1024)
    receipt = await rig.run()
    assert not receipt.ok and said in (receipt.error or "")
    assert "still used" not in (receipt.error or "")  # only a reset that succeeded should have ended it
    assert receipt.residue == ("the reset did not succeed, so what was on the GPU may still be there",)
    for line in text.splitlines():
        if line.strip():
            assert any(line.strip()[:60] in note for note in receipt.notes), line
    assert rig.program.deeds()[-1] == ["-pm", "1", "-i", UUID]  # restored all the same
    assert rig.own.did[-2:] == ["back", "device given"]


def test_each_documented_code_says_what_to_do_next() -> None:
    assert set(EXIT_CODES) == {0, 2, 3, 4, 6, 9, 10, 12, 13, 14, 15, 255}
    for code in EXIT_CODES:
        told = explain(code, "")
        assert told.ok is (code == 0) and EXIT_CODES[code].meaning in told.sentence
        assert code == 0 or EXIT_CODES[code].then in told.sentence
    assert "signal 9" in explain(-9, "").sentence and not explain(-9, "").ok


async def test_what_the_program_says_can_act_on_no_terminal_and_is_bounded(rig: Rig) -> None:
    rig.program.set(reset_code=255, reset_text="\x1b]0;owned\x07 \u202e" + "x" * 10**6)
    receipt = await rig.run()
    told = "".join(receipt.notes)
    assert len(told) < 20_000 and not set(told) & set("\x1b\x07\u202e") and "owned" in told


async def test_a_gpu_that_is_not_sound_after_holds_the_queue(rig: Rig) -> None:
    rig.program.set(used_after=30 * 1024, gpu={"gpu_recovery_action": "None"})
    receipt = await rig.run()
    assert not receipt.ok and "30.00 GiB are still used" in (receipt.error or "")
    assert rig.held and "not sound" in rig.held[0]


async def test_what_the_driver_still_recommends_is_told(rig: Rig) -> None:
    rig.program.set(gpu={"gpu_recovery_action": "Reboot"})
    assert (await rig.reset.plan(UUID)).recovery_action == "Reboot"
    receipt = await rig.run()
    assert not receipt.ok and "still recommends: Reboot" in (receipt.error or "") and rig.held


async def test_persistence_mode_that_cannot_be_switched_off_resets_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    rig.program.set(pm_codes={"0": 4})
    receipt = await rig.run()
    assert not receipt.ok and "nothing was reset" in (receipt.error or "")
    assert [args[0] for args in rig.program.deeds()] == ["-pm", "-pm"]
    assert receipt.returned_bytes == 0 and rig.own.did[-2:] == ["back", "device given"]


async def test_persistence_mode_that_cannot_be_restored_is_told_with_the_way(tmp_path: Path) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    rig.program.set(pm_codes={"1": 4})
    receipt = await rig.run()
    assert not receipt.ok and f"-pm 1 -i {UUID}" in (receipt.error or "")


async def hang(rig: Rig) -> tuple[Receipt, int]:
    """A reset that hangs: its receipt, and the pid of the stand-in, which is ours to end."""
    rig.reset._commands.timeout_s = 0.5
    rig.program.set(reset_sleep=60.0)
    receipt = await asyncio.wait_for(rig.run(), 20)
    assert not receipt.ok and "hangs" in (receipt.error or "")
    assert receipt.error is not None
    pid = int(receipt.error.partition("(pid ")[2].partition(")")[0])
    os.kill(pid, 0)  # it was left alone
    return receipt, pid


def test_a_reset_prints_into_nothing_that_breaks_with_the_engine(tmp_path: Path) -> None:
    program = tmp_path / "talks"
    program.write_text("#!/bin/sh\nreadlink /proc/self/fd/1\n")
    program.chmod(0o755)
    for kill, where in ((False, "/memfd:"), (True, "pipe:")):
        ran = run_program((str(program),), timeout_s=10, kill=kill, on_started=lambda pid: None)
        assert ran.code == 0 and ran.text.startswith(where)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.01)


async def test_a_reset_that_hangs_is_said_to_and_is_neither_waited_for_nor_cut_off(tmp_path: Path) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    rig.unwritten = "the hold of the queue cannot be written down yet"
    receipt, pid = await hang(rig)
    assert rig.own.away is not None and "back" not in rig.own.did
    # Keeping away depends on no disk, so it comes before what may.
    assert rig.own.did.index("kept away") < rig.own.did.index("queue held")
    assert rig.unwritten in receipt.notes
    assert "hangs" not in rig.held[0] and "did not end within" in rig.held[0]  # true also once it has
    with pytest.raises(NotNow, match="hangs"):
        await rig.run()
    assert [args[0] for args in rig.program.deeds()] == ["-pm", "--gpu-reset"]  # not beside the reset
    rig.program.set(gpu={"memory.used": 1})
    os.kill(pid, signal.SIGTERM)
    await until(lambda: len(rig.issued) == 2)
    assert rig.own.away is None and rig.own.did[-2:] == ["let back", "back"]
    late = rig.issued[1]
    assert "ended by signal 15" in (late.error or "") and "persistence mode restored" in str(late.steps)
    assert rig.program.deeds()[-1] == ["-pm", "1", "-i", UUID]
    await until(lambda: rig.reset._hang.why is None)
    await until(lambda: not rig.marks.exists())


async def test_a_note_that_a_full_disk_refuses_is_kept_as_soon_as_it_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reset_mark, "RETRY_S", 0.01)
    rename, full = os.replace, [True, True]

    def refuse(*paths: Any) -> None:
        if full:
            full.pop()
            raise OSError(28, "No space left on device")
        rename(*paths)

    monkeypatch.setattr(reset_mark.os, "replace", refuse)
    rig = Rig(tmp_path)
    _receipt, pid = await hang(rig)
    try:
        await until(rig.marks.exists)
        assert sum("No space left" in line for line in rig.log) == 1
    finally:
        os.kill(pid, signal.SIGTERM)
    await until(lambda: len(rig.issued) == 2)
    await until(lambda: not rig.marks.exists())


async def test_persistence_mode_is_tried_again_after_a_hang_and_told_where_it_stays_off(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    rig.program.set(pm_codes={"1": 15})
    _receipt, pid = await hang(rig)
    os.kill(pid, signal.SIGTERM)
    await until(lambda: len(rig.issued) == 2)
    assert rig.program.deeds()[2:] == [["-pm", "1", "-i", UUID]] * 3
    assert "persistence mode is not restored" in (rig.issued[1].error or "")


async def test_an_engine_that_ends_under_a_hanging_reset_brings_nothing_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    _receipt, pid = await hang(rig)
    try:
        await rig.reset.close()
        await asyncio.sleep(0.1)
        assert "back" not in rig.own.did and rig.own.away is not None
    finally:
        os.kill(pid, signal.SIGTERM)
    await asyncio.sleep(0.3)
    assert "back" not in rig.own.did


async def test_the_next_engine_keeps_away_while_that_very_process_lives_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, persistence_mode="Enabled")
    _receipt, pid = await hang(rig)
    await rig.reset.close()
    assert rig.marks.stat().st_mode & 0o777 == 0o600
    after = Rig(tmp_path, persistence_mode="Disabled")
    after.reset.start_ours()
    assert after.own.did == ["kept away"] and f"pid {pid}" in (after.own.away or "")
    assert any("earlier engine" in line for line in after.log)
    with pytest.raises(NotNow, match="still runs"):
        await after.run()
    os.kill(pid, signal.SIGTERM)
    await until(lambda: "back" in after.own.did)
    await until(lambda: not after.marks.exists())
    assert after.program.deeds()[-1] == ["-pm", "1", "-i", UUID]
    assert any("nobody saw how" in line for line in after.log)


@pytest.mark.parametrize("changed", [{"start_time": 1.0}, {"boot_id": "another"}, {"pid": 2**22 + 5}])
async def test_a_note_of_another_process_keeps_nobody_away(tmp_path: Path, changed: dict[str, Any]) -> None:
    rig = Rig(tmp_path)
    stat = read_stat(os.getpid())
    assert stat is not None
    ours = {"pid": os.getpid(), "start_time": stat.start_time, "boot_id": read_boot_id()}
    mark = {**ours, "device_id": UUID, "index": 3, "persistence": False, **changed}
    rig.marks.write_bytes(msgspec.json.encode(mark))
    rig.reset.start_ours()
    assert rig.own.did == ["back"]
    await until(lambda: not rig.marks.exists())


async def test_a_second_reset_is_told_that_one_is_under_way(rig: Rig) -> None:
    rig.program.set(reset_sleep=0.5)
    first = asyncio.create_task(rig.run())
    await asyncio.sleep(0.1)
    with pytest.raises(NotNow, match="already under way"):
        await rig.run()
    assert (await first).ok
    assert [args[0] for args in rig.program.deeds()] == ["--gpu-reset"]


async def test_it_goes_on_when_the_caller_is_gone(rig: Rig) -> None:
    rig.program.set(reset_sleep=0.2)
    asked = asyncio.create_task(rig.run())
    await asyncio.sleep(0.3)
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    await rig.reset.close()
    assert rig.issued and rig.issued[0].ok


# ------------------------------------------------------------------------- what stands against it


async def test_another_index_than_was_shown_resets_nothing(rig: Rig) -> None:
    with pytest.raises(InvalidRequest, match="is GPU 3, not 0"):
        await rig.run(index=0)
    assert rig.program.deeds() == [] and rig.own.did == []
    await rig.audit.kept()
    assert "refused" in rig.audit.path.read_text()


async def test_a_refusal_is_on_record_also_when_the_caller_is_gone(rig: Rig) -> None:
    rig.holders = [Holders(known=(FOREIGN,), hidden=0, minor=3)]
    asked = asyncio.create_task(rig.run())
    await asyncio.sleep(0.01)
    asked.cancel()
    await rig.reset.close()
    await asyncio.sleep(0)
    await rig.audit.kept()
    assert "process 99 of ada" in rig.audit.path.read_text()


@pytest.mark.parametrize("device", ["cpu", "9", "GPU-ff", ""])
async def test_what_is_no_gpu_is_refused(rig: Rig, device: str) -> None:
    with pytest.raises(Refused if device == "cpu" else NotFound):
        await rig.reset.plan(device)


FOREIGN = ResetHolder(pid=99, user="ada", command="python train.py")


def _holders(*known: ResetHolder, hidden: int = 0) -> Callable[[Rig], None]:
    def spoil(rig: Rig) -> None:
        rig.holders = [Holders(known=known, hidden=hidden, minor=3)]

    return spoil


def _gpu(**gpu: Any) -> Callable[[Rig], None]:
    return lambda rig: rig.program.set(gpu={name.replace("__", "."): value for name, value in gpu.items()})


@pytest.mark.parametrize(
    ("spoil", "name", "state", "text"),
    [
        (_holders(FOREIGN), "holders", "blocks", "process 99 of ada (python train.py)"),
        (_holders(ResetHolder(pid=11, ours="worker")), "holders", "ok", "1 of our own"),
        (_holders(hidden=5), "hidden holders", "unknown", "5 processes"),
        (_gpu(display_active="Enabled"), "display", "blocks", "display manager"),
        (_gpu(display_active="[N/A]"), "display", "unknown", "does not tell"),
        (_gpu(mig__mode__current="Enabled"), "MIG", "blocks", "instances of everybody"),
        (_gpu(mig__mode__current="[N/A]"), "MIG", "ok", "no MIG"),
        (_gpu(persistence_mode="Enabled"), "persistence", "ok", "switched off and restored"),
        (_gpu(persistence_mode="[Unknown Error]"), "persistence", "unknown", "left as it is"),
        (lambda rig: setattr(rig, "platform", "wsl"), "platform", "blocks", "Windows"),
        (
            lambda rig: setattr(rig, "platform", "container"),
            "platform",
            "unknown",
            "only where it shares the host's pid",
        ),
        (lambda rig: None, "rights", "unknown", "engine.reset_program"),
        (lambda rig: rig.program.set(nvlink_code=3), "NVLink", "unknown", "does not tell"),
        (
            lambda rig: rig.program.set(
                nvlink_text="GPU 0: x\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>",
                gpu={"compute_cap": 7.0},
            ),
            "NVLink",
            "blocks",
            "1 active links",
        ),
        (
            lambda rig: rig.program.set(nvlink_text="\t Link 0: 26.562 GB/s", gpu={"compute_cap": 8.0}),
            "NVLink",
            "ok",
            "Fabric Manager",
        ),
    ],
)
async def test_each_condition_has_its_state_and_sentence(
    rig: Rig, spoil: Callable[[Rig], None], name: str, state: str, text: str
) -> None:
    spoil(rig)
    plan = await rig.reset.plan(UUID)
    found = {condition.name: condition for condition in plan.conditions}
    assert (found[name].state, text in found[name].text) == (state, True), found[name]
    if state == "blocks":
        with pytest.raises(Refused, match="is not reset"):
            await rig.run()
        assert rig.program.deeds() == [] and rig.own.did == []


async def test_a_holder_that_comes_meanwhile_keeps_the_reset_from_beginning(rig: Rig) -> None:
    rig.holders = [Holders(known=(), hidden=0, minor=3), Holders(known=(FOREIGN,), hidden=0, minor=3)]
    receipt = await rig.run()
    assert not receipt.ok and "process 99 of ada" in (receipt.error or "")
    assert rig.program.deeds() == [] and rig.own.did[-2:] == ["back", "device given"]


async def test_a_process_of_ours_that_does_not_end_keeps_the_reset_from_beginning(rig: Rig) -> None:
    rig.own.left = ["probe 13"]
    receipt = await rig.run()
    assert "probe 13 would not let go" in (receipt.error or "") and rig.program.deeds() == []


async def test_an_old_driver_that_knows_no_such_field_is_asked_for_the_others(rig: Rig) -> None:
    rig.program.forget("compute_cap", "mig.mode.current", "gpu_recovery_action")
    plan = await rig.reset.plan("3")
    assert plan.device_id == UUID and plan.recovery_action is None


async def test_a_driver_that_does_not_answer_is_a_refusal_with_its_words(rig: Rig) -> None:
    rig.program.set(query_code=9, query_text="NVIDIA-SMI has failed because the driver is not loaded")
    with pytest.raises(Refused, match=r"exit code 9.*has failed"):
        await rig.reset.plan("0")


# ------------------------------------------------------------------------- who holds it


def test_holders_are_found_by_their_open_file_and_by_the_drivers_list(tmp_path: Path) -> None:
    tree = ProcTree(tmp_path)
    place = tree.proc / "driver/nvidia/gpus/0000:1a:00.0"
    place.mkdir(parents=True)
    (place / "information").write_text("Model: \t x\nDevice Minor: \t 3\n")
    for pid, target in (
        (50, "/dev/nvidia3"),
        (51, "/dev/nvidia1"),
        (52, "/dev/nvidiactl"),
        (43, "/dev/nvidia3"),
    ):
        tree.add(pid, files=(target,))
    listed = (
        DeviceProcess(pid=777, bytes=5, user="eve", name="far"),
        DeviceProcess(pid=778, bytes=5, user="eve", start_time=1.0),  # has ended since
        DeviceProcess(pid=51, bytes=5, user="eve", start_time=1.0),  # and its number is another's
        DeviceProcess(pid=52, bytes=5, user="eve", start_time=100.0),
    )
    found = find_holders(BUS_ID, listed, {"daemon": 40, "worker": 43}, proc=tree.proc)
    assert found.minor == 3
    assert {holder.pid: holder.ours for holder in found.known} == {
        43: "worker",
        50: None,
        52: None,
        777: None,
    }
    assert [holder.pid for holder in found.foreign] == [50, 52, 777]
    anywhere = find_holders(None, (), {}, proc=tree.proc)
    assert {holder.pid for holder in anywhere.known} == {43, 50, 51}


def test_only_the_real_persistence_daemon_is_no_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(name: str) -> Any:
        if name != "nvpd":
            raise KeyError(name)
        return SimpleNamespace(pw_uid=117)

    monkeypatch.setattr(reset_holders.pwd, "getpwnam", known)
    tree = ProcTree(tmp_path)
    for pid, uid in ((60, 0), (61, 117), (62, 1000)):
        tree.add(pid, name="nvidia-persiste", uid=uid)
    assert [holder.pid for holder in find_holders(None, (), {}, proc=tree.proc).known] == [62]


def test_the_kind_of_host_is_read(tmp_path: Path) -> None:
    assert read_host_kind(tmp_path) == "bare"
    (tmp_path / ".dockerenv").write_text("")
    assert read_host_kind(tmp_path) == "container"
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/osrelease").write_text("5.15-microsoft-standard-WSL2")
    assert read_host_kind(tmp_path) == "wsl"


# ------------------------------------------------------------------------- the helper


@pytest.fixture
def helper(tmp_path: Path) -> tuple[Path, ResetStandIn]:
    stand_in = ResetStandIn(tmp_path)
    path = tmp_path / "turbotui-gpu-reset"
    path.write_text(helper_script(stand_in.path))
    path.chmod(0o755)
    return path, stand_in


def test_the_helper_runs_a_fixed_command_for_one_gpu(helper: tuple[Path, ResetStandIn]) -> None:
    path, stand_in = helper
    for verb in ("check", "persistence-off", "reset", "persistence-on"):
        assert subprocess.run([path, verb, UUID], check=False, capture_output=True).returncode == 0
    assert stand_in.deeds() == [
        ["-pm", "0", "-i", UUID], ["--gpu-reset", "-i", UUID], ["-pm", "1", "-i", UUID]
    ]  # fmt: skip
    assert subprocess.run([path, "reset", BUS_ID], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["reset"],
        ["reset", UUID, "--all"],
        ["reset", "0"],
        ["reset", "all"],
        ["reset", ""],
        ["reset", UUID + "\n--gpu-reset"],
        ["reset", UUID.upper()],
        ["reset", UUID + " -r"],
        ["reset", "-i"],
        ["reset", "GPU-*"],
        ["reset", f"{UUID};id"],
        ["--gpu-reset", UUID],
        ["reset $(id)", UUID],
    ],
)
def test_the_helper_refuses_everything_else(helper: tuple[Path, ResetStandIn], arguments: list[str]) -> None:
    path, stand_in = helper
    ran = subprocess.run([path, *arguments], check=False, capture_output=True, text=True)
    assert ran.returncode == 2 and "turbotui-gpu-reset:" in ran.stderr
    assert stand_in.calls() == []


def test_a_helper_that_others_could_change_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "helper"
    assert "not installed" in (helper_problem(path) or "")
    path.write_text("#!/bin/sh\n")
    path.chmod(0o777)
    assert "can be changed by others" in (helper_problem(path) or "")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "no regular file" in (helper_problem(link) or "")
    assert stat.S_ISREG(path.lstat().st_mode)
    with pytest.raises(ValueError, match="cannot stand"):
        helper_script("/tmp/a b; rm")


async def test_who_is_not_root_goes_through_sudo_and_the_helper_alone(
    tmp_path: Path, helper: tuple[Path, ResetStandIn]
) -> None:
    path, stand_in = helper
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\nexec "$@"\n')
    sudo.chmod(0o755)
    program = ResetProgram(None, helper=path, sudo=str(sudo), is_root=False)
    words = program.command("reset", UUID)
    assert words == (str(sudo), "-n", str(path), "reset", UUID)
    ran = await program.run(words, timeout_s=10, kill=True)
    assert ran.code == 0 and stand_in.deeds() == [["--gpu-reset", "-i", UUID]]
    for wrong in ("0", "GPU-1", UUID + "\n", f"{UUID} --all"):
        with pytest.raises(Refused, match="no GPU's UUID"):
            program.command("reset", wrong)
