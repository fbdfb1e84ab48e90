"""Opens a recording in the console: joins the app to the recording and the person's settings."""

from __future__ import annotations

import sys

from engine.errors import InvalidRequest
from engine.paths import Paths
from engine.recording.entries import Entry, Gap, ProcessCame, ProcessWent
from engine.recording.reader import Recording
from engine.recording.tiers import CONTEXT_S
from engine.wire import JobChanged, ReceiptIssued, Snapshot
from turbotui.replay.app import ReplayApp
from turbotui.replay.client import ReplayClient
from turbotui.replay.clock import ReplayClock
from turbotui.settings import load_console


def open_replay(
    paths: Paths, recording: Recording, since: float, until: float, *, speed: float, where: str | None = None
) -> int:
    """Show the stretch until the person leaves it, and give the exit code.

    Raises:
        InvalidRequest: there is no terminal to show it on.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest("the replay needs a terminal; `turbotui report` does not")
    settings = load_console(paths.config_file, speak=True)
    config = settings.config
    since = known_from(recording, since, until)
    clock = ReplayClock(since, until, speed=speed)
    events = tuple(entry.at for entry in recording.entries(since, until) if is_event(entry))
    app = ReplayApp(
        lambda: ReplayClient(recording, clock),
        clock=clock,
        events=events,
        theme=config.theme,
        language=config.language,
        keys=config.keys,
        problems=settings.problems,
        mouse=config.mouse,
        config_dir=paths.config,
        recordings=recording.path,
        where=where,
        symbols=config.symbols,
    )
    app.run(mouse=config.mouse)
    return app.return_code or 0


def known_from(recording: Recording, since: float, until: float) -> float:
    """`since`, or the first moment after it of which is known how everything stood.

    Where that is known at no moment of the stretch, the memory alone is shown from `since` on.
    """
    entries = recording.entries(since - CONTEXT_S, until)
    return max(since, next((entry.at for entry in entries if isinstance(entry.what, Snapshot)), since))


def is_event(entry: Entry) -> bool:
    """Whether a person would jump to it: something began, ended, came or went."""
    what = entry.what
    if isinstance(what, JobChanged):
        return what.job.progress is None or what.job.finished_at is not None
    if isinstance(what, ProcessCame):
        return not what.already
    return isinstance(what, (ReceiptIssued, ProcessWent, Gap))
