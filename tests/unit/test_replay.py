"""A replay tells what was recorded, when it happened, and nothing else; and it refuses to act."""

from __future__ import annotations

import inspect
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import NotFound, NotNow
from engine.recording.entries import (
    DeviceSeen,
    EngineStarted,
    EngineStopped,
    Entry,
    Gap,
    JobProgressed,
    ProcessCame,
    ProcessWent,
    pack_entries,
)
from engine.recording.format import HEADER, pack_frame
from engine.recording.reader import Recording
from engine.recording.rows import Row, pack_rows, row_of
from engine.wire import (
    DeviceProcess,
    EngineChanged,
    EngineStatus,
    Event,
    EventFrame,
    Heartbeat,
    Job,
    JobChanged,
    JobProgress,
    JobSpec,
    Logged,
    LogLine,
    MemorySampled,
    NurseryStatus,
    QueueStatus,
    Snapshot,
    Status,
    UnloadRequest,
)
from tests.unit.recordings import GIB, TOTAL, device
from turbotui.client import scenes
from turbotui.client.base import Client, Stream
from turbotui.replay.client import REFUSAL, ReplayClient
from turbotui.replay.clock import ReplayClock
from turbotui.replay.open import known_from
from turbotui.replay.standing import Standing

T = 1_700_000_000.0
NEIGHBOUR = DeviceProcess(pid=7, bytes=6 * GIB, user="liwei", name="python", start_time=4.0)
ENGINE = EngineStatus(
    state="ready", pid=1, instance="a", build="1.0", started_at=T - 50, uptime_s=1.0, home="/h",
    socket="/s", output_dir="/o", log_path="/l", nursery=NurseryStatus(state="ready"),
    queue=QueueStatus(waiting=0),
)  # fmt: skip
JOB = Job(id=4, spec=JobSpec(model="m", prompt="p"), status="running", created_at=T)
EVERYTHING = Snapshot(status=Status(engine=ENGINE, workers=(), devices=(), models=()), jobs=(JOB,), log=())


def line(at: float, text: str, seq: int = 1) -> Entry:
    return Entry(at, Logged(line=LogLine(seq=seq, at=at, event="job", text=text)))


SEEN = DeviceSeen(id="GPU-a", kind="cuda", index=3, name="NVIDIA H200", total_bytes=TOTAL, in_use=True)
ENTRIES = [
    Entry(T, EngineStarted(instance="a", build="1.0", pid=1, host="box", user="me")),
    Entry(T, SEEN),
    Entry(T + 1, EVERYTHING),
    Entry(T + 1, ProcessCame(device_id="GPU-a", process=NEIGHBOUR, already=True)),
    line(T + 2, "one", seq=900),
    Entry(T + 4, JobChanged(job=replace(JOB, status="done", finished_at=T + 4))),
    Entry(T + 5, ProcessWent(device_id="GPU-a", process=NEIGHBOUR, came_at=T, peak_bytes=9 * GIB)),
    Entry(T + 6, EngineStopped(instance="a")),
    line(T + 8, "two", seq=1),
]


def reading(at: float, live: int, *, there: bool) -> Row:
    row = row_of(device(at, live=live, processes=(NEIGHBOUR,) if there else ()))
    assert row is not None
    return row


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    rows = [reading(T + number / 10, number * 2**20, there=number < 50) for number in range(100)]
    path = tmp_path / "night.ttrec"
    path.write_bytes(
        HEADER
        + pack_frame(1, int(T * 1000), int(T * 1000) + 9900, pack_rows(rows))
        + pack_frame(4, int(T * 1000), int(T * 1000) + 8000, pack_entries(ENTRIES))
    )
    return Recording(path)


class Viewer:
    """Listens in a thread until it has seen enough."""

    def __init__(self, client: ReplayClient) -> None:
        self.frames: list[tuple[float, Event]] = []
        self.client = client
        self._stream: Stream | None = None
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        self.client.subscribe(self._take, on_open=self._open)

    def _open(self, stream: Stream) -> None:
        self._stream = stream

    def _take(self, frame: EventFrame) -> None:
        with self._arrived:
            self.frames.append((self.client._clock.telling_now(), frame.event))
            self._arrived.notify_all()

    def until(self, wanted: type, count: int = 1) -> list[tuple[float, Event]]:
        with self._arrived:
            found = self._arrived.wait_for(lambda: len(self.of(wanted)) >= count, timeout=10)
        assert found, [type(event).__name__ for _at, event in self.frames]
        return self.of(wanted)

    def of(self, wanted: type) -> list[tuple[float, Event]]:
        return [(at, event) for at, event in self.frames if isinstance(event, wanted)]

    def close(self) -> None:
        assert self._stream is not None
        self._stream.close()
        self._thread.join(timeout=5)
        assert not self._thread.is_alive()


def test_an_engine_that_has_just_begun_holds_nothing_of_the_one_before() -> None:
    standing, model = Standing(), scenes.gpu_models(T)[0]
    told = replace(EVERYTHING, status=replace(EVERYTHING.status, models=(model,)))
    for entry in (ENTRIES[0], Entry(T + 1, told)):
        standing.take(entry)
    assert standing.snapshot(T + 2, ()) is not None and standing.models == (model,)
    standing.take(Entry(T + 60, EngineStarted(instance="b", build="1.0", pid=2, host="box", user="me")))
    assert standing.snapshot(T + 60, ()) is None and standing.models == ()
    # What it tells of itself is told whole again.
    assert [type(event) for event in standing.take(Entry(T + 61, EVERYTHING))] == [Snapshot]
    assert standing.snapshot(T + 61, ()) is not None


def test_a_stretch_is_told_in_its_order_and_at_its_times(recording: Recording) -> None:
    clock = ReplayClock(T + 1.5, T + 9.9, speed=40)
    viewer = Viewer(ReplayClient(recording, clock))
    viewer.until(Logged, 4)
    viewer.close()
    assert isinstance(viewer.frames[0][1], Snapshot)
    assert viewer.frames[0][1].status.engine.uptime_s == pytest.approx(51.5, abs=1.0)
    times = [at for at, _event in viewer.frames]
    assert times == sorted(times)
    lines = [event.line for _at, event in viewer.of(Logged) if isinstance(event, Logged)]
    assert [one.text for one in lines][::3] == ["one", "two"]
    assert [one.seq for one in lines] == sorted({one.seq for one in lines})
    assert "liwei 7 python went, had up to 9.00 GiB" in lines[1].text and "stopped" in lines[2].text
    ((at, done),) = viewer.of(JobChanged)
    assert at == T + 4 and isinstance(done, JobChanged) and done.job.status == "done"


def test_memory_comes_with_its_device_and_who_was_there(recording: Recording) -> None:
    clock = ReplayClock(T + 1.5, T + 9.9, speed=2)
    client = ReplayClient(recording, clock)
    viewer = Viewer(client)
    samples = viewer.until(MemorySampled, 6)
    viewer.close()
    at, sampled = samples[-1]
    assert isinstance(sampled, MemorySampled) and sampled.device.balance is not None
    told = sampled.device
    assert (told.name, told.index, told.in_use, told.total_bytes) == ("NVIDIA H200", 3, True, TOTAL)
    assert told.processes == (NEIGHBOUR,)
    parts = {part.kind: part for part in told.balance.parts}
    assert parts["live"].bytes == round((at - T) * 10) * 2**20
    assert parts["context"].bytes is None and "does not keep" in (parts["context"].reason or "")
    assert sum(part.bytes or 0 for part in told.balance.parts) + told.balance.unexplained_bytes == TOTAL
    past = client.history("GPU-a", seconds=10, columns=10)
    assert sum(bool(column.samples) for column in past.columns) in (2, 3)


def test_a_jump_tells_how_it_stood_there_and_forgets_what_was_told(recording: Recording) -> None:
    clock = ReplayClock(T + 1.5, T + 9.9, speed=1)
    clock.pause(True)
    client = ReplayClient(recording, clock)
    viewer = Viewer(client)
    viewer.until(Snapshot)
    clock.jump(T + 7)
    ((_, first), (at, second)) = viewer.until(Snapshot, 2)
    assert isinstance(first, Snapshot) and isinstance(second, Snapshot)
    assert at == T + 7
    assert [job.status for job in first.jobs] == ["running"] and [job.status for job in second.jobs] == [
        "done"
    ]
    assert first.log[0].text.startswith("an engine starts") and len(second.log) == 4
    assert [job.status for job in client.jobs()] == ["done"]
    clock.jump(T + 1.5)
    back = viewer.until(Snapshot, 3)[-1][1]
    assert isinstance(back, Snapshot) and [job.status for job in back.jobs] == ["running"]
    viewer.close()


def test_what_the_recording_does_not_hold_is_not_told(recording: Recording) -> None:
    standing = Standing()
    for entry in ENTRIES[:2]:
        standing.take(entry)
    standing.take(Entry(T + 0.5, EngineChanged(engine=ENGINE, workers=())))
    assert standing.snapshot(T + 0.5, []) is None
    assert known_from(recording, T - 100, T + 9) == T + 1
    assert known_from(recording, T + 3, T + 9) == T + 3
    assert known_from(recording, T + 9, T + 9.5) == T + 9
    client = ReplayClient(recording, ReplayClock(T + 0.2, T + 0.9, speed=1))
    viewer = Viewer(client)
    viewer.until(MemorySampled, 2)
    viewer.close()
    assert not viewer.of(Snapshot) and viewer.of(Heartbeat)
    with pytest.raises(NotNow, match="does not say"):
        client.status()
    with pytest.raises(NotFound):
        client.job(4)


def test_progress_is_told_of_a_job_that_is_known() -> None:
    standing, progress = Standing(), JobProgress(stage="denoise", step=2)
    step = Entry(T + 3, JobProgressed(job_id=4, progress=progress))
    assert standing.take(step) == []
    standing.take(Entry(T + 1, EVERYTHING))
    assert standing.take(step) == [JobChanged(job=replace(JOB, progress=progress))]
    assert standing.jobs[4].progress == progress


def test_of_a_span_the_most_of_each_part_is_shown_and_called_moving() -> None:
    low, high = reading(T, GIB, there=True), reading(T, 3 * GIB, there=True)
    values = {
        key: None if one is None else (min(one[0], high.values[key][0]), max(one[1], high.values[key][1]))
        for key, one in low.values.items()
    }
    told = Standing().device(Row("GPU-a", int(T * 1000), 1000, 10, values))
    assert told.balance is not None and not told.balance.coherent
    sizes = {part.kind: part.bytes for part in told.balance.parts}
    assert sizes["live"] == 3 * GIB
    assert sizes["free"] == high.values["free", "free", "", None][0]
    assert Standing().device(low).balance.coherent
    assert told.name == "GPU-a" and told.processes[0].user is None


def test_every_call_that_would_change_something_is_refused_with_a_sentence(recording: Recording) -> None:
    client: Client = ReplayClient(recording, ReplayClock(T, T + 1, speed=1))
    looking = {"hello", "status", "models", "jobs", "job", "logs", "history", "subscribe"}
    names = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
    refused = 0
    for name in set(names) - looking:
        method = getattr(client, name)
        wanted = inspect.signature(method).parameters.values()
        positional = [None for one in wanted if one.kind is one.POSITIONAL_OR_KEYWORD]
        named = {one.name: None for one in wanted if one.kind is one.KEYWORD_ONLY}
        with pytest.raises(NotNow, match="replay"):
            method(*positional, **named)
        refused += 1
    assert refused >= 20
    with pytest.raises(NotNow) as error:
        client.unload(UnloadRequest())
    assert str(error.value) == REFUSAL


def test_the_clock_runs_stands_and_jumps() -> None:
    real = [100.0]
    clock = ReplayClock(T, T + 60, speed=10, monotonic=lambda: real[0])
    real[0] += 2
    assert clock.now() == T + 20
    clock.pause(True)
    real[0] += 50
    assert clock.now() == T + 20
    clock.pause(False)
    real[0] += 1
    assert clock.now() == T + 30 and not clock.over
    clock.jump(T - 99)
    assert clock.now() == T and clock.jumps == 1
    clock.jump(T + 999)
    assert clock.now() == T + 60 and clock.over
    with clock.telling(T + 5):
        assert clock.telling_now() == T + 5
    assert clock.telling_now() == T + 60


def test_a_file_of_somebody_hostile_does_no_more_than_be_passed_over(tmp_path: Path) -> None:
    nan, never = float("nan"), 1e300
    entries = [
        Entry(T, Gap(since=nan, reason="x")),
        Entry(never, Gap(since=T, reason="x")),
        line(never, "x"),
        Entry(T + 1, JobChanged(job=replace(JOB, finished_at=never))),
        Entry(T + 2, Gap(since=T, reason="fine")),
    ]
    wide = Row("GPU-a", int(T * 1000), 10**12, 1, {("live", "ours", "", None): (1, 1)})
    odd = Row("GPU-a", int(T * 1000), 0, 1, {("live", "nobody", "", None): (1, 1), ("what", "", "", 5): None})
    path = tmp_path / "bad.ttrec"
    path.write_bytes(
        HEADER
        + pack_frame(4, int(T * 1000), int(T * 1000), pack_entries(entries))
        + pack_frame(4, 2**62, 2**62, pack_entries(entries))
        + pack_frame(1, int(T * 1000), int(T * 1000), pack_rows([wide, odd]))
        + pack_frame(1, int(T * 1000), int(T * 1000), b"\x93\x01\x02\x03")
    )
    recording = Recording(path)
    assert recording.entries() == entries[-1:]
    assert recording.rows() == [odd]
    assert Standing().device(odd).balance.parts == ()
    assert "another build" in recording.remarks["kinds"] and "damaged" in recording.remarks["readings"]


def test_a_silence_of_the_recording_is_one_of_the_replay(recording: Recording) -> None:
    client = ReplayClient(recording, ReplayClock(T + 9.85, T + 60, speed=2))
    viewer = Viewer(client)
    viewer.until(MemorySampled, 1)
    time.sleep(2.5)
    viewer.close()
    assert [event for at, event in viewer.of(Heartbeat) if at > T + 10.5] == []
