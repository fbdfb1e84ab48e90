"""Owns what the console knows: an immutable ConsoleState, and the pure `reduce` that moves it on.

Everything drawn comes from here. Events of the engine and of the link to it go in, a new state
comes out; nothing here reads a clock, a socket or a widget. The memory's past is not in it but in
`turbotui.history`, since a ring that changes ten times a second is not worth copying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from turbotui.marks import Mark, job_marks, line_marks, process_marks, receipt_marks, with_marks

if TYPE_CHECKING:
    from engine.wire import (
        ActionProgressed,
        Background,
        CheckReport,
        DeviceStatus,
        EngineStatus,
        Event,
        Hello,
        Job,
        LogLine,
        ModelStatus,
        Pressure,
        PreviewMade,
        Receipt,
        WorkerStatus,
    )

STALE_AFTER_S = 3.0
"""A connected engine that says nothing for this long is shown as stale."""
LOG_LINES = 2000
FINISHED_JOBS = 200
STEPS = 20

LinkState = Literal["starting", "connected", "lost"]
Look = Literal["starting", "live", "stale", "lost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkOpening:
    """The console begins to look for an engine, or starts one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkOpened:
    """An engine answered; its events follow."""

    hello: Hello


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkLost:
    """No engine answers, or its stream ended."""

    reason: str
    retry_at: float
    """On the monotonic clock."""
    ended: str = ""
    """How the engine's process ended, as far as anybody can tell."""
    printed: tuple[str, ...] = ()
    """The last lines that it printed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceChosen:
    """The person looks at another device; the engine is not told."""

    device_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceWatched:
    """The console's own look at a device, while no engine answers."""

    device: DeviceStatus


LinkEvent = LinkOpening | LinkOpened | LinkLost | DeviceChosen | DeviceWatched


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleState:
    """One moment of everything that the console shows."""

    link: LinkState = "starting"
    heard_at: float | None = None
    """Monotonic time of the newest frame."""
    told_at: float | None = None
    """Wall-clock time of the newest frame; None before the first."""
    link_since: float | None = None
    """Wall-clock time at which `link` became what it is."""
    lost_reason: str = ""
    lost_how: str = ""
    """How the engine's process ended: `exit -9`; empty where that is not known."""
    own_probe: bool = False
    """No engine tells of the devices, the console's own child does."""
    retry_at: float | None = None
    hello: Hello | None = None
    engine: EngineStatus | None = None
    engine_heard_at: float | None = None
    """Monotonic time at which `engine` arrived, so that its uptime can be carried on."""
    workers: tuple[WorkerStatus, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    chosen_device: str | None = None
    """The device that the person chose to look at; None: the engine's own."""
    models: tuple[ModelStatus, ...] = ()
    jobs: tuple[Job, ...] = ()
    """Finished ones oldest first, then the running, then the waiting in their order."""
    log: tuple[LogLine, ...] = ()
    receipt: Receipt | None = None
    receipts: int = 0
    """How many were issued while we listened; those of a snapshot are older news."""
    steps: tuple[ActionProgressed, ...] = ()
    """The steps so far of an action that has no receipt yet."""
    marks: tuple[Mark, ...] = ()
    background: Background | None = None
    pressure: tuple[Pressure, ...] = ()
    check: CheckReport | None = None
    """What the newest check found, as far as we were told."""
    preview: PreviewMade | None = None
    """The newest picture of a job's latents that can be asked for."""
    goodbye: str | None = None

    @property
    def own_device(self) -> DeviceStatus | None:
        """The device that the engine works on, or the first one seen."""
        return next((device for device in self.devices if device.in_use), None) or next(
            iter(self.devices), None
        )

    @property
    def device(self) -> DeviceStatus | None:
        """The device that is looked at: the chosen one while it is there, else the engine's own."""
        chosen = self.chosen_device
        return next((device for device in self.devices if device.id == chosen), None) or self.own_device

    @property
    def elsewhere(self) -> DeviceStatus | None:
        """The device that the engine works on, while another one is looked at."""
        own, device = self.own_device, self.device
        return own if own is not None and own.in_use and own is not device else None

    @property
    def gpus(self) -> tuple[DeviceStatus, ...]:
        """Those of the host, by their numbers."""
        cards = [device for device in self.devices if device.kind == "cuda"]
        return tuple(sorted(cards, key=lambda device: (device.index is None, device.index or 0, device.id)))

    @property
    def running(self) -> Job | None:
        return next((job for job in self.jobs if job.status == "running"), None)

    @property
    def waiting(self) -> tuple[Job, ...]:
        return tuple(job for job in self.jobs if job.status in ("queued", "waiting_memory"))

    @property
    def finished(self) -> tuple[Job, ...]:
        """Newest first."""
        return tuple(job for job in reversed(self.jobs) if _is_finished(job))

    def job(self, job_id: int) -> Job | None:
        return next((job for job in self.jobs if job.id == job_id), None)

    def look(self, monotonic: float) -> Look:
        """How the link looks at this moment; silence makes it stale before it is lost."""
        if self.link != "connected":
            return self.link
        if self.engine is None or self.heard_at is None:
            return "starting"
        return "stale" if monotonic - self.heard_at > STALE_AFTER_S else "live"


def reduce(
    state: ConsoleState, event: Event | LinkEvent, *, wall: float = 0.0, monotonic: float = 0.0
) -> ConsoleState:
    """The state after `event`, which arrived at `wall` and `monotonic`."""
    match event:
        case LinkOpening():
            return replace(state, link="starting", link_since=wall, retry_at=None)
        case LinkOpened(hello=hello):
            return replace(
                state, link="connected", link_since=wall, hello=hello, heard_at=monotonic, retry_at=None,
                own_probe=False,
            )  # fmt: skip
        case DeviceWatched(device=device):
            if state.link == "connected":
                return state  # it was on its way when the engine came back
            return replace(state, devices=_with_device(state.devices, device), own_probe=True)
        case LinkLost(reason=reason, retry_at=retry_at):
            if state.link != "lost":
                jobs = tuple(_without_time_left(job) for job in state.jobs)
                state = replace(state, jobs=jobs, log=_with_printed(state.log, event.printed, wall))
            since = state.link_since if state.link == "lost" else wall
            # What broke first says more than what the attempts after it meet.
            reason = state.lost_reason if state.link == "lost" else state.goodbye or reason
            return replace(
                state, link="lost", link_since=since, lost_reason=reason, retry_at=retry_at, steps=(),
                lost_how=event.ended or (state.lost_how if state.link == "lost" else ""),
            )  # fmt: skip
        case DeviceChosen(device_id=device_id):
            return replace(state, chosen_device=device_id)
    return _reduce_wire(replace(state, heard_at=monotonic, told_at=wall), event, wall, monotonic)


def _reduce_wire(state: ConsoleState, event: Event, wall: float, monotonic: float) -> ConsoleState:
    # Imported here: the first picture is on the screen before the wire models are needed.
    from engine import wire

    match event:
        case wire.MemorySampled(device=device):
            old_device = next((known for known in state.devices if known.id == device.id), None)
            came_and_went = process_marks(old_device, device, wall)
            return replace(
                state,
                devices=_with_device(state.devices, device),
                marks=with_marks(state.marks, came_and_went),
            )
        case wire.PreviewMade():
            return replace(state, preview=event)
        case wire.JobChanged(job=job):
            old = state.job(job.id)
            jobs = in_order([kept for kept in state.jobs if kept.id != job.id] + [job])
            return replace(state, jobs=jobs, marks=with_marks(state.marks, job_marks(old, job)))
        case wire.Logged(line=line):
            if state.log and line.seq <= state.log[-1].seq:
                return state
            marks = with_marks(state.marks, line_marks(line))
            return replace(state, log=(*state.log, line)[-LOG_LINES:], marks=marks)
        case wire.EngineChanged(engine=engine, workers=workers):
            return replace(state, engine=engine, engine_heard_at=monotonic, workers=workers)
        case wire.ModelsChanged(models=models):
            return replace(state, models=models)
        case wire.JobsReordered(job_ids=job_ids):
            places = {job_id: place for place, job_id in enumerate(job_ids, 1)}
            moved = [replace(job, position=places.get(job.id, job.position)) for job in state.jobs]
            return replace(state, jobs=in_order(moved))
        case wire.ActionProgressed():
            # What a cleanup loads again belongs to it; anything else is another action.
            own = (state.steps[0].action, "load") if state.steps else ()
            goes_on = event.action in own or "full_cleanup" in own  # whatever ends within is a part of it
            before = state.steps if goes_on else ()
            if before and before[-1].step.total_bytes is not None:  # what was under way has come further
                before = before[:-1]
            return replace(state, steps=(*before, event)[-STEPS:])
        case wire.ReceiptIssued(receipt=receipt):
            marks = with_marks(state.marks, receipt_marks(receipt, wall))
            # A load within an action has a receipt of its own and does not end the action.
            ended = bool(state.steps) and receipt.action == state.steps[0].action
            steps = () if ended else state.steps
            return replace(state, receipt=receipt, receipts=state.receipts + 1, steps=steps, marks=marks)
        case wire.Snapshot(status=status, jobs=jobs, log=log, receipt=receipt):
            found = [mark for job in jobs for mark in job_marks(None, job)]
            found += [mark for line in log for mark in line_marks(line)]
            if receipt is not None:
                found += receipt_marks(receipt, wall)
            return replace(
                state,
                engine=status.engine,
                engine_heard_at=monotonic,
                workers=status.workers,
                devices=status.devices,
                models=status.models,
                background=status.background,
                pressure=status.pressure,
                jobs=in_order(list(jobs)),
                log=log[-LOG_LINES:],
                receipt=receipt,
                steps=(),
                marks=with_marks(state.marks, found),
                goodbye=None,
            )
        case wire.BackgroundChanged(background=background):
            return replace(state, background=background)
        case wire.PressureChanged(pressure=pressure):
            return replace(state, pressure=pressure)
        case wire.Goodbye(reason=reason):
            return replace(state, goodbye=reason)
        case wire.FindingsChanged(report=report):
            # An answer to a question may come after the news of a later check.
            older = state.check is not None and report.at < state.check.at
            return state if older else replace(state, check=report)
        case wire.Heartbeat():
            return state


def _with_printed(log: tuple[LogLine, ...], printed: tuple[str, ...], wall: float) -> tuple[LogLine, ...]:
    """The log and below it what an engine that ended has printed, which is in no log that it told."""
    from engine.wire import LogLine

    last = log[-1].seq if log else 0
    lines = [
        LogLine(seq=last + number, at=wall, level="error", event="printed", text=text, memory=True)
        for number, text in enumerate(printed, 1)
    ]
    return (*log, *lines)[-LOG_LINES:]


def _without_time_left(job: Job) -> Job:
    """`job` without what nobody can tell any more: whether it still runs is not known either."""
    progress = job.progress
    if progress is None or progress.eta_s is None:
        return job
    return replace(job, progress=replace(progress, eta_s=None))


def _is_finished(job: Job) -> bool:
    return job.status in ("done", "failed", "cancelled", "interrupted")


def in_order(jobs: list[Job]) -> tuple[Job, ...]:
    """As the queue shows them: those that ended, the newest of them, then what runs, then what waits."""

    def rank(job: Job) -> tuple[int, float, int]:
        if _is_finished(job):
            return (0, job.finished_at or 0.0, job.id)
        if job.status == "running":
            return (1, 0.0, job.id)
        return (2, job.position if job.position is not None else 1e9, job.id)

    ordered = sorted(jobs, key=rank)
    ended = sum(_is_finished(job) for job in ordered)
    return tuple(ordered[max(0, ended - FINISHED_JOBS) :])


def _with_device(devices: tuple[DeviceStatus, ...], device: DeviceStatus) -> tuple[DeviceStatus, ...]:
    if any(known.id == device.id for known in devices):
        return tuple(device if known.id == device.id else known for known in devices)
    return (*devices, device)
