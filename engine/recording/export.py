"""Puts a stretch of a recording into one file, to copy away."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from engine.errors import NotFound, StorageUnusable
from engine.recording.format import HEADER
from engine.recording.reader import Recording
from engine.recording.tiers import CONTEXT_S, EVENTS


def export(recording: Recording, target: Path, *, since: float | None, until: float | None) -> int:
    """Write the blocks that touch the span to `target`, as they are, and the events before it that
    say how things stood; the file's bytes.

    The file is 0600, since it holds prompts and command lines, and never replaces another one.

    Raises:
        NotFound: nothing was recorded in the span.
        StorageUnusable: the file is there already, or cannot be written.
    """
    written = 0
    try:
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(file, "wb") as out:
                out.write(HEADER)
                for frame in recording.frames(since, until):
                    written += out.write(frame.packed)
                if since is not None and written:
                    # Without what was told before it a reader would not know how things stood.
                    first = int(since * 1000)
                    for frame in recording.frames(since - CONTEXT_S, since, (EVENTS,)):
                        if frame.last_ms < first:
                            written += out.write(frame.packed)
        except OSError:
            _remove(target)
            raise
    except OSError as error:
        raise StorageUnusable(f"{target} cannot be written: {error.strerror}") from error
    if not written:
        _remove(target)
        raise NotFound("nothing was recorded in that stretch")
    return written + len(HEADER)


def _remove(target: Path) -> None:
    with contextlib.suppress(OSError):
        target.unlink()
