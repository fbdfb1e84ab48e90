"""What is wrong with processes: leftovers of engines and WebUIs, those that no signal reaches, tenants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.checks.facts import Facts, ProcessFact, gpu_name, who
from engine.checks.marks import SERVICE_PARENTS
from engine.telemetry.programs import TURBOTUI_WORKER, is_web_ui
from engine.units import size_text
from engine.wire import DeviceProcess, DeviceStatus, Finding

SETTLED_S = 120.0
"""A WebUI that is younger may not listen yet."""


def orphans(facts: Facts) -> Iterator[Finding]:
    """Our workers, nurseries and probes whose engine is gone."""
    if not facts.scanned:
        return  # an ancestor may be one that was not looked at
    for process in facts.processes:
        if process.uid != facts.uid or process.role in (None, "daemon") or not process.left:
            continue
        if process.state == "Z":
            continue  # holds nothing
        held = _held(facts, process.pid)
        on_card = f", {_where(held)}" if held else ""
        stuck = process.stuck_in
        if stuck:
            remedy = "No signal ends it there; what it holds may come back when the driver answers."
            command = None
        elif held:
            remedy = "End it; nothing else can use it any more."
            command = f"turbotui kill {process.pid}"
        else:
            # `turbotui kill` ends only what is on a card, and a bare pid may be somebody else's by then.
            remedy = "It holds no card, so it can stay; before you end it look whether it still is this one."
            command = f"ps -o pid,user,stat,lstart,cmd -p {process.pid}"
        yield Finding(
            kind="orphan",
            severity="warning" if held else "notice",
            title=f"A {process.role} of an engine that is gone still runs as process {process.pid}{on_card}.",
            evidence=(
                f"Process {process.pid} ({process.name}) is yours and is an engine's by its "
                f"{'title' if process.name.startswith('tt-') else 'command line'}.",
                f"The engine that it was to end with is gone; its parent is {_parent(process)}.",
                *([f"It waits in the kernel ({stuck}), where no signal reaches it."] if stuck else ()),
            ),
            bytes=_sum(there for _device, there in held),
            remedy=remedy,
            remedy_command=command,
            device_id=held[0][0].id if held else None,
            pid=process.pid,
            start_time=process.start_time,
        )


def web_ui_leftovers(facts: Facts) -> Iterator[Finding]:
    """WebUIs on a GPU that nobody can reach any more, as far as that can be seen."""
    for device, listed in _others(facts):
        process = facts.process(listed.pid)
        if process is None or not is_web_ui(listed.program) or not _same(listed, process):
            continue
        orphaned = process.parent == 1 or process.parent_name in SERVICE_PARENTS
        age = facts.since_boot - process.start_time
        if not orphaned or process.has_terminal or process.listens is not False or age < SETTLED_S:
            continue
        ours = process.uid == facts.uid
        yield Finding(
            kind="web_ui_leftover",
            severity="warning" if ours else "notice",
            title=f"{who(listed)} on {gpu_name(device)} looks like a leftover: nobody can reach it.",
            evidence=(
                f"Its parent is {_parent(process)}, so whoever started it is gone.",
                "It listens on no TCP port and has no terminal.",
                f"It holds {_size(listed.bytes)} and has run for {_hours(age)}.",
            ),
            bytes=listed.bytes,
            remedy="Look whether it still writes anything that you want; then end it."
            if ours
            else f"Ask {listed.user or 'its owner'}; it may be a job that needs no port.",
            remedy_command=f"turbotui kill {listed.pid}" if ours else None,
            admin_line=None if ours else _ask_line(facts, device, listed),
            device_id=device.id,
            pid=listed.pid,
            start_time=listed.start_time,
        )


def unreachable_by_signals(facts: Facts) -> Iterator[Finding]:
    """Processes on a GPU in state D, and zombies that the driver still counts."""
    for device in facts.gpus:
        for listed in device.processes:
            process = facts.process(listed.pid)
            if process is None or not _same(listed, process):
                continue
            if process.stuck_in is not None:
                yield _stuck(facts, device, listed, process)
            elif process.state == "Z" and listed.bytes:
                yield _zombie(device, listed, process)


def other_engines(facts: Facts) -> Iterator[Finding]:
    """Workers of other engines, which share a GPU with ours or would."""
    for device, listed in _others(facts):
        if listed.program != TURBOTUI_WORKER:
            continue
        process = facts.process(listed.pid)
        if process is not None and process.uid == facts.uid and process.left:
            continue  # told as an orphan
        mine = process is not None and process.uid == facts.uid
        yield Finding(
            kind="other_engine",
            severity="info",
            title=f"Another turbotui engine is on {gpu_name(device)}, of {listed.user or 'another user'}.",
            evidence=(
                f"Its worker {listed.pid} holds {_size(listed.bytes)}"
                + (f" in {listed.container}." if listed.container else "."),
            ),
            bytes=listed.bytes,
            remedy="It is yours, with another TURBOTUI_HOME: stop it from there if you do not need it."
            if mine
            else f"Agree with {listed.user or 'its owner'} who uses which GPU; engine.device chooses yours.",
            device_id=device.id,
            pid=listed.pid,
            start_time=listed.start_time,
        )


def _stuck(facts: Facts, device: DeviceStatus, listed: DeviceProcess, process: ProcessFact) -> Finding:
    return Finding(
        kind="stuck_process",
        severity="warning",
        title=f"{who(listed)} on {gpu_name(device)} waits in the kernel, where no signal reaches it.",
        evidence=(
            f"A thread of it is in state D in {process.stuck_in} and has not run between two looks.",
            f"It holds {_size(listed.bytes)}.",
        ),
        bytes=listed.bytes,
        remedy="Nothing is promised: it ends when the kernel lets go of it, or with the host.",
        admin_line=f"{_line_head(facts, device)}: process {listed.pid} of {listed.user or '?'} is in state D "
        f"in {process.stuck_in}; see `cat /proc/{listed.pid}/stack` and `dmesg`",
        device_id=device.id,
        pid=listed.pid,
        start_time=listed.start_time,
    )


def _zombie(device: DeviceStatus, listed: DeviceProcess, process: ProcessFact) -> Finding:
    return Finding(
        kind="zombie",
        severity="notice",
        title=f"Process {listed.pid} on {gpu_name(device)} has ended, and the driver still counts it.",
        evidence=(
            f"It is a zombie until its parent, {_parent(process)}, waits for it.",
            f"The driver counts {_size(listed.bytes)} for it; a thread or a child that lives may hold them.",
        ),
        bytes=listed.bytes,
        remedy=f"Look at its parent, process {process.parent}: when that ends or waits, this goes.",
        remedy_command=f"ps -o pid,user,stat,lstart,cmd -p {process.parent}",
        device_id=device.id,
        pid=listed.pid,
        start_time=listed.start_time,
    )


def _others(facts: Facts) -> Iterator[tuple[DeviceStatus, DeviceProcess]]:
    for device in facts.gpus:
        for listed in device.processes:
            if listed.ours is None:
                yield device, listed


def _same(listed: DeviceProcess, process: ProcessFact) -> bool:
    """Whether NVML's pid and ours mean one process: both looks saw the same start."""
    return listed.start_time is not None and abs(listed.start_time - process.start_time) < 0.02


def _held(facts: Facts, pid: int) -> list[tuple[DeviceStatus, int | None]]:
    return [
        (device, listed.bytes) for device in facts.gpus for listed in device.processes if listed.pid == pid
    ]


def _where(held: Iterable[tuple[DeviceStatus, int | None]]) -> str:
    return ", ".join(f"with {_size(there)} on {gpu_name(device)}" for device, there in held)


def _sum(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if not known or None in known else sum(size or 0 for size in known)


def _parent(process: ProcessFact) -> str:
    name = f" ({process.parent_name})" if process.parent_name else ""
    return f"process {process.parent}{name}"


def _size(num_bytes: int | None) -> str:
    return "bytes that the driver does not tell" if num_bytes is None else size_text(num_bytes)


def _hours(age_s: float) -> str:
    return f"{age_s / 3600:.1f} h" if age_s >= 3600 else f"{age_s / 60:.0f} min"


def _line_head(facts: Facts, device: DeviceStatus) -> str:
    return f"{facts.host}, {gpu_name(device)} ({device.id})"


def _ask_line(facts: Facts, device: DeviceStatus, listed: DeviceProcess) -> str:
    return (
        f"{_line_head(facts, device)}: process {listed.pid} of {listed.user or '?'} holds "
        f"{_size(listed.bytes)} and looks left over (no parent, port or terminal); is it still wanted?"
    )
