"""Owns the dialog before a full cleanup: what of ours ends, and what of others the person ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.wire import CleanupCandidate, KillRequest
from turbotui.format import UNKNOWN, bytes_text, short_bytes
from turbotui.screens.kill import other_user_dialog
from turbotui.screens.long_confirm import LongConfirmPanel, LongConfirmScreen, fact
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.card import short_age
from turbotui.widgets.lines import Row, View

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent

    from engine.wire import FullCleanupPlan

GRACE_S = 2.0
"""From SIGTERM to SIGKILL: the whole shall take less than 10 s."""


class FullCleanupPanel(LongConfirmPanel):
    """The engine's plan, frozen; ticks are of processes as they were shown."""

    def __init__(self, plan: FullCleanupPlan, where: str) -> None:
        loss = t("full.loses") if plan.job_id is None else t("full.loses_job", id=plan.job_id)
        super().__init__(title=t("full.title"), loss=loss, answers=((t("full.yes"), True),))
        self.plan = plan
        self._where = where
        self.ticked: frozenset[int] = frozenset()
        """Pids of those that end too."""
        self._at = 0
        self._first = 0
        """The row of the first process."""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (*super().inputs(view), self.ticked, self._at, int(view.wall) // 60)

    @property
    def candidate(self) -> CleanupCandidate | None:
        """The process that the cursor is on."""
        return self.plan.candidates[self._at] if self._at < len(self.plan.candidates) else None

    @property
    def also(self) -> tuple[KillRequest, ...]:
        """Those that were ticked, as the engine wants to be asked."""
        return tuple(
            KillRequest(
                pid=one.process.pid,
                start_time=one.process.start_time,
                other_user=not one.mine,
                grace_s=GRACE_S,
            )
            for one in self.plan.candidates
            if one.process.pid in self.ticked
        )

    def cursor(self) -> int | None:
        return self._first + self._at if self.plan.candidates else None

    def walk(self, by: int) -> None:
        if not self.plan.candidates:
            self.scroll(by)
            return
        self._at = max(0, min(self._at + by, len(self.plan.candidates) - 1))
        self.redraw()

    def tick(self, pid: int) -> None:
        """Tick a process, or take its tick away."""
        self.ticked ^= {pid}
        self.redraw()

    def parts(self, view: View, width: int) -> list[Row]:
        paint, plan = view.paint, self.plan
        rows = fact(width, t("restart.where"), self._where, paint.muted, paint.text)
        worker = t("full.no_worker")
        if plan.worker_pid is not None:
            worker = t("full.worker", pid=plan.worker_pid, bytes=bytes_text(plan.worker_bytes))
        rows += fact(width, t("full.ends"), worker, paint.muted, paint.bold)
        if plan.nursery_pid is not None:
            nursery = t("full.nursery", pid=plan.nursery_pid, bytes=bytes_text(plan.nursery_bytes))
            rows += fact(width, "", nursery, paint.muted, paint.text)
        if plan.waiting:
            rows += fact(width, "", t("full.holds", count=plan.waiting), paint.muted, paint.text)
        rows += fact(width, t("full.stays"), t("full.engine"), paint.muted, paint.text)
        rows += fact(width, t("cleanup.back"), self._expected(), paint.muted, paint.bold)
        rows.append(Row(width))
        if not plan.candidates:
            return [*rows, Row(width).add(t("full.nobody"), paint.muted)]
        rows.append(Row(width).add(t("full.others"), paint.focus_title))
        self._first = len(rows)
        rows += [self._row(view, place, one, width) for place, one in enumerate(plan.candidates)]
        return rows

    def _expected(self) -> str:
        sizes = [one.bytes for one in self.plan.candidates if one.process.pid in self.ticked]
        if self.plan.worker_pid is not None:
            sizes.append(self.plan.worker_bytes)
        known = bytes_text(sum(size or 0 for size in sizes))
        return t("full.at_least", bytes=known) if None in sizes else known

    def _row(self, view: View, place: int, one: CleanupCandidate, width: int) -> Row:
        paint, process = view.paint, one.process
        here = place == self._at
        row = Row(width).add("> " if here else "  ", paint.key)
        ticked = process.pid in self.ticked
        # Brackets only where a tick may go at once; another user's asks first.
        box = "[x] " if ticked else "[ ] " if one.mine and one.refusal is None else " ·  "
        row.add(box, paint.alarm if ticked else paint.text)
        row.field(str(process.pid), 8, paint.muted, right=True).add(" ", paint.text)
        row.field(process.user or UNKNOWN, 10, paint.text if one.mine else paint.bold)
        row.field(short_bytes(one.bytes), 6, paint.text, right=True)
        age = None if process.started_at is None else view.wall - process.started_at
        row.field(short_age(age), 5, paint.muted, right=True).add("  ", paint.text)
        if one.refusal is not None:
            row.add(spoken(one.refusal), paint.muted)
        else:
            inside = "".join(f"{part}  " for part in (process.tenant, process.container) if part)
            row.add(inside + (process.command or process.name or UNKNOWN), paint.text)
        return row.to(width, paint.text).upon(paint) if here else row

    def keys_text(self) -> str:
        return t("full.keys") if self.plan.candidates else super().keys_text()


class FullCleanupScreen(LongConfirmScreen):
    """Dismissed with True after the answer was gone to and chosen; the ticks are the panel's."""

    panel: FullCleanupPanel

    def __init__(self, panel: FullCleanupPanel, where: str | None) -> None:
        super().__init__(panel)
        self._where = where

    def walk(self, by: int) -> None:
        self.panel.walk(by)

    def on_key(self, event: KeyEvent) -> None:
        if event.key != "space":
            super().on_key(event)
            return
        event.stop()
        event.prevent_default()
        one = self.panel.candidate
        if not self.painted or one is None:
            return
        pid = one.process.pid
        if pid in self.panel.ticked or (one.mine and one.refusal is None):
            self.panel.said = ""
            self.panel.tick(pid)
        elif one.refusal is not None:
            self.panel.say(spoken(one.refusal))
        else:
            dialog = other_user_dialog(self.view(), one.process, self._where)
            self.app.push_screen(dialog, lambda agreed: self._agreed(pid, agreed))

    def _agreed(self, pid: int, agreed: object) -> None:
        if agreed is True and pid not in self.panel.ticked:
            self.panel.tick(pid)
