"""Owns what the keys do that open and copy: a page for the chosen row, and what happened meanwhile."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from turbotui.acting import Acting
from turbotui.format import bytes_text
from turbotui.opening import Opened, open_video
from turbotui.text import t
from turbotui.widgets.card import CardPanel
from turbotui.widgets.log import LogPanel
from turbotui.widgets.models import ModelsPanel

if TYPE_CHECKING:
    from engine.wire import Job
    from turbotui.remote.box import Box


class Looks(Acting):
    """One method for each key that shows more or takes something along; none changes anything."""

    def open(self) -> None:
        dashboard = self.app.dashboard
        if (job := self._chosen_job()) is not None:
            from turbotui.screens.job import JobScreen

            self.app.push_screen(JobScreen(job.id))
        elif self._at("card"):
            self._open_card()
        elif self._at("log") and (line := dashboard.query_one(LogPanel).chosen_line()) is not None:
            from turbotui.screens.reader import ReaderScreen
            from turbotui.widgets.log import when

            job_text = "" if line.job_id is None else t("log.job", id=line.job_id)
            parts = (when(line.at, self.app.wall()), line.event, line.level, job_text)
            self.app.push_screen(ReaderScreen("  ".join(filter(None, parts)), line.text))

    def _open_card(self) -> None:
        panel = self.app.dashboard.query_one(CardPanel)
        if panel.chosen == "unseen":
            self.findings()
        elif (process := panel.chosen_process) is not None:
            from turbotui.screens.process import ProcessScreen

            self.app.push_screen(ProcessScreen(process))

    def findings(self) -> None:
        from turbotui.screens.findings import FindingsScreen

        self.app.push_screen(FindingsScreen(self.app.seen.findings, self.app.why_no_check()))

    def leaks(self) -> None:
        from turbotui.screens.leaks import LeaksScreen

        self.app.push_screen(LeaksScreen())

    def found(self) -> None:
        from turbotui.screens.found import FoundScreen

        self.app.push_screen(FoundScreen())

    def audit(self) -> None:
        from turbotui.screens.audit import AuditScreen

        self.app.push_screen(AuditScreen())

    def report(self) -> None:
        from turbotui.screens.report import ReportScreen

        self.app.away_since = None
        if self.app.recordings is None:
            self.app.say(t("report.none"), "wait")
            return
        self.app.push_screen(ReportScreen(self.app.recordings, self.app.report_stretches()))

    def last_receipt(self) -> None:
        from turbotui.screens.receipt import ReceiptScreen

        receipt = self.app.link.state.receipt
        if receipt is None:
            self.app.say(t("receipt.none"), "wait")
        else:
            self.app.push_screen(ReceiptScreen(receipt))

    def video(self, job_id: int | None = None) -> None:
        """Of the chosen job, else of the newest that has one."""
        job = self.whose_video() if job_id is None else self._job(job_id)
        if job is None:
            self.app.say(t("video.none"), "wait")
            return
        if self.app.box is not None:
            self._video_there(self.app.box, job)
            return
        self.app.run_apart(t("doing.video", id=job.id), partial(open_video, job), then=self._opened)

    def _video_there(self, box: Box, job: Job) -> None:
        """Nothing of another machine is opened; what brings it here is copied and said."""
        if job.status != "done" or not job.output:
            self.app.say(t("video.none"), "wait")
            return
        command = box.copy_command(job.output)
        self.app.copy_to_clipboard(command)
        self.app.say(t("video.there", command=command, fetch=self.app.key_of("fetch")))

    def fetch(self, job_id: int | None = None) -> None:
        """Bring the video of the chosen job to the folder that we are in, else of the newest that has one."""
        job = self.whose_video() if job_id is None else self._job(job_id)
        box = self.app.box
        if box is None:
            self.app.say(t("fetch.is_here"), "wait")
        elif job is None or job.status != "done":
            self.app.say(t("video.none"), "wait")
        else:
            self.app.run_apart(
                t("doing.fetch", id=job.id),
                partial(box.fetch, job.id, Path.cwd()),
                then=lambda got: self.app.say(t("did.fetch", path=got.path, size=bytes_text(got.bytes))),
            )

    def whose_video(self) -> Job | None:
        """Whose the keys for a video mean: the chosen job's, else that of the newest that has one."""
        newest = (job for job in self.app.link.state.finished if job.output)
        return self._chosen_job() or next(newest, None)

    def _opened(self, opened: Opened) -> None:
        if opened.command is not None:
            self.app.copy_text(opened.command)
        elif opened.shown:
            self.app.say(t("did.video", path=opened.path))
        else:
            self.app.copy_text(str(opened.path))

    def copy(self) -> None:
        self.app.copy_text(self.what_to_copy())

    def what_to_copy(self) -> str | None:
        """The text that is meant where the focus is; None where nothing is."""
        dashboard = self.app.dashboard
        text = None
        if (job := self._chosen_job()) is not None:
            text = self.place_of(job.output) or job.spec.prompt
        elif self._at("models") and (models := dashboard.query_one(ModelsPanel)):
            chosen = models.chosen_model
            paths = (model.path for model in self.app.link.state.models if model.name == chosen)
            text = self.place_of(next(paths, None))
        elif self._at("log") and (line := dashboard.query_one(LogPanel).chosen_line()) is not None:
            text = line.text
        if text is None:
            newest = next((job for job in self.app.link.state.finished if job.output), None)
            text = self.place_of(newest.output) if newest else None
        return text

    def gpu_previous(self) -> None:
        self._step_gpu(-1)

    def gpu_next(self) -> None:
        self._step_gpu(1)

    def _step_gpu(self, by: int) -> None:
        state = self.app.link.state
        ids = [device.id for device in state.gpus]
        if len(ids) < 2 or state.device is None:
            self.app.say(t("gpu.no_other"), "wait")
            return
        place = ids.index(state.device.id) if state.device.id in ids else 0
        self.app.dashboard.look_at(ids[(place + by) % len(ids)])

    def place_of(self, path: str | None) -> str | None:
        """A file's path; on another machine as scp takes it."""
        return path if path is None or self.app.box is None else self.app.box.scp(path)

    def log_file(self) -> None:
        """Another program's log in the log's place, or the engine's own again."""
        from turbotui.foreign_log import recent_logs
        from turbotui.screens.log_file import LogFileScreen

        foreign = self.app.dashboard.query_one(LogPanel).foreign is not None
        self.app.push_screen(LogFileScreen(recent_logs(self.app.logs_path), foreign=foreign), self.follow_log)

    def follow_log(self, path: str | Path | None) -> None:
        """Show another program's log in place of the engine's; "" is the engine's own again."""
        from turbotui.foreign_log import ForeignLog, remember_log

        app = self.app
        if path is None:
            return
        if app.foreign is not None:
            app.foreign.close()
        app.foreign = ForeignLog(Path(path), wall=app.wall) if path != "" else None
        if app.foreign is not None:
            remember_log(app.logs_path, app.foreign.path)
        app.dashboard.query_one(LogPanel).show_foreign(app.foreign)
        app.dashboard.choose("log")

    def left_out(self) -> None:
        """What of the settings was left out, in full."""
        from turbotui.screens.reader import ReaderScreen

        self.app.push_screen(ReaderScreen(t("settings.title"), "\n".join(self.app.left_out)))

    def palette(self) -> None:
        self.app.action_command_palette()

    def mouse(self) -> None:
        self.app.toggle_mouse()

    def suspend(self) -> None:
        self.app.action_suspend_process()

    def guide(self) -> None:
        from turbotui.screens.guide import GuideScreen

        self.app.push_screen(GuideScreen(self.app.key_of))

    def help(self) -> None:
        from turbotui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.app.own_keys, self.app.dashboard.focused_place()))

    def leave(self) -> None:
        self.app.action_leave()
