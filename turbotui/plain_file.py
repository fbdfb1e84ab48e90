"""Opens a file that a person named: never waits for what is none, such as a pipe that nobody writes to."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from engine.errors import InvalidRequest


def open_plain(path: Path) -> tuple[BufferedReader, int]:
    """The regular file at `path`, to be read, and its size in bytes.

    Raises:
        InvalidRequest: it is a folder, a pipe, a device.
        OSError, ValueError: it cannot be opened, or that is no path.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidRequest(f"{path} is no regular file; give the path of one")
        return open(handle, "rb"), info.st_size
    except BaseException:
        os.close(handle)
        raise
