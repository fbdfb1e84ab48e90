"""Owns what is told of a job before it is queued: its peak, whether it fits, what goes, how long it takes.

It is asked for while the fields change, a moment after the last change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from engine.errors import EngineError
from turbotui.format import bytes_text, seconds
from turbotui.job_fields import FPS
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.fields import fitting
from turbotui.widgets.lines import LinePanel, Row, View, width_of, wrapped
from turbotui.widgets.queue import LEAST_BAR, MOST_BAR, progress_bar

if TYPE_CHECKING:
    from textual.timer import Timer

    from engine.wire import Explanation, JobForecast, JobSpec
    from turbotui.app import TurboApp
    from turbotui.client.base import Client

ASK_AFTER_S = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the engine is asked of."""

    spec: JobSpec
    samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What the engine said of one request."""

    forecast: JobForecast
    plan: Explanation | None
    """None where the engine could not plan: its device has not been read."""
    model: str
    samples: int


def estimate(client: Client, spec: JobSpec, samples: int) -> Estimate:
    """What the engine says of a request; where it cannot plan yet, its figures alone."""
    forecast = client.forecast(spec)
    plan: Explanation | None
    try:
        plan = client.explain(spec)
    except EngineError:  # the device has not been read yet, or what does not fit was said already
        plan = None
    return Estimate(forecast=forecast, plan=plan, model=spec.model, samples=samples)


def rung(plan: Explanation, model: str) -> str:
    """How close the job has to live: what of its own model leaves while it runs."""
    own = [step for step in plan.steps if step.model == model]
    if any(step.action == "swap" for step in own):
        return t("new.rung_swap")
    gone = dict.fromkeys(step.component for step in own if step.action == "evict")
    return t("new.rung_gone", names=", ".join(gone)) if gone else t("new.rung_all")


def others_out(plan: Explanation, model: str) -> tuple[str, int]:
    """Which other models leave for it, and their bytes."""
    out = [step for step in plan.steps if step.action == "evict" and step.model != model]
    names = dict.fromkeys(step.model for step in out)
    return ", ".join(names), sum(step.bytes for step in out)


class ForecastPanel(LinePanel):
    """What the job would cost, or why it is refused, in the engine's own words."""

    def __init__(self, request: Callable[[], Request | None], *, id: str) -> None:
        """
        Args:
            request: What to ask as the fields are now; None while one of them is wrong, which is told
                beside it. Raises EngineError with what is to be said in place of an answer.
        """
        super().__init__(id=id)
        self._request = request
        self._timer: Timer | None = None
        self._asked = 0
        self.estimate: Estimate | None = None
        self.error: str | None = None
        self.faulty = False
        """A field is wrong, and so there is nothing to ask."""
        self.asking = False
        """The figures are of a moment ago; newer ones are under way."""

    # ------------------------------------------------------------------ asking

    def ask_soon(self) -> None:
        """The fields are others: ask, once they stay as they are for a moment."""
        self.asking = True
        self.ask_no_more()
        self._timer = self.set_timer(ASK_AFTER_S, self._ask)

    def ask_no_more(self) -> None:
        """What was to be asked is not."""
        if self._timer is not None:
            self._timer.stop()

    def refuse(self, error: str) -> None:
        """Say why the job is not taken; an answer that is still to come says nothing."""
        self._asked += 1
        self._told(self._asked, None, error)

    def _ask(self) -> None:
        self._asked += 1
        number = self._asked
        try:
            request = self._request()
        except EngineError as error:
            self._told(number, None, str(error))
            return
        if request is None:
            self._told(number, None, None)
            return
        spec, samples = request.spec, request.samples
        # The forecast is about size: an empty prompt is said only when somebody submits it.
        spec = replace(spec, prompt=spec.prompt if spec.prompt.strip() else "-")
        cast("TurboApp", self.app).ask(
            "forecast",
            lambda client: estimate(client, spec, samples),
            then=lambda told: self._told(number, told, None),
            failed=lambda error: self._told(number, None, error),
            quiet=True,
        )

    def _told(self, number: int, told: Estimate | None, error: str | None) -> None:
        if number != self._asked or not self.is_attached:
            return
        self.estimate, self.error, self.asking = told, error, False
        self.faulty = told is None and error is None
        self.show(cast("TurboApp", self.app).dashboard.view_now())

    # ------------------------------------------------------------------ what is shown

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.estimate, self.error, self.asking, self.faulty)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        if self.error is not None:
            lines = wrapped(spoken(self.error), width - 2)
            return [
                Row(width).add("! " if place == 0 else "  ", paint.error).add(line, paint.bold)
                for place, line in enumerate(lines[:height])
            ]
        estimate = self.estimate
        if self.faulty:
            return [Row(width).add(t("new.after_fault"), paint.muted)]
        if estimate is None:
            return [Row(width).add(t("new.no_forecast"), paint.muted)]
        forecast = estimate.forecast
        rows = [self._cost(view, estimate, width), self._memory(view, estimate, width)]
        model = estimate.model
        if (runs := forecast.runs) is not None:
            model = runs.model
            if runs.reason is not None:
                text = t("new.runs", name=runs.model, reason=spoken(runs.reason))
                rows += [Row(width).add(line, paint.wait) for line in wrapped(text, width)]
        if forecast.reason:
            rows += [Row(width).add(line, paint.wait) for line in wrapped(spoken(forecast.reason), width)]
        if (plan := estimate.plan) is not None and plan.fits:
            row = Row(width).add(rung(plan, model), paint.muted)
            names, count = others_out(plan, model)
            if names:
                row.add("  " + t("new.others_out", names=names) + " ", paint.muted)
                row.add(bytes_text(count), paint.text)
            rows.append(row)
        return rows[:height]

    def _cost(self, view: View, estimate: Estimate, width: int) -> Row:
        """Size, length and time: what the person gets and when."""
        paint, forecast = view.paint, estimate.forecast
        row = Row(width).add(f"{forecast.width}x{forecast.height}", paint.text)
        length = f"{forecast.frames / FPS:.1f}"
        row.add(
            "  " + t("new.cost", frames=forecast.frames, length=length, steps=forecast.steps), paint.muted
        )
        row.add("  ", paint.text)
        if forecast.expected_s is None:
            return row.add(fitting((t("new.no_rate"), t("new.no_rate_short")), row.left), paint.muted)
        about = t("new.takes" if forecast.expected_exact else "new.takes_roughly")
        row.add(about + " ", paint.muted).add(seconds(forecast.expected_s), paint.bold)
        if estimate.samples > 1:
            total = seconds(forecast.expected_s * estimate.samples)
            row.add("  " + t("new.all_samples", count=estimate.samples) + " ", paint.muted)
            row.add(total, paint.text)
        return row

    def _memory(self, view: View, estimate: Estimate, width: int) -> Row:
        """The peak beside what the engine may hold now, and what that means."""
        paint, forecast = view.paint, estimate.forecast
        row = Row(width).add(t("new.weights") + " ", paint.muted)
        row.add(bytes_text(forecast.weights_bytes), paint.text)
        row.add("  " + t("new.peak") + " ", paint.muted).add(bytes_text(forecast.peak_bytes), paint.bold)
        verdict, style = t("new.never"), paint.wait
        if forecast.fits_now:
            verdict, style = t("new.fits"), paint.text
        elif forecast.fits_empty:
            verdict = t("new.waits")
        if (plan := estimate.plan) is not None and plan.budget_bytes:
            row.add("  " + t("new.of_budget", budget=bytes_text(plan.budget_bytes)) + "  ", paint.muted)
            cells = min(MOST_BAR, row.left - width_of(verdict) - 6)
            if cells >= LEAST_BAR:
                done, open_ = progress_bar(forecast.peak_bytes / plan.budget_bytes, cells)
                row.add(done, paint.bar).add(open_, paint.faint)
        row.add("  " + verdict, style)
        return row.add("  …" if self.asking else "", paint.faint)
