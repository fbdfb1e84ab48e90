"""Owns the header: where this is, whether it is live, what the device does and what runs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

from engine.paths import user_name
from turbotui.format import clock, gib, seconds, time_left
from turbotui.gpus import short_name, trouble, usual_limit
from turbotui.past.axis import cursor_label
from turbotui.screens.plan import CLOCK_CELLS, READ_ONLY_CELLS
from turbotui.text import t
from turbotui.widgets.card import short_age
from turbotui.widgets.lines import LinePanel, Row, View
from turbotui.widgets.queue import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.wire import Job
    from turbotui.app import TurboApp


def who_and_where() -> str:
    """`me@gpubox01` of this process, also where there is no passwd entry."""
    return f"{user_name()}@{socket.gethostname().split('.')[0]}"


def age_text(age: float) -> str:
    """Tenths while they matter; they would be 60 bytes ten times a second for nothing below 1 s."""
    return "0.1s" if age < 0.35 else f"{age:.1f}s" if age < 10 else f"{age:.0f}s"


OUT_OF_MEMORY = "out_of_memory"
"""The engine's code of a job's error."""
WIDE_CELLS = 79
"""What is left of 100 columns beside the clock."""
GAP_CELLS = 2
SLOTS = ("place", "device", "link", "silence", "uptime", "nursery", "job", "waiting")
"""From left to right; what happened meanwhile stands at the right end."""
TOLD_JOBS = 50
"""How many ended jobs an engine tells of at first: of more, it is known only that there were more."""


class Header(LinePanel):
    """One row; what matters least leaves first, or says less, when it is narrow."""

    def __init__(self, *, id: str, key_of: Callable[[str], str], where: str | None = None) -> None:
        super().__init__(id=id)
        self._key_of = key_of
        self._where = where or who_and_where()

    def inputs(self, view: View) -> tuple[object, ...]:
        state = view.state
        running, engine = state.running, state.engine
        age = None if state.heard_at is None else age_text(view.monotonic - state.heard_at)
        retry = None if state.retry_at is None else int(state.retry_at - view.monotonic)
        starting = view.monotonic // 0.2 if view.look == "starting" else None
        return (
            age,
            retry,
            starting,
            self._device(view, words=4).segments,
            running,
            engine,
            state.workers,
            len(state.waiting),
            state.lost_reason,
            state.lost_how,
            state.own_probe,
            view.paused_at,
            view.past_at and short_age(view.wall - view.past_at),
            self._uptime(view).plain(),
            self._nursery(view).plain(),
            self._banner(),
            view.away_since and (self._away(view).plain(), state.jobs),
        )

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        room = width - 1
        chosen = self._fitting(self._offers(view, width), room)
        row = Row(width).add(" ", view.paint.text)
        for slot in SLOTS:
            if (piece := chosen.get(slot)) is not None:
                row.add(" " * GAP_CELLS if row.cells > 1 else "", view.paint.text).extend(piece)
        if (away := chosen.get("away")) is not None:
            row.to(width - away.cells, view.paint.text).extend(away)
        return [row]

    def _offers(self, view: View, width: int) -> list[tuple[str, Row]]:
        """What may stand in each place, what matters most first; a later one of a place says more."""
        wide, runs = width >= WIDE_CELLS, view.state.running
        at, _, host = self._where.rpartition("@")
        # Another machine's name is always there, and whole: nobody may take it for theirs.
        where = ("place", Row(width).add(self._where if self._far else host, view.paint.bold))
        link = ("link", self._link(view))
        offers = [
            *((where, link) if self._far else (link, where)),
            ("device", self._device(view, words=0)),
            ("device", self._device(view, words=1)),
            ("silence", self._silence(view)),
            ("away", self._away(view, short=True)),
            ("device", self._device(view, words=2)),
            ("nursery", self._nursery(view)),
        ]
        job = runs if wide and view.look != "lost" else None
        if job is not None:
            offers.append(("job", self._job(view, job, short=True)))
        offers.append(("away", self._away(view)))
        offers.append(("device", self._device(view, words=3)))
        if wide and at:
            offers.append(("place", Row(width).add(self._where, view.paint.bold)))
        offers.append(("device", self._device(view, words=4 if wide else 3)))
        offers.append(("uptime", self._uptime(view)))
        if job is not None:
            offers.append(("job", self._job(view, job, short=False)))
        if wide and view.state.waiting:
            count = len(view.state.waiting)
            offers.append(("waiting", Row(width).add(t("header.waiting", count=count), view.paint.muted)))
        if view.past_at is not None:
            # Nothing of the moment stands there, and its place is needed.
            offers = [offer for offer in offers if offer[0] != "device"]
        return offers

    def _fitting(self, offers: list[tuple[str, Row]], room: int) -> dict[str, Row]:
        """The offers that fit, one for each place."""
        chosen: dict[str, Row] = {}
        for slot, piece in offers:
            trial = chosen | {slot: piece}
            if piece.cells and sum(one.cells + GAP_CELLS for one in trial.values()) <= room + GAP_CELLS:
                chosen = trial
        return chosen

    def _job(self, view: View, job: Job, *, short: bool) -> Row:
        row = Row(60).add(f"▶{job.id}", view.paint.ours)
        progress = job.progress
        if progress is None:
            return row.add(f" {size_of(job, view.state.models)}", view.paint.text)
        stage = "" if short and progress.steps else f" {t(f'stage.{progress.stage}')}"
        step = f" {progress.step}/{progress.steps}" if progress.steps else ""
        eta = "" if progress.eta_s is None else f" {time_left(progress.eta_s)}"
        return row.add(stage + step + eta, view.paint.text)

    def _device(self, view: View, *, words: int) -> Row:
        """Which one is looked at and what is wrong with it; with more `words` what it is and what it does.

        0: the number alone. 1: which is the engine's, where that is another. 2: its name. 3: how busy it is.
        4: how hot, at what power, held by what.
        """
        paint, row, state = view.paint, Row(120), view.state
        device = state.device
        if device is None:
            return row
        if device.kind == "cpu":
            return row.add("cpu ", paint.text).add(f"{gib(device.total_bytes, 0)} GiB", paint.muted)
        index = "" if device.index is None else f" {device.index}"
        of = f"/{len(state.gpus)}" if index and len(state.gpus) > 1 else ""
        row.add(f"GPU{index}{of}", paint.text)
        if words >= 2:
            row.add(f" {short_name(device.name)}", paint.text)
        if words >= 4 and device.temperature_c is not None:
            row.add(f" {device.temperature_c}°C", paint.muted)
        if words >= 4 and device.power_w is not None:
            row.add(f" {device.power_w:.0f}W", paint.muted)
        if words >= 3 and device.utilisation_percent is not None:
            row.add(f" {device.utilisation_percent}%", paint.muted)
        if wrong := trouble(device):
            row.add(f" ! {wrong}", paint.alarm)
        elif words >= 4 and (limit := usual_limit(device)):
            row.add(f" {limit}", paint.muted)
        if words >= 1 and (own := state.elsewhere) is not None:
            row.add(" · ", paint.muted).add(t("gpu.engine_on", index=own.index), paint.wait)
        return row

    def _link(self, view: View) -> Row:
        paint, state = view.paint, view.state
        row = Row(90)
        if banner := self._banner():
            return row.add(f" {banner} ", paint.chosen_tab)  # nothing of what is shown is live
        if view.past_at is not None:
            moment = cursor_label(view.past_at, view.cursor.width_s, view.wall)
            text = t("past.header", at=moment, ago=short_age(view.wall - view.past_at))
            row.add(f" {text} ", paint.chosen_tab).add(f"  {t('past.live')}: ", paint.muted)
        elif view.paused_at is not None:
            row.add(t("header.paused"), paint.chosen_tab).add("  ", paint.text)
        age = 0.0 if state.heard_at is None else view.monotonic - state.heard_at
        if view.look == "live":
            return (
                row.add("● ", paint.ours)
                .add(t("header.live"), paint.text)
                .add(f" {age_text(age)}", paint.muted)
            )
        if view.look == "stale":
            return row.add("◌ " + t("header.stale", age=age_text(age)), paint.wait)
        if view.look == "starting":
            since = 0.0 if state.link_since is None else max(0.0, view.wall - state.link_since)
            return row.add("◌ " + t("header.starting", age=f"{since:.1f} s"), paint.wait)
        row.add("✗ " + t("header.lost", at=clock(state.link_since)), paint.error)
        if state.lost_how:
            row.add(f", {state.lost_how}", paint.error)
        left = 0.0 if state.retry_at is None else max(0.0, state.retry_at - view.monotonic)
        row.add("  " + t("header.retry", left=f"{left:.0f} s"), paint.muted)
        return row.add("  " + t("memory.own_probe_short"), paint.wait) if state.own_probe else row

    @property
    def _far(self) -> bool:
        """Whether the engine is another machine's."""
        return cast("TurboApp", self.app).box is not None

    def _banner(self) -> str:
        return cast("TurboApp", self.app).banner

    def _uptime(self, view: View) -> Row:
        row, state = Row(30), view.state
        if view.look == "lost" or state.engine is None or state.engine_heard_at is None:
            return row
        up = state.engine.uptime_s + view.monotonic - state.engine_heard_at
        # Whole minutes after the first: a figure that changes every second draws the eye.
        return row.add(
            t("header.up", age=seconds(up if up < 60 else up // 60 * 60).replace("00s", "")), view.paint.muted
        )

    def _away(self, view: View, *, short: bool = False) -> Row:
        """What became of the jobs since this person last looked; empty where that is no news."""
        row, paint, since = Row(60), view.paint, view.away_since
        if since is None or view.state.engine is None:
            return row
        ended = [job for job in view.state.jobs if (job.finished_at or 0.0) > since]
        done = sum(job.status == "done" for job in ended)
        more = "+" if len(ended) >= TOLD_JOBS and len(ended) == len(view.state.finished) else ""
        oom = sum(job.error_code == OUT_OF_MEMORY for job in ended)
        failed = sum(job.status in ("failed", "interrupted") for job in ended) - oom
        row.add(t("header.away", age=short_age(view.wall - since)), paint.text)
        if not short:
            row.add(":", paint.text)
            for count, word, style in (
                (done, "done", paint.text),
                (failed, "failed", paint.error),
                (oom, "oom", paint.alarm),
            ):
                if count:
                    row.add(" " + t(f"header.away_{word}", count=f"{count}{more}"), style)
            if not ended:
                row.add(" " + t("header.away_nothing"), paint.muted)
        return row.add(" [", paint.muted).add(self._key_of("report"), paint.key).add("] ", paint.muted)

    def _silence(self, view: View) -> Row:
        row = Row(40)
        silent = any(worker.state == "silent" for worker in view.state.workers)
        if silent and view.look not in ("lost", "starting"):
            row.add(t("header.silent"), view.paint.error)
        return row

    def _nursery(self, view: View) -> Row:
        row, engine = Row(40), view.state.engine
        if engine is None or view.look in ("lost", "starting"):
            return row
        if engine.state == "stopping":
            return row.add(t("header.stopping"), view.paint.wait)
        nursery = engine.nursery
        if nursery.state == "warming":
            elapsed = nursery.elapsed_s or 0.0
            if view.state.engine_heard_at is not None:
                elapsed += view.monotonic - view.state.engine_heard_at
            if nursery.expected_s and elapsed <= nursery.expected_s:  # later it is of nothing any more
                warming = t(
                    "header.warming_of", elapsed=f"{elapsed:.0f}", expected=f"{nursery.expected_s:.0f}"
                )
            else:
                warming = t("header.warming", elapsed=f"{elapsed:.0f}")
            return row.add(warming, view.paint.wait)
        if nursery.state == "failed":
            return row.add(t("header.no_nursery"), view.paint.wait)
        return row


class Clock(LinePanel):
    """The right end of the header, on its own: what changes every second is sent alone."""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (int(view.wall), view.read_only)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        room = width - (READ_ONLY_CELLS if view.read_only else 0)
        time_of_day = clock(view.wall) if room >= CLOCK_CELLS else clock(view.wall)[:5]
        row = Row(width)
        if view.read_only:
            row.tail(t("header.read_only") + "  " + time_of_day + " ", paint.wait)
        return [row if row.cells else row.tail(time_of_day + " ", paint.muted)]
