"""What is written stays within its bound, survives its writer, and a disk that fails costs a gap."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.recording import segments as segments_module
from engine.recording.entries import DeviceSeen, Gap, ProcessCame, ProcessWent
from engine.recording.format import pack_frame
from engine.recording.presence import Presence
from engine.recording.reader import Recording
from engine.recording.rows import TOTAL as TOTAL_KEY
from engine.recording.segments import Segments
from engine.recording.tiers import READINGS, SECONDS, SPANS, TIERS
from engine.recording.writer import AGAIN_S, Writer
from engine.wire import DeviceProcess, Logged, LogLine
from tests.unit.recordings import GIB, busy, device

NOON = 1_700_000_000.0


class Clock:
    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def play(writer: Writer, clock: Clock, seconds: float, *, gpus: int = 1, step: float = 0.5) -> None:
    """`seconds` of readings, flushed as the engine's thread does."""
    until = clock.at + step
    for status in busy(clock.at, seconds, gpus):
        writer.status(status)
        if status.balance is not None and status.balance.taken_at >= until:
            clock.at = until
            writer.flush()
            until += step
    clock.at = until


def writer_of(folder: Path, clock: Clock, max_bytes: int = 2**24) -> Writer:
    return Writer(folder, max_bytes, wall=clock, monotonic=clock)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 600_000),
    st.lists(
        st.tuples(st.sampled_from(TIERS), st.integers(1, 40_000), st.integers(-100_000, 400_000)),
        max_size=120,
    ),
)
def test_the_disk_never_holds_more_than_the_bound(
    tmp_path_factory: pytest.TempPathFactory, max_bytes: int, drawn
) -> None:
    folder = tmp_path_factory.mktemp("bound")
    clock = Clock()
    segments = Segments(folder, max_bytes, wall=clock)
    segments.start()
    kept = dropped = 0
    for number, (tier, size, step) in enumerate(drawn):
        clock.at += step / 1000
        at_ms = int(clock.at * 1000)
        frame = pack_frame(tier.code, at_ms, at_ms, os.urandom(size))
        if segments.append(tier, frame, at_ms=at_ms):
            kept += 1
        else:
            dropped += 1
            assert len(frame) + 3 * 4096 > max_bytes
        assert on_disk(folder) <= segments.used_bytes <= max_bytes
        if number % 40 == 39:  # another engine takes over
            segments.close()
            segments = Segments(folder, max_bytes, wall=clock)
            segments.start()
    segments.close()
    if kept and not dropped:
        assert on_disk(folder) > 0


def test_a_smaller_bound_than_before_is_kept_from_the_start(tmp_path: Path) -> None:
    clock = Clock()
    segments = Segments(tmp_path, 2**20, wall=clock)
    for number in range(100):
        clock.at += 200
        at_ms = int(clock.at * 1000)
        segments.append(READINGS, pack_frame(1, at_ms, at_ms, os.urandom(8000)), at_ms=at_ms)
        segments.append(SPANS, pack_frame(3, at_ms, at_ms, os.urandom(8000)), at_ms=at_ms)
        assert number < 99 or on_disk(tmp_path) < 2**20
    segments.close()
    after = Segments(tmp_path, 100_000, wall=clock)
    after.start()
    after.prune()
    assert on_disk(tmp_path) <= 100_000


def test_each_tier_keeps_its_time_and_no_more(tmp_path: Path) -> None:
    clock = Clock()
    segments = Segments(tmp_path, 2**30, wall=clock)
    began = clock.at
    while clock.at < began + 3 * 86400:
        at_ms = int(clock.at * 1000)
        for tier in (READINGS, SECONDS, SPANS):
            segments.append(tier, pack_frame(tier.code, at_ms, at_ms, b"x"), at_ms=at_ms)
        clock.at += 60
    segments.close()
    extents = {extent.tier: extent for extent in Recording(tmp_path).extents()}
    assert 900 <= clock.at - extents[READINGS].since <= 900 + 3 * 120
    assert 48 * 3600 <= clock.at - extents[SECONDS].since <= 50 * 3600
    assert extents[SPANS].since == began


def test_all_tiers_tell_the_same_of_the_same_time(tmp_path: Path) -> None:
    clock = Clock(NOON + 7)
    writer = writer_of(tmp_path / "r", clock)
    play(writer, clock, 65)
    writer.close()
    recording = Recording(tmp_path / "r")
    readings = recording.rows(finest=READINGS)
    assert len(readings) == 650 and {row.width_ms for row in readings} == {0}
    for tier in (SECONDS, SPANS):
        rows = recording.rows(finest=tier)
        assert {row.width_ms for row in rows} == {tier.width_ms}
        assert sum(row.samples for row in rows) == 650
        for row in rows:
            within = [
                reading for reading in readings if row.at_ms <= reading.at_ms < row.at_ms + row.width_ms
            ]
            for key, value in row.values.items():
                known = [one[0] for reading in within if (one := reading.values.get(key)) is not None]
                assert value == ((min(known), max(known)) if known else None)


@pytest.mark.parametrize("away_s", [30, 5 * 3600])
def test_what_an_engine_that_died_had_not_joined_is_joined_by_the_next(tmp_path: Path, away_s: int) -> None:
    clock = Clock()
    writer = writer_of(tmp_path / "r", clock)
    play(writer, clock, 44)  # and then it is killed: nothing is closed
    recording = Recording(tmp_path / "r")
    read = len(recording.rows(finest=READINGS))
    assert 425 <= read <= 440
    assert sum(row.samples for row in recording.rows(finest=SECONDS) if row.width_ms == 1000) < read
    newest = recording.rows(finest=READINGS)[-1].at_ms / 1000
    clock.at += away_s
    after = writer_of(tmp_path / "r", clock)
    after.flush()
    after.close()
    for tier in (SECONDS, SPANS):
        rows = [row for row in recording.rows(finest=tier) if row.width_ms == tier.width_ms]
        assert sum(row.samples for row in rows) == read
    gaps = [entry for entry in recording.entries() if isinstance(entry.what, Gap)]
    assert [(entry.what.since, entry.at) for entry in gaps] == [(newest, clock.at)]


def test_a_full_disk_pauses_the_recording_which_goes_on_and_says_from_when_to_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    writer = writer_of(tmp_path / "r", clock)
    play(writer, clock, 5)
    real, full = os.write, True

    def write(file: int, data: memoryview) -> int:
        if not full:
            return real(file, data)
        real(file, bytes(data)[:7])  # as a disk does that has little room left
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segments_module.os, "write", write)
    before = len(Recording(tmp_path / "r").rows())
    paused_at = clock.at
    play(writer, clock, 20)
    assert writer.problem is not None and "No space left" in writer.problem
    full = False
    clock.at += AGAIN_S
    play(writer, clock, 5)
    assert writer.problem is None
    writer.close()
    recording = Recording(tmp_path / "r")
    gaps = [entry for entry in recording.entries() if isinstance(entry.what, Gap)]
    (gap,) = [entry for entry in gaps if entry.what.device_id is None]
    assert gap.what.since == pytest.approx(paused_at, abs=1.6)
    times = [row.at_ms / 1000 for row in recording.rows()]
    assert not [at for at in times if gap.what.since < at < gap.at]
    assert min(times) < paused_at < gap.at <= max(times) + 1
    assert recording.remarks == {}
    for tier in (SECONDS, SPANS):
        rows = [row for row in recording.rows(finest=tier) if row.width_ms == tier.width_ms]
        assert sum(row.samples for row in rows) == len(times) > before


def test_a_folder_that_cannot_be_written_is_a_problem_and_no_end(tmp_path: Path) -> None:
    clock = Clock()
    writer = writer_of(tmp_path / "nowhere" / "r", clock)
    play(writer, clock, 3)
    writer.close()
    assert writer.problem is not None and "No such file" in writer.problem
    assert not (tmp_path / "nowhere").exists()


def test_a_bound_that_holds_nothing_is_a_problem_and_no_end(tmp_path: Path) -> None:
    clock = Clock()
    writer = writer_of(tmp_path / "r", clock, max_bytes=5000)
    play(writer, clock, 3)
    assert writer.problem is not None and "recording_bytes" in writer.problem
    assert on_disk(tmp_path / "r") <= 5000


def test_processes_that_come_and_go_are_told_once_with_what_they_held() -> None:
    presence = Presence()

    def process(size: int | None) -> DeviceProcess:
        return DeviceProcess(pid=5, bytes=size, user="liwei", name="python", start_time=3.0)

    kinds = [
        [type(entry.what) for entry in presence.look(device(NOON + number / 10, processes=there))]
        for number, there in enumerate(
            [(), (process(GIB),), (process(5 * GIB),), (process(2 * GIB),), (), ()]
        )
    ]
    assert kinds == [[DeviceSeen], [ProcessCame], [], [], [ProcessWent], []]
    presence.look(device(NOON + 1, processes=(process(None),)))
    (went,) = presence.look(device(NOON + 2))
    assert went.what.peak_bytes is None and went.what.came_at == NOON + 1


def test_a_worker_that_was_let_go_is_ours_to_its_last_reading() -> None:
    presence = Presence()
    worker = DeviceProcess(pid=5, bytes=GIB, name="python", start_time=3.0, ours="worker")
    for number, there in enumerate([(), (worker,), (replace(worker, ours=None),)]):
        presence.look(device(NOON + number / 10, processes=there))
    (went,) = presence.look(device(NOON + 1))
    assert isinstance(went.what, ProcessWent) and went.what.process.ours == "worker"


def test_what_was_there_before_did_not_come_and_silence_is_a_gap() -> None:
    presence = Presence()
    there = (DeviceProcess(pid=5, bytes=1, name="x"),)
    came = presence.look(device(NOON, processes=there))[-1].what
    assert isinstance(came, ProcessCame) and came.already
    assert [entry.what.already for entry in presence.now(NOON) if isinstance(entry.what, ProcessCame)] == [
        True
    ]
    (gap,) = presence.look(device(NOON + 7, processes=there))
    assert gap.at == NOON + 7 and gap.what == Gap(since=NOON, reason="no reading came", device_id="GPU-a")


def test_lines_and_readings_are_there_a_second_after_they_came(tmp_path: Path) -> None:
    clock = Clock()
    writer = writer_of(tmp_path / "r", clock)
    play(writer, clock, 10)
    writer.happened(clock.at, Logged(line=LogLine(seq=1, at=clock.at, event="job", text="queued")))
    writer.flush()
    recording = Recording(tmp_path / "r")
    assert clock.at - recording.rows()[-1].at_ms / 1000 < 1.6
    assert isinstance(recording.entries()[-1].what, Logged)
    assert recording.rows()[-1].values[TOTAL_KEY] == (140 * GIB, 140 * GIB)
