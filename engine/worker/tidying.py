"""Gives back what neither an unload nor the device's cache is: cycles, pinned blocks, free pages of the heap.

Each is safe between two steps of a job: it takes nothing that is in use.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

import torch

from engine.errors import NotNow
from engine.telemetry.host import read_rss
from engine.wire import Proof, Receipt, ReceiptStep
from engine.worker.backend import Backend
from engine.worker.channel import CACHE_STEP
from engine.worker.heap import TRIMS, trim_heap
from engine.worker.pinned import pinned_bytes
from engine.worker.receipts import ReceiptWriter
from engine.worker.tidy import TIDIED, TidyWhat


class Tidier:
    """Used by the thread that does all device work."""

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._wall_clock = wall_clock

    def tidy(self, what: TidyWhat) -> Receipt:
        """Do it, and tell by this process's own count what came back.

        Raises:
            NotNow: there is nothing of the kind here.
        """
        match what:
            case "collect":
                why = (
                    "there is no GPU: the worker's own memory as the kernel counts it"
                    if self._backend.kind == "cpu"
                    else "the worker's own allocator"
                )
                # Cache that went with them would pass for what the cycles held, and keep their promise.
                held, first = self._backend.held_bytes, self._backend.free_cache
                return self._done(what, self._collect, held, self._backend.proof, why, first=first)
            case "free_pinned":
                if pinned_bytes() is None:
                    raise NotNow("there is no GPU here, so torch holds no pinned memory to give back")
                why = "torch's own count of its pinned blocks"
                return self._done(what, free_pinned, lambda: pinned_bytes() or 0, "allocator", why)
            case "trim":
                why = "the worker's own memory as the kernel counts it"
                return self._done(what, trim, lambda: read_rss(os.getpid()) or 0, "process-rss", why)

    def _collect(self) -> None:
        gc.collect()
        # Workspaces of cuBLAS are tensors of nobody; the next product makes them anew.
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear is not None and self._backend.kind == "cuda":
            clear()
        self._backend.free_cache()

    def _done(
        self,
        what: TidyWhat,
        act: Callable[[], None],
        held: Callable[[], int],
        proof: Proof,
        reason: str,
        *,
        first: Callable[[], None] | None = None,
    ) -> Receipt:
        """The receipt of `act`; what `first` frees of the cache is told as a step, and not as returned."""
        began, before = self._clock(), held()
        steps: list[ReceiptStep] = []
        if first is not None:
            first()
            cached, before = before, held()
            if cached > before:
                took = self._clock() - began
                steps.append(ReceiptStep(name=CACHE_STEP, bytes=cached - before, elapsed_s=took))
        since = self._clock()
        act()
        returned = max(0, before - held())
        if steps:
            steps.append(ReceiptStep(name=what, bytes=returned, elapsed_s=self._clock() - since))
        writer = ReceiptWriter(proof, clock=self._clock, wall_clock=self._wall_clock)
        return writer.write(
            what, TIDIED[what], began, returned_bytes=returned, proof_reason=reason, steps=tuple(steps)
        )


def free_pinned() -> None:
    """Give back pinned blocks that no tensor and no copy under way uses.

    Raises:
        NotNow: this torch cannot.
    """
    torch.cuda.synchronize()  # a block whose copy has not been seen to end is not free yet
    empty = getattr(torch.accelerator, "empty_host_cache", None) or getattr(
        torch._C, "_host_emptyCache", None
    )
    if empty is None:
        raise NotNow("this torch gives no pinned memory back; `turbotui cleanup` starts a fresh worker")
    empty()


def trim() -> None:
    """Give free pages of the heap back to the kernel.

    Raises:
        NotNow: the C library knows no such thing, as musl does not.
    """
    if not TRIMS:
        raise NotNow("this host's C library has no malloc_trim; `turbotui cleanup` starts a fresh worker")
    trim_heap()
