"""The baseline check of a real engine without a GPU, and of what an engine that is gone left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.wire import EventFrame, FindingsChanged
from tests.daemon.live import LiveEngine, wait_for
from turbotui.client.base import Stream

LEFTOVER = """
import ctypes, sys, time
ctypes.CDLL(None).prctl(15, b"tt-worker", 0, 0, 0)
print("named", flush=True)
time.sleep(60)
"""


@pytest.fixture
def leftover() -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose engine is gone: its title, our uid, and an engine that it was to end with."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    child = subprocess.Popen(
        [sys.executable, "-c", LEFTOVER],
        stdout=subprocess.PIPE,
        env={**os.environ, "_TURBOTUI_PARENT": str(gone.pid)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"named\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_clean_engine_has_no_finding_and_a_check_takes_less_than_a_second(live: LiveEngine) -> None:
    wait_for(lambda: live.status().devices, 20, "a reading")
    began = time.monotonic()
    report = live.client.check()
    assert time.monotonic() - began < 1.0 and report.elapsed_s < 1.0
    # Other engines of this user may run on the host; none of theirs is an orphan either.
    assert report.findings == () and report.unknown == () and report.clean_at == report.at


def test_a_leftover_is_told_once_and_with_a_command_that_ends_only_it(
    live: LiveEngine, leftover: subprocess.Popen[bytes]
) -> None:
    events: list[FindingsChanged] = []

    def take(frame: EventFrame) -> None:
        if isinstance(frame.event, FindingsChanged):
            events.append(frame.event)

    streams: list[Stream] = []
    listening = threading.Thread(
        target=lambda: live.client.subscribe(take, on_open=streams.append), daemon=True
    )
    listening.start()
    wait_for(lambda: streams, 5, "a stream")
    first = live.client.check()
    (found,) = (finding for finding in first.findings if finding.pid == leftover.pid)
    assert found.kind == "orphan" and "kill -9" not in (found.remedy_command or "")
    again = live.client.check()
    assert [finding.new for finding in again.findings if finding.pid == leftover.pid] == [False]
    wait_for(lambda: events, 5, "an event")
    lines = [line for line in live.client.logs(limit=5000) if line.event == "check"]
    assert len([line for line in lines if str(leftover.pid) in line.text]) == 1
    assert leftover.poll() is None, "a check touches nothing"
    leftover.kill()
    leftover.wait()
    assert live.client.check().findings == ()
    streams[0].close()
    listening.join(5)
    kept = json.loads((live.paths.state / "findings.json").read_bytes())
    assert any(str(leftover.pid) in entry["key"] for entry in kept["entries"])


def test_the_commands_tell_of_a_real_engine(live: LiveEngine, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "turbotui", *words]
        return subprocess.run(
            command, env=live.environ, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    checked = run("check", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["findings"] == []
    assert live.process is not None
    assert run("watch", str(os.getpid())).returncode == 4
