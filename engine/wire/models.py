"""Models on disk, and where their components are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.quantise import QuantiseProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution(Wire):
    """A row of a model's own table."""

    name: str
    """Such as `480p`."""
    aspect_ratio: str
    """Such as `16:9`."""
    width: int
    height: int


ComponentState: TypeAlias = Literal["absent", "loading", "resident"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentStatus(Wire):
    """One loadable part of a model, and where its weights are."""

    name: str
    """`dit`, or `dit.high` and `dit.low`; `text`; `vae`."""
    bytes: int
    state: ComponentState
    leased: bool = False
    """In use by a job; cannot be evicted."""
    warm_bytes: int | None = None
    """How much of it lies in host memory ready to copy; None when that cannot be known."""
    back_in_s: float | None = None
    """Expected seconds to load it, from measured rates; None before anything was measured."""


ModelKind: TypeAlias = Literal["t2v", "i2v"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStatus(Wire):
    """A model on disk and how much of it is loaded."""

    name: str
    kind: ModelKind
    title: str
    demo: bool
    path: str
    dtype: str
    bytes: int
    active: bool
    """Asked for last, by a job or a switch, and at least in part there or about to be."""
    problem: str | None = None
    """Why it cannot be used, naming the file and the way out; None when it can."""
    no_jobs: str | None = None
    """Why it takes no jobs though its weights can be used: its DiT is not distilled."""
    components: tuple[ComponentStatus, ...]
    resolutions: tuple[Resolution, ...]
    default_resolution: str
    default_aspect_ratio: str
    default_frames: int
    default_steps: int
    max_frames: int
    last_used_at: float | None = None
    attention: str | None = None
    """How its DiT was trained to attend: `dense`, or `sla` where it has the weights of the linear part.
    None of an engine that does not say."""
    quantised_from: str | None = None
    """Name of the model of which its int8 weights were made, by its own card."""
    sibling: str | None = None
    """Name of its int8 sibling here, or of the model that it is the int8 sibling of."""
    quantising: QuantiseProgress | None = None
    """How far the making of its int8 sibling is, while the engine has one made."""

    @property
    def takes_jobs(self) -> bool:
        return self.problem is None and self.no_jobs is None
