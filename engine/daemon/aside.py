"""Files moved aside into a new folder of their own: nothing is written over, nothing is lost half way."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from engine.errors import InvalidRequest, StorageUnusable

NAME = re.compile(r"turbotui-[a-z]+-\d{8}-\d{6}")


class Aside:
    """One new folder below a place that the person named, and what was moved there. Blocks."""

    def __init__(self, place: str, kind: str, *, never_within: Sequence[Path]) -> None:
        """`kind` is in the folder's name.

        Raises:
            InvalidRequest: the place is not absolute, or lies within what is to be moved.
            StorageUnusable: the folder cannot be made.
        """
        folder = Path(os.path.expanduser(place))
        if not folder.is_absolute():
            raise InvalidRequest(f"{place!r} is no absolute folder to move {kind} to")
        folder = folder.resolve()
        for within in never_within:
            if folder == within.resolve() or within.resolve() in folder.parents:
                raise InvalidRequest(f"{folder} lies within {within}, from which {kind} are moved")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.folder = folder / f"turbotui-{kind}-{stamp}"
        self.places: dict[str, str] = {}
        """Where each file was that was moved, and where it is."""
        self.moved = 0
        self.bytes = 0
        self.problems: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise StorageUnusable(
                f"{self.folder} cannot be made: {error.strerror}; name another folder"
            ) from error

    def move(self, path: Path) -> None:
        """Move it, also to another disk; one that cannot be moved stays whole and is told."""
        target = self._free_name(path.name)
        try:
            size = path.lstat().st_size
            try:
                os.rename(path, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(path, target)
                path.unlink()
        except OSError as error:
            self.problems.append(f"{path} stays: {error.strerror}")
            return
        self.places[str(path)] = str(target)
        self._count(size)

    def take(self, path: Path) -> None:
        """Copy what is in it and empty it: somebody has it open and goes on writing."""
        target = self._free_name(path.name)
        try:
            size = _copy(path, target)
            os.truncate(path, 0)
        except OSError as error:
            self.problems.append(f"{path} stays: {error.strerror}")
            return
        self._count(size)

    def _count(self, size: int) -> None:
        self.moved += 1
        self.bytes += size

    def _free_name(self, name: str) -> Path:
        target, number = self.folder / name, 1
        while os.path.lexists(target):
            number += 1
            target = self.folder / f"{number}-{name}"
        return target


def is_aside(folder: Path) -> bool:
    """Whether it is such a folder, by its name: what lies there was moved out of the way on purpose."""
    return NAME.fullmatch(folder.name) is not None


def _copy(path: Path, target: Path) -> int:
    """A complete copy on the disk, or none; its bytes."""
    try:
        with (
            open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source,
            open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy,
        ):
            shutil.copyfileobj(source, copy, 2**20)
            copy.flush()
            os.fsync(copy.fileno())
            return copy.tell()
    except OSError:
        target.unlink(missing_ok=True)
        raise
