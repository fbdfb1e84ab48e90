"""Runs a process of the engine's that says what it does as JSON, a line each, and hands its lines on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec

from engine.errors import WorkFailed, from_code
from engine.wire import ErrorBody


class News(Protocol):
    """A line: any wire model that can carry an error."""

    @property
    def error(self) -> ErrorBody | None: ...


Line = TypeVar("Line", bound=News)


def news_of(module: str, arguments: Sequence[str], line: type[Line]) -> Iterator[Line]:
    """What `module` says, run with `arguments` as a process of its own; ended with this one's iteration.

    It gets this process's environment, and at Ctrl-C its signal.

    Raises:
        EngineError: the error that it said, or WorkFailed where it ended without a word of why.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    # A file and not a pipe: nobody reads it before the end.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        )
        assert process.stdout is not None
        try:
            for text in process.stdout:
                try:
                    news = msgspec.json.decode(text, type=line)
                except msgspec.MsgspecError:
                    continue  # what a library printed is no news
                if news.error is not None:
                    raise from_code(news.error.code, news.error.message)
                yield news
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
            process.stdout.close()
            process.wait()
        if code != 0:
            complaints.seek(0)
            words = complaints.read().strip().splitlines()
            raise WorkFailed(words[-1] if words else f"{module} ended with exit code {code} without a word")
