"""From what libraries raise to the engine's errors, and without what those keep alive.

A traceback holds every frame it passed and so every tensor in them; an error that travels on
must be a new one, made of text alone.
"""

from __future__ import annotations

import errno
import traceback

from engine.errors import DeviceFault, EngineError, OutOfMemory, StorageUnusable, WorkFailed, from_code
from engine.units import size_text
from engine.worker.backend import Backend
from engine.worker.bound import bound_of

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


def as_engine_error(error: BaseException, backend: Backend, doing: str) -> EngineError:
    """A fresh error for `error`, which happened while `doing`, with no traceback or cause.

    Where the cause is not one that we know, its traceback goes along as a note, for the log.
    """
    if isinstance(error, EngineError):
        fresh = from_code(error.code, str(error))
        for note in getattr(error, "__notes__", ()):
            fresh.add_note(note)
        return fresh
    text = _first_line(error)
    if backend.is_fatal(error):
        return _with_traceback(
            DeviceFault(f"the device failed while {doing} ({text}); the worker is replaced, retry the job"),
            error,
        )
    if backend.is_oom(error):
        return OutOfMemory(_no_memory(error, backend, doing))
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return StorageUnusable(
            f"{error.filename or 'the disk'} cannot be written while {doing}: {error.strerror}"
        )
    return _with_traceback(WorkFailed(f"{doing} failed: {type(error).__name__}: {text}"), error)


def forget(error: BaseException) -> None:
    """Clear the frames that `error` and what led to it hold, so that their tensors go."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        item = queue.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        queue += [item.__cause__, item.__context__]
        traceback.clear_frames(item.__traceback__)
        item.__traceback__ = None


def _no_memory(error: BaseException, backend: Backend, doing: str) -> str:
    """What ran out, and the way out of that: what other processes hold is none under a limit of our own."""
    bound = bound_of(error, backend)
    limit, free = size_text(bound.limit_bytes or 0), size_text(bound.free_bytes or 0)
    if bound.kind == "address_space":
        return (
            f"the worker had no memory left while {doing}: the system limits its address space to {limit}, "
            f"of which {free} were left; raise that (`ulimit -v`) where the engine is started, or take fewer "
            "frames or a smaller resolution"
        )
    if bound.kind == "cgroup":
        return (
            f"the worker had no memory left while {doing}: its cgroup is limited to {limit}, of which {free} "
            "were left; raise `memory.max`, end what else runs in it, or take fewer frames or a smaller "
            "resolution"
        )
    if bound.kind == "host" and backend.kind == "cuda":
        return (
            f"the host had no memory left while {doing}: of {limit} {free} were available; end what else "
            "takes the host's memory, the card's is not what ran out"
        )
    return (
        f"{backend.device_name} had no memory left while {doing}; this worker holds "
        f"{size_text(backend.held_bytes())} of {size_text(backend.total_bytes)}: "
        "free other processes' memory, or take fewer frames or a smaller resolution"
    )


def _with_traceback(fresh: EngineError, error: BaseException) -> EngineError:
    fresh.add_note("".join(traceback.format_exception(error)))
    return fresh


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
