"""Which of the parts that were found make a model together: a DiT or two experts, encoder, VAE, tokenizer."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

from engine.errors import EngineError
from engine.models.finding.look import SNAPSHOTS, TOOL_FOLDERS
from engine.models.importing.identify import Found, expert_of
from engine.models.importing.naming import model_name
from engine.models.importing.plan import Request, make_plan
from engine.models.importing.tokenizers import fits
from engine.models.importing.weights import read_weights
from engine.models.model import printable
from engine.wire import FoundModel, FoundPart, ModelKind

SHARED = ("text", "vae", "tokenizer")
CALLED = {"text": "umT5 encoder", "vae": "Wan2.1 VAE", "tokenizer": "umT5 tokenizer"}
WORDS = ("token_embedding.weight", "shared.weight", "encoder.embed_tokens.weight")
"""What an encoder's table of words is called; it has a row for each."""
ABSENT = {
    "text": "no umT5 encoder was found: fetch models_t5_umt5-xxl-enc-bf16.pth, as `turbotui models get` does",
    "vae": "no Wan2.1 VAE was found: fetch Wan2.1_VAE.pth, as `turbotui models get` does",
    "tokenizer": "no umT5 tokenizer was found: fetch google/umt5-xxl, as `turbotui models get` does",
    "high": "the expert for high noise was not found; image to video takes two",
    "low": "the expert for low noise was not found; image to video takes two",
    "which": "neither its name nor its folder's says high or low, and image to video takes one of each",
}


def match_models(found: Sequence[Found], models: Path) -> tuple[FoundModel, ...]:
    """The models that `found` could become in the folder `models`, those that lack nothing first."""
    leaves = list(_leaves(found))
    made = [_model(experts, leaves, models) for experts in _nets(found)]
    return tuple(sorted(made, key=lambda model: (bool(model.missing), model.imported, model.name)))


def told_parts(found: Sequence[Found], models: Sequence[FoundModel]) -> tuple[FoundPart, ...]:
    """Everything that was found, what can be used first, with the models that it would go into."""
    order = ("usable", "parts", "damaged", "unsupported")
    told = []
    for one in sorted(found, key=lambda one: (order.index(one.verdict), one.kind, str(one.path))):
        path = printable(one.path)
        told.append(
            FoundPart(
                path=path,
                kind="unsupported" if one.kind == "folder" else one.kind,
                verdict=one.verdict,
                title=one.title,
                sentence=one.sentence,
                bytes=one.bytes,
                num_files=max(1, len(one.files)),
                becomes=tuple(model.name for model in models if _is_of(path, model)),
            )
        )
    return tuple(told)


def _is_of(path: str, model: FoundModel) -> bool:
    """Whether the part at `path` is one of the model's, or holds one."""
    return any(one == path or Path(one).is_relative_to(path) for one in model.paths)


def _leaves(found: Iterable[Found]) -> Iterator[Found]:
    """What was found, and of repositories the components."""
    for one in found:
        if one.parts:
            yield from _leaves(one.parts)
        else:
            yield one


def _nets(found: Sequence[Found]) -> Iterator[tuple[Found, ...]]:
    """The DiTs that can be used: one alone, or two experts; a repository's as the repository."""
    experts: list[Found] = []
    for one in found:
        if one.verdict != "usable" or one.model_kind is None:
            continue
        if one.model_kind == "i2v" and one.kind == "dit":
            experts.append(one)
        else:
            yield (one,)
    while experts:
        first = experts.pop(0)
        # The other one lies beside it or is called alike; two of one noise are two models.
        fits = [other for other in experts if _are_pair(first, other)]
        second = max(fits, key=lambda other: _nearness(first.path, other.path), default=None)
        if second is None:
            yield (first,)
        else:
            experts.remove(second)
            yield tuple(sorted((first, second), key=lambda one: one.expert != "high"))


def _are_pair(one: Found, other: Found) -> bool:
    alike = (one.width, one.layers, one.quantised) == (other.width, other.layers, other.quantised)
    named = {one.expert, other.expert} == {"high", "low"}
    return alike and named and _name_of(one) == _name_of(other)


def _nearness(one: Path, other: Path) -> int:
    """Levels of folders that both lie in."""
    return len(Path(os.path.commonpath((one, other))).parts)


def _tree(path: Path) -> Path:
    """The folder that what lies at `path` belongs to with all beside it: that of a tool, a hub's cache.

    Else the folder that it lies in, of an expert in a folder of its own the one above.
    """
    for step in path.parents:
        if step.name == SNAPSHOTS and step.parent.name.startswith("models--"):
            return step.parent.parent
    tree = path.parent
    if expert_of(Path(tree.name)) is not None:
        tree = tree.parent
    tools = [step for step in (tree, *tree.parents[:2]) if step.name in TOOL_FOLDERS]
    while tools and tools[-1].parent.name in TOOL_FOLDERS:
        tools.append(tools[-1].parent)
    return tools[-1] if tools else tree


def _model(nets: tuple[Found, ...], leaves: Sequence[Found], models: Path) -> FoundModel:
    first = nets[0]
    kind = cast(ModelKind, first.model_kind)
    whole = first.kind == "diffusers"
    has = {part.kind for part in first.parts if part.verdict == "usable"} if whole else set[str]()
    parts, missing, notes = list(nets), list[str](), list[str]()
    tree = first.path if whole else _tree(first.path)
    if kind == "i2v" and not whole and len(nets) < 2:
        other = {"high": "low", "low": "high"}.get(first.expert or "", "which")
        missing.append(ABSENT[other])
    notes += [
        f"its {other.expert}-noise expert is of another folder: {printable(other.path)}"
        for other in nets[1:]
        if not other.path.is_relative_to(tree)
    ]
    for role in SHARED:
        if role in has:
            continue
        usable = [one for one in leaves if one.kind == role and one.verdict == "usable"]
        if not usable:
            missing.append(ABSENT[role])
        if role == "tokenizer":
            encoder = next((part for part in (*parts, *first.parts) if part.kind == "text"), None)
            usable = [one for one in usable if encoder is None or fits(one.path, _words(encoder))]
        near = max(usable, key=lambda one: (_nearness(first.path, one.path), _is_umt5(one)), default=None)
        if near is not None:
            parts.append(near)
            if not near.path.is_relative_to(tree):
                notes.append(f"its {CALLED[role]} is of another folder: {printable(near.path)}")
    paths = tuple(printable(part.path) for part in parts)
    name = _name_of(first)
    imported = (models / name).is_dir()
    if not missing and not imported:
        missing += _refusal(models, [part.path for part in parts], name)
    return FoundModel(
        name=name,
        kind=kind,
        title=first.title,
        bytes=sum(part.bytes for part in parts),
        paths=paths,
        missing=tuple(missing),
        notes=tuple(notes),
        imported=imported,
        command=shlex.join(["turbotui", "import", *paths, "--name", name]),
    )


def _refusal(models: Path, paths: Sequence[Path], name: str) -> list[str]:
    """What an import of `paths` would be refused with; none where it would be made. Reads headers."""
    try:
        make_plan(models, Request(paths=tuple(paths), name=name))
    except (EngineError, OSError) as error:
        return [printable(str(error))]
    return []


def _words(encoder: Found) -> int:
    """How many words the encoder has, by its table of them."""
    try:
        weights = read_weights(encoder.files)
    except (EngineError, OSError):
        return 0
    return next((shape[0] for name in WORDS if (shape := weights.shape(name))), 0)


def _is_umt5(found: Found) -> bool:
    return "umt5" in str(found.path).lower()


def _name_of(found: Found) -> str:
    return model_name(found.path, two=found.model_kind == "i2v")
