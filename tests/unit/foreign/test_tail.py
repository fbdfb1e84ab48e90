"""Following a file, whatever its bytes are and whatever becomes of it."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from turbotui.foreign.follow import KEPT_CHARACTERS, Follower
from turbotui.foreign.splitting import LINE_BYTES, Splitter
from turbotui.foreign.tail import BEHIND_BYTES, FIRST_BYTES, ForeignLine, Tail

CHINESE = "显存占用：23.1/48.0 GB\n模型加载成功\n模型\n"


def texts(splitter: Splitter, data: bytes, *, by: int = 7) -> list[str]:
    """`data` through a splitter in small pieces."""
    return [line.text for at in range(0, len(data), by) for line in splitter.feed(data[at : at + by])]


@pytest.mark.parametrize("by", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "data",
    [
        CHINESE.encode(), CHINESE.encode("gbk"), b"\xef\xbb\xbf" + CHINESE.encode(),
        b"\xff\xfe" + CHINESE.encode("utf-16-le"), b"\xfe\xff" + CHINESE.encode("utf-16-be"),
        CHINESE.replace("\n", "\r\n").encode("gbk"),
    ],
    ids=["utf-8", "gbk", "utf-8-bom", "utf-16-le", "utf-16-be", "gbk-crlf"],
)  # fmt: skip
def test_each_encoding_is_found_by_trial_in_pieces_of_any_size(data: bytes, by: int) -> None:
    assert texts(Splitter(), data, by=by) == CHINESE.splitlines()


def test_the_encoding_may_change_when_the_program_is_started_again() -> None:
    line = "上：显存占用 23.1 GB\n"
    data = line.encode() + line.encode("gbk") + b"\xff\xfe" + line.encode("utf-16-le") * 2
    data += b"[INFO] plain again\n" + line.encode("gbk") + "A\nBCDEFGH\n".encode("utf-16-le") + line.encode()
    expected = line.strip()
    assert texts(Splitter(), data) == [
        expected, expected, expected, expected, "[INFO] plain again", expected, "A", "BCDEFGH", expected,
    ]  # fmt: skip


def test_what_may_be_either_is_read_as_its_neighbours_are() -> None:
    short = "模\n"  # valid as UTF-8 too, in its GBK bytes
    splitter = Splitter()
    assert texts(splitter, short.encode("gbk") + "模型加载成功\n".encode("gbk"), by=100) == [
        "模",
        "模型加载成功",
    ]
    assert texts(splitter, short.encode("gbk")) == ["模"]
    assert texts(Splitter(), "é\n显存\n".encode(), by=100) == ["é", "显存"]


def test_bars_colours_and_nuls_leave_what_a_terminal_would_show() -> None:
    splitter = Splitter()
    data = (
        b"\0" * 5000 + b"\x1b[31mred\x1b[0m\x1b]0;title\x07 end\0\n" + b" 10%\r 20%\r100% done\r\n" + b"\tx\n"
    )
    assert texts(splitter, data, by=999) == ["red end", "100% done", "    x"]
    assert texts(splitter, b" 10%\r 20%\r") == [] and splitter.unfinished is not None
    assert splitter.unfinished.text == " 20%"
    assert texts(splitter, b"\nnext\n") == [" 20%", "next"]


def test_a_line_without_end_is_kept_to_its_bound_and_counted() -> None:
    splitter = Splitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 1000) == []
    (line, after) = splitter.feed(b"y\nz\n")
    assert len(line.text) == LINE_BYTES and line.cut_bytes == 100_001 - LINE_BYTES and after.text == "z"
    assert after.cut_bytes == 0
    (whole,) = Splitter().feed("显".encode() * 40_000 + b"\n")
    assert set(whole.text) == {"显"} and whole.cut_bytes == 120_000 - LINE_BYTES
    wide = Splitter()
    wide.begin(b"\xff\xfe", at_start=False)
    data = ("显" * 40_000 + "\nz\n").encode("utf-16-le")
    assert [line.text[-1] for at in range(0, len(data), 999) for line in wide.feed(data[at : at + 999])] == [
        "显",
        "z",
    ]


class Rig:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "webui_startup_latest.log"
        self.tail = Tail(self.path)

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def read(self) -> list[str]:
        found: list[ForeignLine] = []
        more = True
        while more:
            lines, more = self.tail.read()
            found += lines
        return [line.text or f"<{line.note}>" for line in found]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_rotation_loses_no_line(rig: Rig) -> None:
    rig.write("one\n")
    assert rig.read() == ["one"]
    with rig.path.open("a") as old:
        os.rename(rig.path, rig.path.with_suffix(".1"))
        old.write("two\n")
        old.flush()
        rig.write("three\n")
        assert rig.read() == ["two", "<rotated>", "three"]


def test_a_file_that_is_emptied_or_written_anew_is_read_from_its_beginning(rig: Rig) -> None:
    rig.write("one\ntwo\n")
    assert rig.read() == ["one", "two"]
    rig.path.write_text("a\n")
    assert rig.read() == ["<emptied>", "a"]
    rig.path.write_text("as long as it was\n" * 9)
    assert rig.read()[0] == "<emptied>"


def test_a_file_that_goes_and_comes_back_is_said_and_read_on(rig: Rig) -> None:
    assert rig.read() == [] and rig.tail.problem == "No such file or directory"
    rig.write("one\n")
    assert rig.read() == ["one"] and rig.tail.problem is None
    rig.path.unlink()
    assert rig.read() == ["<gone>"] and rig.tail.problem is not None
    assert rig.read() == []
    rig.write("two\n")
    assert rig.read() == ["<back>", "two"] and rig.tail.problem is None


def test_ten_gigabytes_cost_what_their_end_does(rig: Rig) -> None:
    line = b"2026-01-15 14:03:22 [INFO] GPU Memory: 23.1/48.0 GB (48.1% used)\n"
    with rig.path.open("wb") as file:
        file.truncate(10 * 2**30)  # a hole: no disk is used
        file.seek(0, 2)
        file.write(line * 20_000)
    tracemalloc.start()
    before = time.perf_counter()
    lines = rig.read()
    took, peak = time.perf_counter() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines[0] == "<older>" and len(set(lines[1:])) == 1
    assert len(lines) == pytest.approx(FIRST_BYTES / len(line), abs=3)
    assert took < 5 and peak < 40 * 2**20
    with rig.path.open("ab") as file:
        file.write(line * (BEHIND_BYTES // len(line) + 100))
    assert rig.read()[0] == "<skipped>"


@pytest.mark.parametrize("kind", ["folder", "pipe", "denied"])
def test_what_is_no_file_is_named_and_holds_nobody(rig: Rig, kind: str) -> None:
    if kind == "folder":
        rig.path.mkdir()
    elif kind == "pipe":
        os.mkfifo(rig.path)
    else:
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        rig.write("x")
        rig.path.chmod(0)
    assert rig.read() == [] and rig.tail.problem


def test_a_follower_keeps_the_newest_within_bounds_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("")
    follower = Follower(path, poll_s=0.01)
    try:
        deadline = time.monotonic() + 5
        while follower.reading and time.monotonic() < deadline:
            time.sleep(0.01)
        with path.open("a") as file:
            for number in range(400):
                file.write(f"{number} " + "x" * 10_000 + "\n")
            file.write("half")
        while time.monotonic() < deadline:
            lines = follower.lines()
            if lines and lines[-1][1].text.startswith("399") and follower.unfinished:
                break
            time.sleep(0.01)
        assert follower.unfinished is not None and follower.unfinished.text == "half"
        lines = follower.lines()
        assert sum(len(line.text) for _seq, line in lines) <= KEPT_CHARACTERS
        assert [seq for seq, _line in lines] == list(range(lines[0][0], lines[-1][0] + 1))
    finally:
        follower.close()
