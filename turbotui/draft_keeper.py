"""Owns keeping unsent jobs: every change is on the disk within a second, written by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from turbotui.draft import Draft, draft_of, load_draft, save_draft

if TYPE_CHECKING:
    from engine.wire import Job
    from turbotui.state import ConsoleState

SETTLE_S = 0.3
"""Changes that follow each other faster are one write."""
CLOSE_S = 1.0
"""A disk that hangs holds a console that ends no longer than this."""


class DraftKeeper:
    """One unsent job and its file.

    The console's thread reads and changes `current`; the writing thread, begun by the first change, only
    takes what was left for it under `_woken`'s lock.
    """

    def __init__(self, path: Path | None, *, wall: Callable[[], float]) -> None:
        self._path = path
        self._wall = wall
        self._current: Draft | None = None
        self._woken = threading.Condition()
        self._unwritten: Draft | None = None
        self._ends = False
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Draft:
        """Read from the disk when it is first needed."""
        if self._current is None:
            self._current = load_draft(self._path)
        return self._current

    def keep(self, draft: Draft) -> None:
        """It is this one now. What is no change is not written: another console may have written since."""
        if replace(draft, saved_at=self.current.saved_at) == self.current:
            return
        self._current = replace(draft, saved_at=self._wall())
        if self._path is None:
            return
        with self._woken:
            self._unwritten = self._current
            self._woken.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="draft", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is not written yet, and end."""
        with self._woken:
            self._ends = True
            self._woken.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _write(self) -> None:
        while True:
            with self._woken:
                self._woken.wait_for(lambda: self._unwritten is not None or self._ends)
                if self._unwritten is None:
                    return
                if not self._ends:
                    self._woken.wait_for(lambda: self._ends, SETTLE_S)
                draft, self._unwritten = self._unwritten, None
            save_draft(self._path, draft)


class Drafts:
    """The job that a person is writing, and beside it one that they change from a job that was."""

    def __init__(self, path: Path | None, *, wall: Callable[[], float]) -> None:
        self.own = DraftKeeper(path, wall=wall)
        beside = None if path is None else path.with_name(f"{path.stem}-again{path.suffix}")
        self.again = DraftKeeper(beside, wall=wall)

    def change(self, job: Job, state: ConsoleState) -> DraftKeeper:
        """The one beside, filled from `job` unless it holds unsent changes of that very job."""
        if self.again.current.job_id != job.id or self.again.current.empty:
            kind = next((model.kind for model in state.models if model.name == job.spec.model), "t2v")
            folder = state.engine.output_dir if state.engine is not None else None
            self.again.keep(draft_of(job, kind=kind, output_dir=folder))
        return self.again

    def close(self) -> None:
        """Both are on the disk after it."""
        self.own.close()
        self.again.close()
