"""Owns what the console asks of a recording: a Client that tells it again, and refuses to act."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from engine.errors import NotFound, NotNow
from engine.recording.columns import columns_of, tier_for
from engine.recording.entries import Entry
from engine.recording.reader import Recording
from engine.recording.rows import Row
from engine.recording.tiers import READINGS, SECONDS, SPANS, Tier
from engine.wire import (
    CancelRequest,
    CleanupRequest,
    Event,
    EventFrame,
    ExportRequest,
    FullCleanupRequest,
    GetRequest,
    Heartbeat,
    Hello,
    ImportRequest,
    Job,
    JobBatch,
    JobMove,
    JobSpec,
    KillRequest,
    LedgerKind,
    LogLine,
    MarkRequest,
    MemoryHistory,
    MemorySampled,
    ModelStatus,
    PruneRequest,
    QuantiseRequest,
    RemedyRequest,
    ResetRequest,
    ScanRequest,
    SpareRequest,
    Status,
    StopRequest,
    SwitchRequest,
    TraceRequest,
    UnloadRequest,
    WarmRequest,
)
from turbotui.client.base import Stream
from turbotui.replay.clock import ReplayClock
from turbotui.replay.standing import LOOK_BACK_S, Standing, newest_rows, stand_at

REFUSAL = "this is a replay: what is over cannot be changed; leave it with q and open the console"
NO_CHECK = "a replay knows no checks: its log says what they found that was new"
BEAT_S = 1.0
"""How often a replay that stands says that it lives."""
QUIET_S = 3.0
"""A silence of the recording that is longer is shown as one."""
UPTIME_S = 5.0


@dataclass(kw_only=True, slots=True)
class _Stream:
    closed: threading.Event = field(default_factory=threading.Event)
    clock: ReplayClock

    def close(self) -> None:
        self.closed.set()
        self.clock.wake()


class ReplayClient:
    """Tells a stretch of `recording` by `clock`; see `turbotui.client.base.Client`."""

    def __init__(self, recording: Recording, clock: ReplayClock) -> None:
        self._recording = recording
        self._clock = clock
        self._standing = Standing()
        self._rows: dict[str, Row] = {}
        self._seq = 0

    # ------------------------------------------------------------------ the stream

    def subscribe(self, on_frame: Callable[[EventFrame], None], *, on_open: Callable[[Stream], None]) -> None:
        stream = _Stream(clock=self._clock)
        on_open(stream)
        while not stream.closed.is_set():
            self._tell_from(self._clock.now(), self._clock.jumps, stream, on_frame)

    def _tell_from(
        self, moment: float, jumps: int, stream: _Stream, on_frame: Callable[[EventFrame], None]
    ) -> None:
        """How it stood at `moment`, and what happened from there on until it jumps or is closed."""

        def tell(at: float, event: Event) -> None:
            self._seq += 1
            with self._clock.telling(at):
                on_frame(EventFrame(seq=self._seq, event=event))

        self._stand_at(moment)
        tell(moment, self._standing.snapshot(moment, self._rows.values()) or Heartbeat(at=moment))
        for row in self._rows.values():
            tell(moment, MemorySampled(device=self._standing.device(row)))
        told_at = moment
        for at, item in self._items(moment):
            while not self._clock.wait_until(at, jumps=jumps, most_s=BEAT_S):
                if stream.closed.is_set() or self._clock.jumps != jumps:
                    return
                if self._clock.paused or at - self._clock.now() < QUIET_S:
                    tell(self._clock.now(), Heartbeat(at=self._clock.now()))
            if stream.closed.is_set():
                return
            if isinstance(item, Entry):
                for event in self._standing.take(item):
                    tell(at, event)
            else:
                self._rows[item.device_id] = item
                tell(at, MemorySampled(device=self._standing.device(item)))
            if at - told_at > UPTIME_S * self._clock.speed and (changed := self._standing.changed(at)):
                told_at = at
                tell(at, changed)
        while not stream.closed.is_set() and self._clock.jumps == jumps:
            # It never comes: a replay stays where it is over, until it jumps.
            self._clock.wait_until(self._clock.until + 1, jumps=jumps, most_s=BEAT_S)
            if self._clock.over or self._clock.paused:  # else nothing more is known of the stretch
                tell(self._clock.now(), Heartbeat(at=self._clock.now()))

    def _stand_at(self, moment: float) -> None:
        self._standing = stand_at(self._recording, moment)
        rows = self._recording.rows(since=moment - LOOK_BACK_S, until=moment, finest=SECONDS)
        self._rows = newest_rows(rows, moment)

    def _items(self, moment: float) -> Iterator[tuple[float, Entry | Row]]:
        """What the recording holds after `moment`, in order of time, a piece at a time."""
        piece_s = max(30.0, 5 * self._clock.speed)
        while moment < self._clock.until:
            end = min(self._clock.until, moment + piece_s)
            items: list[tuple[float, Entry | Row]] = [
                (entry.at, entry) for entry in self._recording.entries(moment, end) if entry.at > moment
            ]
            for row in self._recording.rows(since=moment, until=end, finest=_tier_for(self._clock.speed)):
                # A span of ten seconds stands for each of them, as a column of the graph does.
                for second in range(max(1, row.width_ms // 1000)):
                    at = row.at_ms / 1000 + second
                    if moment < at <= end:
                        items.append((at, row))
            items.sort(key=lambda item: item[0])
            yield from items
            moment = end

    # ------------------------------------------------------------------ questions

    def hello(self) -> Hello:
        return self._standing.hello()

    def status(self) -> Status:
        snapshot = self._standing.snapshot(self._clock.now(), self._rows.values())
        if snapshot is None:
            raise NotNow("the recording does not say how the engine stood at this moment")
        return snapshot.status

    def models(self) -> list[ModelStatus]:
        return list(self._standing.models)

    def jobs(self, *, all: bool = False) -> list[Job]:
        return list(self._standing.jobs.values())

    def job(self, job_id: int) -> Job:
        if job_id not in self._standing.jobs:
            raise NotFound(f"the recording knows no job {job_id} at this moment")
        return self._standing.jobs[job_id]

    def logs(self, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        return [line for line in self._standing.log if line.seq > after][:limit]

    def history(self, device_id: str, *, seconds: float, columns: int) -> MemoryHistory:
        moment, width_s = self._clock.telling_now(), seconds / columns
        rows = self._recording.rows(device_id, since=moment - seconds, until=moment, finest=tier_for(width_s))
        found = columns_of(rows, since=moment - seconds, width_s=width_s, count=columns)
        return MemoryHistory(device_id=device_id, columns=tuple(found))

    # ------------------------------------------------------------------ what a replay cannot do

    def preview(self, job_id: int, step: int | None = None) -> NoReturn:
        raise NotNow(REFUSAL)

    def course(self, job_id: int) -> NoReturn:
        raise NotNow(REFUSAL)

    def out_of_memory(self, job_id: int) -> NoReturn:
        raise NotNow(REFUSAL)

    def submit(self, spec: JobSpec) -> NoReturn:
        raise NotNow(REFUSAL)

    def forecast(self, spec: JobSpec) -> NoReturn:
        raise NotNow(REFUSAL)

    def submit_many(self, batch: JobBatch) -> NoReturn:
        raise NotNow(REFUSAL)

    def forecast_many(self, batch: JobBatch) -> NoReturn:
        raise NotNow(REFUSAL)

    def cancel(self, job_id: int) -> NoReturn:
        raise NotNow(REFUSAL)

    def retry(self, job_id: int) -> NoReturn:
        raise NotNow(REFUSAL)

    def duplicate(self, job_id: int) -> NoReturn:
        raise NotNow(REFUSAL)

    def hold(self, job_id: int, *, held: bool) -> NoReturn:
        raise NotNow(REFUSAL)

    def move(self, job_id: int, move: JobMove) -> NoReturn:
        raise NotNow(REFUSAL)

    def resume_queue(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def switch(self, request: SwitchRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def cancel_switch(self, request: CancelRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def unload(self, request: UnloadRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def free(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def park(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def cleanup(self, request: CleanupRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def kill(self, request: KillRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def spare(self, request: SpareRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def warm(self, request: WarmRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def drop_warm(self, request: WarmRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def explain(self, spec: JobSpec) -> NoReturn:
        raise NotNow(REFUSAL)

    def explain_switch(self, request: SwitchRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def check(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def last_check(self) -> NoReturn:
        raise NotNow(NO_CHECK)

    def leaks(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def trace(self, request: TraceRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def mark(self, request: MarkRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def export_snapshot(self, request: ExportRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def remedy(self, request: RemedyRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def full_cleanup_plan(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def full_cleanup(self, request: FullCleanupRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def outputs(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def prune_outputs(self, request: PruneRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def reset_plan(self, device: str) -> NoReturn:
        raise NotNow(REFUSAL)

    def reset_helper(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def reset(self, request: ResetRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def audit(self, *, limit: int = 200, before: float | None = None) -> NoReturn:
        raise NotNow(REFUSAL)

    def ledger(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        job: int | None = None,
        kinds: Sequence[LedgerKind] = (),
        model: str | None = None,
    ) -> NoReturn:
        raise NotNow(REFUSAL)

    def cache(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def clear_cache(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def make_demo_models(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def scan_models(self, request: ScanRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def released_models(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def get_plan(self, name: str) -> NoReturn:
        raise NotNow(REFUSAL)

    def model_errand(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def get_model(self, request: GetRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def import_model(self, request: ImportRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def cancel_errand(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def plan_quantising(self, request: QuantiseRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def quantise(self, request: QuantiseRequest) -> NoReturn:
        raise NotNow(REFUSAL)

    def stop_quantising(self) -> NoReturn:
        raise NotNow(REFUSAL)

    def stop(self, request: StopRequest) -> NoReturn:
        raise NotNow(REFUSAL)


def _tier_for(speed: float) -> Tier:
    """As fine as anybody can see at this speed."""
    return READINGS if speed <= 2 else SECONDS if speed <= 60 else SPANS
