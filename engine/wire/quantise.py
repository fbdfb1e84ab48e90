"""Making a model's int8 sibling: what it will take, how it goes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantisePlan(Wire):
    """What quantising a model would write, and whether there is room for it."""

    model: str
    """The one that is read."""
    name: str
    """The one that is made."""
    path: str
    """Its folder."""
    source_bytes: int
    """Of the DiTs' weights as they are."""
    bytes: int
    """Of the files that are written."""
    kept_bytes: int = 0
    """Of those, what an earlier run that was stopped has left whole."""
    free_bytes: int
    """On the disk of `path`."""
    layers: int
    """Linear layers that become int8, of all DiTs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiseRequest(Wire):
    """Which model to quantise."""

    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiseStopped(Wire):
    """Which model's quantising was stopped; what is written whole stays for the next time."""

    model: str


QuantiseStage: TypeAlias = Literal["write", "check"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiseProgress(Wire):
    """Where it stands."""

    name: str
    stage: QuantiseStage
    file: str
    """Relative to the model's folder."""
    done_bytes: int
    """Of all files, those that were kept included."""
    bytes: int
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiseError(Wire):
    """How far the quantised weights of one kind of layer are from what they were made of."""

    layer: str
    """Such as `attn1.to_q`."""
    relative_l2: float
    """Of the sampled blocks of all such layers: the norm of the difference over that of the weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised(Wire):
    """A model that was quantised."""

    model: str
    name: str
    path: str
    source_bytes: int
    bytes: int
    layers: int
    elapsed_s: float
    errors: tuple[QuantiseError, ...]
    remark: str | None = None
    """A layer that lost more than int8 usually costs."""
    sha256: dict[str, str]
    """Of every written weight file, by its path in the model's folder, read back from the disk."""
