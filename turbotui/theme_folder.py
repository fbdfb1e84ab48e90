"""Owns the theme files there are: which can be used, which are broken and how, and what has changed."""

from __future__ import annotations

from pathlib import Path

from engine.errors import InvalidRequest
from turbotui.theme import DEFAULT, Palette, read_palette, theme_files

Stamp = tuple[Path, int, int]
"""A file, when it was last written, and how long it is."""


class ThemeFolder:
    """Themes by name over several folders, a later folder's before an earlier one's."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        """The first folder holds the shipped ones, which are taken as whole."""
        self._folders = folders
        self._files = theme_files(folders)
        self._stamps: dict[str, Stamp] | None = None
        self.broken: dict[str, str] = {}
        """Name to what is wrong with it, of those that were read."""

    def names(self) -> list[str]:
        """Those that can be used, as far as they were read."""
        return sorted(set(self._files) - set(self.broken))

    def read(self, name: str) -> Palette:
        """The theme as its file is now.

        Raises:
            InvalidRequest: there is none of this name, or its file is broken.
        """
        path = self._files.get(name)
        if path is None:
            raise InvalidRequest(f"there is no theme {name!r}; known: {', '.join(sorted(self._files))}")
        try:
            palette = read_palette(path)
        except InvalidRequest as error:
            self.broken[name] = str(error)
            raise
        self.broken.pop(name, None)
        return palette

    def first(self, name: str) -> tuple[Palette, str | None]:
        """The theme to begin with, and why it is not the one that is wanted.

        Raises:
            InvalidRequest: not even the shipped default can be read.
        """
        try:
            return self.read(name), None
        except InvalidRequest as error:
            self.broken[name] = str(error)  # also one that is not there at all
            return read_palette(theme_files(self._folders[:1])[DEFAULT]), str(error)

    def look(self) -> tuple[set[str], list[str]]:
        """Look for what was written since the last time: names that changed, and what is newly broken.

        At the first time every file that is the person's own is read, and none has changed.
        """
        files = theme_files(self._folders)
        stamps = {name: stamp for name, path in files.items() if (stamp := _stamp(path)) is not None}
        before, self._stamps, self._files = self._stamps, stamps, files
        gone = set() if before is None else set(before) - set(stamps)
        for name in gone:
            self.broken.pop(name, None)
        own = {name for name in stamps if files[name].parent != self._folders[0]}
        new = own if before is None else {name for name in stamps if before.get(name) != stamps[name]}
        told = []
        for name in sorted(new):
            known = self.broken.get(name)
            try:
                self.read(name)
            except InvalidRequest as error:
                if str(error) != known:
                    told.append(str(error))
        return (set() if before is None else new | gone), told


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_mtime_ns, found.st_size
