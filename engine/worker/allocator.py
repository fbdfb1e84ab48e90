"""Settings of the device's caching allocator: applied in the forked worker, then read back from it.

What is shown is what the allocator itself says, never what was asked for.
"""

from __future__ import annotations

from typing import Literal

import torch

from engine.errors import InvalidRequest

TOLD = (
    "max_split_size",
    "garbage_collection_threshold",
    "expandable_segments",
    "backend",
)
"""What of its many settings decides how memory comes back."""


def apply_allocator(settings: str) -> None:
    """Apply `settings`, spelt as in PYTORCH_ALLOC_CONF; before the first allocation on the device.

    Raises:
        InvalidRequest: the allocator does not know one of them.
    """
    if not settings:
        return
    try:
        # The newer name says the same for every kind of device.
        apply = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
        (apply or torch.cuda.memory._set_allocator_settings)(settings)
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise InvalidRequest(
            f"the allocator refuses {settings!r} ({line}); correct engine.allocator or remove it"
        ) from error


def read_allocator(kind: Literal["cuda", "cpu"]) -> str | None:
    """The settings that are in force, as the allocator tells them: `name:value` by name."""
    if kind == "cpu":
        return None
    try:
        told = torch.cuda.memory._snapshot()["allocator_settings"]
    except RuntimeError:  # a backend that keeps no books
        return f"backend:{torch.cuda.memory.get_allocator_backend()}"
    return ",".join(f"{name}:{told[name]}" for name in TOLD if name in told)
