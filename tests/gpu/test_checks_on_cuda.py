"""The baseline check on a real GPU, against processes that these tests start themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.wire import CheckReport, Finding, KillRequest
from tests.daemon.live import LiveEngine, wait_for
from tests.gpu.conftest import HOLDER
from tests.gpu.test_kill_on_cuda import GIB, shown
from turbotui.subcommands.follow import Follower, Moved, follow

TITLED = "import ctypes; ctypes.CDLL(None).prctl(15, b'tt-worker', 0, 0, 0)\n" + HOLDER


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Starts a script that holds 1 GiB of the first GPU, by its path; ends it afterwards.

    It is marked as tied to an engine that has ended.
    """
    started: list[subprocess.Popen[str]] = []
    ended = subprocess.Popen(["true"])
    ended.wait()
    environ = {**os.environ, "_TURBOTUI_PARENT": str(ended.pid)}

    def start(path: str, code: str) -> subprocess.Popen[str]:
        script = tmp_path / path
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(code)
        process = subprocess.Popen(
            [sys.executable, str(script), "x"], stdout=subprocess.PIPE, text=True, env=environ
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline().strip() == "holds"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def check(live: LiveEngine) -> CheckReport:
    report = live.client.check()
    print(report)
    assert report.elapsed_s < 1.0
    return report


def about(report: CheckReport, pid: int) -> list[Finding]:
    return [finding for finding in report.findings if finding.pid == pid]


def test_an_engine_at_rest_has_nothing_worse_than_info_of_its_own(live: LiveEngine) -> None:
    wait_for(lambda: live.status().devices, 20, "a reading")
    ours = ("orphan", "residue", "fragmented", "allocator", "cudnn", "nursery", "nursery_driver", "probe")
    assert [finding for finding in check(live).findings if finding.kind in ours] == []


def test_an_orphaned_worker_is_found_with_its_bytes_and_its_remedy_works(
    live: LiveEngine, hold: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    process = hold("worker.py", TITLED)
    seen = wait_for(lambda: shown(live, process.pid), 5, "the process on the card")
    (found,) = about(check(live), process.pid)
    assert found.kind == "orphan" and found.severity == "warning"
    assert found.bytes is not None and found.bytes >= GIB
    assert found.remedy_command == f"turbotui kill {process.pid}"
    assert live.client.kill(KillRequest(pid=process.pid, start_time=seen.start_time)).ok
    wait_for(lambda: shown(live, process.pid) is None or None, 5, "its line to go")
    assert about(check(live), process.pid) == []


def test_a_web_ui_is_named_and_followed_to_its_end_and_no_leftover_while_its_parent_lives(
    live: LiveEngine, hold: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    process = hold("ComfyUI/main.py", HOLDER)
    seen = wait_for(lambda: shown(live, process.pid), 5, "the process on the card")
    assert seen.program == "ComfyUI"
    assert about(check(live), process.pid) == []
    told: list[Moved] = []
    follower = Follower(pid=process.pid, tell=told.append)
    following = threading.Thread(target=lambda: follow(live.client, follower), daemon=True)
    following.start()
    wait_for(lambda: told, 5, "a line")
    process.kill()
    process.wait()
    following.join(10)
    print(told)
    assert follower.ended and told[-1].left
    assert told[-1].came_back_bytes is not None and told[-1].came_back_bytes >= GIB
