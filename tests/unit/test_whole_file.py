"""A file is written whole or stays as it was, and nothing is left beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.checks.ledger import Ledger
from engine.daemon.kept import KeptWarm
from engine.daemon.nursery import Nursery
from engine.whole_file import write_whole


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are given out when a file is synchronised, as with delayed allocation."""

    def fsync(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_file_is_replaced_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "findings.json"
    file.write_bytes(b"old")
    write_whole(file, b"new")
    assert file.read_bytes() == b"new" and file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["findings.json"]


def test_on_a_full_disk_the_old_one_stays_and_nothing_lies_beside_it(tmp_path: Path, full_disk: None) -> None:
    file = tmp_path / "findings.json"
    file.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["findings.json"]


def test_a_link_in_the_parts_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"keep")
    (tmp_path / "a.json.part").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        write_whole(tmp_path / "a.json", b"new")
    assert (tmp_path / "other").read_bytes() == b"keep"


async def test_the_ledger_the_nursery_and_what_is_kept_warm_leave_nothing_behind(
    tmp_path: Path, full_disk: None
) -> None:
    for name in ("findings.json", "nursery.json", "kept.json"):
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        Ledger(tmp_path / "findings.json", "b").write(b"new")
    said: list[str] = []
    nursery: Any = SimpleNamespace(
        _memo=tmp_path / "nursery.json", _on_log=lambda event, text: said.append(text)
    )
    await Nursery._remember(nursery, 12.5)
    assert "No space" in said[0]
    assert "No space" in (await KeptWarm(tmp_path / "kept.json").add([("a", "b")]) or "")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {
        "findings.json": b"old", "nursery.json": b"old", "kept.json": b"old"
    }  # fmt: skip
