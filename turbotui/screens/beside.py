"""Owns reading what lies beside a video: for a thread, since its disk may hang."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.wire import Manifest

MOST_BYTES = 4 * 2**20
"""Of a manifest; the engine takes no longer one for proof either."""


def read_manifest(path: str) -> Manifest | None:
    """The manifest at `path`; None when it is gone, is no regular file, or was written by another build."""
    import msgspec

    from engine.wire import Manifest

    try:
        # A pipe would otherwise wait for somebody to write.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            text = file.read(MOST_BYTES)
        return msgspec.json.decode(text, type=Manifest)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
