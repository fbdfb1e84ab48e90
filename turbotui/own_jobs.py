"""Owns which jobs this console queued, and what its last line says when one of them ends.

Those of other consoles and of the command line are their own business: the list shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import seconds
from turbotui.notices import end_text
from turbotui.text import t

if TYPE_CHECKING:
    from engine.wire import BatchQueued, Job
    from turbotui.app import TurboApp


class OwnJobs:
    """Tells of the end of what was queued here; of several ends at once together."""

    def __init__(self, app: TurboApp) -> None:
        self._app = app
        self._awaited: dict[int, float | None] = {}
        """With when each had ended before, where it was queued again under its number."""
        self._ending: set[int] = set()
        """Those that the person was told of that they end at their next step."""
        self._ended: list[Job] = []
        """Of which the person was not told yet, since another screen is before the dashboard."""
        self._jobs: tuple[Job, ...] | None = None
        """Those that were looked through last."""

    def add(self, answer: Job | BatchQueued, *, before: Job | None = None) -> None:
        """Wait for what was queued; a job of a batch that was there already is none of it.

        `before` is a job that is queued again, as it had ended: the news of that may still be the newest.
        """
        from engine.wire import BatchQueued

        ids = new_ids(answer) if isinstance(answer, BatchQueued) else [answer.id]
        self._awaited.update(dict.fromkeys(ids, None if before is None else before.finished_at))
        self._jobs = None

    def end(self, job_id: int) -> None:
        """Wait for a job that was cancelled as it ran, whoever queued it."""
        self._awaited.setdefault(job_id, None)
        self._ending.add(job_id)
        self._jobs = None

    def look(self) -> None:
        """Called with every new state, and shortly after another screen has gone."""
        jobs = self._app.link.state.jobs
        if self._awaited and jobs is not self._jobs:
            self._jobs = jobs
            for job in jobs:
                if job.id not in self._awaited or job.finished_at in (None, self._awaited[job.id]):
                    continue
                del self._awaited[job.id]
                if job.status != "cancelled" or job.id in self._ending:  # of others one is told at once
                    self._ended.append(job)
                self._ending.discard(job.id)
        # Not before the keys that are named would be the dashboard's.
        if self._ended and self._app.screen is self._app.dashboard:
            *others, last = self._ended
            self._ended = []
            more = t("notice.more", count=len(others)) if others else ""
            if last.status == "done":
                self._app.say(_done(last) + more + self._keys(last))
            elif last.status == "cancelled":
                self._app.say(t("did.cancel_cancelled", id=last.id) + more)
            else:
                self._app.say((end_text(last) or "") + more, "error")

    def _keys(self, job: Job) -> str:
        """The keys for its video, as far as they mean it where the focus is now."""
        app, commands = self._app, self._app.commands
        meant, keys = commands.whose_video(), ""
        if meant is None or not job.output:
            return ""
        if meant.id == job.id:
            fetched = app.box is not None
            keys = f"  {app.key_of('fetch' if fetched else 'video')} "
            keys += t("ended.fetches" if fetched else "ended.opens")
        if commands.what_to_copy() == commands.place_of(job.output):
            keys += f"  {app.key_of('copy')} {t('ended.copies')}"
        return keys


def new_ids(answer: BatchQueued) -> list[int]:
    """The jobs that a batch has made, in order, without those that were there before."""
    return sorted(answer.job_ids)[-answer.queued :] if answer.queued else []


def _done(job: Job) -> str:
    took = ""
    if job.started_at is not None and job.finished_at is not None:
        took = seconds(job.finished_at - job.started_at)
    return t("ended.done", id=job.id, took=took).rstrip()
