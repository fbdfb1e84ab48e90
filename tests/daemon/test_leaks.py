"""The search for leaks in a real engine without a GPU: its report, its remedies and their receipts."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import InvalidRequest, NotFound, NotNow
from engine.wire import JobSpec, LeakReport, Remedy, RemedyRequest, SwitchRequest, Verdict
from tests.daemon.live import LiveEngine, wait_for

LEFTOVER = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"tt-worker", 0, 0, 0)
held = b"x" * (32 << 20)
print("named", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def loaded(live: LiveEngine) -> LiveEngine:
    """The engine with a worker that has a model and has run a job."""
    live.client.switch(SwitchRequest(model="wan-demo-small"))
    live.run(JobSpec(model="wan-demo-small", prompt="leaks", frames=5, steps=1))
    return live


@pytest.fixture
def leftover() -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose engine is gone, with host memory of its own."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    child = subprocess.Popen(
        [sys.executable, "-c", LEFTOVER],
        stdout=subprocess.PIPE,
        env={**os.environ, "_TURBOTUI_PARENT": str(gone.pid)},
    )
    assert child.stdout is not None and child.stdout.readline() == b"named\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def leaks_of(report: LeakReport) -> list[Verdict]:
    return [verdict for verdict in report.verdicts if verdict.leak]


def test_a_clean_engine_has_no_leak_and_a_report_takes_two_seconds_at_the_most(loaded: LiveEngine) -> None:
    began = time.monotonic()
    report = loaded.client.leaks()
    assert time.monotonic() - began < 2.5 and report.elapsed_s < 2.0
    assert leaks_of(report) == [], report.verdicts
    told = any(trend.bytes_each is not None for trend in report.trends)
    # The engine is shared: how many jobs ran before is not known here.
    assert told or any(unknown.startswith("growth: ") for unknown in report.unknown), report


def test_each_small_remedy_is_done_by_the_worker_and_told_with_its_proof(loaded: LiveEngine) -> None:
    for action in ("collect", "trim", "free"):
        remedy = Remedy(action=action, text="", predicted_bytes=None)  # type: ignore[arg-type]
        result = loaded.client.remedy(RemedyRequest(remedy=remedy))
        assert result.receipt.ok and result.receipt.action == action
        assert result.returned_bytes is not None and result.receipt.proof == "process-rss"
        assert result.kept is None, "nothing was promised"
    empty = loaded.client.remedy(RemedyRequest(remedy=Remedy(action="free_pinned", text="")))
    assert not empty.receipt.ok and "no GPU" in (empty.receipt.error or "") and empty.kept is False


def test_an_unload_gives_back_what_it_predicted(loaded: LiveEngine) -> None:
    loaded.client.switch(SwitchRequest(model="wan-demo-small"))
    component = next(
        part
        for model in loaded.status().models
        if model.name == "wan-demo-small"
        for part in model.components
        if part.state == "resident"
    )
    target = f"wan-demo-small/{component.name}"
    remedy = Remedy(action="unload", text="", target=target, predicted_bytes=component.bytes)
    result = loaded.client.remedy(RemedyRequest(remedy=remedy))
    assert result.receipt.ok and result.receipt.target == target
    assert result.kept is True, (
        component.bytes,
        result.returned_bytes,
        result.receipt.residue_bytes,
        result.receipt.steps,
    )


def test_a_cleanup_is_counted_without_what_came_back(loaded: LiveEngine) -> None:
    before = loaded.worker_pid()
    remedy = Remedy(action="cleanup", text="", predicted_bytes=0)
    result = loaded.client.remedy(RemedyRequest(remedy=remedy))
    assert result.receipt.ok and loaded.worker_pid() not in (None, before)
    assert result.returned_bytes is not None
    assert result.returned_bytes < (result.receipt.returned_bytes or 0), "the fresh worker holds some itself"


def test_what_an_engine_left_behind_is_found_ended_and_nobody_else_can_be(
    live: LiveEngine, leftover: subprocess.Popen[bytes]
) -> None:
    (found,) = (one for one in leaks_of(live.client.leaks()) if f"process {leftover.pid}" in one.title)
    assert found.kind == "orphan" and found.remedy is not None
    other = Remedy(action="kill", text="", pid=leftover.pid, start_time=1.0)
    with pytest.raises(NotNow):
        live.client.remedy(RemedyRequest(remedy=other))
    mine = Remedy(action="kill", text="", pid=os.getpid(), start_time=1.0)
    with pytest.raises(NotNow):
        live.client.remedy(RemedyRequest(remedy=mine))
    with pytest.raises(InvalidRequest):
        live.client.remedy(RemedyRequest(remedy=Remedy(action="kill", text="", pid=leftover.pid)))
    assert leftover.poll() is None
    result = live.client.remedy(RemedyRequest(remedy=found.remedy))
    assert result.receipt.ok and (result.returned_bytes or 0) >= 32 << 20
    assert leftover.wait(5) < 0
    assert leaks_of(live.client.leaks()) == []


def test_the_command_tells_of_a_real_engine(loaded: LiveEngine, leftover: subprocess.Popen[bytes]) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "turbotui", "leaks", *words]
        return subprocess.run(command, env=loaded.environ, capture_output=True, text=True, timeout=60)

    told = run()
    assert told.returncode == 7, told.stderr
    found = re.search(r"^(\d+)\. leak, orphan: A worker of an engine that is gone", told.stdout, re.M)
    assert found is not None and f"--fix {found[1]}" in told.stdout, told.stdout
    assert run("--fix", found[1]).returncode == 2, "there is no terminal to ask on"
    fixed = run("--fix", "all", "--yes", "--json")
    assert fixed.returncode == 0, fixed.stderr
    (result,) = json.loads(fixed.stdout)
    assert result["receipt"]["ok"] and result["remedy"]["pid"] == leftover.pid
    wait_for(lambda: leftover.poll() is not None, 5, "its end")
    clean = run("--json")
    assert clean.returncode == 0 and json.loads(clean.stdout)["tracing"]["on"] is False


def test_a_job_that_runs_out_of_memory_leaves_a_report_and_the_worker_works_on(loaded: LiveEngine) -> None:
    loaded.run(JobSpec(model="wan-demo-small", prompt="warm", frames=5, steps=1))
    pid = loaded.worker_pid()
    assert pid is not None
    vast = resource.prlimit(pid, resource.RLIMIT_AS)
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    # What is left is less than one of the decoder's tensors, and enough for a thread's stack.
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 24 * 2**20, vast[1]))
    try:
        failed = loaded.run(
            JobSpec(model="wan-demo-small", prompt="too large", resolution="112p", frames=33, steps=1)
        )
    finally:
        if loaded.worker_pid() == pid:
            resource.prlimit(pid, resource.RLIMIT_AS, vast)
    assert (failed.status, failed.error_code) == ("failed", "out_of_memory"), failed.error
    report = loaded.client.out_of_memory(failed.id)
    assert report.job_id == failed.id and report.held_bytes > 0 and report.budget_bytes > 0
    assert report.asked_bytes is not None and report.asked_bytes > 0
    assert report.lines[0].startswith(f"Job {failed.id} asked for") and len(report.lines) > 4
    assert any(part.kind == "weights" and part.bytes for part in report.parts)
    kept = loaded.paths.state / "oom" / f"{failed.id}.json"
    wait_for(kept.exists, 5, "the report's file")
    told = subprocess.run(
        [sys.executable, "-P", "-m", "turbotui", "job", "show", str(failed.id)],
        env=loaded.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert report.lines[0] in told.stdout, told.stderr
    with pytest.raises(NotFound):
        loaded.client.out_of_memory(10**6)
    assert loaded.run(JobSpec(model="wan-demo-small", prompt="again", frames=5, steps=1)).status == "done"
    assert loaded.worker_pid() == pid
