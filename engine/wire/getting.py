"""Released models that can be fetched: the list, what fetching one would do, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import ErrorBody, Wire
from engine.wire.models import ModelKind

Presence: TypeAlias = Literal[
    "imported",  # a model of that name is in the models' folder
    "fetched",  # every file lies in the hub's cache
    "partly",  # some do
    "absent",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedModel(Wire):
    """A model that its authors released and this build knows how to fetch."""

    name: str
    kind: ModelKind
    int8: bool
    repository: str
    """Of its DiT."""
    about_bytes: int
    """Of all that it needs, by the shapes of its nets; the Hub says it exactly when it is asked."""
    shared_bytes: int
    """How much of that is the encoder and the VAE, which all of these models share."""
    presence: Presence


@dataclass(frozen=True, kw_only=True, slots=True)
class FileToGet(Wire):
    """One file of a released model."""

    role: str
    """`dit`, `dit.high`, `dit.low`, `text`, `vae` or `tokenizer`."""
    repository: str
    path: str
    """Inside the repository."""
    bytes: int | None
    """None where the Hub could not be asked and the file is not there."""
    have_bytes: int
    """What of it lies on this host already: all, a part that goes on from there, or nothing."""
    digest: str | None = None
    """What its bytes must come to: `sha256:` or, of a small file, git's `sha1:`."""
    local: str | None = None
    """Where it lies, when all of it is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence(Wire):
    """What a repository's card says that its files may be used under."""

    repository: str
    name: str | None
    """None where the card names none, or could not be asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetPlan(Wire):
    """What fetching a model would do, told before it is done."""

    name: str
    endpoint: str
    folder: str
    """The hub's cache that its files go to, which other tools share."""
    files: tuple[FileToGet, ...]
    licences: tuple[Licence, ...]
    missing_bytes: int | None
    """What is still to be fetched; None where that could not be asked."""
    free_bytes: int | None
    """On the disk of `folder`."""
    problem: ErrorBody | None = None
    """Why it cannot be fetched from here now; None when it can, or when nothing is missing."""
    elsewhere: tuple[str, ...] = ()
    """With a problem of the network: commands for a machine that reaches the Hub, in order."""
    here: tuple[str, ...] = ()
    """And those for this one after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetProgress(Wire):
    """How far the fetching is."""

    file: str
    bytes: int
    """Of all files of the model together, with what was there before."""
    total_bytes: int
    elapsed_s: float
    checking: bool = False
    """Whether what is on the disk already is being read, and nothing comes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetNews(Wire):
    """One line of what the fetching process says; one of its fields is set."""

    models: tuple[ReleasedModel, ...] | None = None
    plan: GetPlan | None = None
    progress: GetProgress | None = None
    fetched: tuple[str, ...] | None = None
    """The last line: where the model's files lie."""
    error: ErrorBody | None = None
    """Or this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetRequest(Wire):
    """Which released model is meant."""

    name: str
