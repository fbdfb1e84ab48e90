"""Processes on a real GPU, ended on a person's word: only such as these tests have started themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from engine.errors import Refused
from engine.jobs.liveness import read_start_time
from engine.wire import DeviceProcess, KillRequest
from tests.daemon.live import LiveEngine, wait_for

GIB = 2**30


def shown(live: LiveEngine, pid: int) -> DeviceProcess | None:
    found = (process for device in live.status().devices for process in device.processes)
    return next((process for process in found if process.pid == pid), None)


def holding(live: LiveEngine, pid: int) -> DeviceProcess | None:
    """Once the reading is younger than its allocation; an older one shows the context alone."""
    process = shown(live, pid)
    return process if process is not None and (process.bytes or 0) >= GIB else None


@pytest.mark.parametrize(("kind", "grace_s"), [("polite", 5.0), ("stubborn", 0.5)])
def test_a_foreign_process_is_named_and_ended_and_its_bytes_come_back(
    live: LiveEngine, holder: Callable[[str], subprocess.Popen[str]], kind: str, grace_s: float
) -> None:
    process = holder(kind)
    seen = wait_for(lambda: holding(live, process.pid), 5, "the process and its bytes on the card")
    assert seen.ours is None
    assert seen.start_time == read_start_time(process.pid)
    receipt = live.client.kill(KillRequest(pid=process.pid, start_time=seen.start_time, grace_s=grace_s))
    print(receipt)
    assert receipt.ok, receipt.error
    assert receipt.proof == "nvml-process"
    assert receipt.returned_bytes is not None and receipt.returned_bytes >= GIB
    assert not receipt.residue_bytes
    assert process.wait(5) == (-15 if kind == "polite" else -9)
    wait_for(lambda: shown(live, process.pid) is None or None, 2, "its line to go")


def test_a_process_that_was_another_when_it_was_shown_is_left_alone(
    live: LiveEngine, holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = holder("polite")
    seen = wait_for(lambda: shown(live, process.pid), 5, "the process on the card")
    assert seen.start_time is not None
    with pytest.raises(Refused):
        live.client.kill(KillRequest(pid=process.pid, start_time=seen.start_time - 1))
    worker = live.worker_pid()
    if worker is not None:
        with pytest.raises(Refused, match="turbotui"):
            live.client.kill(KillRequest(pid=worker, start_time=read_start_time(worker)))
    assert process.poll() is None
