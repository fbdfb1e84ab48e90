"""What a model will be made of: the given files in their roles, and what is missing from elsewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from engine.errors import EngineError, InvalidRequest, ModelUnusable
from engine.models.card import CARD_FILE, Card, inferred_card, read_card
from engine.models.demo_files import DEMO_FOLDER
from engine.models.folders import FOLDERS, TEXT, TOKENIZER, VAE, was_made_here
from engine.models.importing.borrowing import weights_of_component
from engine.models.importing.identify import Expert, Found, identify, identify_group, identify_weights
from engine.models.importing.mapping import Mapped, Part, map_weights
from engine.models.importing.naming import NAME, model_name
from engine.models.importing.nets import DitSizes, TextSizes
from engine.models.importing.roles import Dit, choose_dits, fingerprint
from engine.models.importing.tokenizers import candidates, fits
from engine.models.importing.weights import groups_in, read_weights
from engine.models.model import printable
from engine.wire import ModelKind

Kept: TypeAlias = Literal["bf16", "stored"]

FETCH = {
    TEXT: ("models_t5_umt5-xxl-enc-bf16.pth",),
    VAE: ("Wan2.1_VAE.pth",),
    TOKENIZER: ("--include", "google/umt5-xxl/*"),
}
"""What of the repository of Wan2.1 is a part of every model, as the hub's command takes it."""
REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B"
BESIDE = {"text": re.compile(r"t5", re.IGNORECASE), "vae": re.compile(r"vae", re.IGNORECASE)}
"""In the names of files beside a given one that are looked at for what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a person asked for."""

    paths: tuple[Path, ...]
    high: Path | None = None
    low: Path | None = None
    name: str | None = None
    copy: bool = False
    kept: Kept = "bf16"
    force: bool = False
    undistilled: bool = False

    @property
    def command(self) -> str:
        """The command that asks for it again, in the place of what it has made before."""
        words = ["turbotui", "import", *(str(path.absolute()) for path in self.paths)]
        words += ["--name", self.name] if self.name else []
        words += ["--high", str(self.high.absolute())] if self.high else []
        words += ["--low", str(self.low.absolute())] if self.low else []
        flags = {"copy": self.copy, "force": self.force, "undistilled": self.undistilled}
        words += [f"--{flag}" for flag, given in flags.items() if given]
        words += ["--dtype", self.kept] if self.kept != "bf16" else []
        return shlex.join([*words, "--replace"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One component and what it is made of."""

    name: str
    folder: str
    """In the model's folder."""
    title: str
    mapped: Mapped
    of_model: str | None = None
    """The model here that lends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A model that can be made."""

    request: Request
    name: str
    kind: ModelKind
    card: Card
    components: tuple[Component, ...]
    tokenizer: Path
    notes: tuple[str, ...]


def make_plan(models: Path, request: Request) -> Plan:
    """How to make the model that `request` asks for in the folder `models`; writes nothing.

    Raises:
        InvalidRequest: what was given makes no model; says what is missing or goes not together.
        ModelUnusable: a file is damaged or of a kind that this build does not run.
    """
    found, broken, notes = _found(request)
    dits = [Dit(found=part, role=None) for part in found if part.kind == "dit"]
    explicit: dict[Expert, Path | None] = {"high": request.high, "low": request.low}
    for role, path in explicit.items():
        if path is not None:
            dits = [dit for dit in dits if dit.found.files != (path,)]
            dits.append(Dit(found=_expert(path, role), role=role))
    try:
        chosen, left = choose_dits(dits, force=request.force, undistilled=request.undistilled)
    except InvalidRequest as error:
        dit = next((part for part in broken if part.kind == "dit"), None)
        if dit is not None and len(dits) < 2:  # it is what is missing
            raise ModelUnusable(f"{dit.path} cannot be imported: {dit.sentence}") from error
        raise
    notes += [f"{part.path} is left out: {part.sentence}" for part in left]
    first, mapped = next(iter(chosen.values()))
    assert isinstance(mapped.net, DitSizes)
    kind: ModelKind = "i2v" if len(chosen) == 2 else "t2v"
    folders = FOLDERS[kind]
    components = [
        Component(name=name, folder=folders[name], title=dit.title, mapped=net)
        for name, (dit, net) in chosen.items()
    ]
    lenders = list(_lenders(models))
    places = [*{path.parent: None for dit, _ in chosen.values() for path in dit.files}]
    for name in (TEXT, VAE):
        component, more = _part(name, folders[name], (*found, *broken), places, lenders, mapped.net.text_dim)
        components.append(component)
        notes += more
    components.sort(key=lambda component: list(folders).index(component.name))
    text = next(component.mapped for component in components if component.name == TEXT)
    assert isinstance(text.net, TextSizes)
    given = [part.path for part in found if part.kind == "tokenizer"]
    notes += [
        f"{path} is left out: it is not the tokenizer of an encoder of {text.net.vocabulary} words"
        for path in given
        if not fits(path, text.net.vocabulary)
    ]
    text_folder = text.weights.files[0].path.parent
    tokenizer = next(
        (path for path in candidates(given, text_folder, lenders) if fits(path, text.net.vocabulary)), None
    )
    if tokenizer is None:
        raise InvalidRequest(
            f"no tokenizer of {text.net.vocabulary} words was found: not in what was given, not in the "
            f"models here, not in the hub's caches; give its folder too, fetched with: {_fetch(TOKENIZER)}"
        )
    name = request.name or model_name(first.path, two=kind == "i2v")
    if NAME.fullmatch(name) is None or name == DEMO_FOLDER:
        raise InvalidRequest(
            f"{name!r} is no name for a model; give one of letters, digits, dots, dashes with --name"
        )
    return Plan(
        request=replace(request, name=name),
        name=name,
        kind=kind,
        card=msgspec.structs.replace(_card(name, kind, first), few_steps=request.undistilled or None),
        components=tuple(components),
        tokenizer=tokenizer,
        notes=tuple(notes),
    )


# --------------------------------------------------------------------------- what was given


def _found(request: Request) -> tuple[list[Found], list[Found], list[str]]:
    """The usable parts of what was given, those of our nets that are not, and notes on what is left out.

    Raises:
        InvalidRequest, ModelUnusable: a path is missing, or what it alone holds cannot be used.
    """
    parts: list[Found] = []
    broken: list[Found] = []
    notes: list[str] = []
    for path in request.paths:
        _check_path(path)
        whole = identify(path)
        several = whole.kind in ("folder", "diffusers")
        for part in _leaves(whole):
            if part.verdict in ("usable", "parts"):
                parts.append(part)
            elif several:
                notes.append(f"{part.path} is left out: {part.sentence}")
                broken += [part] if part.kind in ("dit", "text", "vae") else []
            else:
                raise ModelUnusable(f"{part.path} cannot be imported: {part.sentence}")
        if several and not any(part.verdict in ("usable", "parts") for part in _leaves(whole)):
            raise ModelUnusable(f"{path} cannot be imported: {whole.sentence}")
    return parts, broken, notes


def _check_path(path: Path) -> None:
    if printable(path) != str(path):
        raise InvalidRequest(f"{printable(path)!r} is a name that is no UTF-8; rename it")
    if not path.exists():
        raise InvalidRequest(f"{path} is not there; give a file or a folder that is")


def _leaves(found: Found) -> Iterator[Found]:
    """The single parts of what was found, one by one."""
    if found.kind in ("folder", "diffusers"):
        for part in found.parts:
            yield from _leaves(part)
    else:
        yield found


def _expert(path: Path, role: str) -> Found:
    _check_path(path)
    found = identify(path)
    if found.verdict not in ("usable", "parts"):
        raise ModelUnusable(f"{path} cannot be imported: {found.sentence}")
    if found.kind != "dit":
        raise InvalidRequest(f"--{role} {path} is no DiT but {found.title}; give the file of one expert")
    return found


# --------------------------------------------------------------------------- what is missing


def _lenders(models: Path) -> Iterator[Path]:
    """The folders of models here whose parts others may use: none of random weights."""
    try:
        folders = sorted(folder for folder in models.iterdir() if folder.is_dir())
    except OSError:
        return
    for folder in folders:
        if not folder.name.startswith(".") and folder.name != DEMO_FOLDER and not _is_noise(folder):
            yield folder


def _is_noise(folder: Path) -> bool:
    """Whether the model in `folder` has random weights, by its marker or, of an int8 sibling, by its card."""
    if was_made_here(folder):
        return True
    try:
        card = read_card(folder / CARD_FILE)
    except ModelUnusable:
        return False  # none, as in repositories from elsewhere, or a damaged one
    return card.demo or card.random


def _part(
    name: str,
    folder: str,
    found: Iterable[Found],
    places: Iterable[Path],
    lenders: Iterable[Path],
    text_dim: int,
) -> tuple[Component, list[str]]:
    """The component called `name`: from what was given, from beside it, or from a model here."""
    part: Part = "text" if name == TEXT else "vae"
    given = [item for item in found if item.kind == part and item.verdict == "usable"]
    broken = [item for item in found if item.kind == part and item.verdict != "usable"]
    beside = [] if given else [*broken, *_beside(places, BESIDE[part])]
    for item in given or [item for item in beside if item.kind == part and item.verdict == "usable"]:
        mapped = map_weights(part, item.path, read_weights(item.files))
        _check_text(mapped, text_dim)
        notes = [
            f"{other.path} is left out: {item.path} comes first"
            for other in given[1:]
            if not _same(part, mapped, other)
        ]
        return Component(name=name, folder=folder, title=item.title, mapped=mapped), notes
    refused = [
        f"{item.path} cannot be imported: {item.sentence}"
        for item in beside
        if item.verdict in ("damaged", "unsupported")
    ]
    for lender in lenders:
        try:
            weights = weights_of_component(lender / folder)
            if weights is not None:
                mapped = map_weights(part, lender / folder, weights)
                _check_text(mapped, text_dim)
                title = identify_weights(lender / folder, weights).title
                component = Component(
                    name=name, folder=folder, title=title, mapped=mapped, of_model=lender.name
                )
                return component, refused
        except (EngineError, OSError) as error:
            refused.append(f"the {part} of {lender.name} cannot be used: {error}")
    if refused:
        raise ModelUnusable(f"{refused[0]}; it can be fetched with: {_fetch(name)}")
    called = "umT5 text encoder" if name == TEXT else "Wan2.1 VAE"
    raise InvalidRequest(
        f"no {called} was given, and no model here has one; give the file too, fetched with: {_fetch(name)}"
    )


def _beside(places: Iterable[Path], named: re.Pattern[str]) -> Iterator[Found]:
    """What lies beside the given files and by its name may be what is missing."""
    for place in places:
        try:
            groups = list(groups_in(place))
        except (ModelUnusable, OSError):
            continue
        for group in groups:
            if len(group) == 1 and named.search(group[0].name):
                yield identify_group(group)


def _check_text(mapped: Mapped, text_dim: int) -> None:
    net = mapped.net
    if isinstance(net, TextSizes) and net.width != text_dim:
        raise InvalidRequest(
            f"{mapped.path} gives {net.width} numbers a word and the DiT takes {text_dim}; they belong to "
            "different models"
        )


def _same(part: Part, mapped: Mapped, other: Found) -> bool:
    try:
        return fingerprint(mapped) == fingerprint(map_weights(part, other.path, read_weights(other.files)))
    except ModelUnusable:
        return False


def _fetch(name: str) -> str:
    return shlex.join(["hf", "download", REPOSITORY, *FETCH[name]])


# --------------------------------------------------------------------------- names and card


def _card(name: str, kind: ModelKind, dit: Found) -> Card:
    """The model's card; the default resolution is the one that the name of its file has."""
    card = inferred_card(name.replace("-", " ").replace("_", " "), kind)
    for where in (name, dit.path.name):
        for resolution in ("480p", "720p"):
            if resolution in where.lower():
                return msgspec.structs.replace(card, default_resolution=resolution)
    return card
