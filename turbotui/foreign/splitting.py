"""Owns the way from a foreign log's bytes to lines of text, whatever encoding they are in.

Nobody says which encoding a log has, and one file may hold several: a program that is started again
under another locale appends to it. So every line is tried by itself: UTF-16 by its byte order mark or
its NULs, else UTF-8, else GBK; a line that both of the last two would take is read as its neighbours are.
A container's log is told line by line as what its program wrote, after Docker's time.
Bounded: of a line only its first `LINE_BYTES` are kept, of a progress bar only its last state.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

LINE_BYTES = 16 * 1024
"""Kept of one line; the rest is counted."""
LEAST_NARROW = 8
"""Bytes of plain text without a NUL after which UTF-16 is over."""

Wide = Literal["", "utf-16-le", "utf-16-be"]
MARKS: dict[bytes, Wide] = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_NOT_WIDE: tuple[Wide, int] = ("", 0)
UTF8_MARK = b"\xef\xbb\xbf"
_HOLE = re.compile(rb"\0{4,}")
"""What a file holds that was emptied under a program that goes on writing at its old place."""
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
)
_BAR = re.compile(r"^[^|]{0,80}\d%\|[^|]{0,400}\|[^|\[\]]{1,40}\[[^\[\]]{1,80}\](?=\s*[^\s,])")
"""A progress bar that another thread's line stands behind, since it ended none of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawLine:
    """A line as it would stand in a terminal."""

    text: str
    cut_bytes: int = 0
    """What was left out at its end."""


class Splitter:
    """Takes a file's bytes in pieces of any size and gives whole lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._dropped = 0
        """Bytes of the unfinished line that are not in `_rest`."""
        self._wide: Wide = ""
        self._neighbour = "utf-8"
        self._told = False
        """Whether a line has said which encoding it is in."""

    @property
    def unfinished(self) -> RawLine | None:
        """What stands after the last line's end, such as a progress bar; None where nothing does."""
        if not self._rest:
            return None
        if self._wide:
            text = self._rest.decode(self._wide, "replace")
        else:
            text = _decode(self._rest, self._neighbour)
        shown = _as_shown(text)
        return RawLine(text=shown, cut_bytes=self._dropped) if shown else None

    def begin(self, head: bytes, *, at_start: bool) -> None:
        """A file begins with `head`; without `at_start` it is read from somewhere behind it."""
        self._rest, self._dropped = b"", 0
        self._wide = "" if at_start else MARKS.get(head[:2], "")

    def feed(self, data: bytes) -> list[RawLine]:
        """The lines that are whole with `data`."""
        buffer = self._rest + data
        if not self._wide and b"\0\0\0\0" in buffer:
            buffer = _HOLE.sub(b"", buffer)
        found: list[tuple[bytes | str, int]] = []
        at = 0
        while at < len(buffer):
            end, step = self._line_end(buffer, at)
            line = buffer[at : min(end if end >= 0 else len(buffer), at + LINE_BYTES)]
            wide, mark = _wideness(line) if not self._wide else _NOT_WIDE
            if wide:
                self._wide, at = wide, at + mark
                continue
            if end < 0:
                break
            if not self._wide and len(line) == LINE_BYTES:
                line = buffer[at:end].rstrip(b"\r").rpartition(b"\r")[2][:LINE_BYTES]
            text: bytes | str = line.decode(self._wide, "replace") if self._wide else line
            found.append((text, self._dropped + max(0, end - at - LINE_BYTES)))
            self._dropped = 0
            at = end + step
        self._keep(buffer[at:])
        return self._decoded(found)

    def _line_end(self, buffer: bytes, at: int) -> tuple[int, int]:
        """Where the line that begins at `at` ends, -1 for nowhere, and the bytes that end it."""
        end = buffer.find(b"\n", at)
        if not self._wide:
            return end, 1
        if end >= 0 and buffer[end + 1 : end + 2] != b"\0" and _is_narrow(buffer[at:end]):
            if end + 1 == len(buffer) and buffer[at:end].isascii():
                return -1, 2  # the next byte tells
            self._wide = ""
            return end, 1
        newline = "\n".encode(self._wide)
        end = buffer.find(newline, at)
        while end >= 0 and (end - at) % 2:
            end = buffer.find(newline, end + 1)
        return end, 2

    def _keep(self, rest: bytes) -> None:
        """Hold the unfinished line, and no more of it than is shown."""
        if not self._wide and (last := rest.rfind(b"\r", 0, len(rest) - 1)) >= 0:
            rest, self._dropped = rest[last + 1 :], 0
        if len(rest) > LINE_BYTES:
            # A byte of half a UTF-16 character still waits for its other half.
            half = rest[-1:] if self._wide and len(rest) % 2 else b""
            self._dropped += len(rest) - LINE_BYTES
            rest = rest[:LINE_BYTES] + half
        self._rest = rest

    def _decoded(self, found: list[tuple[bytes | str, int]]) -> list[RawLine]:
        """The batch as text: what could be either encoding is what the line before it surely is, or
        else the first one after it.
        """
        sure = [_sure_encoding(line) if isinstance(line, bytes) else None for line, _cut in found]
        if not self._told:
            first = next((encoding for encoding in sure if encoding is not None), None)
            if first is not None:
                self._neighbour, self._told = first, True
        lines = []
        for (line, cut), encoding in zip(found, sure, strict=True):
            if encoding is not None:
                self._neighbour = encoding
            text = line if isinstance(line, str) else _decode(line, self._neighbour)
            lines.append(RawLine(text=_as_shown(text), cut_bytes=cut))
        return lines


def _wideness(line: bytes) -> tuple[Wide, int]:
    """Whether a line begins UTF-16, and how long its mark is."""
    if line[:2] in MARKS:
        return MARKS[line[:2]], 2
    if b"\0" not in line or len(line) < 4:
        return _NOT_WIDE
    even, odd = line[::2].count(0), line[1::2].count(0)
    least = max(2, len(line) // 8)
    if not even and odd >= least:
        return "utf-16-le", 0
    if not odd and even >= least:
        return "utf-16-le", 1  # its first byte belongs to the newline before
    return _NOT_WIDE


def _is_narrow(line: bytes) -> bool:
    """Whether what is read as UTF-16 has become plain text again."""
    line = line.removeprefix(UTF8_MARK).rstrip(b"\r")
    if len(line) < LEAST_NARROW or b"\0" in line:
        return False
    plain = sum(0x20 <= byte < 0x7F for byte in line)
    encoding = _sure_encoding(line)
    return encoding == "utf-8" or (encoding is None and plain >= 0.8 * len(line))


def _sure_encoding(line: bytes) -> str | None:
    """The encoding that a line can only be in; None for plain ASCII and for what may be either."""
    if line.isascii():
        return None
    text = _strict(line, "utf-8")
    if text is None:
        return "gb18030" if _strict(line, "gb18030") is not None else None
    # Of two bytes each: Latin, Greek or Cyrillic in UTF-8, and as good as any Chinese in GBK.
    either = all(ord(character) < 0x800 for character in text) and _strict(line, "gb18030") is not None
    return None if either else "utf-8"


def _strict(line: bytes, encoding: str) -> str | None:
    """`line` as `encoding`; a character that its end cuts in two is left out."""
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        if len(line) < LINE_BYTES or error.start < len(line) - 3:
            return None
        return line[: error.start].decode(encoding)


def _decode(line: bytes, neighbour: str) -> str:
    line = line.removeprefix(UTF8_MARK)
    if line.isascii():
        return line.decode("ascii")
    for encoding in (_sure_encoding(line) or neighbour, neighbour):
        if (text := _strict(line, encoding)) is not None:
            return text
    # Neither: the one that loses less.
    return min(
        (line.decode(one, "replace") for one in ("utf-8", "gb18030")), key=lambda one: one.count("\ufffd")
    )


class _Record(msgspec.Struct):
    """A line in the files of Docker's driver `json-file`."""

    log: str
    time: str = ""


def _as_shown(text: str) -> str:
    """A line as a terminal would leave it: the last state of a progress bar, no colours, no NULs."""
    if text.startswith('{"log":'):
        with suppress(msgspec.DecodeError):
            record = msgspec.json.decode(text, type=_Record)
            return f"{record.time} {_as_shown(record.log.rstrip())}".strip()
    text = text.rstrip("\r")
    if "\r" in text:
        text = next((part for part in reversed(text.split("\r")) if part.strip()), "")
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "%|" in text:
        text = _BAR.sub("", text)
    return text.translate(_GONE).rstrip()


_GONE = {0: None, 8: None, 0xFEFF: None, 9: "    "}
