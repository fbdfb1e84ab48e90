"""Owns how things stood at a moment of a recording, as the wire tells it: pure, entry by entry.

What the recording does not hold stays unknown: without a word of the engine there is no snapshot,
a part whose bytes were not known says so, and of a span only the most that each part had is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

from engine.recording.entries import (
    DeviceSeen,
    EngineStarted,
    EngineStopped,
    Entry,
    Gap,
    JobProgressed,
    ProcessCame,
    ProcessWent,
)
from engine.recording.rows import MOVING, POWER_W, PROCESS, TEMPERATURE, TOTAL, UNEXPLAINED, UTILISATION, Row
from engine.recording.tiers import CONTEXT_S
from engine.wire import (
    WIRE_VERSION,
    Balance,
    BalancePart,
    DeviceProcess,
    DeviceStatus,
    EngineChanged,
    EngineStatus,
    Event,
    Hello,
    Job,
    JobChanged,
    Logged,
    LogLine,
    ModelsChanged,
    ModelStatus,
    Owner,
    PartKind,
    Receipt,
    ReceiptIssued,
    Snapshot,
    Status,
    WorkerStatus,
)
from turbotui.format import bytes_text, clock

if TYPE_CHECKING:
    from engine.recording.reader import Recording

KINDS: tuple[PartKind, ...] = get_args(PartKind)
OWNERS: tuple[Owner, ...] = get_args(Owner)
LOG_LINES = 500
LOOK_BACK_S = 30.0
"""How old the newest row of a device may be; what is older is not known any more."""
NOT_KEPT = "the recording does not keep why"


class Standing:
    """Takes entries in order of time and says what a viewer of that moment would have been told."""

    def __init__(self) -> None:
        self.started: EngineStarted | None = None
        self.jobs: dict[int, Job] = {}
        self.models: tuple[ModelStatus, ...] = ()
        self.log: list[LogLine] = []
        self._engine: EngineStatus | None = None
        self._workers: tuple[WorkerStatus, ...] = ()
        self._receipt: Receipt | None = None
        self._devices: dict[str, DeviceSeen] = {}
        self._processes: dict[str, dict[int, DeviceProcess]] = {}
        self._seq = 0
        self._whole = False
        """Whether everything was told once: what changed before that is not all there is."""

    def fork(self) -> Standing:
        """Another one that stands as this one does, and goes its own way from here on."""
        other = copy(self)
        other.jobs = dict(self.jobs)
        other._devices = dict(self._devices)
        other._processes = {device_id: dict(known) for device_id, known in self._processes.items()}
        return other

    def take(self, entry: Entry) -> list[Event]:
        """What a viewer is told of an entry."""
        what = entry.what
        match what:
            case Snapshot():
                # It stands for what was told before; a viewer who listens knows it already.
                first, self._whole = not self._whole, True
                self._engine, self._workers = what.status.engine, what.status.workers
                self.models, self._receipt = what.status.models, what.receipt
                self.jobs = {job.id: job for job in what.jobs}
                return [replace(what, log=tuple(self.log))] if first else []
            case EngineChanged():
                self._engine, self._workers = what.engine, what.workers
            case ModelsChanged():
                self.models = what.models
            case JobChanged():
                self.jobs[what.job.id] = what.job
            case JobProgressed():
                return self._progressed(what)
            case ReceiptIssued():
                self._receipt = what.receipt
            case Logged():
                return [self._write(what.line)]
            case DeviceSeen():
                self._devices[what.id] = what
                return []
            case EngineStarted():
                self.started = what
                # It holds nothing of what the one before it held, and tells of itself in a moment.
                self._whole, self.models, self._workers = False, (), ()
                self._processes.clear()
                return [self._say(entry.at, "engine", f"an engine starts: {what.build}, pid {what.pid}")]
            case EngineStopped():
                return [self._say(entry.at, "engine", "the engine stopped; nothing is known until the next")]
            case Gap():
                text = f"nothing is known since {clock(what.since)}: {what.reason}"
                return [self._say(entry.at, "gap", text, level="warning")]
            case ProcessCame():
                return self._came(entry.at, what)
            case ProcessWent():
                self._processes.get(what.device_id, {}).pop(what.process.pid, None)
                if what.process.ours is not None:
                    return []
                return [
                    self._say(
                        entry.at,
                        "foreign",
                        f"{_who(what.process)} went, had up to {bytes_text(what.peak_bytes)}",
                    )
                ]
        return [cast("Event", what)]

    def hello(self) -> Hello:
        """Who the engine was, as far as the recording says."""
        started = self.started
        return Hello(
            wire=WIRE_VERSION,
            build=started.build if started is not None else "unknown",
            schema=0,
            pid=started.pid if started is not None else 0,
            start_time=0.0,
            instance=started.instance if started is not None else "",
            host=started.host if started is not None else "unknown",
            user=started.user if started is not None else "unknown",
        )

    def snapshot(self, moment: float, rows: Iterable[Row]) -> Snapshot | None:
        """Everything as it stood at `moment`, with each device's newest row; None while that is unknown."""
        engine = self.engine(moment)
        if engine is None:
            return None
        return Snapshot(
            status=Status(
                engine=engine,
                workers=self._workers,
                devices=tuple(self.device(row) for row in rows),
                models=self.models,
            ),
            jobs=tuple(self.jobs.values()),
            log=tuple(self.log),
            receipt=self._receipt,
        )

    def engine(self, moment: float) -> EngineStatus | None:
        """The engine at `moment`, as it was last told of; None while not everything was told once."""
        if self._engine is None or not self._whole:
            return None
        return replace(self._engine, uptime_s=max(0.0, moment - self._engine.started_at), probe_age_s=None)

    def changed(self, moment: float) -> EngineChanged | None:
        engine = self.engine(moment)
        return None if engine is None else EngineChanged(engine=engine, workers=self._workers)

    def device(self, row: Row) -> DeviceStatus:
        """A device in a span: the most that each part had in it, and the least that was free."""
        seen = self._devices.get(row.device_id)
        moved = any(value is not None and value[0] != value[1] for value in row.values.values())
        parts = []
        held: dict[int, int | None] = {}
        for (kind, owner, label, pid), value in row.values.items():
            if kind == PROCESS and pid is not None:
                held[pid] = None if value is None else value[1]
            elif kind in KINDS and owner in OWNERS:
                size = None if value is None else value[0 if kind == "free" else 1]
                parts.append(
                    BalancePart(
                        kind=kind,
                        owner=owner,
                        bytes=size,
                        label=label,
                        pid=pid,
                        reason=NOT_KEPT if size is None else None,
                    )
                )
        total = _most(row, TOTAL) or 0
        known = self._processes.get(row.device_id, {})
        power = _most(row, POWER_W)
        return DeviceStatus(
            id=row.device_id,
            kind="cpu" if row.device_id == "cpu" else "cuda",
            index=seen.index if seen is not None else None,
            name=seen.name if seen is not None else row.device_id,
            total_bytes=total,
            in_use=seen is not None and seen.in_use,
            balance=Balance(
                device_id=row.device_id,
                taken_at=row.at_ms / 1000,
                coherent=not moved and not _most(row, MOVING),
                total_bytes=total,
                parts=tuple(parts),
                unexplained_bytes=_most(row, UNEXPLAINED) or 0,
            ),
            processes=tuple(
                replace(known[pid], bytes=size) if pid in known else DeviceProcess(pid=pid, bytes=size)
                for pid, size in held.items()
            ),
            utilisation_percent=_most(row, UTILISATION),
            temperature_c=_most(row, TEMPERATURE),
            power_w=None if power is None else float(power),
        )

    def _progressed(self, what: JobProgressed) -> list[Event]:
        job = self.jobs.get(what.job_id)
        if job is None:
            return []
        self.jobs[job.id] = job = replace(job, progress=what.progress)
        return [JobChanged(job=job)]

    def _came(self, at: float, came: ProcessCame) -> list[Event]:
        self._processes.setdefault(came.device_id, {})[came.process.pid] = came.process
        if came.already or came.process.ours is not None:
            return []
        return [self._say(at, "foreign", f"{_who(came.process)} came, {bytes_text(came.process.bytes)}")]

    def _say(self, at: float, event: str, text: str, *, level: Any = "info") -> Logged:
        return self._write(LogLine(seq=0, at=at, level=level, event=event, text=text, memory=True))

    def _write(self, line: LogLine) -> Logged:
        """A line with a number of this replay: each engine counts its own from 1."""
        self._seq += 1
        line = replace(line, seq=self._seq)
        self.log = [*self.log[-LOG_LINES + 1 :], line]
        return Logged(line=line)


def stand_at(recording: Recording, moment: float) -> Standing:
    """How things stood at `moment` of a recording."""
    standing = Standing()
    for entry in recording.entries(moment - CONTEXT_S, moment):
        standing.take(entry)
    return standing


def newest_rows(rows: Iterable[Row], moment: float) -> dict[str, Row]:
    """By device, the newest of `rows` that begins up to `moment` and is not too old to be true of it."""
    found = {row.device_id: row for row in rows if row.at_ms <= moment * 1000}
    least = (moment - LOOK_BACK_S) * 1000
    return {name: row for name, row in found.items() if row.at_ms + row.width_ms >= least}


def _who(process: DeviceProcess) -> str:
    where = f" in {process.container}" if process.container else ""
    return f"{process.user or 'an unknown user'} {process.pid} {process.command or process.name}{where}"


def _most(row: Row, key: tuple[str, str, str, int | None]) -> int | None:
    value = row.values.get(key)
    return None if value is None else value[1]
