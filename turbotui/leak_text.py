"""Owns what the command and the screen say alike of leaks: holders' paths, promises, files of snapshots."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from engine.errors import InvalidRequest
from turbotui.text.spoken import spoken

if TYPE_CHECKING:
    from engine.wire import Holder, Remedy

AT_LEAST = ("cleanup", "park", "collect")
"""Remedies with which more than the verdict's own bytes goes: all cycles, or all that a worker has kept."""
FORMATS: dict[str, Literal["json", "pickle"]] = {".json": "json", ".pickle": "pickle", ".pkl": "pickle"}
"""Of a snapshot, by its file's suffix."""


def holder_steps(holder: Holder) -> tuple[str, ...]:
    """From the root to the tensor, in the person's language; names stay as they are written."""
    return tuple(map(spoken, holder.path))


def at_least(remedy: Remedy) -> bool:
    """Whether what it predicts is the least that comes back."""
    return remedy.action in AT_LEAST


def snapshot_format(path: str) -> Literal["json", "pickle"]:
    """The form that the file's suffix asks for.

    Raises:
        InvalidRequest: it asks for none that there is.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in FORMATS:
        raise InvalidRequest(
            f"{path} does not tell in which form the snapshot is wanted; name it .json, which any program "
            "reads, or .pickle, which pytorch.org/memory_viz reads"
        )
    return FORMATS[suffix]
