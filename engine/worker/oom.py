"""Looks at the memory in the moment in which it ran out, while all that filled it is still there.

Of the exception only its text is kept: its frames hold every tensor of the job. On a GPU the allocator
tells what was asked for before it raises; elsewhere the text is read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch

from engine.errors import DoesNotFit, OutOfMemory
from engine.telemetry.host import HostProbe
from engine.units import parse_size
from engine.worker.backend import Backend
from engine.worker.bound import bound_of
from engine.worker.channel import JobProgressed, JobStaged
from engine.worker.oom_facts import OomBound, OomMoment
from engine.worker.pinned import pinned_bytes

Message = TypeVar("Message")
ASKED = re.compile(r"[Tt]ried to allocate (\d+(?:\.\d+)? ?(?:bytes|[KMG]iB)?)")
LOADING = re.compile(r"loading (\S+/\S+) \((\d[^)]*)\)")
FRESH_S = 2.0
"""From the allocator's refusal to the end of the job that it ends."""
USED_BY_STAGE = {"text": "text", "image": "vae", "decode": "vae"}
"""A stage that uses one component whatever the model; `denoise` names its own, or uses `dit`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Refused:
    """What the allocator said last, and when by the monotonic clock."""

    at: float
    asked_bytes: int
    free_bytes: int


class OomWatch:
    """One job's. Told of its course, it knows where it stood when memory ran out."""

    def __init__(
        self,
        backend: Backend,
        weights: Callable[[], Mapping[str, int]],
        model: str,
        allocator: Allocator,
        *,
        baseline_bytes: int,
        pinned_in_use: Callable[[], int | None],
    ) -> None:
        """`baseline_bytes` is the resident set of a fresh worker, `weights` gives what is resident now.

        `pinned_in_use` looks which of torch's pinned blocks are in tensors.
        """
        self._baseline_bytes = baseline_bytes if backend.kind == "cpu" else 0
        self._backend = backend
        self._weights = weights
        self._model = model
        self._allocator = allocator
        self._pinned_in_use = pinned_in_use
        self._progress: JobProgressed | None = None
        self._line: str | None = None
        self.moment: OomMoment | None = None
        """Of the failure that was seen; None where it was none of memory."""

    def through(self, send: Callable[[Message], None]) -> Callable[[Message], None]:
        """`send`, for messages of the job that tell where it stands."""

        def noted(message: Message) -> None:
            self._note(message)
            send(message)

        return noted

    def _note(self, message: object) -> None:
        if isinstance(message, JobProgressed):
            self._progress = message
        elif isinstance(message, JobStaged) and message.current is not None:
            self._line = message.current

    def saw(self, error: BaseException) -> None:
        """What ended the job; called while its frames and all that they hold are still there."""
        if not (self._backend.is_oom(error) or isinstance(error, OutOfMemory | DoesNotFit)):
            return
        # Of a look that fails, as it does without any memory; the job's own failure is told anyway.
        with suppress(OSError, RuntimeError, MemoryError):
            self.moment = self._look(error, str(error))

    def _look(self, error: BaseException, text: str) -> OomMoment:
        backend, progress = self._backend, self._progress
        weights = dict(self._weights())
        sample = backend.sample(weights)
        refused = self._allocator.refused
        if refused is not None and time.monotonic() - refused.at > FRESH_S:
            refused = None  # one that an eviction has mended
        bound = bound_of(error, backend, refused=refused is not None)
        loading = LOADING.search(text)
        held = backend.held_bytes()
        pinned, pinned_used, pinned_reason = self._pinned(bound)
        allocated = held - self._baseline_bytes if sample.allocated_bytes is None else sample.allocated_bytes
        return OomMoment(
            at=time.time(),
            message=next((line.strip() for line in text.splitlines() if line.strip()), ""),
            stage=progress.stage if progress is not None else "start",
            step=progress.step if progress is not None else 0,
            steps=progress.steps if progress is not None else 0,
            component=loading[1] if loading else self._component(),
            asked_bytes=refused.asked_bytes if refused is not None else _asked(text),
            held_bytes=held,
            total_bytes=backend.total_bytes,
            free_bytes=refused.free_bytes if refused is not None else free_bytes(backend),
            bound=bound,
            weights=weights,
            live_bytes=max(0, allocated - sum(weights.values())),
            baseline_bytes=self._baseline_bytes,
            releasable_bytes=_less(sample.reserved_bytes, sample.active_bytes, sample.inactive_split_bytes),
            fragmented_bytes=sample.inactive_split_bytes,
            awaiting_bytes=_less(sample.active_bytes, sample.allocated_bytes),
            pinned_bytes=pinned,
            pinned_used_bytes=pinned_used,
            pinned_reason=pinned_reason,
        )

    def _pinned(self, bound: OomBound) -> tuple[int | None, int | None, str | None]:
        """Torch's pinned memory, what of it is in use, and why that is not known."""
        whole = pinned_bytes()
        if not whole:
            return whole, whole, None
        if bound.kind in ("device", "budget"):
            return whole, None, "it is the host's memory, and the host's did not run out"
        try:
            return whole, self._pinned_in_use(), None
        except (MemoryError, RuntimeError) as error:
            return whole, None, f"there was no memory left to look for it ({type(error).__name__})"

    def _component(self) -> str | None:
        """That the running line of the ledger uses."""
        if self._line is None:
            return None
        stage, _space, name = self._line.partition(" ")
        used = USED_BY_STAGE.get(stage, (name or "dit") if stage == "denoise" else None)
        return None if used is None else f"{self._model}/{used}"


class Allocator:
    """Hears what a GPU's allocator refuses; of the host's nothing is heard."""

    def __init__(self) -> None:
        self.refused: _Refused | None = None

    def attach(self, backend: Backend) -> None:
        """Listen for the life of the process; once it has its context."""
        attach = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)
        if attach is not None and backend.kind == "cuda":
            attach(self._heard)

    def _heard(self, _device: int, asked: int, _total: int, free: int) -> None:
        self.refused = _Refused(at=time.monotonic(), asked_bytes=asked, free_bytes=free)


def free_bytes(backend: Backend) -> int | None:
    """What is free on the device by the driver, or what the host has available."""
    if backend.kind == "cuda":
        return int(torch.cuda.mem_get_info(backend.device)[0])
    host = HostProbe()
    host.refresh_limits()
    return host.read().available_bytes


def _asked(text: str) -> int | None:
    loading, tried = LOADING.search(text), ASKED.search(text)
    found = tried[1] if tried else loading[2] if loading else None
    if found is None:
        return None
    with suppress(ValueError):
        return parse_size(found.replace(" bytes", "").replace("bytes", ""))
    return None


def _less(whole: int | None, *parts: int | None) -> int | None:
    if whole is None or None in parts:
        return None
    return max(0, whole - sum(part or 0 for part in parts))
