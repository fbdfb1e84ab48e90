"""Owns what every acting key stands on: the app, which panel and job are meant, and what a receipt says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import JobCancelled
from turbotui.text.spoken import spoken
from turbotui.widgets.queue import QueuePanel

if TYPE_CHECKING:
    from engine.wire import Job, Receipt
    from turbotui.app import TurboApp


class Acting:
    """Keys act on the row that the cursor is on, in the panel that has the focus."""

    def __init__(self, app: TurboApp) -> None:
        self.app = app

    def _at(self, panel_id: str) -> bool:
        return self.app.dashboard.focused_place() == panel_id

    def _chosen_job(self) -> Job | None:
        panel = self.app.dashboard.query_one(QueuePanel)
        if not self._at("queue") or panel.chosen_job is None:
            return None
        return self.app.link.state.job(panel.chosen_job)

    def _job(self, job_id: int | None) -> Job | None:
        return self._chosen_job() if job_id is None else self.app.link.state.job(job_id)

    def _receipt(self, receipt: Receipt) -> None:
        """Its line comes by the stream, as for every other console; only what went wrong is said here."""
        if not receipt.ok and receipt.error:
            self.app.say(
                spoken(receipt.error), "wait" if receipt.error_code == JobCancelled.code else "error"
            )
