"""Ending a process on a GPU: every reason against it in a made-up /proc, and real victims of our own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.daemon.kill import Kill
from engine.daemon.proofs import Proofs
from engine.daemon.victims import Victims
from engine.errors import InvalidRequest, NotFound, NotNow, Refused
from engine.telemetry.procfs import read_stat
from engine.telemetry.samples import Traced
from engine.wire import DeviceProcess, DeviceStatus, KillRequest, Receipt, ReceiptStep
from tests.proc_tree import KERNEL_THREAD, ProcTree

GIB = 2**30
PID, DAEMON, SHELL, PROBE, NURSERY, WORKER = 500, 40, 30, 41, 42, 43
START = 100.0
ASKER = "uid:1000, pid 7"


def gpu(number: int, *processes: DeviceProcess, age_s: float | None = 0.1) -> DeviceStatus:
    return DeviceStatus(
        id=f"GPU-{number}", kind="cuda", index=number, name="Fake", total_bytes=80 * GIB, in_use=True,
        processes=processes, age_s=age_s,
    )  # fmt: skip


def listed(pid: int = PID, **changes: Any) -> DeviceProcess:
    process = DeviceProcess(
        pid=pid, bytes=4 * GIB, user="ada", name="python", command="python train.py", start_time=START,
        container="docker 3f2a9c1b",
    )  # fmt: skip
    return replace(process, **changes)


class Rig:
    """A kill whose world is made up, or with `real` one of processes that the test started itself."""

    def __init__(self, root: Path, *, real: bool = False, patience_s: float = 0.03) -> None:
        self.tree = ProcTree(root)
        self.devices = [gpu(0, listed()), gpu(1)]
        self.ours = {"daemon": DAEMON, "probe": PROBE, "nursery": NURSERY, "worker": WORKER}
        self.signals: list[signal.Signals] = []
        self.issued: list[Receipt] = []
        self.told: list[ReceiptStep] = []
        self.lines: list[str] = []
        self.left: dict[str, int | None] = {}
        """What the probe sees at last on a device, where that is not nothing."""
        self.on_look: Callable[[], None] = lambda: None
        self.on_step: Callable[[ReceiptStep], None] = lambda step: None
        self.on_signal: Callable[[signal.Signals], None] = lambda number: None
        self.pipe = os.pipe()
        for pid, parent in (
            (SHELL, 1),
            (DAEMON, SHELL),
            (PROBE, DAEMON),
            (NURSERY, DAEMON),
            (WORKER, NURSERY),
        ):
            self.tree.add(pid, parent=parent)
        self.tree.add(PID)
        seams: dict[str, Any] = {} if real else {"open_pidfd": self._open, "send": self._send}
        if real:
            self.ours = {"daemon": 2**22 + 1}  # nobody: pytest is the parent of what it starts
            victims = Victims(devices=self._devices, ours=lambda: self.ours, holds_file=lambda pid: True)
        else:
            victims = Victims(devices=self._devices, ours=lambda: self.ours, proc=self.tree.proc, uid=1000)
        probe: Any = self
        logbook: Any = self
        receipts: Any = SimpleNamespace(issue=self._issue, stepped=self._stepped)
        self.victims = victims
        self.kill = Kill(
            victims, Proofs(probe), logbook, receipts,
            patience_s=5.0 if real else patience_s, **seams,
        )  # fmt: skip

    def close(self) -> None:
        for fd in self.pipe:
            os.close(fd)

    async def run(self, pid: int = PID, **changes: Any) -> Receipt:
        given = {"start_time": START, "grace_s": 0.01, **changes}
        return await self.kill.run(KillRequest(pid=pid, **given), asked_by=ASKER)

    # what the kill asks of others

    async def trace(self, pid: int, device_id: str, *, until_bytes: int, timeout_s: float) -> Traced:
        looking = until_bytes > 0
        if looking:
            self.on_look()
        held = 4 * GIB if looking else self.left.get(device_id, 0)
        return Traced(trace_id=1, start_bytes=held, end_bytes=held, elapsed_s=0.0, reached=True)

    def write(self, event: str, text: str, **_: Any) -> None:
        self.lines.append(f"{event}: {text}")

    def _devices(self) -> list[DeviceStatus]:
        return self.devices

    def _open(self, pid: int) -> int:
        return os.dup(self.pipe[0])

    def _send(self, pidfd: int, number: signal.Signals) -> None:
        self.signals.append(number)
        self.on_signal(number)

    def _issue(self, receipt: Receipt) -> Receipt:
        self.issued.append(receipt)
        return receipt

    def _stepped(self, action: str, target: str, step: ReceiptStep) -> None:
        assert action == "kill"
        self.told.append(step)
        self.on_step(step)

    def end(self) -> None:
        """The made-up victim ends, which its pidfd tells."""
        os.write(self.pipe[1], b".")
        self.tree.remove(PID)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


# ------------------------------------------------------------------------- what is refused


def _unlist(rig: Rig) -> None:
    rig.devices = [gpu(0), gpu(1)]


def _no_gpu(rig: Rig) -> None:
    rig.devices = [replace(gpu(0, listed()), id="cpu", kind="cpu")]


def _listed_as(**changes: Any) -> Callable[[Rig], None]:
    def spoil(rig: Rig) -> None:
        rig.devices = [gpu(0, listed(**changes))]

    return spoil


def _aged(age_s: float | None) -> Callable[[Rig], None]:
    def spoil(rig: Rig) -> None:
        rig.devices = [gpu(0, listed()), gpu(1, listed(), age_s=age_s)]

    return spoil


def _process(**changes: Any) -> Callable[[Rig], None]:
    return lambda rig: rig.tree.add(PID, **changes)


SPOILERS: dict[str, tuple[Callable[[Rig], None], type[Refused], str]] = {
    "gone": (lambda rig: rig.tree.remove(PID), NotFound, "has ended, or is of another PID namespace"),
    "half gone": (
        lambda rig: (rig.tree.proc / str(PID) / "status").unlink(missing_ok=True),
        NotFound,
        "ended while it was looked at",
    ),
    "zombie": (_process(state="Z", parent=SHELL), Refused, f"until its parent, process {SHELL} (python)"),
    "kernel thread": (_process(flags=KERNEL_THREAD), Refused, "a thread of the kernel"),
    "reused": (_process(start_time=START + 50), NotNow, "is not the one that was shown"),
    "reading of another": (_listed_as(start_time=START - 50), NotNow, "is not the one that was shown"),
    "other namespace": (_listed_as(start_time=None), Refused, "another PID namespace"),
    "other user": (_process(uid=0), Refused, "belongs to ada, another user; add --other-user"),
    "no file": (_process(files=("/dev/null",)), Refused, "no GPU's file open here"),
    "hidden": (lambda rig: rig.tree.hide_files(PID), Refused, "may not be looked at"),
    "unlisted": (_unlist, Refused, "is on no GPU by NVML's lists"),
    "no GPU": (_no_gpu, Refused, "no GPU is read here"),
    "stale": (_aged(7.0), NotNow, "older than 2 s"),
    "never read": (_aged(None), NotNow, "older than 2 s"),
    "worker": (lambda rig: rig.ours.update(worker=PID), Refused, "`turbotui cleanup`"),
    "forked": (_process(parent=NURSERY), Refused, "`turbotui park`"),
    "child": (_process(parent=DAEMON), Refused, "the engine's own"),
    "probe": (lambda rig: rig.ours.update(probe=PID), Refused, "the engine's own probe"),
    "nursery": (lambda rig: rig.ours.update(nursery=PID), Refused, "the engine's own nursery"),
    "daemon": (lambda rig: rig.ours.update(daemon=PID), Refused, "the engine's own daemon"),
    "ancestor": (lambda rig: rig.tree.add(SHELL, parent=PID), Refused, "the engine itself runs below"),
}


@pytest.mark.parametrize("name", SPOILERS)
async def test_each_reason_against_it_has_its_own_sentence_and_sends_nothing(rig: Rig, name: str) -> None:
    spoil, error, words = SPOILERS[name]
    spoil(rig)
    with pytest.raises(error) as refused:
        await rig.run()
    assert words in str(refused.value) and str(PID) in str(refused.value)
    assert rig.signals == [] and rig.issued == []
    assert rig.lines == [f"audit: kill of process {PID}, asked by {ASKER}, is refused: {refused.value}"]


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(SPOILERS)), min_size=1, max_size=3, unique=True),
    moment=st.sampled_from(["before", "at the look", "in the grace"]),
)
def test_no_signal_is_ever_sent_when_any_check_fails(names: list[str], moment: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))

        def spoil() -> None:
            for name in names:
                if name in ("hidden", "half gone") and not (rig.tree.proc / str(PID) / "fd").is_dir():
                    continue
                SPOILERS[name][0](rig)

        def on_step(step: ReceiptStep) -> None:
            if step.name == "SIGTERM":
                spoil()

        if moment == "at the look":
            rig.on_look = spoil
        elif moment == "in the grace":
            rig.on_step = on_step
        else:
            spoil()
        try:
            if moment == "in the grace":
                receipt = asyncio.run(rig.run())
                assert rig.signals == [signal.SIGTERM]
                assert not receipt.ok and "SIGKILL was not sent" in (receipt.error or "")
            else:
                with pytest.raises(Refused):
                    asyncio.run(rig.run())
                assert rig.signals == [] and rig.issued == []
        finally:
            rig.close()


@pytest.mark.parametrize("pid", [1, 0, -1, -PID])
async def test_the_first_process_and_groups_are_never_ended(rig: Rig, pid: int) -> None:
    with pytest.raises(Refused, match="never ended"):
        await rig.run(pid)
    assert rig.signals == []


@pytest.mark.parametrize("pid", [SHELL, DAEMON, PROBE, NURSERY, WORKER])
async def test_the_engine_and_what_it_runs_below_are_never_ended_even_if_listed(rig: Rig, pid: int) -> None:
    rig.devices = [gpu(0, listed(pid))]
    with pytest.raises(Refused, match="engine"):
        await rig.run(pid)
    assert rig.signals == []


@pytest.mark.parametrize("pid", [10**9, 10**30])
async def test_a_pid_that_nobody_has_is_not_found(rig: Rig, pid: int) -> None:
    with pytest.raises(NotFound):
        await rig.run(pid)


async def test_one_that_was_not_shown_is_refused(rig: Rig) -> None:
    with pytest.raises(NotNow, match="was not on a GPU when it was looked up"):
        await rig.run(start_time=None)
    with pytest.raises(NotNow, match="is not the one that was shown"):
        await rig.run(start_time=START + 0.01)
    assert rig.signals == []


@pytest.mark.parametrize("grace_s", [-1.0, 601.0, float("nan"), float("inf")])
async def test_a_grace_that_is_none_is_refused(rig: Rig, grace_s: float) -> None:
    with pytest.raises(InvalidRequest, match="grace"):
        await rig.run(grace_s=grace_s)
    assert rig.signals == []


async def test_another_users_needs_a_second_word_and_the_right_to(rig: Rig) -> None:
    rig.tree.add(PID, uid=2000)
    rig.tree.hide_files(PID)
    with pytest.raises(Refused, match="only ada or root may look at it and end it"):
        await rig.run(other_user=True)
    assert rig.signals == []
    rig.tree.add(PID, uid=2000)
    rig.on_signal = lambda number: rig.end()
    assert (await rig.run(other_user=True)).ok
    assert rig.signals == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("error", "refusal", "words"),
    [
        (PermissionError(1, "not permitted"), Refused, "EPERM"),
        (ProcessLookupError(3, "none"), NotFound, "before SIGTERM"),
    ],
)
async def test_what_the_kernel_says_to_the_signal_is_told_as_what_it_is(
    rig: Rig, error: OSError, refusal: type[Refused], words: str
) -> None:
    def fail(number: signal.Signals) -> None:
        raise error

    rig.on_signal = fail
    with pytest.raises(refusal, match=words):
        await rig.run()
    assert rig.issued == []


async def test_without_a_pidfd_nothing_is_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, refusal in (
        (OSError(38, "Function not implemented"), Refused),
        (ProcessLookupError(), NotFound),
    ):

        def fail(pid: int, error: OSError = error) -> int:
            raise error

        monkeypatch.setattr(rig.kill, "_open", fail)
        with pytest.raises(refusal):
            await rig.run()
    assert rig.signals == []


async def test_hostile_names_reach_no_terminal(rig: Rig) -> None:
    rig.tree.add(SHELL, name="\x1b]0;owned\x07")
    rig.tree.add(PID, state="Z", parent=SHELL)
    with pytest.raises(Refused) as refused:
        await rig.run()
    assert "\x1b" not in str(refused.value) and "\ufffd]0;owned" in str(refused.value)


# ------------------------------------------------------------------------- what is said at the end


async def test_a_receipt_tells_all_gpus_that_it_held_and_what_stayed(rig: Rig) -> None:
    rig.devices = [gpu(0, listed()), gpu(1, listed())]
    rig.left = {"GPU-1": GIB}
    rig.on_signal = lambda number: rig.end()
    receipt = await rig.run()
    assert receipt.ok and (receipt.action, receipt.target) == ("kill", f"{PID} python")
    assert (receipt.expected_bytes, receipt.returned_bytes, receipt.residue_bytes) == (8 * GIB, 7 * GIB, GIB)
    assert receipt.proof == "nvml-process" and "has ended" in receipt.residue[0]
    assert [step.name for step in receipt.steps] == ["SIGTERM", "waited", "gone from NVML"]
    assert rig.issued == [receipt]
    (line,) = rig.lines
    assert ASKER in line and "of ada in docker 3f2a9c1b: python train.py" in line


async def test_a_proof_that_cannot_be_had_is_said(rig: Rig) -> None:
    rig.left = {"GPU-0": None}
    rig.on_signal = lambda number: rig.end()
    receipt = await rig.run()
    assert receipt.ok and receipt.returned_bytes is None and receipt.residue_bytes is None
    assert receipt.proof == "process-exit" and receipt.proof_reason


@pytest.mark.parametrize("thread", [False, True])
async def test_one_that_waits_in_the_kernel_is_said_to_be_unkillable(rig: Rig, thread: bool) -> None:
    rig.left = {"GPU-0": 4 * GIB}

    def stick(number: signal.Signals) -> None:
        if number is not signal.SIGKILL:
            return
        rig.tree.add(PID, state="Z" if thread else "D")
        stuck = rig.tree.proc / str(PID)
        if thread:  # the first thread has ended, another one hangs
            stuck = stuck / "task" / "501"
            stuck.mkdir(parents=True)
            (stuck / "stat").write_text(f"501 (uvm) D 1 {'0 ' * 30}")
        (stuck / "wchan").write_text("uvm_spin_loop")

    rig.on_signal = stick
    receipt = await rig.run()
    assert rig.signals == [signal.SIGTERM, signal.SIGKILL]
    assert not receipt.ok and receipt.error is not None
    assert "cannot be ended now" in receipt.error and "uvm_spin_loop" in receipt.error
    assert (receipt.returned_bytes, receipt.residue_bytes) == (0, 4 * GIB)
    assert [step.name for step in receipt.steps] == ["SIGTERM", "waited", "SIGKILL", "still in NVML"]


async def test_one_that_only_takes_long_is_not_said_to_be_stuck(rig: Rig) -> None:
    receipt = await rig.run()
    assert not receipt.ok and "has not ended within 0.03 s" in (receipt.error or "")


async def test_the_second_who_asks_hears_that_it_is_under_way(rig: Rig) -> None:
    first = asyncio.create_task(rig.run(grace_s=5.0))
    while not rig.signals:
        await asyncio.sleep(0.001)
    with pytest.raises(NotNow, match="already under way"):
        await rig.run()
    rig.end()
    assert (await first).ok and rig.signals == [signal.SIGTERM]
    rig.tree.add(PID)
    with pytest.raises(NotNow, match="not the one"):  # free to be asked again
        await rig.run(start_time=START + 1)


async def test_it_goes_on_when_the_one_who_asked_is_gone(rig: Rig) -> None:
    asked = asyncio.create_task(rig.run(grace_s=5.0))
    while not rig.signals:
        await asyncio.sleep(0.001)
    asked.cancel()
    await asyncio.sleep(0)
    rig.end()
    while not rig.issued:
        await asyncio.sleep(0.001)
    assert rig.issued[0].ok


# ------------------------------------------------------------------------- real processes of our own

IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); "


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Rig, subprocess.Popen[bytes], float]]]:
    """Starts a victim; gives it, its start time, and the rig that lists it on a GPU."""
    rig = Rig(tmp_path, real=True)
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str) -> tuple[Rig, subprocess.Popen[bytes], float]:
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(child)
        if command[0] == sys.executable:
            assert child.stdout is not None
            child.stdout.readline()  # its handlers are set
        stat = read_stat(child.pid)
        assert stat is not None
        rig.devices = [gpu(0, listed(child.pid, start_time=stat.start_time))]
        return rig, child, stat.start_time

    yield run
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    rig.close()


async def test_a_process_ends_on_sigterm(start: Any) -> None:
    rig, child, began = start("sleep", "60")
    receipt = await rig.run(child.pid, start_time=began, grace_s=5.0)
    assert receipt.ok and child.wait(1) == -signal.SIGTERM
    assert [step.name for step in receipt.steps] == ["SIGTERM", "waited", "gone from NVML"]
    assert receipt.elapsed_s < 2


async def test_one_that_ignores_sigterm_is_counted_down_and_killed(start: Any) -> None:
    rig, child, began = start(sys.executable, "-c", IGNORES + "time.sleep(60)")
    receipt = await rig.run(child.pid, start_time=began, grace_s=0.3)
    assert receipt.ok and child.wait(1) == -signal.SIGKILL
    assert [step.name for step in receipt.steps] == ["SIGTERM", "waited", "SIGKILL", "gone from NVML"]
    assert receipt.steps[1].elapsed_s >= 0.3
    (counted,) = [step for step in rig.told if step.total_bytes is not None]
    assert counted.name == "SIGKILL in 1 s"
    assert [line.split(",")[0] for line in rig.lines] == ["audit: SIGTERM", "audit: SIGKILL"]


async def test_one_that_ends_by_itself_in_the_grace_gets_no_sigkill(start: Any) -> None:
    rig, child, began = start(sys.executable, "-c", IGNORES + "time.sleep(0.3)")
    receipt = await rig.run(child.pid, start_time=began, grace_s=10.0)
    assert receipt.ok and child.wait(1) == 0
    assert [step.name for step in receipt.steps] == ["SIGTERM", "waited", "gone from NVML"]


async def test_a_countdown_that_is_stopped_ends_without_sigkill(start: Any) -> None:
    rig, child, began = start(sys.executable, "-c", IGNORES + "time.sleep(60)")
    task = asyncio.create_task(rig.run(child.pid, start_time=began, grace_s=1.2))
    while not rig.told:
        await asyncio.sleep(0.01)
    rig.kill.spare(child.pid)
    receipt = await asyncio.wait_for(task, 5)
    assert not receipt.ok and "SIGKILL was not sent: the countdown was stopped" in (receipt.error or "")
    assert child.poll() is None
    with pytest.raises(NotNow, match="no countdown runs"):
        rig.kill.spare(child.pid)


async def test_a_pid_that_was_reused_is_left_alone(start: Any) -> None:
    rig, child, began = start("sleep", "60")
    with pytest.raises(NotNow, match="is not the one that was shown"):
        await rig.run(child.pid, start_time=began - 1.0)
    assert child.poll() is None


async def test_one_that_lets_go_of_the_gpu_in_the_grace_lives_on(start: Any) -> None:
    rig, child, began = start(sys.executable, "-c", IGNORES + "time.sleep(60)")
    rig.on_step = lambda step: _unlist(rig)
    receipt = await rig.run(child.pid, start_time=began, grace_s=0.2)
    assert not receipt.ok and "it runs on, and SIGKILL was not sent" in (receipt.error or "")
    assert child.poll() is None and receipt.returned_bytes == 4 * GIB


async def test_the_loop_is_free_while_a_process_is_waited_for(start: Any) -> None:
    rig, child, began = start(sys.executable, "-c", IGNORES + "time.sleep(60)")
    task = asyncio.create_task(rig.run(child.pid, start_time=began, grace_s=0.3))
    longest = 0.0
    while not task.done():
        since = time.monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - since)
    assert (await task).ok and longest < 0.2


async def test_a_zombie_of_ours_is_refused_and_its_parent_named(start: Any) -> None:
    rig, child, began = start("sleep", "60")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(Refused, match=f"until its parent, process {os.getpid()} "):
        await rig.run(child.pid, start_time=began)


def test_the_audit_names_whose_process_it_is_what_it_runs_and_what_it_holds(rig: Rig) -> None:
    rig.devices = [gpu(0, listed()), gpu(1, listed(bytes=None))]
    told = rig.victims.named(KillRequest(pid=PID, start_time=START))
    assert told == (
        "process 500, started at 100.0, of ada, holds 4.00 GiB of GPU-0, unknown bytes of GPU-1: "
        "python train.py"
    )
    other = rig.victims.named(KillRequest(pid=PID, start_time=START + 1))  # the number is another's by now
    assert "on no GPU" in other and "ada" not in other and other.endswith(": python")
    assert "no such process" in rig.victims.named(KillRequest(pid=99_999, start_time=1.0))
    unknown = rig.victims.named(KillRequest(pid=99_999, start_time=None))
    assert "None" not in unknown and "started" not in unknown
