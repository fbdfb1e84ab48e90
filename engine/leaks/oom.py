"""Why a job ran out of memory, in figures and sentences: facts in, a report out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.models.model import Model
from engine.planning.admission import Admitted
from engine.planning.footprint import DeviceKind, estimate_footprint
from engine.units import MIB, size_text
from engine.wire import (
    Balance,
    BalancePart,
    BoundKind,
    DeviceStatus,
    Job,
    OomFit,
    OomFreeable,
    OomReport,
    Owner,
    PartKind,
    Residency,
)
from engine.worker.oom_facts import OomMoment

LEAST_BYTES = 16 * MIB
"""What gives back less would not have helped."""
MOST_FITS = 3
OTHERS: frozenset[PartKind] = frozenset({"context", "process", "driver", "unseen", "ghost", "others"})
"""What the worker cannot count itself."""
MOST_TENANTS = 4
HOSTS: frozenset[BoundKind] = frozenset({"address_space", "cgroup", "host"})
"""Limits that what lies on a card does not count against."""
ROOM_SHARE = 0.98
"""Of the room that was there: what fits to the last byte fails by the next one's rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OomFacts:
    """What a report is made of."""

    job: Job
    model: Model
    admitted: Admitted
    budget_bytes: int
    moment: OomMoment
    device: DeviceStatus | None
    """By the newest reading of that time."""
    user: str

    @property
    def kind(self) -> DeviceKind:
        return "cpu" if self.device is None or self.device.kind == "cpu" else "cuda"

    @property
    def name(self) -> str:
        if self.device is None or self.device.kind == "cpu":
            return "the host"
        return f"GPU {self.device.index}" if self.device.index is not None else self.device.id


def report_of(facts: OomFacts) -> OomReport:
    """The whole of it."""
    moment, admitted = facts.moment, facts.admitted
    estimated = _peak(facts, admitted.width, admitted.height, admitted.frames)
    freeable = tuple(_freeable(facts))
    fits = _fits(facts, estimated)
    return OomReport(
        job_id=facts.job.id,
        attempt=facts.job.attempt,
        at=moment.at,
        device_id="" if facts.device is None else facts.device.id,
        device_name=facts.name if facts.device is None else facts.device.name,
        stage=moment.stage,
        step=moment.step,
        steps=moment.steps,
        component=moment.component,
        asked_bytes=moment.asked_bytes,
        free_bytes=moment.free_bytes,
        total_bytes=moment.total_bytes,
        held_bytes=moment.held_bytes,
        budget_bytes=facts.budget_bytes,
        estimated_bytes=estimated,
        parts=tuple(_parts(facts)),
        freeable=freeable,
        fits=fits,
        lines=tuple(_lines(facts, estimated, freeable, fits)),
        message=moment.message,
        bound=moment.bound.kind,
        bound_bytes=facts.budget_bytes if moment.bound.kind == "budget" else moment.bound.limit_bytes,
        bound_free_bytes=moment.bound.free_bytes,
    )


# --------------------------------------------------------------------------- what was there


def _parts(facts: OomFacts) -> Iterator[BalancePart]:
    """The worker's by its own count at that moment, the others' by the newest reading."""
    moment = facts.moment
    for label, size in sorted(moment.weights.items()):
        yield _part("weights", "ours", size, label)
    yield _part("live", "ours", moment.live_bytes)
    if facts.kind == "cpu":
        yield _part("runtime", "ours", moment.baseline_bytes)
    else:
        yield _part("awaiting_free", "ours", moment.awaiting_bytes or 0)
        yield _part("releasable", "ours", moment.releasable_bytes or 0)
        yield _part("fragmented", "ours", moment.fragmented_bytes or 0)
    balance: Balance | None = None if facts.device is None else facts.device.balance
    if moment.bound.kind == "address_space":
        return  # what others hold, and what the host has free, is no part of it
    for part in () if balance is None else balance.parts:
        if part.kind in OTHERS:
            yield part
    if moment.free_bytes is not None:
        yield _part("free", "free", moment.free_bytes)


def _part(kind: PartKind, owner: Owner, size: int, label: str = "") -> BalancePart:
    return BalancePart(kind=kind, owner=owner, bytes=size, label=label)


def _freeable(facts: OomFacts) -> Iterator[OomFreeable]:
    """Of what counts against the limit that was met, the cheapest first.

    A cache costs nothing, a component a load, a process somebody's work.
    """
    moment = facts.moment
    on_host = moment.bound.kind in HOSTS
    if on_host:
        yield from _pinned(moment)
    # An unload keeps the addresses of what it gives back, and a card's memory is none of the host's.
    if moment.bound.kind == "address_space" or (on_host and facts.kind == "cuda"):
        return
    cache = moment.releasable_bytes or 0
    if cache >= LEAST_BYTES:
        text = f"{size_text(cache)} of cache, which the allocator flushes before it gives up."
        yield OomFreeable(what="cache", text=text, bytes=cache, command="turbotui free")
    for label, size in sorted(moment.weights.items(), key=lambda item: -item[1]):
        if size >= LEAST_BYTES and ":" not in label and label != moment.component:
            text = f"{label} with {size_text(size)}, which this stage did not use."
            yield OomFreeable(what="component", text=text, bytes=size, command=f"turbotui unload {label}")
    fragmented = moment.fragmented_bytes or 0
    if fragmented >= LEAST_BYTES:
        text = f"{size_text(fragmented)} are free and cut up between live blocks; a fresh worker has none."
        yield OomFreeable(what="fragmented", text=text, bytes=fragmented, command="turbotui cleanup")
    yield from _tenants(facts)


def _pinned(moment: OomMoment) -> Iterator[OomFreeable]:
    whole, used = moment.pinned_bytes or 0, moment.pinned_used_bytes
    if used is not None and whole - used >= LEAST_BYTES:
        text = f"{size_text(whole - used)} of pinned host memory are in no tensor."
        yield OomFreeable(what="pinned", text=text, bytes=whole - used)
    elif used is None and whole >= LEAST_BYTES:
        text = (
            f"what of {size_text(whole)} of pinned host memory is in no tensor, which is not known: "
            f"{moment.pinned_reason}."
        )
        yield OomFreeable(what="pinned", text=text, bytes=None)


def _tenants(facts: OomFacts) -> Iterator[OomFreeable]:
    if facts.device is None or facts.device.kind == "cpu":
        return
    others = [process for process in facts.device.processes if process.ours is None and process.bytes]
    for process in sorted(others, key=lambda process: -(process.bytes or 0))[:MOST_TENANTS]:
        mine = process.user == facts.user
        what = process.program or process.name or "a program that is not known"
        size = size_text(process.bytes or 0)
        text = f"Process {process.pid} of {process.user or 'another user'} ({what}) held {size}."
        command = f"turbotui kill {process.pid}" if mine else None
        yield OomFreeable(what="process", text=text, bytes=process.bytes, command=command)


# --------------------------------------------------------------------------- what would have fitted


def _peak(facts: OomFacts, width: int, height: int, frames: int) -> int:
    return estimate_footprint(facts.model, width, height, frames, device_kind=facts.kind).peak_bytes


def _room(facts: OomFacts) -> int:
    """What the job could have had: what the worker held and what was free, within its budget."""
    moment = facts.moment
    # An address space that is limited fails at the limit, whatever the host has.
    free = (moment.bound if moment.bound.free_bytes is not None else moment).free_bytes or 0
    there = moment.held_bytes - moment.baseline_bytes + free
    return round(min(there, max(facts.budget_bytes, 0) or there) * ROOM_SHARE)


def _fits(facts: OomFacts, estimated: int) -> tuple[OomFit, ...]:
    """The largest requests that would have had room, each giving up something else.

    What the stage's weights, its tensors and what it asked for come to is what it takes at the least: where
    the estimate is below that, every other one is raised by the same share.
    """
    moment, admitted, room = facts.moment, facts.admitted, _room(facts)
    if facts.kind == "cuda" and moment.bound.kind in HOSTS:
        return ()  # the estimate is of the card's memory
    weights = moment.weights
    used = weights.get(moment.component or "") or max(weights.values(), default=0)
    share = max(1.0, (used + moment.live_bytes + (moment.asked_bytes or 0)) / estimated)
    spec = admitted.spec
    here = next(
        (
            row
            for row in facts.model.card.table
            if (row.width, row.height) == (admitted.width, admitted.height)
        ),
        None,
    )
    if here is None:
        return ()
    found: list[OomFit] = []

    def fit(name: str, ratio: str, width: int, height: int, frames: int, residency: Residency | None) -> bool:
        peak = round(_peak(facts, width, height, frames) * share)
        if peak > room:
            return False
        size = size_text(peak)
        text = f"{width}x{height} with {frames} frames takes {size}."
        if residency == "dit_only":
            text = f"{width}x{height} with {frames} frames, keeping nothing else on the device, takes {size}."
        found.append(
            OomFit(
                text=text,
                resolution=name,
                aspect_ratio=ratio,
                frames=frames,
                residency=residency,
                peak_bytes=peak,
            )
        )
        return True

    # By its estimate a job holds one component at a time, which is what dit_only asks for.
    if spec.residency not in (None, "auto", "dit_only") and estimated <= room:
        fit(here.name, here.aspect_ratio, here.width, here.height, admitted.frames, "dit_only")
    for frames in range(admitted.frames - 4, 0, -4):
        if fit(here.name, here.aspect_ratio, here.width, here.height, frames, spec.residency):
            break
    smaller = [row for row in facts.model.card.table if row.width * row.height < here.width * here.height]
    smaller.sort(key=lambda row: (row.aspect_ratio != here.aspect_ratio, -row.width * row.height))
    for row in smaller:
        if fit(row.name, row.aspect_ratio, row.width, row.height, admitted.frames, spec.residency):
            break
    return tuple(found[:MOST_FITS])


# --------------------------------------------------------------------------- in sentences


def _lines(
    facts: OomFacts, estimated: int, freeable: tuple[OomFreeable, ...], fits: tuple[OomFit, ...]
) -> Iterator[str]:
    moment = facts.moment
    yield _asked(facts)
    yield from _bound(facts)
    weights = sum(moment.weights.values())
    yield f"The worker held {size_text(moment.held_bytes)}, of which {size_text(weights)} are weights."
    yield (
        f"The job was expected to take {size_text(estimated)} at its peak, and might hold "
        f"{size_text(facts.budget_bytes)}."
    )
    for item in freeable:
        yield f"Could have been freed: {item.text}"
    if not freeable:
        yield _nothing(moment.bound.kind)
    for fit in fits:
        yield f"Would have fit: {fit.text}"
    if not fits and (facts.kind == "cpu" or moment.bound.kind not in HOSTS):
        limited = moment.bound.kind in ("address_space", "cgroup")
        yield (
            "By these figures nothing in the model's table would have fit; "
            f"{'raise that limit' if limited else 'free other memory'} first."
        )


def _bound(facts: OomFacts) -> Iterator[str]:
    """The limit that was met, before anything is said of what others hold."""
    moment, bound = facts.moment, facts.moment.bound
    limit, free = size_text(bound.limit_bytes or 0), size_text(bound.free_bytes or 0)
    match bound.kind:
        case "address_space":
            yield (
                f"The system limits the worker's address space to {limit}, of which {free} were left: that "
                "is what ran out. Raise it (`ulimit -v`) where the engine is started."
            )
            if moment.free_bytes is not None:
                yield f"The host still had {size_text(moment.free_bytes)} available."
        case "cgroup":
            yield (
                f"The system limits the worker's cgroup to {limit}, of which {free} were left: that is what "
                "ran out. Raise its `memory.max`, or end what else runs in it."
            )
        case "host" if facts.kind == "cuda":
            yield f"It was the host's memory that ran out: of {limit} then {free} were available."
        case _:
            if moment.free_bytes is not None:
                yield f"Of {size_text(moment.total_bytes)} then {size_text(moment.free_bytes)} were free."


def _nothing(kind: BoundKind) -> str:
    if kind == "address_space":
        return "Nothing would have made room within it: an unload keeps the addresses of what it gives back."
    return "Nothing of ours could have been freed beside what the stage itself used."


def _asked(facts: OomFacts) -> str:
    moment, job, component = facts.moment, facts.job.id, facts.moment.component
    what = "memory" if moment.asked_bytes is None else size_text(moment.asked_bytes)
    stage, step, steps = moment.stage, min(moment.step + 1, moment.steps), moment.steps
    if not steps and component is None:
        return f"Job {job} asked for {what} in the stage {stage}."
    if not steps:
        return f"Job {job} asked for {what} in the stage {stage} with {component}."
    if component is None:
        return f"Job {job} asked for {what} in the stage {stage} at step {step} of {steps}."
    return f"Job {job} asked for {what} in the stage {stage} at step {step} of {steps} with {component}."
