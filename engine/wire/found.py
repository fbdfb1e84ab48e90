"""What a look around this host's disks found of models, and what of it could be imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import ErrorBody, Wire
from engine.wire.models import ModelKind

FoundKind: TypeAlias = Literal["dit", "text", "vae", "tokenizer", "diffusers", "lora", "unsupported"]
FoundVerdict: TypeAlias = Literal[
    "usable",
    "parts",  # its DiT is not distilled; encoder, VAE and tokenizer beside it are usable
    "unsupported",
    "damaged",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPart(Wire):
    """A weight file, a set of shards, a tokenizer or a repository that was found."""

    path: str
    kind: FoundKind
    verdict: FoundVerdict
    title: str
    """What it is, in a few words."""
    sentence: str
    """Why it has its verdict."""
    bytes: int
    num_files: int
    becomes: tuple[str, ...] = ()
    """The names of the models in the same look that would be made of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundModel(Wire):
    """Parts that make a model together."""

    name: str
    """What it would be called here."""
    kind: ModelKind
    title: str
    bytes: int
    """Of all its parts on disk."""
    paths: tuple[str, ...]
    """Its parts, the DiT first."""
    missing: tuple[str, ...] = ()
    """What has to be found or fetched yet, a sentence each; empty where it can be imported as it is."""
    notes: tuple[str, ...] = ()
    """Which of its parts lie in another folder tree than its DiT, a sentence each."""
    imported: bool = False
    """Whether a model of that name is here already."""
    command: str
    """What imports it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScan(Wire):
    """One look around."""

    at: float
    elapsed_s: float
    models: tuple[FoundModel, ...]
    """Those that can be imported first."""
    parts: tuple[FoundPart, ...]
    places: tuple[str, ...]
    """What was looked through."""
    others: int
    """Weight files of other nets, which are not listed."""
    skipped: tuple[str, ...] = ()
    """What was not looked at, and why, a sentence each: nothing found there is no proof."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanProgress(Wire):
    """How far a look is."""

    place: str
    num_folders: int
    num_parts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanNews(Wire):
    """One line of what the looking process says; one of its fields is set."""

    progress: ScanProgress | None = None
    scan: ModelScan | None = None
    error: ErrorBody | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanRequest(Wire):
    """Where to look besides the usual places."""

    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportRequest(Wire):
    """Parts that were found, to be made a model of where they lie."""

    name: str
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelErrand(Wire):
    """A model that the engine fetches or imports, or the last one that it did."""

    verb: Literal["get", "import"]
    """What it does now: what was fetched is imported after it."""
    name: str
    state: Literal["running", "done", "failed", "cancelled"]
    bytes: int | None = None
    """So far; None before it is known."""
    total_bytes: int | None = None
    rate: float | None = None
    """Bytes a second that come, None while none do."""
    detail: str = ""
    """The file or component under way."""
    checking: bool = False
    """Whether what is on the disk already is being read."""
    error: ErrorBody | None = None
    """Why it failed."""
    at: float
    """When it began, or ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrandStatus(Wire):
    """What of that kind is under way."""

    errand: ModelErrand | None = None
    """None where nothing was asked for since the engine started."""
