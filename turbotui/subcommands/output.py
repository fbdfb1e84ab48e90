"""Owns what the commands print: text for people, JSON for scripts, and complaints on stderr.

Nothing of the engine's reaches a terminal but through here, and so through `sanitize`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO
from urllib.parse import quote

import msgspec

from engine.errors import EngineError, StorageUnusable
from engine.wire import ErrorBody
from turbotui.format import cell_width, clip, pad
from turbotui.sanitize import clean, escape_json
from turbotui.text.spoken import spoken, word

PIPE_CLOSED_EXIT = 141
"""What the shell reports of a program that SIGPIPE ended, as `turbotui jobs | head -1` may."""


def say(line: str) -> None:
    """One line for people."""
    _write(sys.stdout, clean(line) + "\n")


def say_path(path: Path) -> None:
    """A file's path for people; on a terminal that knows links (OSC 8) one that can be clicked."""
    shown = clean(str(path))
    if sys.stdout.isatty():
        target = f"file://{quote(socket.gethostname())}{quote(os.fsencode(path))}"
        shown = f"\x1b]8;;{target}\x1b\\{shown}\x1b]8;;\x1b\\"
    _write(sys.stdout, shown + "\n")


def note(line: str) -> None:
    """One line on stderr: what is not the command's result."""
    _write(sys.stderr, clean(f"turbotui: {line}") + "\n")


def titles(*names: str) -> list[str]:
    """The head of a table, in the person's language."""
    return [word(name) for name in names]


def print_json(value: object) -> None:
    """A wire model (or a list of them) as an indented document in UTF-8."""
    _write_json(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_json_line(value: object) -> None:
    """A wire model on one line, for streams."""
    _write_json(msgspec.json.encode(value))


def report(error: EngineError, *, json: bool) -> int:
    """Tell an expected error, to people and with `json` to scripts too; gives its exit code."""
    if json:
        print_json(ErrorBody(code=error.code, message=str(error)))
    note(spoken(str(error)))
    return error.exit_code


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> Iterable[str]:
    """Rows as lines of aligned columns; the columns in `right` end together.

    The last column is cut to the terminal's width where stdout is one, and kept whole elsewhere.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(cell_width, column)) for column in zip(*cells, strict=True)]
    room = columns(sys.stdout)
    for row in cells:
        line = "  ".join(
            pad(cell, widths[column], "right" if column in right else "left")
            for column, cell in enumerate(row[:-1])
        )
        last = f"{line}  {row[-1]}" if line else row[-1]
        yield (clip(last, room) if room else last).rstrip()


def columns(stream: TextIO) -> int | None:
    """The width of the terminal that `stream` is; None when it is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _write_json(document: bytes) -> None:
    # JSON is UTF-8 whatever the locale says, so the bytes go past the text layer.
    text = escape_json(document.decode("utf-8")) + "\n"
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
    except OSError as error:
        _cannot_write(sys.stdout, error)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        # A terminal that cannot show a character gets a question mark, not a traceback.
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError as error:
        _cannot_write(stream, error)


def _cannot_write(stream: TextIO, error: OSError) -> NoReturn:
    """Leave quietly where nobody reads any more; else say why, such as a full disk.

    Raises:
        StorageUnusable: what is printed goes to a file that takes no more.
    """
    # Python flushes the stream once more as it ends; that must not fail again.
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), stream.fileno())
    if isinstance(error, BrokenPipeError) or stream is sys.stderr:
        raise SystemExit(PIPE_CLOSED_EXIT)
    raise StorageUnusable(
        f"what is printed cannot be written: {error.strerror}; make room or print elsewhere"
    ) from error
