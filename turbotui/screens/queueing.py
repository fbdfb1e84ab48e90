"""Owns queueing what was written, one job or several, and what the dashboard shows and says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.wire import BatchQueued, JobBatch
from turbotui.own_jobs import new_ids
from turbotui.text import t
from turbotui.widgets.bottom import Notice
from turbotui.widgets.queue import QueuePanel

if TYPE_CHECKING:
    from engine.wire import Job, JobSpec
    from turbotui.app import TurboApp


def queue_jobs(
    app: TurboApp,
    specs: Sequence[JobSpec],
    *,
    then: Callable[[Job | BatchQueued], None],
    failed: Callable[[str], None],
) -> None:
    """Give the engine `specs`, which were written by hand: also those of several that it has had before."""
    if len(specs) == 1:
        app.ask(t("doing.submit"), lambda client: client.submit(specs[0]), then=then, failed=failed)
        return
    batch = JobBatch(specs=tuple(specs), again=True)
    label = t("doing.submit_many", count=len(specs))
    app.ask(label, lambda client: client.submit_many(batch), then=then, failed=failed)


def show_queued(app: TurboApp, answer: Job | BatchQueued) -> None:
    """Put the queue's cursor on what was queued, say it, and tell this person of its end."""
    if isinstance(answer, BatchQueued):
        job_id, text = first_new(answer), queued_text(answer)
    else:
        job_id, text = answer.id, t("did.submit", id=answer.id)
    if job_id is not None:
        app.dashboard.query_one(QueuePanel).await_job(job_id)
    app.dashboard.say(Notice(text=text))
    app.own_jobs.add(answer)


def first_new(answer: BatchQueued) -> int | None:
    """The first of the jobs that were queued; where all were there already, the first of those."""
    return min(new_ids(answer) or answer.job_ids, default=None)


def queued_text(answer: BatchQueued) -> str:
    """`✓ 12 jobs queued: 101 to 112; 3 were there already`, and of one `✓ job 9 queued`."""
    before = len(answer.job_ids) - answer.queued
    new = new_ids(answer)
    if len(new) == 1:
        text = t("did.submit", id=new[0])
    else:
        text = t("did.submit_many", count=answer.queued)
        text += t("many.from_to", first=new[0], last=new[-1]) if new else ""
    return text + (t("many.were_there", count=before) if before else "")
