"""Owns the questions to a recording: a thread that answers the newest first, and what it has answered.

Reading a day of events takes tenths of a second, so the loop of the console never waits for it: it
takes what is there and is woken when more has come.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.errors import EngineError, NotFound
from turbotui.history import Column, column_of
from turbotui.past.marks import MARKED, SAME_S, SILENT, Silence, happened_by, marks_of, silences_of

if TYPE_CHECKING:
    from engine.recording.entries import Entry
    from engine.recording.reader import Recording
    from engine.recording.rows import Row
    from engine.wire import MemoryHistory
    from turbotui.marks import Mark
    from turbotui.replay.standing import Standing
    from turbotui.state import ConsoleState

PAGE = 120
"""Columns that are read together."""
CHAPTER_S = 120
"""Moments whose entries are read together."""
PAGES = 40
CHAPTERS = 6
ANSWERS = 256
FRESH_S = 15.0
"""What happened so long ago is on disk for certain; until then it is asked for again."""
AGAIN_S = 2.0
MOST_COLUMNS = 2000
"""Of one answer of an engine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a recording tells of `PAGE` columns of one width."""

    columns: dict[int, Column]
    """By their number; a gap is absent."""
    marks: tuple[Mark, ...] = ()
    silences: tuple[Silence, ...] = ()
    read_at: float = 0.0
    whole: bool = True
    """Nothing more can come to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How everything stood at a moment."""

    state: ConsoleState | None
    """None where that is not known."""
    reason: str = ""
    """Why, where somebody said so."""
    read_at: float = 0.0
    whole: bool = True


@dataclass(kw_only=True, slots=True)
class _Chapter:
    base: Standing
    """At its beginning."""
    entries: list[Entry]
    rows: list[Row]
    read_at: float
    whole: bool


PageKey = tuple[str, int, int]
"""Device, width and number."""


class Archive:
    """Reads in one thread, which ends with `close`; everything else is for the console's loop.

    Args:
        find: Opens the recording; raises NotFound where there is none.
        ask: Asks the engine for a device's columns, where its recording is not on this host:
            `ask(device_id, seconds, columns)`. Raises EngineError.
        now: The wall clock; nothing later is told.
        on_ready: Called in the thread when there is another answer.
    """

    def __init__(
        self,
        *,
        find: Callable[[], Recording],
        ask: Callable[[str, float, int], MemoryHistory] | None,
        now: Callable[[], float],
        on_ready: Callable[[], None],
    ) -> None:
        self.version = 0
        """How many answers there were."""
        self._find = find
        self._ask = ask
        self._now = now
        self._on_ready = on_ready
        self._recording: Recording | None = None
        self._pages: OrderedDict[PageKey, Page] = OrderedDict()
        self._told: OrderedDict[float, Told] = OrderedDict()
        self._chapters: OrderedDict[int, _Chapter] = OrderedDict()
        self._wanted_pages: OrderedDict[PageKey, None] = OrderedDict()
        self._wanted_moment: float | None = None
        self._device_bytes: dict[str, int] = {}
        self._silences: list[Silence] = []
        self._silences_since: float | None = None
        self._silences_until = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ for the loop

    def page(self, device_id: str, width_s: int, number: int, device_bytes: int | None) -> Page | None:
        """What is known of a page; it is asked for where that is nothing, or may be more by now."""
        key = (device_id, width_s, number)
        with self._changed:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
            if page is None or _is_old(page):
                if device_bytes is not None:
                    self._device_bytes[device_id] = device_bytes
                self._wanted_pages[key] = None
                self._wanted_pages.move_to_end(key)
                self._wake()
            return page

    def told(self, moment: float) -> Told | None:
        """How everything stood at a moment; it is asked for where that was not read."""
        with self._changed:
            told = self._told.get(moment)
            if told is None or _is_old(told):
                self._wanted_moment = moment
                self._wake()
            return told

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._answer, name="archive", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    # ------------------------------------------------------------------ in the thread

    def _answer(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._wanted_pages or self._wanted_moment is not None):
                    self._changed.wait()
                if self._closed:
                    return
                moment, self._wanted_moment = self._wanted_moment, None
                key = None if moment is not None else self._wanted_pages.popitem()[0]
            if moment is not None:
                told = self._read_moment(moment)
                with self._changed:
                    self._told[moment] = told
                    self._told.move_to_end(moment)
                    while len(self._told) > ANSWERS:
                        self._told.popitem(last=False)
            elif key is not None:
                page = self._read_page(*key)
                with self._changed:
                    self._pages[key] = page
                    while len(self._pages) > PAGES:
                        self._pages.popitem(last=False)
            self.version += 1
            self._on_ready()

    def _open(self) -> Recording:
        if self._recording is None:
            self._recording = self._find()
        return self._recording

    def _read_page(self, device_id: str, width_s: int, number: int) -> Page:
        read_at, now = time.monotonic(), self._now()
        since, until = number * PAGE * width_s, min(now, (number + 1) * PAGE * width_s)
        whole = until < now - FRESH_S
        empty = Page(columns={}, read_at=read_at, whole=whole)
        if until <= since:
            return replace(empty, whole=False)
        try:
            page = self._recorded_page(self._open(), device_id, width_s, since, until)
        except NotFound:
            page = self._asked_page(device_id, width_s, since, until) or empty
        except Exception as error:  # The edge of this thread: a damaged file must not end all answers.
            silence = Silence(since=since, until=until, reason=f"{type(error).__name__}: {error}")
            page = replace(empty, silences=(silence,))
        return replace(page, read_at=read_at, whole=whole)

    def _recorded_page(
        self, recording: Recording, device_id: str, width_s: int, since: float, until: float
    ) -> Page:
        from engine.recording.columns import columns_of, tier_for
        from engine.recording.rows import TOTAL

        rows = recording.rows(device_id, since=since, until=until, finest=tier_for(width_s))
        spans = columns_of(rows, since=since, width_s=width_s, count=PAGE)
        device_bytes = max(
            (value[1] for row in rows if (value := row.values.get(TOTAL)) is not None),
            default=self._device_bytes.get(device_id),
        )
        first = int(since // width_s)
        columns = {}
        for place, span in enumerate(spans):
            column = column_of(span, (first + place) * width_s, device_bytes)
            if column is not None:
                columns[first + place] = column
        entries = recording.entries(since, until, names=MARKED)
        return Page(
            columns=columns,
            marks=tuple(marks_of(entries, device_id)),
            silences=tuple(
                one
                for one in self._silences_from(recording, since)
                if one.since < until and one.until > since and one.device_id in (None, device_id)
            ),
        )

    def _silences_from(self, recording: Recording, since: float) -> list[Silence]:
        """All silences since then; what was read of it once is read once."""
        now = self._now()
        if self._silences_since is None or since < self._silences_since:
            found = silences_of(recording.entries(since, now, names=SILENT), now)
            self._silences, self._silences_since = found, since
            self._silences_until = now
        elif now > self._silences_until + AGAIN_S:
            more = silences_of(recording.entries(self._silences_until - 60, now, names=SILENT), now)
            known = {(one.since, one.reason, one.device_id) for one in more}
            kept = [one for one in self._silences if (one.since, one.reason, one.device_id) not in known]
            self._silences, self._silences_until = [*kept, *more], now
        return self._silences

    def _asked_page(self, device_id: str, width_s: int, since: float, until: float) -> Page | None:
        now = self._now()
        count = int((now - since) // width_s) + 1
        if self._ask is None or count > MOST_COLUMNS:
            return None
        with suppress(EngineError):
            past = self._ask(device_id, float(count * width_s), count)
            columns = {}
            for span in past.columns:
                number = int((span.at - width_s / 2) // width_s)
                column = column_of(span, number * width_s, self._device_bytes.get(device_id))
                if column is not None and since <= number * width_s < until:
                    columns[number] = column
            return Page(columns=columns)
        return None

    def _read_moment(self, moment: float) -> Told:
        read_at, whole = time.monotonic(), moment < self._now() - FRESH_S
        try:
            told = self._rebuilt(self._open(), moment)
        except NotFound as error:
            told = Told(state=None, reason=str(error))
        except Exception as error:  # As above.
            told = Told(state=None, reason=f"{type(error).__name__}: {error}")
        return replace(told, read_at=read_at, whole=whole)

    def _rebuilt(self, recording: Recording, moment: float) -> Told:
        from turbotui.past.rebuilt import rebuilt
        from turbotui.replay.standing import newest_rows

        chapter = self._chapter(recording, moment)
        standing = chapter.base.fork()
        for entry in chapter.entries:
            if entry.at <= moment or _happened_by(entry, standing, moment):
                standing.take(entry)
        silence = next(
            (
                one
                for one in self._silences_from(recording, moment)
                if one.device_id is None and one.since < moment < one.until
            ),
            None,
        )
        state = rebuilt(standing, newest_rows(chapter.rows, moment), moment, silent=silence is not None)
        known = state.devices or state.engine is not None
        if silence is not None or not known:
            return Told(state=state, reason="" if silence is None else silence.reason)
        return Told(state=state)

    def _chapter(self, recording: Recording, moment: float) -> _Chapter:
        from engine.recording.tiers import SECONDS
        from turbotui.replay.standing import LOOK_BACK_S, stand_at

        number = int(moment // CHAPTER_S)
        chapter = self._chapters.get(number)
        if chapter is None or not (chapter.whole or time.monotonic() - chapter.read_at < AGAIN_S):
            since, until = float(number * CHAPTER_S), min(self._now(), (number + 1.0) * CHAPTER_S)
            chapter = _Chapter(
                base=stand_at(recording, since) if chapter is None else chapter.base,
                entries=[one for one in recording.entries(since, until + SAME_S) if one.at > since],
                rows=recording.rows(since=since - LOOK_BACK_S, until=until, finest=SECONDS),
                read_at=time.monotonic(),
                whole=until < self._now() - FRESH_S,
            )
        self._chapters[number] = chapter
        self._chapters.move_to_end(number)
        while len(self._chapters) > CHAPTERS:
            self._chapters.popitem(last=False)
        return chapter


def _happened_by(entry: Entry, standing: Standing, moment: float) -> bool:
    """Whether what was recorded after `moment` had happened by then: at a job's own mark it has ended."""
    from engine.wire import JobChanged

    if entry.at > moment + SAME_S or not isinstance(entry.what, JobChanged):
        return False
    job = entry.what.job
    return happened_by(standing.jobs.get(job.id), job, moment)


def _is_old(answer: Page | Told) -> bool:
    return not answer.whole and time.monotonic() - answer.read_at > AGAIN_S
