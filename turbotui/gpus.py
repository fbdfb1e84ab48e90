"""Owns what the console says of a GPU in a few cells: its name, who holds it, and what is wrong with it."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from turbotui.format import GIB, UNKNOWN, gib
from turbotui.history import parts_of
from turbotui.text import known, t

if TYPE_CHECKING:
    from engine.wire import DeviceStatus

EIGHTHS = 8
LEAST_HELD = GIB // 16
"""What nobody is seen to hold is told from this size on: below it, it is the readings' own noise."""
USUAL_LIMITS = frozenset({"power cap", "clocks set by a user", "sync boost", "display clocks"})
"""Under load a card is held by these as its maker meant it; any other limit is trouble."""


class Holder(NamedTuple):
    """One who holds memory of a GPU."""

    name: str
    """The user, or what the process calls itself; `?` for memory that nobody is seen to hold."""
    bytes: int | None
    part: str
    """Whose it is, as the name of the part that has its colour: weights (ours), others, unseen."""


class GpuFigures(NamedTuple):
    """A GPU as it is told in one row: rounded, so that only what is seen to change is drawn."""

    id: str
    number: str
    name: str
    level: int
    """Eighths of its memory in use, 1 for next to none; 0: not known."""
    used: str
    total: str
    """GiB, like `used`."""
    holders: tuple[Holder, ...] | None
    """Most first; None: not known."""
    trouble: str
    utilisation: str
    temperature: str
    power: str


def short_name(name: str) -> str:
    """`H200` of `NVIDIA H200`, `H100` of `NVIDIA H100 80GB HBM3`, `A100-SXM4` of `NVIDIA A100-SXM4-80GB`."""
    words = name.removeprefix("NVIDIA ").removeprefix("GeForce ").split()
    size = next((place for place, word in enumerate(words) if place and word.endswith("GB")), len(words))
    kept = " ".join(words[:size])
    head, dash, last = kept.rpartition("-")
    return head if dash and last.endswith("GB") and last[:-2].isdigit() else kept


def used_bytes(device: DeviceStatus) -> int | None:
    """What is not free of it; None before a reading."""
    free = None if device.balance is None else parts_of(device.balance).get("free")
    return None if free is None else device.total_bytes - free


def holders(device: DeviceStatus) -> tuple[Holder, ...] | None:
    """Who holds its memory, most first; None where neither the processes nor the balance are known."""
    if device.balance is None or device.processes_fault is not None:
        return None
    found: dict[str, Holder] = {}
    for process in device.processes:
        name = process.user or process.name or str(process.pid)
        ours = process.ours is not None
        before = found.get(name, Holder(name, 0, "others"))
        size = None if before.bytes is None or process.bytes is None else before.bytes + process.bytes
        found[name] = Holder(name, size, "weights" if ours or before.part == "weights" else "others")
    told = [holder for holder in found.values() if holder.bytes != 0]
    unseen = parts_of(device.balance).get("unseen")
    if unseen is not None and unseen >= LEAST_HELD:
        told.append(Holder("?", unseen, "unseen"))
    return tuple(sorted(told, key=lambda holder: -(holder.bytes or 0)))


def trouble(device: DeviceStatus) -> str:
    """What is wrong with it now, the worst first; empty where nothing is known to be."""
    card = device.card
    if device.fault is not None:
        return t("gpu.unread")
    if card is None:
        return ""
    if card.recovery_action not in (None, "none"):
        return _said("advice", str(card.recovery_action))
    bad = [limit for limit in card.clock_limits or () if limit not in USUAL_LIMITS]
    return _said("limit", bad[0]) if bad else ""


def usual_limit(device: DeviceStatus) -> str:
    """What holds its clocks as its maker meant it, or empty."""
    limits = device.card.clock_limits if device.card is not None else None
    return next((_said("limit", limit) for limit in limits or () if limit in USUAL_LIMITS), "")


def _said(of: str, words: str) -> str:
    """The engine's words in the person's language; those of a newer engine as they are."""
    key = words.replace(",", "").replace(" ", "_").replace("-", "_").lower()
    return known(f"gpu.{of}_{key}", words)


def figures_of(device: DeviceStatus) -> GpuFigures:
    """What of `device` is told in one row."""
    used = used_bytes(device)
    level = 0
    if used is not None and device.total_bytes > 0:
        level = max(1, min(EIGHTHS, ceil(used / device.total_bytes * EIGHTHS)))
    return GpuFigures(
        id=device.id,
        number=UNKNOWN if device.index is None else str(device.index),
        name=short_name(device.name),
        level=level,
        used=gib(used, 0),
        total=gib(device.total_bytes, 0),
        holders=None if (held := holders(device)) is None else tuple(map(_rounded, held)),
        trouble=trouble(device),
        utilisation="" if device.utilisation_percent is None else f"{device.utilisation_percent}%",
        temperature="" if device.temperature_c is None else f"{device.temperature_c}°C",
        power="" if device.power_w is None else f"{device.power_w:.0f}W",
    )


def _rounded(holder: Holder) -> Holder:
    """To a tenth of a GiB: a figure that is not shown must not count as a change."""
    size = holder.bytes
    return holder if size is None else holder._replace(bytes=round(size / GIB * 10) * GIB // 10)
