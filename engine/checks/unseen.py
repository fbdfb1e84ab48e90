"""Memory that the driver counts and no process owns that we can see: since when, and why, by likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.checks.facts import Facts, gpu_name, who
from engine.telemetry.programs import MPS
from engine.units import GIB, MIB, counted, size_text
from engine.wire import DeviceStatus, Finding, nobodys_bytes

LEAST_BYTES = 128 * MIB
"""Below this it may be the driver's own working memory."""
WARNING_BYTES = GIB
LEFT_S = 10.0
"""A process that left so lately may still be giving its memory back: 10 s was the slowest ever reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One explanation; the order of a list of them is their likelihood."""

    name: str
    """As `another container`."""
    why: str
    """What speaks for it, or that nothing can be said against it."""


def unseen(facts: Facts) -> Iterator[Finding]:
    """One finding for each GPU with memory that nobody owns."""
    for device in facts.gpus:
        num_bytes = unseen_bytes(device)
        if num_bytes is not None and num_bytes >= LEAST_BYTES:
            yield _finding(facts, device, num_bytes)


def unseen_bytes(device: DeviceStatus) -> int | None:
    """By the newest coherent balance; None where that cannot be told."""
    balance = device.balance
    return None if balance is None or not balance.coherent else nobodys_bytes(balance)


def rank_causes(facts: Facts, device: DeviceStatus) -> tuple[Cause, ...]:
    """What may hold it, the likeliest first; a ghost only where everything else is ruled out."""
    causes: list[Cause] = []
    on_card = {process.pid for process in device.processes}
    left = [
        change
        for change in facts.changes
        if not change.came and change.device_id == device.id and facts.at - change.at <= LEFT_S
    ]
    causes += [
        Cause(
            name="a context that is being torn down",
            why=f"{who(change.process)} left this GPU {facts.at - change.at:.0f} s ago"
            + (f" and held {size_text(change.process.bytes)}" if change.process.bytes else ""),
        )
        for change in left[-2:]
    ]
    stuck = [process for process in facts.processes if process.stuck_in and process.holds_gpu is not False]
    causes += [
        Cause(
            name=f"process {process.pid}, which hangs in the kernel",
            why=f"it waits in {process.stuck_in}, where its memory is not given back",
        )
        for process in stuck[:2]
    ]
    if any(process.program == MPS for process in device.processes) or any(
        process.name.startswith("nvidia-cuda-mps") for process in facts.processes
    ):
        causes.append(
            Cause(
                name="clients of the MPS server", why="it runs, and its clients' memory is not always theirs"
            )
        )
    for process in facts.processes:
        if process.holds_gpu and process.pid not in on_card and process.stuck_in is None:
            if process.role is None and len(causes) < 6:
                causes.append(
                    Cause(
                        name=f"process {process.pid} ({process.name})",
                        why="it has a GPU's file open and is on none of NVML's lists",
                    )
                )
    view = device.view
    if view is not None and not view.complete and view.reason is not None:
        causes.append(Cause(name="somebody whom this engine cannot see", why=view.reason))
    elif view is not None and view.complete and facts.scanned:
        causes.append(
            Cause(
                name="a ghost: memory of a process that is gone",
                why="this engine sees the host's processes, all of them, and none of them owns it",
            )
        )
    elif not causes:
        causes.append(
            Cause(name="a process that cannot be seen from here", why="how much is seen is unknown")
        )
    return tuple(causes)


def _finding(facts: Facts, device: DeviceStatus, num_bytes: int) -> Finding:
    causes = rank_causes(facts, device)
    ghost = causes[0].name.startswith("a ghost")
    passing = causes[0].name.startswith("a context")
    size = size_text(num_bytes)
    severity = "warning" if num_bytes >= WARNING_BYTES and not passing else "notice"
    named = "is a ghost's" if ghost else "has no process that can be seen"
    evidence = [
        f"The driver counts {size} beyond its own reserve and the "
        f"{counted(len(device.processes), 'process', 'processes')} that it lists.",
        *(
            f"{'Likeliest' if not n else 'Else'}: {cause.name}, since {cause.why}."
            for n, cause in enumerate(causes)
        ),
    ]
    remedy = "Wait a few seconds and look again." if passing else "Have it looked for where all is seen."
    if ghost:
        remedy = "Only a GPU reset or the driver gives it back; try everything else first."
    return Finding(
        kind="ghost" if ghost else "unseen",
        severity=severity,  # type: ignore[arg-type]  # one of two words above
        title=f"{size} on {gpu_name(device)} {named}.",
        evidence=tuple(evidence),
        bytes=num_bytes,
        since=facts.unseen_since.get(device.id),
        remedy=remedy,
        remedy_command="turbotui check" if passing else None,
        admin_line=f"{facts.host}, {gpu_name(device)} ({device.id}, {device.name}): the driver counts {size} "
        f"used that no process visible to {facts.user} (uid {facts.uid}) holds; please look on the host with "
        "`nvidia-smi --query-compute-apps=pid,used_memory --format=csv` and `fuser -v /dev/nvidia*`",
        device_id=device.id,
    )
