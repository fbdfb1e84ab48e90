"""Weight files brought into host memory, and let go of, because a person asked for it.

On a thread of its own: a file that is not in the page cache comes at the disk's rate. Where there
is no driver that registers pages, warm means in the page cache, and the kernel's word is the proof.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.errors import EngineError, ModelUnusable
from engine.models import page_cache
from engine.telemetry.host import HostProbe
from engine.units import size_text
from engine.wire import Receipt, ReceiptAction, ReceiptStep
from engine.worker.channel import ActionEnded, DropWarm, Wanted, Warm, WarmChanged
from engine.worker.components import Component
from engine.worker.receipts import ReceiptWriter
from engine.worker.store import ComponentStore
from engine.worker.warm import LEAST_SPARE, SPARE_SHARE, WarmTier

READ_BYTES = 16 * 2**20
READ_THREADS = 8
"""That read one file at once: what a fast disk wants, and no harm to a slow one."""
WHOLE = 0.99
"""Of a component's bytes in the page cache: a page that the kernel took meanwhile is no news."""


class Warmer:
    """Serves `Warm` and `DropWarm` one after the other."""

    def __init__(
        self,
        store: ComponentStore,
        tier: WarmTier | None,
        *,
        on_ended: Callable[[ActionEnded], None],
        host: HostProbe | None = None,
    ) -> None:
        self._store = store
        self._tier = tier
        self._on_ended = on_ended
        self._host = host or HostProbe()
        self._receipts = ReceiptWriter("page-cache", clock=time.monotonic, wall_clock=time.time)
        self._asked: queue.SimpleQueue[Warm | DropWarm] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="warmer", daemon=True).start()

    def ask(self, message: Warm | DropWarm) -> None:
        self._asked.put(message)

    def state(self) -> WarmChanged:
        """What is registered now; never waits for a load."""
        tier = self._tier
        if tier is None:
            why = "there is no driver to register pages with"
            return WarmChanged(warm={}, rate=None, ring_rate=None, refusal=why)
        files = self._store.files()
        warm = {label: found for label, paths in files.items() if (found := tier.registered_bytes(paths))}
        return WarmChanged(
            warm=warm,
            total_bytes=tier.registered_bytes(),
            rate=tier.rate,
            ring_rate=tier.ring_rate(),
            refusal=tier.refusal,
        )

    def _run(self) -> None:
        while True:
            message = self._asked.get()
            action: ReceiptAction = "warm" if isinstance(message, Warm) else "drop_warm"
            began = time.monotonic()
            try:
                receipt = self._warm(message) if isinstance(message, Warm) else self._drop(message)
            except Exception as error:  # the thread's edge: the next request must be served, too
                told = error if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                asked = ", ".join(f"{item.model.name}/{item.component}" for item in message.wanted or ())
                receipt = self._receipts.write(action, asked or "all weight files", began, error=told)
            self._on_ended(ActionEnded(action_id=message.action_id, receipt=receipt))

    def _warm(self, message: Warm) -> Receipt:
        began = time.monotonic()
        components = self._components(message.wanted)
        if self._tier is not None:
            self._tier.keep(path for item in self._components(message.kept) for path in _paths([item]))
        steps: list[ReceiptStep] = []
        total = 0
        short: dict[str, list[str]] = {}
        for item in components:
            since = time.monotonic()
            paths = _paths([item])
            why_short = self._keep(paths, sum(file.bytes for file in item.index.files))
            warm = self._warm_bytes(paths)
            total += warm or 0
            if why_short is not None:
                short.setdefault(why_short, []).append(item.label)
            verb = "read" if self._tier is None else "register"
            steps.append(
                ReceiptStep(name=f"{verb} {item.label}", bytes=warm, elapsed_s=time.monotonic() - since)
            )
        told = [f"{', '.join(labels)} could not be kept whole: {why}" for why, labels in short.items()]
        error = "; ".join(told) or None
        return self._receipts.write(
            "warm", _names(components), began, error=error, loaded_bytes=total, steps=tuple(steps)
        )

    def _keep(self, paths: Sequence[Path], size: int) -> str | None:
        """Bring files of `size` bytes into memory, and register them where that is done.

        Why some of them are not kept; None where all are.

        Raises:
            ModelUnusable: one cannot be read.
        """
        self._host.refresh_limits()
        memory = self._host.read()
        place = "this cgroup" if memory.limited_by_cgroup else "this host"
        missing = size - (page_cache.cached_bytes(paths) or 0)
        fits = missing <= memory.available_bytes
        if fits:
            # Else the first of them would leave again while the last ones come.
            read_ahead(paths)
        registered = self._tier is None or sum(map(self._tier.register, paths)) == len(paths)
        if not fits:
            return (
                f"{size_text(missing)} would have to be read, and {place} has "
                f"{size_text(memory.available_bytes)} left"
            )
        if self._tier is not None and not registered:
            spare = max(LEAST_SPARE, memory.total_bytes // SPARE_SHARE)
            return self._tier.refusal or (
                f"registered files leave {size_text(spare)} of {place}'s memory free, and "
                "engine.warm_budget_bytes may allow less"
            )
        cached = page_cache.cached_bytes(paths)
        if self._tier is None and cached is not None and cached < WHOLE * size:
            return f"some of it left memory again; {place} has {size_text(memory.available_bytes)} left"
        return None

    def _drop(self, message: DropWarm) -> Receipt:
        began = time.monotonic()
        if message.wanted is None:
            components = self._store.components()
        else:
            components = self._components(message.wanted)
        if self._tier is not None:
            self._tier.keep(path for item in self._components(message.kept) for path in _paths([item]))
        paths = sorted(set(_paths(components)))
        files = page_cache.one_name_each(paths)
        before = page_cache.cached_bytes(files)
        unregistered = 0 if self._tier is None else self._tier.drop(paths)
        unregistered_s = time.monotonic() - began
        since = time.monotonic()
        page_cache.drop(paths)
        after = page_cache.cached_bytes(files)
        returned = None if before is None or after is None else before - after
        held = self._tier is not None and self._tier.registered_bytes(paths)
        return self._receipts.write(
            "drop_warm",
            "all weight files" if message.wanted is None else _names(components),
            began,
            expected_bytes=before or 0,
            returned_bytes=returned,
            residue="pages that a load uses now" if held else "pages that others map or use",
            proof_reason=None if returned is not None else "the files are not ours: nobody tells us",
            steps=(
                ReceiptStep(name="unregister", bytes=unregistered, elapsed_s=unregistered_s),
                ReceiptStep(name="leave the page cache", bytes=returned, elapsed_s=time.monotonic() - since),
            ),
        )

    def _components(self, wanted: Iterable[Wanted]) -> list[Component]:
        return [self._store.component(item.model, item.component) for item in wanted]

    def _warm_bytes(self, paths: Sequence[Path]) -> int | None:
        if self._tier is not None and self._tier.refusal is None:
            return self._tier.registered_bytes(paths)
        return page_cache.cached_bytes(paths)


def read_ahead(paths: Iterable[Path]) -> None:
    """Read these files into the page cache, with several threads at the disk's rate.

    Raises:
        ModelUnusable: one cannot be read.
    """
    with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read-ahead") as pool:
        for path in paths:
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ModelUnusable(f"{path} cannot be read: {error.strerror}; check its disk") from error
            try:
                size = os.fstat(handle).st_size
                buffers = threading.local()

                def read(begin: int, handle: int = handle, buffers: threading.local = buffers) -> None:
                    if not hasattr(buffers, "bytes"):
                        buffers.bytes = bytearray(READ_BYTES)
                    os.preadv(handle, [buffers.bytes], begin)

                for done in [pool.submit(read, begin) for begin in range(0, size, READ_BYTES)]:
                    done.result()
            except OSError as error:
                raise ModelUnusable(f"{path} cannot be read: {error.strerror}; check its disk") from error
            finally:
                os.close(handle)


def _paths(components: Iterable[Component]) -> list[Path]:
    return [file.path for item in components for file in item.index.files]


def _names(components: Sequence[Component]) -> str:
    return ", ".join(item.label for item in components) or "nothing"
