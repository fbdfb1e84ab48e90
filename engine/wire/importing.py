"""What an import says while it works: its plan, how far it is, and what it made; one JSON line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.wire.base import Wire
from engine.wire.models import ModelKind


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportPart(Wire):
    """One component of the model that will be made."""

    name: str
    """`dit`, or `dit.high` and `dit.low`; `text`; `vae`; `tokenizer`."""
    path: str
    """Of what it is made of."""
    title: str
    """What that is in a few words."""
    bytes: int
    """Of its tensors as they lie."""
    files: int
    written_bytes: int
    """What it will take in the model's own folder."""
    of_model: str | None = None
    """The model here that has it already and lends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportPlan(Wire):
    """What will be made of what."""

    event: Literal["plan"] = "plan"
    name: str
    kind: ModelKind
    path: str
    """The folder that will be made."""
    copy: bool
    parts: tuple[ImportPart, ...]
    written_bytes: int
    free_bytes: int
    """Of the models' disk."""
    notes: tuple[str, ...]
    """What was left out and why, and what else is good to know; sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportWaits(Wire):
    """Another import is under way in the same folder; this one goes on after it."""

    event: Literal["waiting"] = "waiting"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportProgress(Wire):
    """How far a copy is."""

    event: Literal["progress"] = "progress"
    component: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported(Wire):
    """The model is there."""

    event: Literal["done"] = "done"
    name: str
    path: str
    seconds: float
