"""The log's file: bounded, in order, and nobody waits for its disk."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest

from engine.daemon import log_file
from engine.daemon.log_file import LogFile


def until(true: Any) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_lines_are_in_the_file_in_their_order_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "engine.jsonl"
    file = LogFile(path, max_bytes=10_000)
    for number in range(100):
        file.write(f"line {number}")
    file.close(5)
    assert path.read_text().splitlines() == [f"line {number}" for number in range(100)]
    assert path.stat().st_mode & 0o777 == 0o600
    file.write("after the end")
    assert "after the end" not in path.read_text()


def test_three_files_and_no_more_are_kept_and_one_can_be_begun(tmp_path: Path) -> None:
    path = tmp_path / "engine.jsonl"
    file = LogFile(path, max_bytes=1000)
    for _ in range(500):
        file.write("x" * 50)
    file.write("the last one")
    file.turn_over()
    assert path.read_text() == "" and (tmp_path / "engine.jsonl.1").read_text().endswith("the last one\n")
    file.close(5)
    assert sum(entry.stat().st_size for entry in os.scandir(tmp_path)) <= 3000


def test_a_disk_that_hangs_holds_nobody_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "HANG_S", 0.05)
    monkeypatch.setattr(log_file, "WAITING_LINES", 3)
    answers = threading.Event()
    emit = RotatingFileHandler.emit

    def hang(self: RotatingFileHandler, record: Any) -> None:
        answers.wait(10)
        emit(self, record)

    monkeypatch.setattr(RotatingFileHandler, "emit", hang)
    path = tmp_path / "engine.jsonl"
    file = LogFile(path, max_bytes=10_000)
    began = time.monotonic()
    for number in range(10):
        file.write(f"line {number}")
    with pytest.raises(TimeoutError):
        file.turn_over(0.1)
    file.close(0.1)
    assert time.monotonic() - began < 1
    until(lambda: file.problem is not None and "does not answer" in file.problem)
    answers.set()
    until(lambda: "line 9" in written(tmp_path))


def written(folder: Path) -> str:
    """All that lies there; a file that is turned over just then is read the next time."""
    found = ""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found += path.read_text()
    return found


def test_a_disk_that_refuses_is_told_until_it_takes_lines_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    file = LogFile(folder / "engine.jsonl", max_bytes=10_000)
    file.write("lost")
    until(lambda: "lost: 1" in (file.problem or ""))
    assert "No such file" in (file.problem or "") and "lost: 1" in (file.problem or "")
    folder.mkdir()
    file.write("kept")
    until(lambda: file.problem is None)
    file.close(5)
    assert (folder / "engine.jsonl").read_text() == "kept\n"
