"""The moments that are over: the cursor's arithmetic, what was seen, and what a recording tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from engine.errors import NotFound
from engine.recording.entries import NOT_RUN, EngineStopped, Entry, Gap, ProcessCame, ProcessWent
from engine.recording.reader import Recording
from engine.recording.tiers import SECONDS, SPANS
from engine.wire import (
    DeviceProcess,
    HistoryColumn,
    Job,
    JobChanged,
    JobSpec,
    Logged,
    LogLine,
    MemoryHistory,
    MemorySampled,
    Receipt,
    ReceiptIssued,
)
from tests.unit.recordings import GIB, TOTAL, device, keep, spans
from tests.unit.test_replay import EVERYTHING, SEEN
from turbotui.history import STACK, History, column_of
from turbotui.marks import Mark
from turbotui.past.archive import PAGE, Archive, Page, Told
from turbotui.past.axis import time_labels
from turbotui.past.cursor import WIDTHS_S, Cursor, at_column, at_moment, moved, zoomed
from turbotui.past.marks import (
    STOPPED,
    both,
    mark_text,
    marks_of,
    nearest,
    reason_text,
    shown_first,
    silences_of,
)
from turbotui.past.seen import Seen
from turbotui.past.timeline import Timeline
from turbotui.state import ConsoleState, LinkOpened, reduce
from turbotui.text import texts_of, use_language

T = 1_700_000_400.0
COUNT = 60
NEIGHBOUR = DeviceProcess(
    pid=7, bytes=6 * GIB, user="liwei", name="python", command="train.py", start_time=4.0
)
JOB = Job(id=4, spec=JobSpec(model="m", prompt="p"), status="running", created_at=T, started_at=T + 40)


@pytest.fixture(autouse=True)
def _one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    use_language("en")
    yield
    monkeypatch.undo()
    time.tzset()


# ------------------------------------------------------------------ the cursor


def test_it_moves_by_a_column_and_ends_at_now() -> None:
    one = moved(Cursor(), -1, now=T + 0.5, count=COUNT)
    assert one.column == T - 1 and one.last == T
    two = moved(one, -1, now=T + 9, count=COUNT)
    # Data goes on, and what is in sight stays where it is.
    assert two.column == T - 2 and two.last == T
    assert moved(moved(two, 1, now=T + 0.9, count=COUNT), 1, now=T + 0.9, count=COUNT) == Cursor()
    assert moved(Cursor(), 1, now=T, count=COUNT) == Cursor()


def test_it_scrolls_what_is_in_sight_when_it_leaves_it_and_never_past_now() -> None:
    cursor = at_column(Cursor(), int(T) - COUNT, now=T, count=COUNT)
    assert cursor.last is not None and cursor.column is not None
    assert cursor.last - COUNT + 1 < cursor.column <= cursor.last < T
    back = at_column(cursor, int(T) - 1, now=T, count=COUNT)
    assert back.last == T and back.column == T - 1
    far = at_moment(Cursor(), 0.0, now=T, count=COUNT)
    assert far.at == T - 30 * 86400


@pytest.mark.parametrize("by", [1, -1])
def test_zooming_keeps_the_moment_in_sight(by: int) -> None:
    cursor = at_moment(Cursor(width_s=60), T - 7000.5, now=T, count=COUNT)
    other = zoomed(cursor, by, now=T, count=COUNT)
    assert other.width_s == WIDTHS_S[2 + by] and other.at == T - 7000.5
    assert other.column is not None and other.last is not None
    assert other.last - COUNT < other.column <= other.last <= T // other.width_s


def test_zooming_ends_at_the_widest_and_without_a_cursor_follows_now() -> None:
    cursor = Cursor()
    for _ in range(9):
        cursor = zoomed(cursor, 1, now=T, count=COUNT)
    assert cursor == Cursor(width_s=WIDTHS_S[-1])


# ------------------------------------------------------------------ the axis


@pytest.mark.parametrize(
    ("width_s", "expected"),
    [(1, ["22:19:30", "22:19:45", "now"]), (10, ["22:12", "22:14", "22:16", "22:18", "now"]), (60, None)],
)
def test_labels_are_round_times_apart_from_each_other(width_s: int, expected: list[str] | None) -> None:
    last = int(T // width_s)
    labels = list(time_labels(last, COUNT, width_s, T))
    places = [place for place, _text in labels]
    assert all(after - before >= 4 for before, after in pairwise(places))
    assert labels[-1] == (COUNT - 1, "now")
    if expected:
        assert [text for _place, text in labels][-len(expected) :] == expected
    for place, text in labels[:-1]:
        at = (last - COUNT + 1 + place) * width_s
        assert time.strftime("%H:%M:%S", time.localtime(at)).startswith(text)


def test_a_day_that_begins_has_its_date() -> None:
    texts = [text for _place, text in time_labels(int(T // 600), 150, 600, T)]
    assert "11-14" in texts and all(text == "now" or text.endswith(":00") or "-" in text for text in texts)


# ------------------------------------------------------------------ what was seen


def console(*events: object) -> ConsoleState:
    state = reduce(ConsoleState(), LinkOpened(hello=None), wall=T)  # type: ignore[arg-type]
    for event in (EVERYTHING, *events):
        state = reduce(state, event, wall=T)  # type: ignore[arg-type]
    return state


def line(seq: int, at: float, text: str = "x", event: str = "job", **more: object) -> LogLine:
    return LogLine(seq=seq, at=at, event=event, text=text, **more)  # type: ignore[arg-type]


def test_a_moment_is_as_it_was_seen_with_the_lines_up_to_it() -> None:
    seen, state = Seen(), console(Logged(line=line(1, T)))
    for second in range(10):
        state = reduce(state, MemorySampled(device=device(T + second, live=second * GIB)), wall=T + second)
        state = reduce(state, Logged(line=line(2 + second, T + second + 0.4)), wall=T + second)
        seen.keep(state, T + second + 0.5)
    found = seen.at(T + 4, state)
    assert found is not None and found.device is not None and found.device.balance is not None
    assert found.device.balance.taken_at == T + 4
    assert [one.seq for one in found.log] == [1, 2, 3, 4, 5, 6]
    assert seen.at(T - 1, state) is None


def test_at_a_jobs_own_mark_it_has_ended_though_that_was_told_later() -> None:
    """Its progress of a second later does not count, nor another job that began after the mark."""
    seen, state = Seen(), console()
    ended = replace(JOB, status="done", finished_at=T + 50.9)
    later = replace(JOB, id=5, started_at=T + 51.2)
    for second, event in (
        (50, JobChanged(job=JOB)),
        (51, JobChanged(job=ended)),
        (52, JobChanged(job=later)),
    ):
        state = reduce(state, event, wall=T + second)
        seen.keep(state, T + second + 0.1)
    at_mark = seen.at(T + 50.9, state)
    assert at_mark is not None and at_mark.job(4) == ended and at_mark.job(5) is None
    assert at_mark.running is None or at_mark.running.id != 4
    before = seen.at(T + 50.5, state)
    assert before is not None and before.job(4) == JOB


def test_at_a_jobs_own_mark_a_recording_has_its_end_too(tmp_path: Path) -> None:
    ended = replace(JOB, status="done", finished_at=T + 119.9)
    entries = [
        Entry(T, SEEN),
        Entry(T, replace(EVERYTHING, jobs=())),
        Entry(T + 40, JobChanged(job=JOB)),
        # Recorded in the next chapter.
        Entry(T + 120.3, JobChanged(job=ended)),
        Entry(T + 120.4, JobChanged(job=replace(JOB, id=5, started_at=T + 120.4))),
    ]
    rows = spans([device(T + second, live=GIB) for second in range(300)], 1)
    recording = Recording(keep(tmp_path / "night.ttrec", entries, (SECONDS, rows)))
    archive = Archive(find=lambda: recording, ask=None, now=lambda: T + 1200, on_ready=lambda: None)
    state = told_of(archive, T + 119.9).state
    assert state is not None and state.job(4) == ended and state.job(5) is None
    before = told_of(archive, T + 119.5).state
    assert before is not None and before.job(4) == JOB
    archive.close()


def test_what_was_between_two_streams_is_not_known() -> None:
    seen, state = Seen(), console()
    seen.keep(state, T, anew=True)
    seen.keep(state, T + 100, anew=True)
    assert seen.at(T + 3, state) is not None and seen.at(T + 50, state) is None


def test_a_replay_that_jumps_back_tells_again() -> None:
    seen, state = Seen(rewinds=True), console()
    seen.keep(state, T, anew=True)
    seen.keep(state, T + 100, anew=True)
    # What is told again replaces what was told of later.
    seen.keep(state, T + 2)
    assert seen.at(T + 101, state) is not None and seen.at(T + 50, state) is not None


@pytest.mark.parametrize("back", [0.3, 5.0, 3000.0])
def test_a_clock_that_is_set_back_takes_nothing_of_what_was_seen(back: float) -> None:
    seen, state = Seen(), console()
    for second in range(60):
        state = reduce(state, MemorySampled(device=device(T + second, live=second * GIB)), wall=T + second)
        seen.keep(state, T + second)
    for second in range(60, 70):
        state = reduce(state, MemorySampled(device=device(T + second, live=second * GIB)), wall=T + second)
        seen.keep(state, T + second - back)
    assert len(seen._kept) >= 69
    times = [int(one.at) for one in seen._kept]
    assert times == sorted(times)
    ago = seen.at(T + 69 - back - 30, state)
    assert ago is not None and ago.device is not None and ago.device.balance is not None
    assert ago.device.balance.taken_at == pytest.approx(T + 39, abs=2)


def test_an_hour_is_bounded_and_shares_what_did_not_change() -> None:
    seen, state = Seen(), console()
    for second in range(4000):
        state = reduce(
            state, MemorySampled(device=device(T + second, weights={"a": GIB}, live=second)), wall=T + second
        )
        seen.keep(state, T + second)
    assert len(seen._kept) < 600 + 60 + 320
    one, other = seen._kept[-3].state.device, seen._kept[-2].state.device
    assert one is not None and other is not None and one.balance is not None and other.balance is not None
    assert one.balance.parts[0] is other.balance.parts[0]


# ------------------------------------------------------------------ columns


def test_a_second_keeps_its_least_and_its_most() -> None:
    history = History()
    for live in (2, 9, 1, 3):
        balance = device(T, live=live * GIB).balance
        assert balance is not None
        history.add(balance, T + 0.1 * live)
    (column,) = history.between(int(T), int(T))
    assert column.stack[STACK.index("live")] == 9 * GIB
    assert column.total_bytes - column.low_bytes == 8 * GIB + (9 * GIB) // 3 - GIB // 3


def test_no_more_is_drawn_than_was_ever_taken_at_once() -> None:
    span = HistoryColumn(
        at=T + 10, samples=9,
        parts={
            "live": (GIB, 5 * GIB), "releasable": (0, 4 * GIB), "free": (TOTAL - 6 * GIB, TOTAL - 2 * GIB),
        },
    )  # fmt: skip
    column = column_of(span, int(T), TOTAL)
    assert column is not None and column.total_bytes == 6 * GIB and column.low_bytes == 2 * GIB
    assert column.stack[STACK.index("live")] == 5 * GIB
    assert column_of(HistoryColumn(at=T, samples=0, parts={}), int(T)) is None


# ------------------------------------------------------------------ a recording

SPIKE = T + 333.0
ENTRIES = [
    Entry(T, SEEN),
    Entry(T, replace(EVERYTHING, jobs=())),
    Entry(T + 30, ProcessCame(device_id="GPU-a", process=NEIGHBOUR)),
    Entry(T + 40, JobChanged(job=JOB)),
    Entry(T + 55, JobChanged(job=replace(JOB, held=True))),
    Entry(T + 60, JobChanged(job=replace(JOB, status="failed", error="no memory", finished_at=T + 60))),
    Entry(T + 70, Logged(line=line(1, T + 70, "1 new finding", "check", level="warning", memory=True))),
    Entry(
        T + 80,
        ReceiptIssued(
            receipt=Receipt(action="switch", target="m", ok=True, elapsed_s=1, proof="allocator", at=T + 80)
        ),
    ),
    Entry(T + 200, EngineStopped(instance="a")),
    Entry(T + 260, Gap(since=T + 200, reason=NOT_RUN)),
    Entry(T + 300, ProcessWent(device_id="GPU-a", process=NEIGHBOUR, came_at=T + 30, peak_bytes=None)),
]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    def card(at: float) -> object:
        live = 90 * GIB if at == SPIKE else 2 * GIB
        return device(at, live=live, processes=(NEIGHBOUR,) if T + 30 <= at < T + 300 else ())

    seconds = [second for second in range(1200) if not 200 <= second < 260]
    fine = spans([card(T + second) for second in seconds], 1)  # type: ignore[misc]
    coarse = [replace(row, at_ms=row.at_ms // 10_000 * 10_000, width_ms=10_000) for row in fine]
    path = keep(tmp_path / "night.ttrec", ENTRIES, (SECONDS, fine), (SPANS, coarse))
    return Recording(path)


@pytest.fixture
def archive(recording: Recording) -> Iterator[Archive]:
    made = Archive(find=lambda: recording, ask=None, now=lambda: T + 1200, on_ready=lambda: None)
    yield made
    made.close()


def wait(question: Callable[[], Page | Told | None]) -> Page | Told:
    deadline = time.monotonic() + 5
    while (answer := question()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return answer


def page_of(archive: Archive, width_s: int, at: float) -> Page:
    number = int(at // width_s) // PAGE
    page = wait(lambda: archive.page("GPU-a", width_s, number, TOTAL))
    assert isinstance(page, Page)
    return page


@pytest.mark.parametrize("width_s", WIDTHS_S)
def test_a_spike_is_in_its_column_at_every_width(archive: Archive, width_s: int) -> None:
    column = page_of(archive, width_s, SPIKE).columns[int(SPIKE // width_s)]
    assert column.stack[STACK.index("live")] == 90 * GIB
    assert (column.low_bytes < 20 * GIB) == (width_s > 1)


def test_a_gap_stays_a_gap_with_its_reason(archive: Archive) -> None:
    page = page_of(archive, 10, T + 230)
    assert int((T + 230) // 10) not in page.columns
    (silence,) = page.silences
    assert (silence.since, silence.until) == (T + 200, T + 260)
    assert reason_text(silence.reason) == "no engine ran"
    stopped = silences_of([Entry(T, EngineStopped(instance="a"))], T + 9)
    assert stopped[0].until == T + 9 and stopped[0].reason == STOPPED


def test_what_happened_leaves_marks_that_say_what_it_was() -> None:
    marks = marks_of(ENTRIES, "GPU-a")
    assert [mark.symbol for mark in marks] == ["+", "▶", "!", "?", "⇄", "•", "-"]
    told = [mark_text(mark) for mark in marks]
    assert told[0] == "liwei 7 train.py appeared" and told[-1] == "liwei 7 train.py went"
    assert told[1] == "job 4 m began" and told[2] == "failed: job 4 m: no memory"
    assert told[3] == "check: 1 new finding" and told[4].endswith(" m")
    assert not [mark for mark in marks_of(ENTRIES, "GPU-b") if mark.symbol in "+-"]


def test_every_mark_has_its_sentence_in_both_languages() -> None:
    words = {mark.word for mark in marks_of(ENTRIES)} | {"mark.job_done", "mark.job_cancelled", "mark.oom"}
    for language in ("en", "zh_CN"):
        assert words <= set(texts_of(language))


def test_an_event_that_was_seen_and_recorded_is_one_mark_and_failures_are_drawn_first() -> None:
    one = Mark(at=T, symbol="+", word="mark.came", what="x")
    assert both([one], [replace(one, at=T + 0.3)]) == [one]
    assert len(both([one], [replace(one, at=T + 30)])) == 2
    marks = [Mark(at=T, symbol=symbol) for symbol in "▽▶■!"]
    assert [mark.symbol for mark in shown_first(marks)] == ["!", "■", "▶", "▽"]


def test_the_nearest_event_is_found_however_far_it_is(recording: Recording) -> None:
    assert nearest(recording, "GPU-a", T + 1100, -1, T - 9e6) == T + 300
    assert nearest(recording, "GPU-a", T + 30, -1, T - 9e6) is None
    assert nearest(recording, "GPU-a", T - 5000, 1, T + 1200) == T + 30
    assert nearest(recording, "GPU-a", T + 300, 1, T + 1200) is None


def told_of(archive: Archive, at: float) -> Told:
    told = wait(lambda: archive.told(at))
    assert isinstance(told, Told)
    return told


def test_a_moment_is_rebuilt_with_models_queue_log_and_processes(archive: Archive) -> None:
    state = told_of(archive, T + 50.999).state
    assert state is not None and state.running is not None and state.running.id == 4
    assert state.device is not None and [one.user for one in state.device.processes] == ["liwei"]
    assert any("liwei 7" in one.text for one in state.log)
    later = told_of(archive, T + 90).state
    assert later is not None and later.running is None and later.job(4) is not None
    before = told_of(archive, T + 20).state
    assert before is not None and before.jobs == () and before.device is not None
    assert not before.device.processes


def test_of_a_moment_in_a_gap_only_the_log_is_known(archive: Archive) -> None:
    told = told_of(archive, T + 230)
    assert told.reason == NOT_RUN
    assert told.state is not None and told.state.engine is None and not told.state.devices and told.state.log


def test_moments_of_one_stretch_read_the_disk_once(recording: Recording, archive: Archive) -> None:
    told_of(archive, T + 50)
    reads = []
    recording.entries = lambda *a, **k: reads.append(a) or []  # type: ignore[method-assign,func-returns-value]
    for second in range(20):
        assert told_of(archive, T + 52 + second / 10).state is not None
    assert reads == []


def test_without_a_recording_here_the_engine_is_asked_for_columns() -> None:
    def nowhere() -> Recording:
        raise NotFound("not on this host")

    def ask(device_id: str, seconds: float, columns: int) -> MemoryHistory:
        width_s = seconds / columns
        found = tuple(
            HistoryColumn(
                at=T + 1200 - seconds + (place + 1) * width_s, samples=1, parts={"weights": (GIB, 2 * GIB)}
            )
            for place in range(columns)
        )
        return MemoryHistory(device_id=device_id, columns=found)

    archive = Archive(find=nowhere, ask=ask, now=lambda: T + 1200, on_ready=lambda: None)
    page = page_of(archive, 10, T)
    assert page.columns[int(T // 10)].total_bytes == 2 * GIB
    told = told_of(archive, T)
    assert told.state is None and told.reason == "not on this host"
    archive.close()


def test_columns_seen_here_and_recorded_before_are_one_graph(archive: Archive) -> None:
    history = History()
    for second in range(600, 1200):
        balance = device(T + second, live=3 * GIB).balance
        assert balance is not None
        history.add(balance, T + second)
    timeline = Timeline("GPU-a", history, archive, TOTAL)
    now, last = T + 1200, int((T + 1199) // 10)
    page_of(archive, 10, T)
    page_of(archive, 10, now - 1)
    window = timeline.window(last, 120, 10, now)
    live = STACK.index("live")
    assert [column is None for column in window] == [20 <= place < 26 for place in range(120)]
    figures = [column.stack[live] // GIB for column in window if column is not None]
    assert figures[33 - 6] == 90 and figures[0] == 2 and figures[-1] == 3
    marks = timeline.marks(last, 120, 10, now, ())
    assert [mark.symbol for mark in marks[int((T + 30) // 10)]] == ["+"]
    assert sum(map(len, marks.values())) == 7 and timeline.marks(last, 120, 10, now, ()) is marks
    assert timeline.knows(last, 120, 10)
