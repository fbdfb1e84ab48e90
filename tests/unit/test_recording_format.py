"""A recording is believed as far as it is whole, says what it cannot read, and gives back what went in."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NotFound, StorageUnusable
from engine.recording.entries import EngineStopped, Entry, Gap, pack_entries, unpack_entries
from engine.recording.export import export
from engine.recording.format import HEADER, MAGIC, MAX_UNPACKED_BYTES, UnknownFormat, pack_frame, read_frames
from engine.recording.reader import Recording
from engine.recording.rows import Row, joined, pack_rows, unpack_rows
from engine.recording.tiers import MEMORY, READINGS, SECONDS, SPANS, Rollup
from engine.wire import Logged, LogLine

BLOCKS = [(tier, first, bytes([tier]) * 40 * tier) for tier in (1, 2, 4) for first in (0, 10_000)]
FILE = HEADER + b"".join(pack_frame(tier, first, first + 999, data) for tier, first, data in BLOCKS)


def payloads(data: bytes) -> list[bytes]:
    return [frame.payload() for frame in read_frames(io.BytesIO(data))]


def test_every_frame_comes_back_and_only_those_asked_for():
    assert payloads(FILE) == [data for _tier, _first, data in BLOCKS]
    some = read_frames(io.BytesIO(FILE), first_ms=500, last_ms=9_000, tiers=frozenset({1, 4}))
    assert [(frame.tier, frame.first_ms) for frame in some] == [(1, 0), (4, 0)]


@settings(deadline=None)
@given(st.integers(0, len(FILE)))
def test_whatever_is_cut_off_leaves_a_prefix(length: int):
    found = payloads(FILE[:length])
    assert found == [data for _tier, _first, data in BLOCKS][: len(found)]
    assert length < len(FILE) or len(found) == len(BLOCKS)


@settings(deadline=None)
@given(st.integers(len(HEADER), len(FILE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_never_believed(place: int, change: int):
    """The frames before the damage come, and none that differs from what was written."""
    damaged = bytearray(FILE)
    damaged[place] ^= change
    found = payloads(bytes(damaged))
    whole = [data for _tier, _first, data in BLOCKS]
    assert found == whole[: len(found)]


def test_another_version_and_another_kind_of_file_are_named(tmp_path: Path):
    (tmp_path / "readings-0000000000001.ttrec").write_bytes(MAGIC + struct.pack("<H", 99) + FILE[8:])
    (tmp_path / "events-0000000000002.ttrec").write_bytes(HEADER + pack_frame(4, 0, 1, pack_entries([])))
    (tmp_path / "seconds-0000000000003.ttrec").write_bytes(b"#!/bin/sh\n")
    recording = Recording(tmp_path)
    assert [extent.tier.name for extent in recording.extents()] == ["events"]
    assert "format 99" in recording.remarks["readings-0000000000001.ttrec"]
    assert "no recording" in recording.remarks["seconds-0000000000003.ttrec"]
    with pytest.raises(UnknownFormat):
        list(read_frames(io.BytesIO(b"PK\x03\x04 and so on")))
    with pytest.raises(NotFound):
        Recording(tmp_path / "nowhere")


def test_a_block_that_would_unpack_without_end_is_refused():
    (frame,) = read_frames(io.BytesIO(HEADER + pack_frame(1, 0, 0, bytes(MAX_UNPACKED_BYTES + 1))))
    with pytest.raises(ValueError, match="too large"):
        frame.payload()
    broken = zlib.compress(b"x" * 100)[:-3]
    with pytest.raises(ValueError, match="whole"):
        type(frame)(1, 0, 0, frame.packed[:28] + broken).payload()


KEYS = [("weights", "ours", "a/dit", None), ("process", "neighbour", "py", 7), ("free", "free", "", None)]
figures = st.one_of(st.none(), st.integers(0, 2**45))
readings = st.lists(
    st.tuples(
        st.sampled_from(["GPU-a", "GPU-b"]),
        st.integers(1, 1700),
        st.lists(figures, min_size=len(KEYS), max_size=len(KEYS)),
        st.integers(1, len(KEYS)),
    ),
    max_size=60,
)


def rows_from(drawn: list[tuple[str, int, list[int | None], int]]) -> list[Row]:
    at = dict.fromkeys(("GPU-a", "GPU-b"), 1_700_000_000_000)
    rows = []
    for device_id, step, values, count in drawn:
        at[device_id] += step
        points = [None if value is None else (value, value) for value in values[:count]]
        rows.append(Row(device_id, at[device_id], 0, 1, dict(zip(KEYS[:count], points, strict=True))))
    return rows


@settings(deadline=None, max_examples=60)
@given(readings)
def test_rows_come_back_as_they_were(drawn):
    rows = rows_from(drawn)
    found = unpack_rows(pack_rows(rows))
    for device_id in ("GPU-a", "GPU-b"):
        own = [row for row in rows if row.device_id == device_id]
        assert [row for row in found if row.device_id == device_id] == own
        assert unpack_rows(pack_rows(rows), device_id) == own


@settings(deadline=None, max_examples=60)
@given(readings, st.sampled_from([SECONDS, SPANS]))
def test_the_least_and_most_of_a_tier_are_those_of_its_readings(drawn, tier):
    rows, rollup = rows_from(drawn), Rollup(tier.width_ms)
    spans = [span for row in rows if (span := rollup.add(row)) is not None] + rollup.close()
    spans = unpack_rows(pack_rows(spans))
    assert sum(span.samples for span in spans) == len(rows)
    for span in spans:
        assert span.at_ms % tier.width_ms == 0
        within = [
            row
            for row in rows
            if row.device_id == span.device_id and span.at_ms <= row.at_ms < span.at_ms + tier.width_ms
        ]
        assert span.samples == len(within)
        for key in KEYS:
            known = [row.values[key][0] for row in within if row.values.get(key) is not None]
            if known:
                assert span.values[key] == (min(known), max(known))
            else:
                assert span.values.get(key) is None


def test_pieces_of_one_span_are_joined_and_each_stretch_is_told_once(tmp_path: Path):
    key = KEYS[0]

    def row(at_ms: int, width_ms: int, low: int, high: int, samples: int = 1) -> Row:
        return Row("cpu", at_ms, width_ms, samples, {key: (low, high)})

    def frame(code: int, *rows: Row) -> bytes:
        return pack_frame(code, rows[0].at_ms, rows[-1].at_ms + rows[-1].width_ms, pack_rows(rows))

    (tmp_path / "copy.ttrec").write_bytes(
        HEADER
        + frame(3, row(0, 10_000, 1, 9, 100), row(10_000, 10_000, 1, 9, 100))
        + frame(2, row(10_000, 1000, 2, 3, 4), row(11_000, 1000, 4, 5, 10))
        + frame(2, row(10_000, 1000, 1, 2, 6))
        + frame(1, row(12_000, 0, 7, 7), row(12_100, 0, 8, 8))
    )
    recording = Recording(tmp_path / "copy.ttrec")
    assert recording.rows() == [
        row(0, 10_000, 1, 9, 100),
        row(10_000, 1000, 1, 3, 10),
        row(11_000, 1000, 4, 5, 10),
        row(12_000, 0, 7, 7),
        row(12_100, 0, 8, 8),
    ]
    assert [row.width_ms for row in recording.rows(finest=SPANS)] == [10_000, 10_000]
    assert [row.at_ms for row in recording.rows(since=11.5, until=12.05)] == [11_000, 12_000]
    assert MEMORY[0] is READINGS


def test_joining_knows_what_any_of_the_rows_knows():
    one = Row("cpu", 0, 0, 1, {KEYS[0]: None, KEYS[1]: (1, 1)})
    two = Row("cpu", 5, 0, 1, {KEYS[0]: (3, 3), KEYS[2]: None})
    both = joined((one, two), at_ms=0, width_ms=1000)
    assert both == Row("cpu", 0, 1000, 2, {KEYS[0]: (3, 3), KEYS[1]: (1, 1), KEYS[2]: None})


def test_entries_come_back_and_those_of_another_build_are_counted():
    line = Logged(line=LogLine(seq=1, at=2.0, event="job", text="\x1b[31m一只猫"))
    entries = [Entry(1.0, EngineStopped(instance="a")), Entry(2.0, line)]
    assert unpack_entries(pack_entries(entries)) == (entries, 0)
    payload = pack_entries(entries).replace(b"stopped", b"dropped")
    assert unpack_entries(payload) == (entries[1:], 1)


def test_a_stretch_is_exported_into_one_private_file_and_nothing_is_replaced(tmp_path: Path):
    folder, target = tmp_path / "recordings", tmp_path / "night.ttrec"
    folder.mkdir()
    old, before, early, late = (
        Entry(at, Gap(since=at - 5, reason="x")) for at in (10_000.0, 29_000.0, 30_100.0, 30_900.0)
    )
    for entry in (old, before, early, late):
        at_ms = int(entry.at * 1000)
        packed = HEADER + pack_frame(4, at_ms, at_ms, pack_entries([entry]))
        (folder / f"events-{at_ms:013d}.ttrec").write_bytes(packed)
    written = export(Recording(folder), target, since=30_050.0, until=30_200.0)
    assert written == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert Recording(target).entries() == [before, early]
    with pytest.raises(StorageUnusable, match="exists"):
        export(Recording(folder), target, since=None, until=None)
    with pytest.raises(NotFound):
        export(Recording(folder), tmp_path / "nothing.ttrec", since=35_000.0, until=36_000.0)
    assert not (tmp_path / "nothing.ttrec").exists()
