"""The driver's reset of one GPU: what is looked at before, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire

ResetState: TypeAlias = Literal["ok", "blocks", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetCondition(Wire):
    """One thing that decides whether a GPU can be reset."""

    name: str
    state: ResetState
    """`unknown` does not block: the driver itself refuses where it has to."""
    text: str
    """What was found, and the way out where it blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetHolder(Wire):
    """A process that has the GPU's device file open or is on the driver's list of it."""

    pid: int
    user: str | None = None
    command: str = ""
    ours: str | None = None
    """Its role where it is this engine's own (`worker`, `probe`, ...), which ends it itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetPlan(Wire):
    """What a reset of a GPU would do now, and what stands against it."""

    device_id: str
    index: int
    """What has to be typed to confirm."""
    name: str
    bus_id: str | None
    used_bytes: int | None
    """On the whole GPU, by the driver."""
    recovery_action: str | None
    """What the driver itself recommends (`None`, `Reset`, `Reboot`, ...); None where it does not tell."""
    conditions: tuple[ResetCondition, ...]
    holders: tuple[ResetHolder, ...]
    ends: tuple[str, ...]
    """Processes of this engine that are ended before, and what becomes of their work."""
    commands: tuple[tuple[str, ...], ...]
    """What would be run, word by word."""

    @property
    def blocked_by(self) -> tuple[ResetCondition, ...]:
        """What stands against it."""
        return tuple(condition for condition in self.conditions if condition.state == "blocks")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetRequest(Wire):
    """Reset one GPU. Everything on it is lost."""

    device_id: str
    """Its UUID, `GPU-...`."""
    index: int
    """The GPU's index as the person typed it, which must be that of `device_id`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetHelper(Wire):
    """The one program that may reset GPUs as root for somebody who is not, and how to install it."""

    path: str
    script: str
    sudoers_path: str
    sudoers: str
    installed: bool
    problem: str | None = None
    """Why it is not used although something lies there, or None."""
