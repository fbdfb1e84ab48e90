"""Owns what the dangerous keys do: each asks first, in a dialog that is frozen on its target."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from engine.wire import CleanupRequest, FullCleanupRequest, KillRequest, ResetRequest
from turbotui.acting import Acting
from turbotui.text import t
from turbotui.widgets.card import CardPanel

if TYPE_CHECKING:
    from engine.wire import DeviceProcess, FullCleanupPlan, Receipt, ReceiptAction, ResetPlan, WorkerStatus
    from turbotui.client.base import Client
    from turbotui.screens.full_cleanup import FullCleanupPanel


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
        panel = self.app.dashboard.query_one(CardPanel)
        if not self._at("card"):
            self.app.dashboard.choose("card")
            self.app.say(t("kill.choose"), "wait")
            return
        if panel.chosen_process is None:
            self.app.say(t("kill.nothing"), "wait")
        else:
            self.ask_to_kill(panel.chosen_process)

    def ask_to_kill(self, process: DeviceProcess) -> None:
        """Ask before `process` is ended, or say why it is not from here."""
        from turbotui.screens.kill import kill_dialog

        if process.ours is not None:
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

    # ------------------------------------------------------------------ a whole GPU, and everything

    def reset(self) -> None:
        device = self.app.link.state.device
        if device is None or device.kind == "cpu":
            self.app.say(t("reset.cpu"), "wait")
            return
        device_id = device.id
        self.app.ask(
            t("doing.reset_plan", index=device.index),
            lambda client: client.reset_plan(device_id),
            then=self._ask_for_reset,
        )

    def _ask_for_reset(self, plan: ResetPlan) -> None:
        from turbotui.screens.reset import ResetPanel, ResetScreen

        if self._busy():
            return
        screen = ResetScreen(ResetPanel(plan, self._where()))
        self.app.push_screen(screen, partial(self._reset, plan))

    def _reset(self, plan: ResetPlan, agreed: object) -> None:
        if agreed is not True:
            return
        request = ResetRequest(device_id=plan.device_id, index=plan.index)
        label = t("doing.reset", index=plan.index)
        self._act_long("reset", label, lambda client: client.reset(request))

    def full_cleanup(self) -> None:
        self.app.ask(
            t("doing.full_plan"),
            lambda client: client.full_cleanup_plan(),
            then=self._ask_for_full_cleanup,
        )

    def _ask_for_full_cleanup(self, plan: FullCleanupPlan) -> None:
        from turbotui.screens.full_cleanup import FullCleanupPanel, FullCleanupScreen

        if self._busy():
            return
        panel = FullCleanupPanel(plan, self._where())
        self.app.push_screen(FullCleanupScreen(panel, self.app.where), partial(self._clean_up_all, panel))

    def _clean_up_all(self, panel: FullCleanupPanel, agreed: object) -> None:
        if agreed is not True:
            return
        request = FullCleanupRequest(also=panel.also)
        self._act_long("full_cleanup", t("doing.full_cleanup"), lambda client: client.full_cleanup(request))

    def sheet(self) -> None:
        from turbotui.screens.sheet import SheetPanel, SheetScreen

        self.app.push_screen(SheetScreen(SheetPanel(self.app)), self._begin)

    def _begin(self, name: str | None) -> None:
        if name is not None:
            self.app.act(name)

    def _act_long(self, action: ReceiptAction, label: str, work: Callable[[Client], Receipt]) -> None:
        """Ask for an action and show its steps until it has ended."""
        from turbotui.screens.progress import ProgressScreen

        screen = ProgressScreen(action, label, self.app.monotonic())
        self.app.push_screen(screen)

        def ended(receipt: Receipt) -> None:
            screen.end(receipt)
            self._receipt(receipt)

        def failed(error: str) -> None:
            screen.end(None, error)
            self.app.say(error, "error")

        self.app.ask(label, work, then=ended, failed=failed)

    def _busy(self) -> bool:
        """The person has gone on to another dialog while the engine was asked."""
        return self.app.screen is not self.app.dashboard

    def _where(self) -> str:
        hello = self.app.link.state.hello
        return self.app.where or (hello.host if hello is not None else "")
