"""Owns what the command and the screen say alike of leaks: holders' paths, promises, files of snapshots."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from engine.errors import InvalidRequest
from turbotui.text.spoken import spoken

if TYPE_CHECKING:
    from engine.wire import Holder, LeakReport, Remedy, Verdict

AT_LEAST = ("cleanup", "park", "collect")
"""Remedies with which more than the verdict's own bytes goes: all cycles, or all that a worker has kept."""
FORMATS: dict[str, Literal["json", "pickle"]] = {".json": "json", ".pickle": "pickle", ".pkl": "pickle"}
"""Of a snapshot, by its file's suffix."""

NONE_RUNS = "the worker: none runs"
"""How a report says that there is none to look into."""
SHOWN_BELOW = re.compile("It is reached by |The holder is written at |It was allocated at ")
"""How sentences of the evidence begin that say what the holder's path and the site show."""


def evidence(verdict: Verdict) -> tuple[str, ...]:
    """Its sentences in the person's language, without what its holder and its site show by themselves."""
    shown = verdict.holder is not None or verdict.site is not None
    return tuple(
        spoken(sentence) for sentence in verdict.evidence if not (shown and SHOWN_BELOW.match(sentence))
    )


def holder_steps(holder: Holder) -> tuple[str, ...]:
    """From the root to the tensor, in the person's language; names stay as they are written."""
    return tuple(map(spoken, holder.path))


def fix_command(number: int) -> str:
    """What runs the remedy of the verdict of this number."""
    return f"turbotui leaks --fix {number}"


def unseen(report: LeakReport) -> bool:
    """Whether a worker runs that could not be looked into: that no leak was found says little then."""
    told = [reason for reason in report.unknown if reason.startswith("the worker: ")]
    return bool(told) and not any(reason.startswith(NONE_RUNS) for reason in told)


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
