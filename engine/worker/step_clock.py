"""When a job's denoising steps begin and end on the device, and how far the host may run ahead of it.

The host queues a step in a fraction of the time that the device takes for it. It queues the next one when
the device has come to the last block: early enough that the device never waits for it, and late enough that
a cancel between two steps costs no step more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from engine.worker.backend import Backend, Mark, Passed


class StepClock:
    """One job's. Used by the thread that computes; threads of its own wait for the device and note times."""

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self.first_step_at: float | None = None
        """When the device began the first block of the first step, wall clock."""
        self._began: list[float] = []
        self._ended: dict[int, float] = {}
        self._waiting: list[threading.Thread] = []
        self._near_end: Mark = Passed()
        self._last: Mark = Passed()

    def wait_for_last_block(self) -> None:
        """Block until the device has come to the last block of what was queued; raises what it answers."""
        self._near_end.wait()

    def begin(self) -> None:
        """A step is about to be queued."""
        self._began.append(self._clock())

    def follow(self, net: Any) -> None:
        """Note when the device comes to the first block of the first pass, and mark the last one of each."""
        if self.first_step_at is None and len(self._began) == 1:
            # After the arena's own hook, which waits for the block: its weights may still travel.
            self._once(net.blocks[0], self._reached_first)
        self._once(net.blocks[-1], self._reached_last)

    def end(self) -> None:
        """All of a step is queued."""
        number, self._last = len(self._began) - 1, self._backend.mark_compute()
        self._when_passed(self._last, lambda: self._ended.__setitem__(number, self._clock()))

    def finish(self) -> None:
        """Wait until the device has made every step; raises what it answers."""
        self._last.wait()
        for thread in self._waiting:
            thread.join()

    @property
    def step_s(self) -> tuple[float, ...]:
        """Seconds of each step that has ended: from its begin, or the end of the one before, to its end."""
        found, before = [], 0.0
        for number, began in enumerate(self._began):
            if (ended := self._ended.get(number)) is None:
                break
            found.append(round(ended - max(began, before), 5))
            before = ended
        return tuple(found)

    def _reached_first(self) -> None:
        def note() -> None:
            self.first_step_at = self.first_step_at or time.time()

        self._when_passed(self._backend.mark_compute(), note)

    def _reached_last(self) -> None:
        self._near_end = self._backend.mark_compute()

    @staticmethod
    def _once(block: Any, reached: Callable[[], None]) -> None:
        def hook(module: Any, args: Any) -> None:
            handle.remove()
            reached()

        handle = block.register_forward_pre_hook(hook)

    def _when_passed(self, mark: Mark, note: Callable[[], None]) -> None:
        if isinstance(mark, Passed):
            note()
            return

        def wait() -> None:
            try:
                mark.wait()
            except RuntimeError:
                return  # the device broke: whoever computes says so
            note()

        thread = threading.Thread(target=wait, name="step-clock", daemon=True)
        self._waiting.append(thread)
        thread.start()
