"""The flight recorder of a real engine: there after SIGKILL, and served across engines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.errors import NotFound
from engine.recording.entries import EngineStarted, EngineStopped
from engine.recording.reader import Recording
from engine.wire import RecordedEvent, RecordedSpan, RecordingStatus
from tests.daemon.live import LiveEngine, wait_for


def test_what_a_killed_engine_saw_is_readable_and_the_next_engine_shows_it(tmp_path: Path) -> None:
    engine = LiveEngine(tmp_path)
    try:
        engine.start()
        wait_for(lambda: engine.status().devices, 10, "the first reading")
        time.sleep(2.5)
        engine.kill()
        killed_at = time.time()
        recording = Recording(engine.paths.recordings)
        assert killed_at - recording.rows("cpu")[-1].at_ms / 1000 < 2.0
        assert {path.stat().st_mode & 0o777 for path in engine.paths.recordings.iterdir()} == {0o600}
        first = len(recording.rows("cpu"))

        engine.start()
        wait_for(lambda: engine.status().devices, 10, "the first reading")
        past = engine.client.history("cpu", seconds=7200, columns=720)
        before = [column for column in past.columns if column.samples and column.at < killed_at + 10]
        assert sum(column.samples for column in before) >= first
        query = f"since={killed_at - 60}&until={killed_at}"
        spans = engine.client._get(f"/recordings/memory?{query}", list[RecordedSpan])
        assert sum(span.samples for span in spans) >= first - 10
        events = engine.client._get(f"/recordings/events?{query}", list[RecordedEvent])
        assert {"started", "device", "log"} <= {event.kind for event in events}
        state = engine.client._get("/recordings", RecordingStatus)
        assert {tier.name for tier in state.tiers} >= {"readings", "events"} and state.problem is None
        engine.stop()
        runs = [entry.what for entry in recording.entries()]
        assert [type(what) for what in runs if isinstance(what, (EngineStarted, EngineStopped))] == [
            EngineStarted,
            EngineStarted,
            EngineStopped,
        ]
    finally:
        engine.close()


def test_an_engine_that_may_not_write_its_recording_works_and_says_so(tmp_path: Path) -> None:
    engine = LiveEngine(tmp_path)
    engine.paths.state.mkdir(parents=True)
    engine.paths.recordings.write_text("in the way")
    try:
        engine.start()
        wait_for(lambda: engine.status().devices, 10, "the first reading")
        problem = wait_for(lambda: engine.status().engine.problem, 10, "a problem")
        assert "recording pauses" in problem
        assert engine.client.history("cpu", seconds=60, columns=6).device_id == "cpu"
        engine.paths.recordings.unlink()
        wait_for(lambda: engine.status().engine.problem is None, 15, "the recording's going on")
        told = [line for line in engine.client.logs() if line.event == "recording"]
        assert [line.level for line in told] == ["warning", "info"]
    finally:
        engine.close()


def test_nothing_is_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    engine = LiveEngine(tmp_path, TURBOTUI_ENGINE_RECORDING_BYTES="0")
    try:
        engine.start()
        wait_for(lambda: engine.status().devices, 10, "the first reading")
        assert engine.client.history("cpu", seconds=7200, columns=60).columns
        with pytest.raises(NotFound, match="recording_bytes"):
            engine.client._get("/recordings/events?since=0&until=1", list[RecordedEvent])
        assert not engine.paths.recordings.exists()
    finally:
        engine.close()
