"""What a quantised model is called, the marker in it, and what a run that was stopped leaves for the next.

The folder is made hidden, beside where it will lie, and stays when its maker is stopped: every file in
it that is whole is in its state, and the next run for the same model goes on from there. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.errors import InvalidRequest, ModelUnusable
from engine.models.catalog import Catalog
from engine.models.index import PTH_TABLES, TABLES
from engine.models.making import files_in
from engine.models.model import Model, printable
from engine.models.random_files import MARKER as RANDOM_MARKER
from engine.models.siblings import MADE_ENDING, is_int8, weights_digest
from engine.models.weight_writer import FilePlan
from engine.whole_file import write_whole

QUANTISED_FORMAT = 1
"""Raised whenever the made files change, so that a run does not go on with those of an older build."""
MARKER = "quantised.json"
STATE = "quantising.json"
IMPORT_MARKER = "imported.json"
"""Of a model that was imported: says how that was made, and of this one nothing."""
SMALL_BYTES = 2**20
"""A file of a model's own folder up to this size comes along: a licence, a note."""
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pth", ".pt")
NAME_LIMIT = 200


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Of the sampled blocks of one kind of layer in one file."""

    difference: float
    """Sum of the squares of weight less dequantised weight."""
    weight: float
    """Sum of the squares of the weight."""


class DoneFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is whole on the disk and was read back."""

    bytes: int
    sha256: str
    sums: dict[str, Sums]
    """By kind of layer."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How far the making of one model has come."""

    recipe: str
    """Equal for equal files."""
    files: dict[str, DoneFile] = {}
    """By path in the model's folder."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """How a quantised model was made: lies in its folder, for people and for whoever asks later."""

    format: int
    source: str
    weights: dict[str, str]
    """Component of the source to the identity of its weights."""
    sha256: dict[str, str]
    relative_l2: dict[str, float]
    """By kind of layer."""


def choose_source(models: Path, name: str) -> Model:
    """The model called `name`, if it can be quantised.

    Raises:
        NotFound: there is none.
        ModelUnusable: it has a problem.
        InvalidRequest: its weights are int8 already.
    """
    model = Catalog(models).get(name)
    if model.problem is not None:
        raise ModelUnusable(f"{model.name} cannot be quantised: {model.problem}")
    if is_int8(model):
        raise InvalidRequest(f"the weights of {model.name} are int8 blocks already; it can be used as it is")
    return model


def choose_folder(models: Path, source: Model, name: str | None, out: Path | None) -> Path:
    """Where the sibling of `source` will lie.

    Raises:
        InvalidRequest: the name is none, or taken.
    """
    chosen = f"{source.name}{MADE_ENDING}" if name is None else name
    plain = chosen == printable(chosen) and chosen.isprintable() and "/" not in chosen
    if not plain or chosen.startswith(".") or not 0 < len(chosen.encode("utf-8", "replace")) <= NAME_LIMIT:
        raise InvalidRequest(f"{chosen!r} is no name for a model's folder; choose a plain one with --name")
    folder = (models if out is None else out) / chosen
    for there in dict.fromkeys((folder, models / chosen)):
        if os.path.lexists(there):
            raise InvalidRequest(_taken(there, source))
    if any(model.name == chosen for model in Catalog(models).models()):
        raise InvalidRequest(f"there is a model {chosen} already; choose another name with --name")
    return folder


def _taken(there: Path, source: Model) -> str:
    with suppress(OSError, msgspec.MsgspecError, ValueError):
        marker = msgspec.json.decode((there / MARKER).read_bytes(), type=Marker)
        if marker.weights == _weights(source):
            return (
                f"{there} is there already, made of {source.name} as it is; use it, or choose another "
                "name with --name"
            )
    return f"{there} is there already; choose another name with --name, or take it away"


def making_folder(folder: Path) -> Path:
    """Where `folder` is made: hidden, and the same for every run."""
    return folder.with_name(f".{folder.name}-quantising")


def recipe_of(source: Model, files: Iterable[tuple[str, FilePlan]]) -> str:
    """A digest of what is made: of which weights, by which format, in which files."""
    digest = hashlib.sha256(f"{QUANTISED_FORMAT} {weights_digest(source)}\n".encode())
    for path, file in files:
        digest.update(f"{path} {file.bytes}\n".encode())
        digest.update(file.header)
    return digest.hexdigest()


def read_state(making: Path, recipe: str) -> State:
    """What an earlier run by `recipe` left whole in `making`; nothing of another recipe or after damage."""
    try:
        state = msgspec.json.decode((making / STATE).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError, ValueError):
        return State(recipe=recipe)
    if state.recipe != recipe:
        return State(recipe=recipe)
    whole = {}
    for path, done in state.files.items():
        with suppress(OSError):
            if (making / path).stat().st_size == done.bytes:
                whole[path] = done
    return State(recipe=recipe, files=whole)


def write_state(making: Path, state: State) -> None:
    """Keep how far it has come; raises OSError."""
    write_whole(making / STATE, msgspec.json.encode(state))


def clear_all_but(making: Path, state: State) -> None:
    """Empty `making` of everything that is not whole, or make it."""
    making.mkdir(exist_ok=True)
    for path in files_in(making):
        if path != STATE and path not in state.files:
            (making / path).unlink()


def errors_of(files: Iterable[DoneFile]) -> dict[str, float]:
    """The relative L2 error by kind of layer."""
    totals: dict[str, list[float]] = {}
    for file in files:
        for kind, sums in file.sums.items():
            total = totals.setdefault(kind, [0.0, 0.0])
            total[0] += sums.difference
            total[1] += sums.weight
    return {
        kind: (difference / weight) ** 0.5 if weight else 0.0
        for kind, (difference, weight) in sorted(totals.items())
    }


def write_marker(made: Path, source: Model, state: State) -> None:
    """Say in the folder how it was made."""
    marker = Marker(
        format=QUANTISED_FORMAT,
        source=source.name,
        weights=_weights(source),
        sha256={path: done.sha256 for path, done in sorted(state.files.items())},
        relative_l2=errors_of(state.files.values()),
    )
    (made / MARKER).write_bytes(msgspec.json.format(msgspec.json.encode(marker), indent=1))


def _weights(source: Model) -> dict[str, str]:
    return {part.name: part.identity for part in source.components if part.name.startswith("dit")}


def bring_rest(source: Path, made: Path, folders: Sequence[str]) -> None:
    """What stays as it is: `folders` of `source`, and the small files beside them.

    Weights are hard links, or links where the disk is another one, so that they take no room and whoever
    loads them knows that they are the same; what else there is, is copied.
    """
    for name in sorted(os.listdir(source)):
        path = source / name
        ours = (RANDOM_MARKER, MARKER, IMPORT_MARKER)
        if path.is_file() and path.stat().st_size <= SMALL_BYTES and name not in ours and name[0] != ".":
            _copy(path, made / name)
    for folder in folders:
        for name in files_in(source / folder):
            if not any(part.startswith(".") for part in name.split("/")):
                target = made / folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(source / folder / name, target) if _is_weights(name) else _copy(
                    source / folder / name, target
                )


def _is_weights(name: str) -> bool:
    return name.endswith(WEIGHT_ENDINGS) and not name.endswith((TABLES, PTH_TABLES))


def _copy(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copyfile(path, target)


def _link(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    if not path.is_symlink():
        with suppress(OSError):  # another file system, or one without hard links
            os.link(path, target)
            return
    # A link to a download cache leads there too: by the name in it, its content is known.
    os.symlink(os.path.realpath(path), target)
