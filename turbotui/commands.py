"""Owns what the acting keys do: which model, job or component is meant, and the question to the engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from engine.errors import NotFound, NotNow
from engine.wire import (
    CancelRequest,
    Job,
    JobMove,
    ModelStatus,
    Receipt,
    SwitchRequest,
    UnloadRequest,
    WarmRequest,
)
from turbotui.actions import BY_ID
from turbotui.danger import Danger
from turbotui.format import percent
from turbotui.looks import Looks
from turbotui.text import t
from turbotui.widgets.bottom import Notice
from turbotui.widgets.models import ModelsPanel, previous_model, unloaded
from turbotui.widgets.queue import QueuePanel

if TYPE_CHECKING:
    from turbotui.app import TurboApp
    from turbotui.client.base import Client

AGAIN_S = 3.0
"""Within which a running job is ended by the same key again, where its row is not under the cursor."""


class Commands(Danger, Looks):
    """One method for each acting key; each returns at once and the answer comes later."""

    def __init__(self, app: TurboApp) -> None:
        super().__init__(app)
        self._switching: list[str] = []
        """Models that this console has asked for and that have no receipt yet."""
        self._end_asked: tuple[int, float] | None = None
        """The job whose end was asked for with a key that was pressed elsewhere, and when."""

    def do(self, name: str, job_id: int | None = None) -> None:
        """Do action `name`, to job `job_id` where one is given."""
        if job_id is None:
            getattr(self, name)()
        else:
            getattr(self, name)(job_id)

    # ------------------------------------------------------------------ models

    def switch(self, preferred: str | None = None) -> None:
        from turbotui.screens.switch import switch_dialog

        models = self.app.link.state.models
        if not models:
            self.app.say(t("models.none_to_switch"), "wait")
            return
        self.app.push_screen(switch_dialog(self.app.dashboard.view_now(), preferred), self._switch_to)

    def previous(self) -> None:
        model = previous_model(self.app.link.state.models)
        if model is None:
            self.app.say(t("models.no_previous"), "wait")
        else:
            self._switch_to(model.name)

    def _switch_to(self, name: object) -> None:
        if not isinstance(name, str):
            return

        def ended(receipt: Receipt) -> None:
            self._switching.remove(name)
            self._receipt(receipt)

        def failed(error: str) -> None:
            self._switching.remove(name)
            self.app.say(error, "error")

        self._switching.append(name)
        self.app.ask(
            t("doing.switch", name=name),
            lambda client: client.switch(SwitchRequest(model=name)),
            then=ended,
            failed=failed,
            given_up_by="cancel_switch",
        )

    def cancel_switch(self) -> None:
        # One's own before anybody else's, the newest first; and with none, whatever is under way.
        self._give_up(self._switching[-1] if self._switching else None)

    def _give_up(self, model: str | None) -> None:
        request = CancelRequest(model=model)
        self.app.ask(
            t("doing.cancel_switch"),
            lambda client: client.cancel_switch(request),
            then=lambda asked: self.app.say(t("did.cancel_switch", names=", ".join(asked.targets))),
        )

    def _chosen_model(self) -> ModelStatus | None:
        """That of the row that the cursor is on; a picture that is paused may show one that is gone."""
        name = self.app.dashboard.query_one(ModelsPanel).chosen_model
        return next((model for model in self.app.link.state.models if model.name == name), None)

    def unload(self) -> None:
        from turbotui.screens.unload import unload_dialog

        panel = self.app.dashboard.query_one(ModelsPanel)
        if self._at("models") and panel.chosen_model is not None:
            model = self._chosen_model()
            if model is None or unloaded(model, panel.chosen_component):
                name = "/".join(filter(None, (panel.chosen_model, panel.chosen_component)))
                self.app.say(t("unload.nothing", name=name), "wait")
            else:
                self._unload((panel.chosen_model, panel.chosen_component))
            return
        self.app.push_screen(unload_dialog(self.app.dashboard.view_now()), self._unload)

    def _unload(self, target: object) -> None:
        if not isinstance(target, tuple):
            return
        model, component = target
        name = f"{model}/{component}" if component else model or t("unload.all_name")
        self.app.ask(
            t("doing.unload", name=name),
            lambda client: client.unload(UnloadRequest(model=model, component=component)),
            then=self._receipt,
        )

    def free(self) -> None:
        self.app.ask(t("doing.free"), lambda client: client.free(), then=self._receipt)

    def park(self) -> None:
        self.app.ask(t("doing.park"), lambda client: client.park(), then=self._receipt)

    def warm(self) -> None:
        from turbotui.screens.warm import warm_change, warm_dialog

        panel = self.app.dashboard.query_one(ModelsPanel)
        if self._at("models") and (model := self._chosen_model()) is not None:
            self._warm(warm_change(model, panel.chosen_component))
        elif self.app.link.state.models:
            self.app.push_screen(warm_dialog(self.app.dashboard.view_now()), self._warm)
        else:
            self.app.say(t("models.none_to_switch"), "wait")

    def _warm(self, change: object) -> None:
        from turbotui.screens.warm import WarmChange

        if not isinstance(change, WarmChange):
            return
        request = WarmRequest(model=change.model, component=change.component)
        name = f"{change.model}/{change.component}" if change.component else change.model
        if change.drop:
            label = t("doing.drop_warm", name=name or t("warm.all_name"))
            self.app.ask(label, lambda client: client.drop_warm(request), then=self._receipt)
        else:
            label = t("doing.warm", name=name)
            self.app.ask(label, lambda client: client.warm(request), then=self._receipt)

    def quantize(self) -> None:
        from turbotui.screens.quantize import start_quantizing

        panel = self.app.dashboard.query_one(ModelsPanel)
        start_quantizing(self.app, panel.chosen_model if self._at("models") else None)

    def demo(self) -> None:
        def made(models: list[ModelStatus]) -> None:
            self.app.making_demo = False
            self.app.say(t("did.demo", count=len(models)))

        def failed(error: str) -> None:
            self.app.making_demo = False
            self.app.say(error, "error")

        self.app.making_demo = True
        self.app.ask(t("doing.demo"), lambda client: client.make_demo_models(), then=made, failed=failed)

    # ------------------------------------------------------------------ jobs

    def add(self) -> None:
        from turbotui.screens.new_job import NewJobScreen

        if any(isinstance(screen, NewJobScreen) for screen in self.app.screen_stack):
            return
        if not any(model.takes_jobs for model in self.app.link.state.models):
            self.app.say(t("models.none_for_job"), "wait")
            return
        self.app.push_screen(NewJobScreen(self.app.drafts.own))

    def edit_again(self, job_id: int | None = None) -> None:
        from turbotui.screens.new_job import NewJobScreen

        job = self._job(job_id)
        if job is None:
            self.app.say(t("jobs.choose"), "wait")
        elif not any(model.takes_jobs for model in self.app.link.state.models):
            self.app.say(t("models.none_for_job"), "wait")
        else:
            self.app.push_screen(NewJobScreen(self.app.drafts.change(job, self.app.link.state)))

    def cancel(self, job_id: int | None = None) -> None:
        if job_id is None and (loading := self._loading()) is not None:
            self._give_up(loading)
            return
        job = self._job(job_id)
        # Where a row is chosen, no other job than that row's is meant.
        if job is None and job_id is None and not self._at("queue"):
            job = self.app.link.state.running
            if job is None and (self._switching or self._anything_loads()):
                self.cancel_switch()
                return
            if job is not None and not self._meant(job):
                return
        if job is None:
            self.app.say(t("cancel.nothing"), "wait")
            return
        if job.status not in ("queued", "waiting_memory", "running"):
            self.app.say(t("cancel.ended", id=job.id, status=t(f"status.{job.status}")), "wait")
            return
        waiting = tuple(other.id for other in self.app.link.state.waiting)
        if job_id is None and job.id in waiting:
            self.app.dashboard.query_one(QueuePanel).leave(job.id, waiting)
        ends = job.id

        def told(answer: Job) -> None:
            self.app.say(t(f"did.cancel_{answer.status}", id=answer.id))
            if answer.status == "running":
                self.app.own_jobs.end(answer.id)

        self.app.ask(t("doing.cancel", id=ends), lambda client: client.cancel(ends), then=told)

    def cancel_waiting(self) -> None:
        """Empty the queue, after a question."""
        from turbotui.screens.emptying import emptying_dialog

        state = self.app.link.state
        reason = self.app.why_not(BY_ID["cancel"], state.look(self.app.monotonic()))
        if reason is not None or not state.waiting:
            self.app.say(reason or t("emptying.nothing"), "wait")
            return
        dialog = emptying_dialog(self.app.dashboard.view_now(), self.app.where)
        self.app.push_screen(dialog, partial(self._empty, tuple(job.id for job in state.waiting)))

    def _empty(self, job_ids: tuple[int, ...], agreed: object) -> None:
        if agreed is True:
            self.app.ask(
                t("doing.cancel_waiting", count=len(job_ids)),
                partial(_cancel_waiting, job_ids=job_ids),
                then=lambda count: self.app.say(t("did.cancel_waiting", count=count)),
            )

    def _meant(self, job: Job) -> bool:
        """Whether the running job is to end although the cursor is elsewhere: a second press says so."""
        now, asked = self.app.monotonic(), self._end_asked
        self._end_asked = None
        if asked is not None and asked[0] == job.id and now - asked[1] <= AGAIN_S:
            return True
        self._end_asked = (job.id, now)
        done = "" if job.progress is None else t("cancel.done_so_far", share=percent(job.progress.fraction))
        text = t("cancel.again", press=self.app.key_of("cancel"), id=job.id, done=done)
        self.app.dashboard.say(Notice(text=text, tone="wait", lasts_s=AGAIN_S))
        return False

    def _anything_loads(self) -> bool:
        """Also what another console asked for."""
        models = self.app.link.state.models
        return any(part.state == "loading" for model in models for part in model.components)

    def _loading(self) -> str | None:
        """The model under the cursor, where it is what a switch under way brings."""
        if not self._at("models"):
            return None
        chosen = self.app.dashboard.query_one(ModelsPanel).chosen_model
        comes = any(
            part.state == "loading"
            for model in self.app.link.state.models
            if model.name == chosen
            for part in model.components
        )
        running = self.app.link.state.running
        # What a job loads for itself ends with the job.
        if chosen in self._switching or (comes and (running is None or running.model != chosen)):
            return chosen
        return None

    def retry(self, job_id: int | None = None) -> None:
        self._on_job("retry", lambda client, number: client.retry(number), self._job(job_id))

    def duplicate(self, job_id: int | None = None) -> None:
        self._on_job("duplicate", lambda client, number: client.duplicate(number), self._job(job_id))

    def hold(self, job_id: int | None = None) -> None:
        job = self._job(job_id)
        held = job is not None and not job.held
        self._on_job(
            "hold" if held else "release", lambda client, number: client.hold(number, held=held), job
        )

    def sooner(self) -> None:
        self._shift(-1)

    def later(self) -> None:
        self._shift(1)

    def _shift(self, by: int) -> None:
        job = self._chosen_job()
        if job is None or job.position is None:
            self.app.say(t("jobs.not_waiting"), "wait")
            return
        place = job.position + by
        if place < 1:
            self.app.say(t("jobs.first_already", id=job.id), "wait")
            return
        self._on_job("move", lambda client, number: client.move(number, JobMove(position=place)), job)

    def _on_job(self, verb: str, work: Callable[[Client, int], Job], job: Job | None) -> None:
        if job is None:
            self.app.say(t("jobs.choose"), "wait")
            return
        job_id = job.id
        self.app.ask(
            t(f"doing.{verb}", id=job_id),
            lambda client: work(client, job_id),
            then=lambda answer: self._job_changed(verb, answer, job),
        )

    def _job_changed(self, verb: str, answer: Job, before: Job) -> None:
        if verb in ("retry", "duplicate"):
            self.app.own_jobs.add(answer, before=before if answer.id == before.id else None)
        self.app.say(t(f"did.{verb}", id=answer.id, old=before.id))

    def resume_queue(self) -> None:
        self.app.ask(
            t("doing.resume_queue"),
            lambda client: client.resume_queue(),
            then=lambda _none: self.app.say(t("did.resume_queue")),
        )

    def open(self) -> None:
        panel = self.app.dashboard.query_one(ModelsPanel)
        if self._at("models") and panel.chosen_model is not None:
            reason = self.app.why_not(BY_ID["switch"], self.app.link.state.look(self.app.monotonic()))
            if reason is None:
                self.switch(panel.chosen_model)
            else:
                self.app.say(reason, "wait")
        else:
            super().open()


def _cancel_waiting(client: Client, *, job_ids: tuple[int, ...]) -> int:
    """Cancel those that still wait, and tell how many did. The last go first, lest one begins meanwhile."""
    count = 0
    for job_id in reversed(job_ids):
        try:
            # One that is held cannot begin before it is cancelled; one that runs already is not held.
            client.hold(job_id, held=True)
            client.cancel(job_id)
        except (NotNow, NotFound):
            continue
        count += 1
    return count
