"""Workspaces that a library such as cuBLAS keeps in the allocator's memory: the first job takes them."""

from __future__ import annotations

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import LEAST_LEAK, collect
from engine.units import counted, size_text
from engine.wire import Remedy, Verdict
from engine.worker.leaks.facts import UnownedBlocks

CLEARED = "cuBLAS"
"""The library whose workspaces torch can give back; the next product makes them anew."""


def library(facts: Facts) -> tuple[Verdict, ...]:
    """One for each library."""
    found = () if facts.look is None else facts.look.unowned
    names = dict.fromkeys(item.library for item in found if item.library is not None)
    verdicts = (_verdict(facts, name, [item for item in found if item.library == name]) for name in names)
    return tuple(verdict for verdict in verdicts if (verdict.bytes or 0) >= LEAST_LEAK)


def _verdict(facts: Facts, name: str, blocks: list[UnownedBlocks]) -> Verdict:
    num_bytes = sum(item.bytes for item in blocks)
    size = size_text(num_bytes)
    return Verdict(
        kind="library",
        leak=False,
        title=f"{size} on {facts.name} are workspaces of {name}, which keeps them.",
        evidence=(
            f"{counted(sum(item.blocks for item in blocks), 'block')} of {size}, by their size and time.",
            "A library takes them with its first call and uses them again with every later one.",
        ),
        bytes=num_bytes,
        device_id=facts.device_id,
        site=blocks[0].site,
        site_reason=blocks[0].site_reason,
        remedy=_remedy(name, num_bytes),
    )


def _remedy(name: str, num_bytes: int) -> Remedy | None:
    return collect(num_bytes) if name.startswith(CLEARED) else None
