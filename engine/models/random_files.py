"""What the random models are called, the marker in each, and which of them can share files.

A random model has a released one's size and nobody's weights. The marker tells it from a
person's own model of that name and says by which recipe it was made. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from engine.models.folders import RANDOM_MARKER, was_made_here
from engine.models.making import files_in, link_shared

RandomDtype: TypeAlias = Literal["bf16", "int8"]

RANDOM_FORMAT = 1
"""Raised whenever the made files change, so that older ones are made again."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """How a random model was made, and every file of it with its bytes."""

    format: int
    recipe: str
    """Of the whole model: equal for equal files."""
    shared_recipe: str
    """Of the folders that models of equally many layers share."""
    files: dict[str, int]
    """Path relative to the model's folder to bytes."""


def folder_name(name: str, dtype: RandomDtype) -> str:
    """The folder of the random model of the size called `name`."""
    return f"{name}-random" if dtype == "bf16" else f"{name}-random-{dtype}"


def read_marker(folder: Path) -> Marker | None:
    """The marker of the random model in `folder` if that is whole and by this build's recipe."""
    try:
        marker = msgspec.json.decode((folder / RANDOM_MARKER).read_bytes(), type=Marker)
        whole = all((folder / name).stat().st_size == size for name, size in marker.files.items())
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
    return marker if whole and marker.format == RANDOM_FORMAT else None


def write_marker(folder: Path, recipe: str, shared_recipe: str) -> None:
    """Name every file in `folder` with its bytes, last of all."""
    files = {name: (folder / name).stat().st_size for name in files_in(folder)}
    marker = Marker(format=RANDOM_FORMAT, recipe=recipe, shared_recipe=shared_recipe, files=files)
    (folder / RANDOM_MARKER).write_bytes(msgspec.json.encode(marker))


def link_from_another(models: Path, target: Path, shared_recipe: str) -> str | None:
    """Hard-link the folders that models share into `target` from a random model in `models`.

    The name of that model; None where there is none of `shared_recipe`, or the file system has no links.
    """
    for folder in sorted(models.iterdir()):
        if folder.name.startswith(".") or not was_made_here(folder):
            continue
        marker = read_marker(folder)
        if marker is None or marker.shared_recipe != shared_recipe:
            continue
        if link_shared(folder, target, marker.files):
            return folder.name
    return None


def bytes_given_back(folder: Path) -> int:
    """What removing `folder` frees: its files that no other folder holds too."""
    infos = [(folder / name).lstat() for name in files_in(folder)]
    return sum(info.st_blocks * 512 for info in infos if info.st_nlink == 1)
