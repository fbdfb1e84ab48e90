"""Proof by files: whether an attempt whose end nobody recorded left a complete video.

After a crash between writing the file and committing the row the truth is on disk; this looks,
and never invents "done".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from engine.wire import Manifest

MANIFEST_LIMIT_BYTES = 4 * 2**20


def manifest_path(output: str) -> str:
    """Where the manifest of the video `output` lies: the same name with `.json`."""
    return str(Path(output).with_suffix(".json"))


def find_proof(*, job_id: int, attempt: int, output: str, manifest: str) -> Manifest | None:
    """The attempt's manifest if it is whole and its video lies there with the size it names, else None."""
    try:
        with open(os.open(manifest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            text = file.read(MANIFEST_LIMIT_BYTES)
        found = msgspec.json.decode(text, type=Manifest)
        video = os.lstat(output)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    whole = (
        found.job_id == job_id
        and found.attempt == attempt
        and found.output == output
        and stat.S_ISREG(video.st_mode)
        and video.st_size == found.output_bytes > 0
    )
    return found if whole else None
