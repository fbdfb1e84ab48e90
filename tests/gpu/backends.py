"""CUDA backends of the tests' own process, each as long-lived as a worker's.

Pinned pages that were unmapped first could be pinned no second time, and a file that is mapped there
later could not be registered.
"""

from __future__ import annotations

from engine.worker.cuda import CudaBackend

_ALIVE: list[CudaBackend] = []


def connected() -> CudaBackend:
    """A backend with its context, kept for as long as the process lives."""
    backend = CudaBackend()
    backend.connect()
    _ALIVE.append(backend)
    return backend
