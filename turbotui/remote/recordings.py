"""Owns where a recording is read from: a folder or file here, or a stretch brought from another machine."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from turbotui.client.files import fetch_recording
from turbotui.client.http import HttpClient


class BoxRecordings:
    """The recording of another machine's engine."""

    def __init__(self, connect: Callable[[], HttpClient]) -> None:
        self._connect = connect
        self._copying = threading.Lock()
        self._copy: Path | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def copy(self, since: float) -> Path:
        """A file here with what was recorded from `since` to now, brought once and gone with this process.

        Raises:
            NotFound: nothing is recorded there.
        """
        with self._copying:
            if self._copy is None:
                folder = tempfile.TemporaryDirectory(prefix="turbotui-recording-")  # 0700
                file = Path(folder.name) / "recording"
                fetch_recording(self._connect(), since, None, file)
                self._folder, self._copy = folder, file
            return self._copy

    @contextmanager
    def stretch(self, since: float | None, until: float | None) -> Iterator[Path]:
        """A file here with the stretch, gone afterwards.

        Raises:
            NotFound: nothing is recorded there.
        """
        with tempfile.TemporaryDirectory(prefix="turbotui-recording-") as folder:  # 0700
            file = Path(folder) / "recording"
            fetch_recording(self._connect(), since, until, file)
            yield file


Source: TypeAlias = Path | BoxRecordings
"""What a report is told from."""


@contextmanager
def stretch_of(source: Source, since: float | None, until: float | None) -> Iterator[Path]:
    """A path that `engine.recording.reader.Recording` reads, with at least the stretch in it."""
    if isinstance(source, Path):
        yield source
    else:
        with source.stretch(since, until) as path:
            yield path
