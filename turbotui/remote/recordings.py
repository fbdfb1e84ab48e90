"""Owns where a recording is read from: a folder or file here, or a stretch brought from another machine."""

from __future__ import annotations

import tempfile
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
