"""Byte counts in the engine's sentences. The console and the CLI have their own (`turbotui.format`)."""

from __future__ import annotations

GIB = 2**30
MIB = 2**20


def size_text(num_bytes: int) -> str:
    """`13.54 GiB`, `84.2 MiB` or `512 B`."""
    if abs(num_bytes) >= GIB:
        return f"{num_bytes / GIB:.2f} GiB"
    if abs(num_bytes) >= MIB:
        return f"{num_bytes / MIB:.1f} MiB"
    return f"{num_bytes} B"
