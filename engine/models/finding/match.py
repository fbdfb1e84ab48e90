"""Which of the parts that were found make a model together: a DiT or two experts, encoder, VAE, tokenizer."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

from engine.models.importing.identify import Found
from engine.models.model import printable
from engine.wire import FoundModel, FoundPart, ModelKind

SHARED = ("text", "vae", "tokenizer")
ABSENT = {
    "text": "no umT5 encoder was found: fetch models_t5_umt5-xxl-enc-bf16.pth, as `turbotui models get` does",
    "vae": "no Wan2.1 VAE was found: fetch Wan2.1_VAE.pth, as `turbotui models get` does",
    "tokenizer": "no umT5 tokenizer was found: fetch google/umt5-xxl, as `turbotui models get` does",
    "high": "the expert for high noise was not found; image to video takes two",
    "low": "the expert for low noise was not found; image to video takes two",
    "which": "neither its name nor its folder's says high or low, and image to video takes one of each",
}
_EXPERT = re.compile(r"[-_.]?(?:high|low)(?:[-_. ]?noise)?(?![a-z])", re.IGNORECASE)
_VAGUE = frozenset({"diffusion_pytorch_model", "model", "pytorch_model", "transformer", "dit"})


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


def _model(nets: tuple[Found, ...], leaves: Sequence[Found], models: Path) -> FoundModel:
    first = nets[0]
    kind = cast(ModelKind, first.model_kind)
    whole = first.kind == "diffusers"
    has = {part.kind for part in first.parts if part.verdict == "usable"} if whole else set[str]()
    parts, missing = list(nets), list[str]()
    if kind == "i2v" and not whole and len(nets) < 2:
        other = {"high": "low", "low": "high"}.get(first.expert or "", "which")
        missing.append(ABSENT[other])
    for role in SHARED:
        if role in has:
            continue
        fits = [one for one in leaves if one.kind == role and one.verdict == "usable"]
        near = max(fits, key=lambda one: (_nearness(first.path, one.path), _is_umt5(one)), default=None)
        if near is None:
            missing.append(ABSENT[role])
        else:
            parts.append(near)
    paths = tuple(printable(part.path) for part in parts)
    name = _name_of(first)
    return FoundModel(
        name=name,
        kind=kind,
        title=first.title,
        bytes=sum(part.bytes for part in parts),
        paths=paths,
        missing=tuple(missing),
        imported=(models / name).is_dir(),
        command=shlex.join(["turbotui", "import", *paths, "--name", name]),
    )


def _is_umt5(found: Found) -> bool:
    return "umt5" in str(found.path).lower()


def _name_of(found: Found) -> str:
    """What a model of this DiT is called: by its file, or where that says nothing by its folder."""
    path = found.path
    stem = path.name if path.is_dir() else path.stem
    if "--" in str(path) and (stem in _VAGUE or len(stem) == 40):
        # In the hub's cache: models--ORG--NAME/snapshots/COMMIT
        stem = next((part.split("--")[-1] for part in path.parts if part.startswith("models--")), stem)
    elif stem in _VAGUE:
        stem = path.parent.name
    name = _EXPERT.sub("", stem) or path.parent.name
    return printable(name).lstrip(".") or "model"
