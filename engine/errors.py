"""The engine's errors: one tree, each class with a stable `code`, an HTTP status and an exit code.

A message is one sentence that names the value and the way out. It reaches a person through
`engine.wire.ErrorBody`, a job's `error` or the CLI, unchanged.

    EngineError
    ├── Refused             the request is wrong or cannot be met (exit 4)
    │   ├── InvalidRequest      a value that could never work (exit 2)
    │   ├── NotFound            no such job, model or component
    │   ├── ModelUnusable       files missing, truncated, of an unknown kind
    │   ├── DoesNotFit          would not fit even on the empty device
    │   ├── NotNow              right request, wrong moment (job already ended, ...)
    │   │   └── DeviceTaken         something has the whole device to itself, such as a reset
    │   └── StorageUnusable     disk full, folder not writable, store newer than this build
    ├── EngineUnavailable   no engine answers, or it may not be used (exit 3)
    └── WorkFailed          accepted, then failed (exit 5)
        ├── WorkerDied
        │   ├── WorkerNotStarted    it never took its work, which is whole
        │   ├── WorkerStopped       ended on purpose, with its engine
        │   └── WorkerReplaced      ended by a person's hard cleanup
        ├── WorkerSilent        the worker says nothing; what it was asked for may still happen
        ├── DeviceFault         the device context is broken; the worker must be replaced
        ├── OutOfMemory
        ├── NotResident         a component was used while its weights were not loaded
        └── JobCancelled
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of all; `code` is stable, the text is for people."""

    code: ClassVar[str] = "engine_error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 5


class Refused(EngineError):
    """The request is refused; nothing was changed."""

    code = "refused"
    http_status = 409
    exit_code = 4


class InvalidRequest(Refused):
    """A value that could never work, found before anything was queued."""

    code = "invalid_request"
    http_status = 422
    exit_code = 2


class NotFound(Refused):
    """No job, model or component of that name."""

    code = "not_found"
    http_status = 404


class ModelUnusable(Refused):
    """A model whose files are missing, damaged or of a kind this build cannot run."""

    code = "model_unusable"


class DoesNotFit(Refused):
    """It would not fit even if the device held nothing else of ours."""

    code = "does_not_fit"


class NotNow(Refused):
    """A right request at the wrong moment, such as cancelling a job that has ended."""

    code = "not_now"


class DeviceTaken(NotNow):
    """Something has the whole device to itself for a while; no worker may start."""

    code = "device_taken"


class StorageUnusable(Refused):
    """A disk that is full, a folder that cannot be written, a store newer than this build."""

    code = "storage_unusable"
    http_status = 507


class EngineUnavailable(EngineError):
    """No engine answers, or the one that does may not be used."""

    code = "engine_unavailable"
    http_status = 503
    exit_code = 3


class WorkFailed(EngineError):
    """Work that was accepted and then failed."""

    code = "work_failed"


class WorkerDied(WorkFailed):
    """The worker process ended under its work."""

    code = "worker_died"


class WorkerNotStarted(WorkerDied):
    """It died before it took any work, or could not be started; says nothing about a job."""

    code = "worker_not_started"


class WorkerStopped(WorkerDied):
    """The worker was ended on purpose, with its engine; says nothing about its job."""

    code = "worker_stopped"


class WorkerReplaced(WorkerDied):
    """A person had the worker ended to get all of its memory back."""

    code = "worker_replaced"


class WorkerSilent(WorkFailed):
    """The worker has the work and says nothing; when it speaks again, it may still do it."""

    code = "worker_silent"


class DeviceFault(WorkFailed):
    """The device context broke under the work; this process can never use the device again."""

    code = "device_fault"


class NotResident(WorkFailed):
    """A component was used while its weights were not loaded; caught before any kernel ran."""

    code = "not_resident"


class OutOfMemory(WorkFailed):
    """The device had no memory left for an allocation."""

    code = "out_of_memory"


class JobCancelled(WorkFailed):
    """A person asked for it; seen between steps."""

    code = "cancelled"


def _tree(root: type[EngineError]) -> dict[str, type[EngineError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


ERRORS_BY_CODE: dict[str, type[EngineError]] = _tree(EngineError)
"""To raise on the client what the engine raised on the server."""


def from_code(code: str, message: str) -> EngineError:
    """The error that `code` names; an unknown code (a newer engine) gives the base class."""
    return ERRORS_BY_CODE.get(code, EngineError)(message)
