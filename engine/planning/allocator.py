"""Which settings the device's caching allocator gets, and why.

Weights lie in regions of their own, one allocation each, so the allocator's work is activations:
few shapes that come again with every step.
"""

from __future__ import annotations

from dataclasses import dataclass

GUIDE = "max_split_size_mb:128"
NOT_AFTER_IMPORT = ("backend",)
"""Settings that torch reads from the environment while it is imported, and never again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllocatorChoice:
    """What a worker's allocator is asked to do."""

    settings: str
    """As PYTORCH_ALLOC_CONF spells them; empty for the library's own."""
    reason: str
    needs_fresh_import: bool
    """Whether a forked worker cannot have them, so that it must import torch itself."""

    def outcome(self, told: str) -> str:
        """The reason, or which of the settings did not come true by what the allocator told of itself."""
        missed = unfulfilled(self.settings, told)
        if missed:
            return f"asked for {self.settings}, but the allocator does not tell of {', '.join(missed)}"
        return self.reason


def choose_allocator(wanted: str) -> AllocatorChoice:
    """The settings that `engine.allocator` stands for."""
    if wanted == "auto":
        return AllocatorChoice(
            settings="",
            reason="its own defaults: one block for a component goes back in 13 ms, where growing segments "
            "would unmap it in pieces of 20 MiB",
            needs_fresh_import=False,
        )
    if wanted == "guide":
        return AllocatorChoice(
            settings=GUIDE,
            reason="the preset of the guide: blocks above 128 MiB are never split",
            needs_fresh_import=False,
        )
    names = [part.partition(":")[0].strip() for part in wanted.split(",")]
    return AllocatorChoice(
        settings=wanted,
        reason="set in config.toml",
        needs_fresh_import=any(name in NOT_AFTER_IMPORT for name in names),
    )


def unfulfilled(settings: str, told: str | None) -> list[str]:
    """Which of the asked `name:value` the allocator does not tell of itself, spelt as it tells them."""
    if told is None or not settings:
        return []
    in_force = dict(item.partition(":")[::2] for item in told.split(","))
    missed = []
    for part in settings.split(","):
        name, _, value = part.strip().partition(":")
        if name == "max_split_size_mb":
            name, value = "max_split_size", str(int(value) * 2**20)
        if in_force.get(name, "").lower() != value.lower():
            missed.append(part.strip())
    return missed
