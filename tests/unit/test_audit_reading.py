"""The audit log read back: askings and ends joined, pages, and files that are not what they were."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.daemon.audit import Asker, AuditEntry, AuditLog
from engine.daemon.audit_reading import read_audit
from engine.errors import Refused
from engine.telemetry.procfs import read_terminal
from engine.wire import Receipt

ME = Asker(uid=os.getuid(), pid=os.getpid())


def entry(at: float, action: str, result: str, target: str = "x", **more: object) -> bytes:
    return msgspec.json.encode(
        AuditEntry(at=at, uid=1, pid=2, action=action, target=target, result=result, **more)  # type: ignore[arg-type]
    )


async def test_a_deed_is_one_line_with_who_what_bytes_and_time(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    done = Receipt(
        action="kill", target="x", ok=True, elapsed_s=0.25, returned_bytes=2**30, proof="nvml-process"
    )

    async def work() -> Receipt:
        return done

    async def refuse() -> Receipt:
        raise Refused("it is pid 1")

    await audit.deed("kill", "process 7", ME, work)
    with pytest.raises(Refused):
        await audit.deed("kill", "process 1", ME, refuse)
    await audit.asked("reset", "GPU 0", None)
    await audit.kept()
    page = read_audit(audit.path, limit=10)
    assert [(line.action, line.target, line.state) for line in page.lines] == [
        ("reset", "GPU 0", "asked"), ("kill", "process 1", "refused"), ("kill", "process 7", "done"),
    ]  # fmt: skip
    kill = page.lines[2]
    assert (kill.bytes, kill.elapsed_s, kill.uid, kill.pid) == (2**30, 0.25, ME.uid, ME.pid)
    assert kill.program and kill.user and kill.ended_at is not None and kill.ended_at >= kill.at
    assert page.lines[0].pid is None and page.lines[0].ended_at is None
    assert page.lines[1].result == "refused: it is pid 1"


def test_lines_of_before_and_halves_of_lines_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    old = b'{"at":1.0,"uid":0,"pid":9,"action":"park","target":"worker 3","result":"asked"}'
    path.with_name("audit.jsonl.1").write_bytes(old + b"\n")
    ends = b'{"at":3.5,"uid":0,"pid":9,"action":"park","target":"worker 3","result":"done"}'
    path.write_bytes(b'{"at":2.0,"ui\n' + ends + b"\n\xff\xfe\n" + entry(5.0, "stop", "it stops") + b"\n")
    page = read_audit(path, limit=10)
    assert [(line.action, line.state, line.elapsed_s) for line in page.lines] == [
        ("stop", "done", None), ("park", "done", 2.5),
    ]  # fmt: skip
    assert page.unreadable == 2 and not page.older
    assert read_audit(tmp_path / "none.jsonl", limit=1).lines == ()


def test_pages_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"\n".join(entry(float(at), "kill", "done", f"process {at}") for at in range(1, 8)))
    first = read_audit(path, limit=3)
    assert [line.at for line in first.lines] == [7.0, 6.0, 5.0] and first.older
    rest = read_audit(path, limit=9, before=first.lines[-1].at)
    assert [line.at for line in rest.lines] == [4.0, 3.0, 2.0, 1.0] and not rest.older


def test_no_deed_of_exactly_the_same_time_is_lost_between_two_pages(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    times = (1.0, 2.0, 2.0, 2.0, 3.0)
    path.write_bytes(b"\n".join(entry(at, "kill", "done", f"process {n}") for n, at in enumerate(times)))
    first = read_audit(path, limit=2)
    assert [line.target[-1] for line in first.lines] == ["4", "3", "2", "1"] and first.older
    rest = read_audit(path, limit=2, before=first.lines[-1].at)
    assert [line.target[-1] for line in rest.lines] == ["0"] and not rest.older


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ("done", "done"), ("failed: it would not end", "failed"), ("not_found: no such process", "refused"),
        ("refused: GPU 0 is not reset", "refused"), ("ended late, done", "done"), ("asked", "asked"),
        ("its end is not known", "failed"), ("deleted 3 videos", "done"), ("no SIGKILL is sent", "done"),
    ],
)  # fmt: skip
def test_an_end_is_told_by_its_words(tmp_path: Path, result: str, state: str) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(entry(1.0, "kill", result))
    assert read_audit(path, limit=1).lines[0].state == state


def test_the_terminal_of_a_process_is_named() -> None:
    leader, follower = pty.openpty()
    name = os.ttyname(follower).removeprefix("/dev/")
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline()
        assert read_terminal(process.pid) == name
    finally:
        process.kill()
        process.communicate()
        os.close(leader)
        os.close(follower)
    assert read_terminal(2**22 + 1) is None
