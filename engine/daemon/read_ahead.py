"""Weight files of the next job, brought into the page cache while the running one computes.

The kernel does the reading; no byte of a file enters this process. What is there already, on the
device or in the cache, is left alone, and so is what would crowd out others.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from engine.models import page_cache
from engine.models.model import Model, ModelComponent
from engine.telemetry.host import HostProbe
from engine.units import size_text

STEP_BYTES = 64 * 2**20
"""Asked of the kernel at once."""
SPARE_BYTES = 4 * 2**30
"""What the host keeps available beside what is read."""
LOOK_S = 1.0
"""Between two looks at what has come: the kernel reads on after it was asked."""
REST_LOOKS = 5
"""As many without a page more, and nothing more is expected."""
MOSTLY = 0.95
"""Of a component's bytes in the cache: the rest comes with its load."""


class ReadAhead:
    """Reads one model at a time on a thread of its own. `want` is for the event loop's thread."""

    def __init__(self, *, on_read: Callable[[str], None], host: HostProbe | None = None) -> None:
        """`on_read` gets a line for the log, on the event loop's thread."""
        self._on_read = on_read
        self._host = host or HostProbe()
        self._wanted: queue.SimpleQueue[tuple[Model, frozenset[str]]] = queue.SimpleQueue()
        self._latest: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def want(self, model: Model | None, present: Iterable[str] = ()) -> None:
        """Read `model` next but for its components `present` on the device; once, if wanted repeatedly.

        What is being read for another model is given up. With None nothing more is read, and the same
        model may be wanted again: its pages may have left since.
        """
        name = None if model is None else model.name
        if name == self._latest:
            return
        self._latest = name
        if model is not None:
            self._wanted.put((model, frozenset(present)))
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="read-ahead", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            model, present = self._wanted.get()
            for component in model.components:
                if self._latest != model.name or component.name in present:
                    continue
                text = self._read(model, component)
                if text is not None:
                    with suppress(RuntimeError):  # the loop is closed: the daemon is at its end
                        loop.call_soon_threadsafe(self._on_read, text)

    def _read(self, model: Model, component: ModelComponent) -> str | None:
        """Read its files; what to say of it, None where there was nothing to do or it was given up."""
        began = time.monotonic()
        size = sum(_size(path) for path in component.files)
        cached = page_cache.cached_bytes(component.files)
        if cached is not None and cached >= MOSTLY * size:
            return None
        self._host.refresh_limits()
        if self._host.read().available_bytes < size + SPARE_BYTES:
            return None
        for path in component.files:
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # said when it is loaded
                return None
            try:
                for begin in range(0, _size(path), STEP_BYTES):
                    if self._latest != model.name:
                        return None
                    os.posix_fadvise(handle, begin, STEP_BYTES, os.POSIX_FADV_WILLNEED)
            except OSError:
                return None
            finally:
                os.close(handle)
        return f"{model.name}/{component.name}, {self._came(model, component, size, began)}"

    def _came(self, model: Model, component: ModelComponent, size: int, began: float) -> str:
        """What of it is in the cache once nothing more comes; the kernel was only asked, and may decline."""
        told = f"{size_text(size)} asked for, for the next job"
        cached = page_cache.cached_bytes(component.files)
        if cached is None:
            return f"{told}; how much has come cannot be known, since the files are another user's"
        rested = 0
        while cached < MOSTLY * size and rested < REST_LOOKS and self._latest == model.name:
            time.sleep(LOOK_S)
            before, cached = cached, page_cache.cached_bytes(component.files) or 0
            rested = 0 if cached > before else rested + 1
        took = time.monotonic() - began
        if cached >= MOSTLY * size:
            return f"{size_text(cached)} read for the next job, {took:.1f} s"
        return f"{told}, and {size_text(cached)} of it in memory after {took:.1f} s"


def _size(path: str | os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
