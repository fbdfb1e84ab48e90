"""What a file or a folder is. Reads headers and no weight, and executes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import ModelUnusable
from engine.models.importing.borrowing import weights_of_component
from engine.models.importing.found import Expert, Found, Kind, Verdict, unreadable, unsupported
from engine.models.importing.mapping import Part, map_weights
from engine.models.importing.recognise import expert_of, recognise
from engine.models.importing.weights import WEIGHT_ENDINGS, Weights, groups_in, read_weights
from engine.models.in_place import IN_PLACE
from engine.models.model import MODEL_INDEX, TOKENIZER_FILES, printable
from engine.models.weight_file import UnsupportedFormat, open_weight_file

__all__ = [
    "Expert",
    "Found",
    "Kind",
    "Verdict",
    "expert_of",
    "identify",
    "identify_group",
    "identify_weights",
]

DEPTH = 2
"""Levels of folders below a given one that are looked into."""
ENTRIES = 1024
"""Of one folder that are looked at."""
_PARTS: Mapping[Kind, Part] = {"dit": "dit", "text": "text", "vae": "vae"}


def identify(path: Path) -> Found:
    """What the file or folder at `path` is; reads headers and no weight, and executes nothing.

    Never raises: what cannot be read is `damaged`, or `unsupported` if only its format is not read, with
    the sentence that says why.
    """
    try:
        if path.is_dir():
            return _folder(path, DEPTH)
        return identify_group((path,))
    except (ModelUnusable, OSError, ValueError) as error:
        return unreadable(path, error)


def identify_group(paths: Sequence[Path]) -> Found:
    """What the weight files at `paths` are, which belong to one net. Never raises."""
    path = paths[0] if len(paths) == 1 else paths[0].parent
    try:
        foreign = _foreign(paths[0])
        if foreign is not None:
            return unsupported(path, *foreign)
        weights = read_weights(paths)
    except (ModelUnusable, OSError, ValueError) as error:
        return unreadable(path, error)
    return identify_weights(path, weights)


def identify_weights(path: Path, weights: Weights) -> Found:
    """What `weights`, which lie at `path`, are; of a net of ours that lacks a tensor the kind, as damaged."""
    found = recognise(path, weights)
    found = replace(
        found,
        files=tuple(file.path for file in weights.files),
        bytes=weights.bytes,
        dtype="int8" if found.quantised else weights.dtype_name,
    )
    part = _PARTS.get(found.kind)
    if part is None or found.verdict not in ("usable", "parts"):
        return found
    try:
        # As an import will, or what is told to be usable would be refused then.
        map_weights(part, path, weights)
    except (ModelUnusable, OSError, ValueError) as error:
        told: Verdict = "unsupported" if isinstance(error, UnsupportedFormat) else "damaged"
        return replace(found, verdict=told, sentence=printable(str(error)))
    return found


# --------------------------------------------------------------------------- folders and what is no weights


def _folder(path: Path, depth: int) -> Found:
    if (path / MODEL_INDEX).is_file():
        return _repository(path)
    parts: list[Found] = []
    tokenizer = _tokenizer(path)
    if tokenizer is not None:
        parts.append(tokenizer)
    if (path / IN_PLACE).is_file():
        imported = weights_of_component(path)
        parts += [identify_weights(path, imported)] if imported is not None else []
    parts += [identify_group(group) for group in groups_in(path)]
    if depth:
        for number, entry in enumerate(sorted(path.iterdir())):
            if number >= ENTRIES:
                break
            if entry.is_dir() and not entry.name.startswith("."):
                below = _try_folder(entry, depth - 1)
                if below.kind == "diffusers":
                    parts.append(below)
                else:
                    parts += below.parts or ((below,) if below.kind != "folder" else ())
    if len(parts) == 1:
        return parts[0]
    verdict, sentence = _together(parts)
    return Found(
        path=path,
        kind="folder",
        verdict=verdict,
        sentence=sentence,
        title=f"a folder with {len(parts)} parts",
        files=tuple(file for part in parts for file in part.files),
        bytes=sum(part.bytes for part in parts),
        parts=tuple(parts),
    )


def _try_folder(path: Path, depth: int) -> Found:
    try:
        return _folder(path, depth)
    except (ModelUnusable, OSError, ValueError) as error:
        return unreadable(path, error)


def _repository(path: Path) -> Found:
    """A repository in diffusers layout."""
    parts: list[Found] = []
    experts: dict[str, Expert | None] = {"transformer": None}
    if (path / "transformer_2").is_dir():
        experts = {"transformer": "high", "transformer_2": "low"}
    for name in ("text_encoder", "tokenizer", *experts, "vae"):
        folder = path / name
        if folder.is_dir():
            found = _try_folder(folder, 0)
            if found.kind != "folder":
                parts.append(replace(found, expert=experts[name]) if name in experts else found)
    verdict, sentence = _together(parts)
    dit = next((part for part in parts if part.kind == "dit"), None)
    return Found(
        path=path,
        kind="diffusers",
        verdict=verdict,
        sentence=sentence,
        title=f"diffusers repository: {dit.title if dit else ', '.join(part.title for part in parts)}",
        files=tuple(file for part in parts for file in part.files),
        bytes=sum(part.bytes for part in parts),
        dtype=dit.dtype if dit else None,
        width=dit.width if dit else None,
        layers=dit.layers if dit else None,
        in_channels=dit.in_channels if dit else None,
        quantised=bool(dit and dit.quantised),
        distilled=bool(dit and dit.distilled),
        parts=tuple(parts),
    )


def _together(parts: Sequence[Found]) -> tuple[Verdict, str]:
    """The verdict on a folder with `parts`: that of its best DiT, else what of the rest can be used."""
    dits = [part for part in parts if part.in_channels is not None]
    # A DiT that is damaged or of another kind spoils nothing beside one that can be used.
    order: tuple[Verdict, ...] = ("usable", "parts", "damaged", "unsupported")
    for verdict in order:
        for part in dits:
            if part.verdict == verdict:
                return part.verdict, part.sentence
    usable = [part.title for part in parts if part.verdict == "usable"]
    if usable:
        return "usable", f"it has {', '.join(usable)}, and no DiT"
    for verdict in order:
        for part in parts:
            if part.verdict == verdict:
                return part.verdict, part.sentence
    return "unsupported", "it holds no weights, no tokenizer and no model that this build knows"


def _tokenizer(path: Path) -> Found | None:
    """The tokenizer in the folder `path`; None where there is none."""
    names = [name for name in TOKENIZER_FILES if (path / name).is_file()]
    if not names:
        return None
    size = sum((path / name).stat().st_size for name in names)
    found = Found(
        path=path,
        kind="tokenizer",
        verdict="usable",
        sentence="it is a tokenizer; whether it is umT5's is seen when it is taken",
        title=f"tokenizer ({', '.join(names)})",
        bytes=size,
    )
    empty = next((name for name in names if (path / name).stat().st_size == 0), None)
    if empty is not None:
        return replace(
            found, verdict="damaged", sentence=f"{path / empty} is empty; fetch the tokenizer again"
        )
    return found


def _foreign(path: Path) -> tuple[str, str] | None:
    """What a file that holds weights in no format of ours is, and why it is not taken; None of others."""
    with open_weight_file(path) as file:
        magic = file.read(0, min(4, file.num_bytes))
    if magic == b"GGUF":
        return "GGUF", "it is a GGUF file, which this build does not read; take the safetensors or the .pth"
    if not path.name.endswith(WEIGHT_ENDINGS):
        return (
            "no weight file",
            f"it is no weight file: its name ends in none of {', '.join(WEIGHT_ENDINGS)}",
        )
    return None
