"""Owns which keys a job's page offers: those that can act on the job as it is, as many as have room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.actions import BY_ID
from turbotui.text import t
from turbotui.widgets.lines import width_of

if TYPE_CHECKING:
    from engine.wire import Job
    from turbotui.app import TurboApp
    from turbotui.widgets.lines import View

WAITING = ("queued", "waiting_memory")
RETRIED = ("failed", "cancelled", "interrupted")
"""What an engine takes up once more."""


def able(job: Job, *, remote: bool) -> tuple[str, ...]:
    """Ids of the actions that would do something, the first to be told first."""
    found = []
    if job.status == "done" and job.output:
        found += ["video", "fetch"] if remote else ["video"]
    if job.status in (*WAITING, "running"):
        found.append("cancel")
    if job.status in WAITING:
        found.append("hold")
    if job.status in RETRIED:
        found.append("retry")
    return (*found, "copy", "duplicate", "edit_again")


def keys_below(app: TurboApp, view: View, job: Job | None, cells: int, *, large: bool) -> str:
    """What stands in the frame, in at most `cells`: `esc` is last, and the one that always has its place."""
    back = t("job.key_back")
    told = ["z " + t("job.key_small")] if large else []
    if job is not None and not large:
        for name in able(job, remote=app.box is not None):
            if app.why_not(BY_ID[name], view.look) is None:
                word = t("job.key_release" if name == "hold" and job.held else f"job.key_{name}")
                told.append(f"{app.key_of(name)} {word}")
    for gap in ("  ", " "):
        if width_of(gap.join([*told, back])) <= cells:
            return gap.join([*told, back])
    while told and width_of(" ".join([*told, back])) > cells:
        del told[-1]
    return " ".join([*told, back])
