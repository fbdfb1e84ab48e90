"""Owns the marks on the graph's time axis: what happened, and by which event that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.wire import DeviceProcess, DeviceStatus, Job, LogLine, Receipt

MARKS = 200
"""That are kept."""
OTHER_SYMBOL = "•"
"""Of an action that a newer engine knows."""
FOUND_SYMBOL = "?"
_END_SYMBOLS = {"done": "■", "cancelled": "x"}
_RECEIPT_SYMBOLS = {
    "load": "▲",
    "unload": "▽",
    "switch": "⇄",
    "free": "▽",
    "swap": "⇄",
    "park": "▽",
    "cleanup": "↻",
    "full_cleanup": "↻",
    "reset": "↻",
    "warm": "◌",
    "drop_warm": "◌",
    "kill": "✕",
}
_LINE_SYMBOLS = {"check": (FOUND_SYMBOL, "mark.found"), "oom": ("!", "mark.oom")}
"""Of lines of the log that nothing else tells: what a check found that is new, memory that ran out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Something that happened, for the graph's time axis."""

    at: float
    symbol: str
    word: str = ""
    """Key of the sentence that says what it was; `turbotui.past.marks` fills it in."""
    what: str = ""
    """Whom or what it was about: a job and its model, a target, a process."""


def with_marks(marks: tuple[Mark, ...], more: list[Mark]) -> tuple[Mark, ...]:
    """`marks` and those of `more` that are new, the newest `MARKS` of them."""
    new = [mark for mark in more if mark not in marks]
    return (*marks, *new)[-MARKS:] if new else marks


def job_marks(old: Job | None, job: Job) -> list[Mark]:
    """That a job began or ended since it was `old`."""
    found = []
    what = f"{job.id} {job.spec.model}"
    if job.started_at is not None and (old is None or old.started_at != job.started_at):
        found.append(Mark(at=job.started_at, symbol="▶", word="mark.job_began", what=what))
    if job.finished_at is not None and (old is None or old.finished_at != job.finished_at):
        if job.error and job.status in ("failed", "interrupted"):
            what += f": {job.error}"
        symbol = _END_SYMBOLS.get(job.status, "!")
        found.append(Mark(at=job.finished_at, symbol=symbol, word=f"mark.job_{job.status}", what=what))
    return found


def receipt_marks(receipt: Receipt, wall: float) -> list[Mark]:
    """What was done; what failed is marked as a failure."""
    symbol = _RECEIPT_SYMBOLS.get(receipt.action, OTHER_SYMBOL) if receipt.ok else "!"
    what = receipt.target if receipt.ok else f"{receipt.target}: {receipt.error or 'failed'}"
    return [Mark(at=receipt.at or wall, symbol=symbol, word=f"receipt.did_{receipt.action}", what=what)]


def line_marks(line: LogLine) -> list[Mark]:
    """What is told by the log alone."""
    known = _LINE_SYMBOLS.get(line.event.lower())
    if known is None or line.level == "info":
        return []
    symbol, word = known
    return [Mark(at=line.at, symbol=symbol, word=word, what=line.text)]


def process_marks(old: DeviceStatus | None, device: DeviceStatus, wall: float) -> list[Mark]:
    """Who came to a device and who went, of those that are not ours."""
    if old is None or old.processes == device.processes:
        return []
    before = {(one.pid, one.start_time): one for one in old.processes if one.ours is None}
    after = {(one.pid, one.start_time): one for one in device.processes if one.ours is None}
    came = [came_mark(after[key], wall) for key in after if key not in before]
    return came + [went_mark(before[key], wall) for key in before if key not in after]


def came_mark(process: DeviceProcess, at: float) -> Mark:
    return Mark(at=at, symbol="+", word="mark.came", what=process_name(process))


def went_mark(process: DeviceProcess, at: float) -> Mark:
    return Mark(at=at, symbol="-", word="mark.went", what=process_name(process))


def process_name(process: DeviceProcess) -> str:
    """Owner, pid and command."""
    return f"{process.user or '?'} {process.pid} {process.command or process.name}"
