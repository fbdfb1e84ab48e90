"""What a component's weights and configuration are, wherever they lie.

The released models of a family come with the same text encoder and VAE. Where two components are
surely the same, one can have the other's device memory, and nothing has to be moved for it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

BLOB = re.compile(r"[0-9a-f]{64}")
"""The names that a download cache gives to files: the digest of their bytes."""


def content_of(config: Path, weights: Iterable[Path]) -> str:
    """Equal only for components whose weights and configuration are equal byte for byte.

    Links to one file are one. A copy of it is another, since finding out would read all of it.

    Raises:
        OSError: one of them cannot be looked at.
    """
    digest = hashlib.sha256(config.read_bytes())
    for path in weights:
        real = Path(os.path.realpath(path))
        info = os.stat(real)
        if BLOB.fullmatch(real.name):
            told: tuple[object, ...] = (real.name, info.st_size)
        else:
            told = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
        digest.update(repr((path.name, told)).encode())
    return digest.hexdigest()
