"""The device in use at a glance: what is resident, what is cached, and whether memory runs short."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.memory import Owner
from engine.wire.models import ComponentState


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundComponent(Wire):
    """A component of a model of which something is on the device."""

    name: str
    bytes: int
    state: ComponentState
    leased: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundModel(Wire):
    """A model of which something is on the device, with all of its components."""

    name: str
    components: tuple[BackgroundComponent, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundCache(Wire):
    """What is kept although nobody uses it now, and where."""

    releasable_bytes: int | None = None
    """Of the device, which `free` gives back."""
    fragmented_bytes: int | None = None
    """Of the device, which shares its segments with live tensors."""
    reason: str | None = None
    """Why these two are None."""
    warm_bytes: int | None = None
    """Of weight files registered in host memory; None where no worker tells."""
    warm_components: int = 0
    """How many components these files hold."""
    prompts: int | None = None
    """Embeddings of earlier prompts on disk; None before they were counted."""
    prompts_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Background(Wire):
    """What the device in use holds: the three lines that the original WebUI showed."""

    device_id: str | None
    """None before a device was chosen."""
    total_bytes: int | None = None
    """None before its first reading, as is `used_bytes`."""
    used_bytes: int | None = None
    """All that is not free, whoever holds it."""
    owners: dict[Owner, int] = field(default_factory=dict)
    """Who holds how much of `used_bytes`; one whose share cannot be known is absent."""
    models: tuple[BackgroundModel, ...] = ()
    cache: BackgroundCache
    lines: tuple[str, ...]
    """The same in words, as the log has them: memory, models, cache."""


PressureLevel: TypeAlias = Literal["none", "warn", "act"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PressureOffer(Wire):
    """Something that can go, and how."""

    what: Literal["free", "component", "warm"]
    """`free`: the device's cache with every idle component; `component`: one of these;
    `warm`: weight files in host memory."""
    target: str
    """A component as `model/component`, else a word for it."""
    bytes: int
    """What would come back; that of `free` has the components in it."""
    command: str
    """What to type in a shell."""
    action: Literal["free", "unload", "warm"]
    """The console's action, whose key does it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth(Wire):
    """Who took memory lately."""

    who: str
    """`liwei 90112`, `our worker 81223`, `unseen`."""
    owner: Owner
    pid: int | None = None
    bytes: int
    over_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Pressure(Wire):
    """How near the device in use, or the host's memory, is to its end."""

    device_id: str
    """`GPU-<uuid>`; `cpu` for a host that is the device; `host` for the memory beside a GPU."""
    level: PressureLevel
    total_bytes: int
    used_bytes: int
    used_share: float
    predicted_bytes: int | None = None
    """In use at the peak of the running or the next job, after all else of ours went; None without one."""
    predicted_share: float | None = None
    predicted_job: int | None = None
    why: str
    """One sentence."""
    grew: tuple[Growth, ...] = ()
    """Who grew within the last minute, the most first."""
    offers: tuple[PressureOffer, ...] = ()
