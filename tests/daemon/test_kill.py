"""What a real engine without a GPU answers to a wish to end a process: never a signal, always a reason."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import InvalidRequest, NotFound, Refused
from engine.jobs.liveness import read_start_time
from engine.wire import KillRequest
from tests.daemon.live import LiveEngine, wait_for


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """A running engine without models."""
    engine = LiveEngine(tmp_path_factory.mktemp("engine"))
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


def refusal(engine: LiveEngine, pid: int, kind: type[Refused] = Refused, **changes: float) -> str:
    with pytest.raises(kind) as refused:
        engine.client.kill(KillRequest(pid=pid, start_time=read_start_time(pid), **changes))  # type: ignore[arg-type]
    return str(refused.value)


def test_the_engine_its_probe_nursery_and_ancestors_are_not_ended(bare: LiveEngine, tmp_path: Path) -> None:
    assert bare.process is not None
    wait_for(lambda: len(bare.status().devices) > 0, 20, "a reading")
    assert "own daemon" in refusal(bare, bare.process.pid)
    nursery = wait_for(bare.nursery_pid, 20, "a nursery")
    assert "own nursery" in refusal(bare, nursery)
    probe = wait_for(
        lambda: next((p.pid for d in bare.status().devices for p in d.processes if p.ours == "probe"), None),
        20,
        "a probe",
    )
    assert "own probe" in refusal(bare, probe)
    status = Path(f"/proc/{bare.process.pid}/status").read_text()
    parent = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    assert "runs below" in refusal(bare, parent) or parent == 1
    assert "never ended" in refusal(bare, 1)
    bare.client.hello()


def test_a_process_that_holds_no_gpu_is_left_alone_and_the_log_says_who_asked(bare: LiveEngine) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert "no GPU is read here" in refusal(bare, child.pid)
        assert "grace" in refusal(bare, child.pid, InvalidRequest, grace_s=-1)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    assert "no process" in refusal(bare, child.pid, NotFound)
    lines = [line.text for line in bare.client.logs() if line.event == "audit"]
    assert any(f"kill of process {child.pid}, asked by uid:" in line and "refused" in line for line in lines)
