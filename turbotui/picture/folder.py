"""Owns what a person may choose in a folder: its folders and its images, as far as they can be read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from turbotui.picture.files import SUFFIXES

MOST_ENTRIES = 20_000
"""Looked at in one folder; a folder of frames may have more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A folder or an image file."""

    path: Path
    name: str
    is_folder: bool
    bytes: int | None
    changed_at: float
    """Wall clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A folder at one moment."""

    folder: Path
    entries: tuple[Entry, ...]
    """Folders by name, then images, the newest first; what begins with a dot is left out."""
    others: int
    """Files that are no images by their names."""
    cut: bool
    """There is more than was looked at."""


def list_folder(folder: Path) -> Listing:
    """What is in `folder`. Called in a thread: a network disk may take its time.

    Raises:
        OSError: it is no folder, or cannot be read.
    """
    folders: list[Entry] = []
    images: list[Entry] = []
    others = seen = 0
    with os.scandir(folder) as found:
        for item in islice(found, MOST_ENTRIES):
            seen += 1
            if item.name.startswith("."):
                continue
            try:
                info = item.stat()
            except OSError:  # a link that leads nowhere, or gone meanwhile
                others += 1
                continue
            if stat.S_ISDIR(info.st_mode):
                folders.append(_entry(item, info, is_folder=True))
            elif stat.S_ISREG(info.st_mode) and Path(item.name).suffix.casefold() in SUFFIXES:
                images.append(_entry(item, info, is_folder=False))
            else:
                others += 1
    folders.sort(key=lambda entry: entry.name.casefold())
    images.sort(key=lambda entry: (-entry.changed_at, entry.name.casefold()))
    return Listing(folder=folder, entries=(*folders, *images), others=others, cut=seen == MOST_ENTRIES)


def _entry(item: os.DirEntry[str], info: os.stat_result, *, is_folder: bool) -> Entry:
    return Entry(
        path=Path(item.path),
        name=item.name,
        is_folder=is_folder,
        bytes=None if is_folder else info.st_size,
        changed_at=info.st_mtime,
    )


def nearest_folder(text: str, otherwise: Path) -> Path:
    """The folder to begin in, for what stands in a field: its own, the next one above, or `otherwise`."""
    if not text.strip():
        return otherwise
    try:
        path = Path(os.path.expanduser(text.strip())).absolute()
        for place in (path, *path.parents):
            if place.is_dir():
                return place
    except (OSError, ValueError):
        pass
    return otherwise
