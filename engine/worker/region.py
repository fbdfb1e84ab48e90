"""A component's device memory in segments, and for each segment whose weights it holds.

Weights arrive segment by segment while the net already computes, and one expert of a model takes
the bytes of the other block by block. So what a segment holds is written down, and whoever is
about to compute with it passes its gate first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from torch import Tensor

from engine.errors import EngineError, NotResident, from_code
from engine.worker.backend import Backend, Mark

POLL_S = 0.02
"""How often a thread that waits for weights looks whether it should still wait."""


class Gate:
    """The arrival of one segment: waited for by the host until its copies are queued, then by the device."""

    def __init__(self) -> None:
        self._settled = threading.Event()
        self._mark: Mark | None = None
        self._failure: EngineError | None = None

    def arrive(self, mark: Mark) -> None:
        """Its copies are queued; they are done when `mark` has passed."""
        self._mark = mark
        self._settled.set()

    def fail(self, failure: EngineError) -> None:
        """They will never come."""
        if not self._settled.is_set():
            self._failure = failure
            self._settled.set()

    def enter(self, backend: Backend, poll: Callable[[], None]) -> None:
        """Let this thread's next work on the device begin only when the weights are there.

        `poll` runs now and then while the host waits, and may raise.

        Raises:
            EngineError: what the load failed of, as a new error.
        """
        while not self._settled.wait(POLL_S):
            poll()
        if self._failure is not None:
            raise from_code(self._failure.code, str(self._failure))
        assert self._mark is not None, "a gate that did not fail has its mark"
        backend.compute_waits(self._mark)


class Region:
    """Device memory whose segments each belong to one holder.

    A holder is named by its label, such as `wan2.2-a14b/dit.low`.
    """

    def __init__(self, backend: Backend, num_bytes: int, segments: int) -> None:
        self.bytes = num_bytes
        self._backend = backend
        self._memory = backend.new_memory(num_bytes)
        self.views: list[Tensor] = []
        """Of the layout's slots, made by the first arena that attaches: they outlive a release, when
        they are of no bytes, and become valid with the next commit."""
        self.holders: list[str | None] = [None] * segments
        self._gates = [Gate() for _ in range(segments)]
        # Whose weights this thread has seen arrive; what forward looks at first.
        self.entered: list[str | None] = [None] * segments

    def commit(self) -> Tensor:
        """The whole of it as uint8; allocates its bytes."""
        return self._memory.commit()

    def release(self) -> None:
        """Give its bytes back; nobody holds any segment after."""
        for segment in range(len(self.holders)):
            self.holders[segment] = self.entered[segment] = None
        self._memory.release()

    def expect(self, segment: int, holder: str) -> Gate:
        """From now on the segment is `holder`'s, whose weights arrive through the gate that is returned."""
        gate = Gate()
        self.entered[segment] = None
        self.holders[segment], self._gates[segment] = holder, gate
        return gate

    def enter(self, segment: int, holder: str, poll: Callable[[], None]) -> None:
        """Wait for the segment's weights, which must be `holder`'s.

        Raises:
            NotResident: it holds another's.
            EngineError: its load failed.
        """
        if self.holders[segment] != holder:
            raise NotResident(
                f"{holder} was used where block {segment} holds {self.holders[segment] or 'nothing'}; "
                "load it again"
            )
        self._gates[segment].enter(self._backend, poll)
        self.entered[segment] = holder
