"""Owns the header: where this is, whether it is live, what the device does and what runs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

from engine.paths import user_name
from turbotui.format import clock, gib, seconds
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
CLOCK_CELLS = 21
"""Room for the clock and for `read-only` beside it."""


class Header(LinePanel):
    """One row; what matters least leaves first when it is narrow."""

    def __init__(self, *, id: str, key_of: Callable[[str], str], where: str | None = None) -> None:
        super().__init__(id=id)
        self._key_of = key_of
        self._where = where or who_and_where()

    def inputs(self, view: View) -> tuple[object, ...]:
        state = view.state
        device, running, engine = state.device, state.running, state.engine
        age = None if state.heard_at is None else age_text(view.monotonic - state.heard_at)
        retry = None if state.retry_at is None else int(state.retry_at - view.monotonic)
        starting = view.monotonic // 0.2 if view.look == "starting" else None
        return (
            age,
            retry,
            starting,
            device
            and (device.name, device.index, device.temperature_c, device.power_w, device.utilisation_percent),
            running,
            engine,
            state.workers,
            len(state.waiting),
            state.lost_reason,
            state.lost_how,
            state.own_probe,
            view.paused_at,
            self._uptime(view).plain(),
            self._nursery(view).plain(),
            self._banner(),
            view.away_since and (self._away(view).plain(), state.jobs),
        )

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint, state = view.paint, view.state
        row = Row(width).add(" ", paint.text)
        place, device, link = self._place(view, width), self._device(view, width), self._link(view)
        pieces = [place, device, link]
        # Whether it lives matters more than what it is, and that more than where.
        for less in (device, place):
            if sum(piece.cells + 2 for piece in pieces) >= width:
                pieces.remove(less)
        away = self._away(view)
        if away.cells + sum(piece.cells + 2 for piece in pieces) >= width and device in pieces:
            # What ended meanwhile matters more, until it is waved away.
            pieces.remove(device)
        if away.cells + sum(piece.cells + 2 for piece in pieces) >= width:
            away = self._away(view, short=True)
        room = width - away.cells
        for piece in pieces:
            if piece.cells:
                row.extend(piece).add("  ", paint.text)
        extras = [self._silence(view), self._uptime(view), self._nursery(view)]
        if width >= WIDE_CELLS and view.look != "lost" and (running := state.running) is not None:
            extras.append(self._job(view, running, short=bool(away.cells)))
            if away.cells:  # what runs matters more than since when
                extras.append(extras.pop(1))
        if state.waiting and width >= WIDE_CELLS:
            extras.append(Row(width).add(t("header.waiting", count=len(state.waiting)), paint.muted))
        for piece in extras:
            if piece.cells and row.cells + piece.cells + (2 if away.cells else 1) <= room:
                row.extend(piece).add("  ", paint.text)
        if away.cells and row.cells <= room:
            row.to(room, paint.text).extend(away)
        return [row]

    def _job(self, view: View, job: Job, *, short: bool) -> Row:
        row = Row(60).add(f"▶{job.id}", view.paint.ours)
        progress = job.progress
        if progress is None:
            return row.add(f" {size_of(job, view.state.models)}", view.paint.text)
        stage = "" if short and progress.steps else f" {t(f'stage.{progress.stage}')}"
        step = f" {progress.step}/{progress.steps}" if progress.steps else ""
        eta = "" if progress.eta_s is None else f" {seconds(progress.eta_s)}"
        return row.add(stage + step + eta, view.paint.text)

    def _place(self, view: View, width: int) -> Row:
        where = self._where if width >= WIDE_CELLS else self._where.partition("@")[2]
        return Row(width).add(where, view.paint.bold)

    def _device(self, view: View, width: int) -> Row:
        paint, row = view.paint, Row(width)
        device = view.state.device
        if device is None:
            return row
        if device.kind == "cpu":
            return row.add("cpu ", paint.text).add(f"{gib(device.total_bytes, 0)} GiB", paint.muted)
        name = device.name.removeprefix("NVIDIA ")
        row.add(f"GPU {device.index if device.index is not None else ''} {name}", paint.text)
        if width >= WIDE_CELLS:
            if device.temperature_c is not None:
                row.add(f" {device.temperature_c}°C", paint.muted)
            if device.power_w is not None:
                row.add(f" {device.power_w:.0f}W", paint.muted)
        if device.utilisation_percent is not None:
            row.add(f" {device.utilisation_percent}%", paint.muted)
        return row

    def _link(self, view: View) -> Row:
        paint, state = view.paint, view.state
        row = Row(90)
        if banner := self._banner():
            return row.add(f" {banner} ", paint.chosen_tab)  # nothing of what is shown is live
        if view.paused_at is not None:
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
                    row.add(" " + t(f"header.away_{word}", count=count), style)
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
            if nursery.expected_s:
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
        time_of_day = clock(view.wall) if width >= CLOCK_CELLS else clock(view.wall)[:5]
        row = Row(width)
        if view.read_only:
            row.tail(t("header.read_only") + "  " + time_of_day + " ", paint.wait)
        return [row if row.cells else row.tail(time_of_day + " ", paint.muted)]
