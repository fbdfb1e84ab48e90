"""Owns the dashboard's keys for the past: the cursor, what is shown of its moment, and going back to now."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.screen import Screen

from turbotui.messages import StateChanged
from turbotui.past.cursor import FARTHEST_S, Cursor, at_column, at_moment, moved, zoomed
from turbotui.state import ConsoleState
from turbotui.text import t
from turbotui.widgets.history import HistoryPanel
from turbotui.widgets.log import LogPanel
from turbotui.widgets.panels import Bookmark, ListPanel
from turbotui.widgets.queue import QueuePanel

if TYPE_CHECKING:
    from turbotui.app import TurboApp
    from turbotui.past.archive import Archive, Told
    from turbotui.past.timeline import Timeline
    from turbotui.widgets.lines import View

CURSOR_KEYS = frozenset({"past_earlier", "past_later", "past_event", "next_event", "now"})
"""Of the history alone, until the cursor is in the past: then they go on from every panel."""


class PastKeys(Screen[None]):
    """A dashboard that can show moments that are over. While it does, nothing acts: what is on the
    screen may be gone, and another thing may have its number."""

    cursor = Cursor()

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._frozen: tuple[ConsoleState, float, float] | None = None
        """What the picture was when it was paused: the state, and both clocks."""
        self._archive: Archive | None = None
        self._timelines: dict[str, Timeline] = {}
        self._bookmarks: dict[str, Bookmark] = {}
        self._last_told: Told | None = None
        self._seeking = False

    @property
    def _app(self) -> TurboApp:
        return cast("TurboApp", self.app)

    def tick(self) -> None:
        raise NotImplementedError

    def shown_wall(self) -> float:
        """The newest moment that the picture may be of: now, or when it was paused."""
        return self._app.wall() if self._frozen is None else self._frozen[1]

    def look_pause(self) -> None:
        if self._frozen is None:
            self._frozen = (self._app.link.state, self._app.wall(), self._app.monotonic())
        else:
            self._frozen = None
        self.tick()

    def on_unmount(self) -> None:
        if self._archive is not None:
            self._archive.close()

    # ------------------------------------------------------------------ what is shown

    @property
    def archive(self) -> Archive:
        """Made when the past is first looked at."""
        if self._archive is None:
            from turbotui.past.archive import Archive

            app = self._app
            self._archive = Archive(
                find=app.find_recording,
                ask=app.ask_for_columns,
                now=app.wall,
                on_ready=partial(_wake, app),
            )
        return self._archive

    def with_timeline(self, view: View) -> View:
        """`view` with what a graph needs that is not of the last minutes."""
        view = replace(view, cursor=self.cursor, now=view.wall)
        device = view.state.device
        if view.history is None or device is None or (self.cursor.at is None and self.cursor.width_s == 1):
            return view
        timeline = self._timelines.get(device.id)
        if timeline is None or timeline.history is not view.history:
            from turbotui.past.timeline import Timeline

            timeline = Timeline(device.id, view.history, self.archive, device.total_bytes)
            self._timelines[device.id] = timeline
        return replace(view, timeline=timeline)

    def in_time(self, view: View, picture: View) -> tuple[View, View, View]:
        """What is of now, the graph, which goes on whichever moment is shown, and all that is of it."""
        graph = replace(picture, past_at=self.cursor.at, now=view.wall)
        return replace(view, past_at=self.cursor.at), graph, self.at_cursor(picture)

    def at_cursor(self, picture: View) -> View:
        """`picture` as of the moment that the cursor is at; that of now where it is nowhere else."""
        at = self.cursor.at
        if at is None:
            return picture
        state = self._app.link.seen.at(at, self._app.link.state)
        reason, untold, old = None, None, False
        if state is None:
            told = self.archive.told(at)
            if told is None:
                # What was read last stands in grey meanwhile, so that holding a key does not flicker.
                told, old = self._last_told, True
            else:
                self._last_told = told
            state = told.state if told is not None else None
            if told is None:
                reason = t("past.reading")
            elif state is None or (state.engine is None and not state.devices):
                from turbotui.past.marks import reason_text

                reason = t("past.unknown") if not told.reason else reason_text(told.reason)
            elif state.engine is None:
                untold = t("past.unknown")
        paint = self._app.grey_paint if old else self._app.paint
        # Of that moment, but of the device that is looked at now, as the graph is.
        state = replace(
            state or ConsoleState(link="connected"), chosen_device=self._app.link.state.chosen_device
        )
        return replace(
            picture,
            state=state,
            paint=paint,
            wall=at,
            look="live",
            past_at=at,
            paused_at=None,
            unknown=reason,
            untold=untold,
        )

    # ------------------------------------------------------------------ keys

    @property
    def past_at(self) -> float | None:
        """The moment that is shown instead of now."""
        return self.cursor.at

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The cursor's keys are its own where the history is, and everywhere while it is in the past."""
        if action != "act" or parameters[0] not in CURSOR_KEYS:
            return True
        return self.cursor.at is not None or isinstance(self.focused, HistoryPanel)

    def point_at(self, column: int) -> None:
        """Put the cursor on a column."""
        self._go(at_column(self.cursor, column, now=self.shown_wall(), count=self._count))

    def step(self, by: int) -> None:
        """Move the cursor by columns."""
        self._go(moved(self.cursor, by, now=self.shown_wall(), count=self._count))

    @property
    def _count(self) -> int:
        return self.query_one(HistoryPanel).count

    def _go(self, cursor: Cursor) -> None:
        if cursor == self.cursor:
            return
        was, self.cursor = self.cursor, cursor
        lists = [panel for panel in self.query(ListPanel) if panel.id is not None]
        if was.at is None and cursor.at is not None:
            self._bookmarks = {str(panel.id): panel.bookmark() for panel in lists}
        for panel in lists:
            if cursor.at is None and was.at is not None:
                # The rows of now are chosen as they were: a key must mean what it meant before.
                panel.go_to_bookmark(self._bookmarks[str(panel.id)])
            elif isinstance(panel, LogPanel):
                panel.following = True
        self.tick()

    def go_to_now(self) -> bool:
        """End looking back; False where nobody did."""
        if self.cursor.at is None:
            return False
        self._go(Cursor(width_s=self.cursor.width_s))
        return True

    def look_past_earlier(self) -> None:
        self.step(-1)

    def look_past_later(self) -> None:
        self.step(1)

    def look_now(self) -> None:
        self.go_to_now()

    def look_zoom_out(self) -> None:
        self._zoom(1)

    def look_zoom_in(self) -> None:
        self._zoom(-1)

    def _zoom(self, by: int) -> None:
        self._go(zoomed(self.cursor, by, now=self.shown_wall(), count=self._count))

    def look_past_event(self) -> None:
        self._go_to_event(-1)

    def look_next_event(self) -> None:
        self._go_to_event(1)

    def _go_to_event(self, direction: int) -> None:
        """To the mark before the moment that is shown, or after it, however far that is."""
        if self._seeking:
            return
        now, cursor = self.shown_wall(), self.cursor
        here = now if cursor.at is None else cursor.at
        device = self._app.link.state.device
        timeline = None if device is None else self._timelines.get(device.id)
        seen = [mark.at for mark in self._app.link.state.marks]
        if timeline is not None and timeline.knows(cursor.last_column(now), self._count, cursor.width_s):
            last = cursor.last_column(now)
            marks = timeline.marks(last, self._count, cursor.width_s, now, self._app.link.state.marks)
            moments = [mark.at for column in marks.values() for mark in column]
            if (found := _next(moments, here, direction, now)) is not None:
                self._go(at_moment(cursor, found, now=now, count=self._count))
                return
        limit = _next(seen, here, direction, now)
        beyond = now if direction > 0 else now - FARTHEST_S
        self._seeking = True
        self._app.run_apart(
            t("past.seeking"),
            partial(self._seek, None if device is None else device.id, here, direction, limit or beyond),
            then=partial(self._arrive, direction, limit),
            failed=partial(self._not_found, direction, limit),
            quiet=True,
        )

    def _seek(self, device_id: str | None, here: float, direction: int, limit: float) -> float | None:
        """In a thread."""
        from turbotui.past.marks import nearest

        return nearest(self._app.find_recording(), device_id, here, direction, limit)

    def _not_found(self, direction: int, seen: float | None, _error: str) -> None:
        self._arrive(direction, seen, None)  # without a recording there is what was seen here

    def _arrive(self, direction: int, seen: float | None, recorded: float | None) -> None:
        self._seeking = False
        found = recorded if recorded is not None else seen
        if found is not None:
            self._go(at_moment(self.cursor, found, now=self.shown_wall(), count=self._count))
        elif direction > 0:
            self.go_to_now()
        else:
            self._app.say(t("past.no_event"), "wait")

    def look_open(self) -> None:
        """Enter opens the chosen row; of a job that was, only while it is still known."""
        at, app = self.cursor.at, self._app
        if at is not None and isinstance(self.focused, HistoryPanel):
            app.open_moment(at)
            return
        chosen = self.focused.chosen_job if isinstance(self.focused, QueuePanel) else None
        if at is not None and chosen is not None and app.link.state.job(chosen) is None:
            app.say(t("past.no_job", id=chosen), "wait")
            return
        app.act("open")


def _wake(app: TurboApp) -> None:
    """Called from the archive's thread."""
    if app.is_running:
        app.post_message(StateChanged())


def _next(moments: list[float], here: float, direction: int, now: float) -> float | None:
    if direction < 0:
        return max((at for at in moments if at < here), default=None)
    return min((at for at in moments if here < at < now), default=None)
