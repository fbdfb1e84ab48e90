"""The audit log: whole lines or none, in order, on the disk before the deed, and never in anybody's way."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.daemon import audit as module
from engine.daemon.audit import Asker, AuditLog
from engine.errors import Refused
from engine.wire import Receipt

DONE = Receipt(action="kill", target="x", ok=True, elapsed_s=0.1, proof="nvml-process")


class Rig:
    def __init__(self, tmp_path: Path) -> None:
        self.problems: list[str] = []
        self.path = tmp_path / "audit.jsonl"
        self.audit = AuditLog(self.path, on_problem=self.problems.append)

    def results(self) -> list[str]:
        return [msgspec.json.decode(line)["result"] for line in self.path.read_bytes().splitlines()]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_it_is_ours_alone_bounded_and_not_to_be_forged(tmp_path: Path) -> None:
    problems: list[str] = []
    audit = AuditLog(tmp_path / "audit.jsonl", max_bytes=600, on_problem=problems.append)
    for number in range(20):
        audit.write("kill", f'process {number}\n{{"action":"forged"}}\x1b[2J', "asked", None)
    assert await audit.kept()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["audit.jsonl", "audit.jsonl.1"]
    for name in files:
        text = (tmp_path / name).read_text()
        assert len(text) <= 600 and "\x1b" not in text
        assert all('"action":"kill"' in line for line in text.splitlines())
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    (tmp_path / "audit.jsonl").unlink()
    os.symlink(tmp_path / "elsewhere", tmp_path / "audit.jsonl")
    audit.write("kill", "x", "asked", None)
    await audit.kept()
    assert len(problems) == 1 and not (tmp_path / "elsewhere").exists()


async def test_a_disk_that_takes_half_a_line_keeps_none_of_it_and_is_told_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.audit.write("kill", "x", "first", None)
    await rig.audit.kept()
    write, room = os.write, [20, 0, 20, 0]

    def short(fd: int, data: bytes) -> int:
        if not room:
            return write(fd, data)
        if (left := room.pop(0)) == 0:
            raise OSError(28, "No space left on device")
        return write(fd, data[:left])

    monkeypatch.setattr(module.os, "write", short)
    for result in ("lost", "lost too", "kept"):
        rig.audit.write("kill", "x", result, None)
    await rig.audit.kept()
    await asyncio.sleep(0)
    assert rig.results() == ["first", "kept"]
    assert "No space left" in rig.problems[0] and "2 lines before it are not kept" in rig.problems[1]
    assert len(rig.problems) == 2


async def test_a_line_that_was_torn_by_a_death_gets_an_end_of_its_own(rig: Rig) -> None:
    rig.path.write_bytes(b'{"at":1.0,"action":"ki')
    rig.audit.write("kill", "x", "whole", None)
    await rig.audit.kept()
    lines = rig.path.read_bytes().splitlines()
    assert lines[0] == b'{"at":1.0,"action":"ki' and msgspec.json.decode(lines[1])["result"] == "whole"


async def test_the_asking_is_on_the_disk_before_the_deed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(module.os, "fsync", lambda fd: (synced.append(fd), sync(fd)))

    async def work() -> Receipt:
        assert rig.results() == ["asked"] and synced
        return DONE

    assert await rig.audit.deed("kill", "x", Asker(uid=5, pid=6), work) == DONE
    await rig.audit.kept()
    assert rig.results() == ["asked", "done"]


async def test_a_refusal_is_kept_also_after_the_caller_has_gone(rig: Rig) -> None:
    go = asyncio.Event()

    async def work() -> Receipt:
        await go.wait()
        raise Refused("it is another user's")

    asked = asyncio.create_task(rig.audit.deed("kill", "x", None, work))
    await asyncio.sleep(0.05)
    asked.cancel()
    await asyncio.wait({asked})
    go.set()
    await asyncio.sleep(0.01)
    await rig.audit.kept()
    assert rig.results() == ["asked", "refused: it is another user's"]


async def test_a_disk_that_hangs_holds_neither_the_loop_nor_the_deed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.1)
    answers = threading.Event()
    append = module.append_line

    def hang(*args: Any, **kwargs: Any) -> None:
        answers.wait(10)
        append(*args, **kwargs)

    monkeypatch.setattr(module, "append_line", hang)

    async def work() -> Receipt:
        return DONE

    began = time.monotonic()
    for _ in range(2):
        assert await rig.audit.deed("kill", "x", None, work) == DONE
    assert time.monotonic() - began < 2
    assert len(rig.problems) == 1 and "not written within" in rig.problems[0]
    answers.set()
    assert await rig.audit.kept()
    assert rig.results() == ["asked", "done", "asked", "done"]
