"""What running calls hold: the locals of each thread's frames, and exceptions that are being handled.

The collector does not see into a frame that runs.
"""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

from engine.worker.leaks.graph import Heap

OURS = "engine.worker.leaks"


class RunningFrames:
    """The frames of all threads, but for those of this search."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self.ids: set[int] = set()
        self.ours: set[int] = set()
        """Frames of the search itself: what they hold does not count."""
        self.holders: dict[int, list[tuple[types.FrameType, str]]] = {}
        """By id of what they hold: frames, the innermost first, and the names of their locals."""
        for frame in list(sys._current_frames().values()):
            at: types.FrameType | None = frame
            while at is not None:
                self._see(at)
                at = at.f_back
        for number, error in sys._current_exceptions().items():
            self._handled(number, error)
        del frame  # perhaps this call's own, which would be a cycle that only the collector ends

    def _see(self, frame: types.FrameType) -> None:
        if str(frame.f_globals.get("__name__", "")).startswith(OURS):
            self.ours.add(id(frame))
            return
        self.ids.add(id(frame))
        for name, value in locals_of(frame, self._heap).items():
            self.holders.setdefault(id(value), []).append((frame, name))

    def _handled(self, thread: int, error: Any) -> None:
        # An exception; before Python 3.12 a tuple of its type, itself and its traceback.
        found = error[1] if isinstance(error, tuple) else error
        if found is not None and (frame := sys._current_frames().get(thread)) is not None:
            self.holders.setdefault(id(found), []).append((frame, "the exception that is being handled"))
            del frame

    def close(self) -> None:
        """Let go of the frames."""
        self.holders.clear()


def _references_of_a_local() -> int:
    """What a variable and a call add to a count; it differs by Python's version."""
    probe: dict[str, Any] = {}
    return sys.getrefcount(probe)


def locals_of(frame: types.FrameType, heap: Heap) -> dict[str, Any]:
    """The locals of a call by name; its own namespace where the frame is a module's.

    `heap` may hold the frame's dictionary of them since an earlier look.
    """
    found = frame.f_locals
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return dict(found)
    copied = dict(found)
    # Before Python 3.13 the frame keeps this dictionary, and so all that was a local, until it ends; and
    # where its code has called locals() it is the one that it was given.
    if isinstance(found, dict):
        ours = _references_of_a_local() + 1 + heap.lists(found)
        if sys.getrefcount(found) <= ours:
            found.clear()
    return copied
