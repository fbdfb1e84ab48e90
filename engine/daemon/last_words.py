"""What a process printed last: of the file that it prints to, the end of what is its own."""

from __future__ import annotations

import os
import re
from pathlib import Path

LINES = 2
READ_BYTES = 16_384
MOST_CHARS = 400
_NOISE = re.compile(r"nanobind: | - |\s*[~^]+\s*$|\s*$|\s+File \"|Traceback \(")
"""What libraries print at every exit, and the ways of a traceback, which are long: the file has them."""


def size_of(path: Path) -> int:
    """Bytes in it now, from where on a process that starts will print; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_words(path: Path, since: int) -> str | None:
    """The last lines printed from the byte `since` on; None where there are none, or nobody can tell."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = min(since, end)
            file.seek(max(begin, end - READ_BYTES))
            text = file.read(READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    lines = [line.strip() for line in text.splitlines() if not _NOISE.match(line)]
    told = " | ".join(lines[-LINES:])
    # The end of a traceback names the error.
    return told[-MOST_CHARS:] or None
