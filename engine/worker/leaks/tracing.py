"""The trace mode: where live memory was allocated, from the moment at which it is switched on.

On cuda the allocator itself notes a stack for each block, in a history of bounded length. The host's
allocator notes nothing: on cpu a dispatch mode on the thread that computes notes the line that made each
storage, while jobs run that began after it was switched on. Off, neither is there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from engine.wire import Site, Tracing
from engine.worker.leaks.libraries import is_library

HISTORY = 10_000
"""Allocations and frees that the device's allocator remembers, at a few KB each."""
MOST_NOTED = 20_000
LEAST_BYTES = 1024
"""Live storages that are noted on cpu, and of which length."""
SHAPES = 8
"""Shapes of jobs whose steps are compared, with and without."""
OLDER = "it was allocated before tracing was switched on"
UNSEEN = "it was allocated before the first traced job began, or outside of such a job's own thread"
UNTRACED = "nothing was traced; `turbotui leaks --trace on` notes where memory is allocated from then on"
BY_LIBRARIES = "no line outside of the libraries took part in its allocation"


class Tracer:
    """A worker's; `job` is for the thread that computes, the rest for any."""

    def __init__(self, kind: Literal["cuda", "cpu"]) -> None:
        self._kind = kind
        self._since: float | None = None
        self._switched = 0
        self._history = False
        """Whether the device's allocator has been asked for a history."""
        self._was_on = False
        self.noted = NotedStorages()
        self.blocks = 0
        """On cuda: blocks with a stack, as they were seen last."""
        self._steps: dict[tuple[object, ...], tuple[dict[int, float], dict[int, float]]] = {}

    @property
    def on(self) -> bool:
        return self._since is not None

    def switch(self, on: bool) -> None:
        """Trace from now on, or no more; what is known of live memory stays known.

        Raises:
            RuntimeError: the device's allocator keeps no history; the text is torch's.
        """
        if self._kind == "cuda" and (has_context() or not on):
            self._ask_allocator(on)
        if on != self.on:
            self._since = time.time() if on else None
            self._switched += 1
        self._was_on |= on

    def connected(self) -> None:
        """The device's context is there: what was asked for before takes effect."""
        if self._kind == "cuda" and self.on:
            self._ask_allocator(True)

    def _ask_allocator(self, on: bool) -> None:
        if on == self._history:
            return
        if on:
            torch.cuda.memory._record_memory_history(
                "all", context="alloc", stacks="python", max_entries=HISTORY
            )
        else:
            torch.cuda.memory._record_memory_history(None)
        self._history = on

    @contextmanager
    def job(self) -> Iterator[None]:
        """Around a job on its own thread, outside of any inference mode: modes must end in their order."""
        if not self.on or self._kind != "cpu":
            yield
            return
        try:
            with _Noting(self):
                yield
        finally:
            # What is noted keeps the head of its storage: those of a whole job are some megabytes.
            self.noted.sweep()

    def state(self) -> Tracing:
        on_cpu = self._kind == "cpu"
        return Tracing(
            on=self.on,
            since=self._since,
            entries=len(self.noted) if on_cpu else self.blocks,
            # On a GPU the allocator keeps the stack of whatever is live: there is no limit to that.
            limit=MOST_NOTED if on_cpu else 0,
            cost_share=self._cost_share(),
            device=self._kind,
        )

    # ----------------------------------------------------------------- sites

    def site_of_storage(self, storage: Any) -> tuple[Site | None, str | None]:
        """Where the storage of a host tensor was made, or why that is not known."""
        site = self.noted.find(storage._cdata)
        if site is not None:
            return site, None
        return None, UNSEEN if self._was_on and self._kind == "cpu" else self._untold()

    def site_of_frames(self, frames: Sequence[Mapping[str, Any]]) -> tuple[Site | None, str | None]:
        """The same of a block's stack, the innermost frame first, as the device's allocator has it."""
        if not frames:
            return None, OLDER if self._was_on else UNTRACED
        for frame in frames:
            file = str(frame.get("filename", ""))
            if not is_library(file) and file.endswith(".py"):
                name = str(frame.get("name", ""))
                return Site(file=file, line=int(frame.get("line", 0)), function=name), None
        return None, BY_LIBRARIES

    def _untold(self) -> str:
        if self._kind == "cuda":
            return "memory of the host is not traced beside a GPU"
        return UNTRACED

    # ----------------------------------------------------------------- cost

    def began_job(self) -> tuple[bool, int]:
        """How tracing is as a job begins; for `ended_job`."""
        return self.on, self._switched

    def ended_job(self, began: tuple[bool, int], shape: tuple[object, ...], step_s: Iterable[float]) -> None:
        """A job's denoise steps in seconds; those of one that was switched in its midst tell nothing."""
        if began != (self.on, self._switched):
            return
        if shape not in self._steps and len(self._steps) >= SHAPES:
            self._steps.pop(next(iter(self._steps)))
        without, traced = self._steps.setdefault(shape, ({}, {}))
        best = traced if self.on else without
        for number, seconds in enumerate(step_s):
            best[number] = min(seconds, best.get(number, seconds))

    def _cost_share(self) -> float | None:
        """By the best time of each step both ways: other load on the host only ever adds to one."""
        for without, traced in reversed(self._steps.values()):
            both = without.keys() & traced.keys()
            if both:
                base = sum(without[number] for number in both)
                return sum(traced[number] for number in both) / max(1e-9, base) - 1
        return None


def has_context() -> bool:
    """Whether this process has a context on its GPU; never makes one."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class NotedStorages:
    """Where live storages of the host were made; forgets what is gone, and the oldest beyond its bound."""

    def __init__(self, most: int = MOST_NOTED) -> None:
        self._most = most
        # A weak reference keeps the number of a storage from being given to another.
        self._sites: dict[int, tuple[StorageWeakRef, tuple[str, int, str]]] = {}

    def __len__(self) -> int:
        return len(self._sites)

    def __contains__(self, cdata: int) -> bool:
        return cdata in self._sites

    def note(self, storage: Any, place: tuple[str, int, str]) -> None:
        if len(self._sites) >= self._most:
            self.sweep()
            while len(self._sites) > self._most * 3 // 4:
                self._sites.pop(next(iter(self._sites)), None)
        self._sites[storage._cdata] = (StorageWeakRef(storage), place)  # type: ignore[no-untyped-call]

    def find(self, cdata: int) -> Site | None:
        found = self._sites.get(cdata)
        if found is None or found[0].expired():  # type: ignore[no-untyped-call]
            return None
        file, line, function = found[1]
        return Site(file=file, line=line, function=function)

    def sweep(self) -> None:
        """Forget those that are gone."""
        known = list(self._sites.items())
        gone = [number for number, (weak, _) in known if weak.expired()]  # type: ignore[no-untyped-call]
        for number in gone:
            self._sites.pop(number, None)


class _Noting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the line that called for each storage that an operation made."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing here is compiled. Torch would wrap what follows for its compiler, which costs each call
        # some microseconds, and the first one the import of all of that compiler.
        return False

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        # Switched off in the midst of a job this stays until its end, and does nothing.
        if self._tracer.on and (makes := _makes(func)) != "nothing":
            # A view may be small and its storage large, but then the storage is not new.
            tensors = [tensor for tensor in _tensors(result) if tensor.nbytes >= LEAST_BYTES]
            if tensors:
                given = set() if makes == "new" else _storages((args, kwargs))
                self._note(tensors, given, sys._getframe(1))
        return result

    def _note(self, tensors: list[Tensor], given: set[int], frame: FrameType) -> None:
        place: tuple[str, int, str] | None = None
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata in given:
                continue  # a view of what it was given, or that itself
            place = place or _innermost(frame)
            if place is None:
                return
            self._tracer.noted.note(storage, place)


VIEWS = frozenset({
    "alias", "as_strided", "chunk", "detach", "expand", "movedim", "narrow", "permute", "select",
    "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten",
    "unsqueeze", "view", "view_as",
})  # fmt: skip
"""Calls that never make memory. Of `to`, `reshape` and their like a schema tells no more: those may."""


@lru_cache(maxsize=4096)
def _makes(func: Any) -> Literal["new", "perhaps", "nothing"]:
    """Whether what it returns is new: most calls give views, or write in place."""
    if func._schema.name.removeprefix("aten::") in VIEWS:
        return "nothing"
    aliases = [value.alias_info for value in func._schema.returns]
    if all(alias is None for alias in aliases):
        return "new" if aliases else "nothing"
    return "perhaps" if any(alias is None or not alias.is_write for alias in aliases) else "nothing"


def _tensors(found: Any) -> list[Tensor]:
    """Those in it that have memory of their own on the host."""
    if isinstance(found, Tensor):
        return [found] if found.is_cpu and found.layout is torch.strided else []
    if isinstance(found, tuple | list):
        return [tensor for part in found for tensor in _tensors(part)]
    return []


def _storages(given: tuple[Any, Mapping[str, Any] | None]) -> set[int]:
    """Of the tensors among the arguments of a call."""
    args, kwargs = given
    tensors = _tensors(args) + (_tensors(tuple(kwargs.values())) if kwargs else [])
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def _innermost(frame: FrameType | None) -> tuple[str, int, str] | None:
    """File, line and function of the innermost frame that is no library's."""
    while frame is not None:
        code = frame.f_code
        if not is_library(code.co_filename):
            return code.co_filename, frame.f_lineno, code.co_name
        frame = frame.f_back
    return None
