"""Owns what the dangerous keys do: each asks first, in a dialog that is frozen on its target."""

from __future__ import annotations

from functools import partial

from engine.wire import CleanupRequest, DeviceProcess, KillRequest, WorkerStatus
from turbotui.acting import Acting
from turbotui.text import t
from turbotui.widgets.card import CardPanel


class Danger(Acting):
    """One method for each dangerous key."""

    def hard_cleanup(self) -> None:
        from turbotui.screens.cleanup import cleanup_dialog

        worker = next(iter(self.app.link.state.workers), None)
        if worker is None:
            self.app.say(t("cleanup.nothing"), "wait")
            return
        dialog = cleanup_dialog(self.app.dashboard.view_now(), worker, self.app.where)
        self.app.push_screen(dialog, partial(self._clean_up, worker))

    def _clean_up(self, worker: WorkerStatus, answer: object) -> None:
        from turbotui.screens.cleanup import EMPTY, RELOAD

        if answer not in (RELOAD, EMPTY):
            return
        here = [(now.pid, now.started_at) for now in self.app.link.state.workers]
        if (worker.pid, worker.started_at) not in here:
            # Agreed to for that one: its successor may hold another job.
            self.app.say(t("cleanup.other", pid=worker.pid), "wait")
            return
        self.app.ask(
            t("doing.cleanup", pid=worker.pid),
            lambda client: client.cleanup(CleanupRequest(reload=answer == RELOAD)),
            then=self._receipt,
        )

    def kill(self) -> None:
        from turbotui.screens.kill import kill_dialog

        panel = self.app.dashboard.query_one(CardPanel)
        if not self._at("card"):
            self.app.dashboard.choose("card")
            self.app.say(t("kill.choose"), "wait")
            return
        process = panel.chosen_process
        if process is None:
            self.app.say(t("kill.nothing"), "wait")
        elif process.ours is not None:
            self.app.say(t("kill.ours_worker" if process.ours == "worker" else "kill.ours"), "wait")
        elif process.start_time is None:
            self.app.say(t("kill.unknown", pid=process.pid), "wait")
        else:
            dialog = kill_dialog(self.app.dashboard.view_now(), process, self.app.where)
            self.app.push_screen(dialog, partial(self._kill, process))

    def _kill(self, process: DeviceProcess, agreed: object) -> None:
        from turbotui.screens.kill import is_others, other_user_dialog

        if agreed is not True:
            return
        view = self.app.dashboard.view_now()
        if is_others(view, process):
            dialog = other_user_dialog(view, process, self.app.where)
            self.app.push_screen(dialog, partial(self._send_kill, process, True))
        else:
            self._send_kill(process, False, True)

    def _send_kill(self, process: DeviceProcess, other_user: bool, agreed: object) -> None:
        if agreed is not True:
            return
        request = KillRequest(pid=process.pid, start_time=process.start_time, other_user=other_user)
        self.app.ask(
            t("doing.kill", pid=process.pid), lambda client: client.kill(request), then=self._receipt
        )

    def restart(self) -> None:
        from turbotui.screens.confirm import restart_dialog

        self.app.push_screen(restart_dialog(self.app.dashboard.view_now(), self.app.where), self._restart)

    def _restart(self, agreed: object) -> None:
        if agreed is True:
            self.app.restart()
