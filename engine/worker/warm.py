"""Weight files whose pages the driver has registered: the warm tier, from which a load costs the bus.

A registered page cannot leave memory and is copied by the device alone, at 55 GB/s and without a
core of the host. Registering goes at 45 GB/s and reading through the ring at 46; a first load does
both at once, at 51: whenever the ring is full, the thread that loads registers the next piece. A
thread of its own that registered ahead would hold the driver's lock against the copies. What went
through the ring is registered after the load; a later load finds all of it there.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.models.index import FileIndex
from engine.models.page_cache import mostly_cached, populate
from engine.telemetry.host import HostProbe
from engine.worker.backend import Backend, Registrar
from engine.worker.channel import WorkerSettings
from engine.worker.mapped import FileStamp, Mapped, Piece, Prefers, file_stamp

MEASURED_PIECES = 8
"""Read through pinned buffers once on a host, to know which way is the quicker."""
POPULATE_THREADS = 4
"""That enter pages in the page tables ahead of a load that registers them."""

LEAST_SPARE = 4 * 2**30
SPARE_SHARE = 10
"""What registering leaves to the host: this many bytes, and this part of its memory."""
ROOM_AGE_S = 0.1
"""How old the host's word may be on what may be registered: asking takes 0.1 ms, a piece 3."""
RELIEF_S = 1.0
"""How often it is seen whether the host needs back what is registered."""


class WarmTier:
    """Registers the pieces of weight files within a budget, the least recently used going first.

    Any thread may call it. One lock guards the table and another, taken first, the driver: looking
    never waits for a registration, nor for its end.
    """

    def __init__(
        self,
        registrar: Registrar,
        room: Callable[[int], int],
        *,
        on_log: Callable[[str], None],
        ring_rate: Callable[[], float | None] = lambda: None,
        shares: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`room(registered)` says how many more bytes may be registered beside so many.

        `ring_rate()` is what the ring reaches in bytes a second, None before it was measured;
        `shares` whether a load may read pieces through it while it registers others.
        """
        self._registrar = registrar
        self._room = room
        self._on_log = on_log
        self.ring_rate = ring_rate
        self._shares = shares
        self._clock = clock
        self._changed = threading.Condition()
        self._driver = threading.Lock()
        self._populating = ThreadPoolExecutor(POPULATE_THREADS, thread_name_prefix="populate")
        self._files: dict[Path, Mapped] = {}
        self._loads = 0
        self._later: deque[tuple[Mapped, Piece]] = deque()
        """What is registered once no load runs."""
        self._kept: frozenset[Path] = frozenset()
        self._rate: float | None = None
        self._refusal: str | None = None
        self._left = 0
        """What may still be registered, as the host said at `_asked_at`."""
        self._asked_at = float("-inf")
        self.held = False
        """Whether loads go without registering for now: it would hold up whatever maps memory."""
        threading.Thread(target=self._run, name="registrar", daemon=True).start()

    # ----------------------------------------------------------------- asked from outside

    @property
    def rate(self) -> float | None:
        """Bytes a second at which the host registers pages that it has; None before any."""
        return self._rate

    @property
    def refusal(self) -> str | None:
        """Why the host registers nothing; None where it does, or was never asked."""
        return self._refusal if self._rate is None else None

    def registered_bytes(self, paths: Iterable[Path] | None = None) -> int:
        """Of these files, or of all."""
        with self._changed:
            if paths is None:
                chosen = self._mapped()
            else:
                chosen = {mapped for path in paths if (mapped := self._files.get(path)) is not None}
            return sum(mapped.registered_bytes for mapped in chosen)

    def maps_shared(self) -> bool:
        """Whether any file is mapped whose pages the kernel counts as shared memory."""
        with self._changed:
            return any(mapped.shared for mapped in self._files.values())

    def keep(self, paths: Iterable[Path]) -> None:
        """Files that a person wants warm: they give way to no other, and to the host's need last."""
        with self._changed:
            self._kept = frozenset(paths)

    def a_cached_file(self) -> Path | None:
        """One whose pages are surely in memory, for measuring; None before any was registered."""
        with self._changed:
            for mapped in self._mapped():
                head = mapped.pieces[:MEASURED_PIECES]
                if len(head) == MEASURED_PIECES and all(piece.registered for piece in head):
                    return mapped.path
        return None

    def release_hold(self) -> None:
        """From now on loads register, and what was left out follows."""
        with self._changed:
            self.held = False
            self._changed.notify_all()

    @contextmanager
    def in_use(
        self, files: Iterable[FileIndex], needed: Iterable[tuple[Path, int, int]]
    ) -> Iterator[Mapping[Path, Mapped]]:
        """Map `files` for a load that needs ranges (path, offset, bytes) in that order.

        What it does not register itself is so afterwards. A file that cannot be mapped is left out.
        """
        mapped: dict[Path, Mapped] = {}
        for file in files:
            if (found := self._take(file.path)) is not None:
                mapped[file.path] = found
        with self._changed:
            self._loads += 1
        try:
            self._populate(mapped, needed)
            yield mapped
        finally:
            with self._changed:
                self._loads -= 1
                for found in mapped.values():
                    found.users -= 1
                    self._later.extend((found, piece) for piece in found.pieces if not piece.registered)
                self._changed.notify_all()

    def register(self, path: Path) -> bool:
        """Register all of a file that is in the page cache; False where some of it was not taken."""
        found = self._take(path)
        if found is None:
            return False
        found.refused = False  # a person asks: perhaps the limit was raised
        try:
            for piece in found.pieces:
                self._register(found, piece, evict=True)
            return all(piece.registered for piece in found.pieces)
        finally:
            with self._changed:
                found.users -= 1

    def drop(self, paths: Iterable[Path]) -> int:
        """Let go of these files' pages; bytes that were registered. Those in use by a load stay."""
        gone = 0
        for path in paths:
            with self._changed:
                mapped = self._files.get(path)
                while mapped is not None and mapped.registering:  # one piece of it, for milliseconds
                    self._changed.wait()
                    mapped = self._files.get(path)
                if mapped is None or mapped.users:
                    continue
                self._forget(mapped)
            gone += self._retire(mapped)
        return gone

    # ----------------------------------------------------------------- files

    def _take(self, path: Path) -> Mapped | None:
        """The mapping of the file that lies there now, with one user more; None where there is none.

        Nothing here waits for the file system under the lock: a hung one must not silence the worker.
        """
        fresh: Mapped | None = None
        stale: Mapped | None = None
        try:
            stamp = file_stamp(os.stat(path))
            with self._changed:
                known = self._known(path, stamp)
            if known is None:
                fresh = Mapped(path, self._register_for_load)
            with self._changed:
                found = self._known(path, stamp) or fresh
                if found is None or found.stamp != stamp:
                    return None
                old = self._files.get(path)
                if old is not None and old is not found:
                    if old.busy:
                        return None
                    self._forget(old)
                    stale = old
                if found is fresh:
                    fresh = None
                self._files[path] = found
                found.names.add(path)
                found.users += 1
                found.last_used = self._clock()
                return found
        except (OSError, ValueError):
            return None
        finally:
            for useless in (fresh, stale):
                if useless is not None:
                    self._retire(useless)

    def _known(self, path: Path, stamp: FileStamp) -> Mapped | None:
        """The mapping of the file with this stamp, under whatever name; under the lock."""
        mapped = self._files.get(path)
        if mapped is not None and mapped.stamp == stamp:
            return mapped
        return next((other for other in self._files.values() if other.stamp == stamp), None)

    def _mapped(self) -> set[Mapped]:
        return set(self._files.values())

    def _forget(self, mapped: Mapped) -> None:
        for name in mapped.names:
            if self._files.get(name) is mapped:
                del self._files[name]

    def _retire(self, mapped: Mapped) -> int:
        """Unregister and unmap a file that is in the table no more; bytes that were registered."""
        mapped.settle()
        with self._driver:
            gone = mapped.registered_bytes
            for piece in mapped.pieces:
                if piece.registered:
                    self._unregister(mapped, piece)
            mapped.close()
        return gone

    # ----------------------------------------------------------------- room, under the driver's lock

    def _make_room(self, num_bytes: int, *, evict: bool, kept_too: bool = False) -> bool:
        """Give up what was used longest ago, until so many bytes may be registered."""
        while not self._has_room(num_bytes):
            with self._changed:
                victim = self._victim(kept_too=kept_too) if evict else None
                if victim is None:
                    return False
                mapped, piece = victim
                mapped.note(piece, registered=False)  # from here on no load copies from it
            self._unregister(mapped, piece)
        return True

    def _has_room(self, num_bytes: int) -> bool:
        now = self._clock()
        if now - self._asked_at > ROOM_AGE_S:
            self._left, self._asked_at = self._room(self.registered_bytes()), now
        return self._left >= num_bytes

    def _victim(self, *, kept_too: bool) -> tuple[Mapped, Piece] | None:
        idle = [mapped for mapped in self._mapped() if not mapped.users and mapped.registered_bytes]
        idle.sort(key=lambda mapped: (self._is_kept(mapped), mapped.last_used))
        if not idle or (self._is_kept(idle[0]) and not kept_too):
            return None
        return idle[0], next(piece for piece in reversed(idle[0].pieces) if piece.registered)

    def _is_kept(self, mapped: Mapped) -> bool:
        return not self._kept.isdisjoint(mapped.names)

    def _unregister(self, mapped: Mapped, piece: Piece) -> None:
        with suppress(OSError):  # a broken context, say: its process ends
            self._registrar.unregister(mapped.address + piece.begin)
        mapped.note(piece, registered=False)
        self._left += piece.bytes

    # ----------------------------------------------------------------- registering

    def _populate(self, mapped: Mapping[Path, Mapped], needed: Iterable[tuple[Path, int, int]]) -> None:
        """Let threads look up the pages that a load will register, in its order.

        It registers none where the ring would be empty again before one is registered: then they
        follow afterwards.
        """
        ring = self.ring_rate()
        slow = self._rate is not None and ring is not None and 2 * self._rate < ring
        if self.held or slow:
            return
        for path, offset, num_bytes in needed:
            found = mapped.get(path)
            if found is None or not num_bytes or not found.truth or found.refused:
                continue
            for piece in found.pieces_of(offset, num_bytes):
                if not piece.registered and piece.populated is None:
                    address = found.address + piece.begin
                    piece.populated = self._populating.submit(_populate_cached, address, piece.bytes)

    def _register_for_load(self, mapped: Mapped, piece: Piece, prefers_reading: Prefers) -> None:
        if piece.populated is not None and not (self._shares and prefers_reading(piece.bytes)):
            self._register(mapped, piece, evict=True)

    def _register(self, mapped: Mapped, piece: Piece, *, evict: bool) -> None:
        """Register one piece that is in the page cache, if the host lets us and there is room."""
        with self._driver:
            if piece.registered or mapped.refused or not mapped.truth:
                return
            # What was looked up is true for this load alone: by the next one its pages may be gone.
            ahead, piece.populated = piece.populated, None
            if not self._make_room(piece.bytes, evict=evict):
                return
            address = mapped.address + piece.begin
            if not (ahead.result() if ahead is not None else _populate_cached(address, piece.bytes)):
                return
            began = self._clock()
            try:
                self._registrar.register(address, piece.bytes)
            except OSError as error:
                mapped.refused = True
                self._refusal = str(error)
                self._on_log(f"{mapped.path}: {error}; its weights go through pinned buffers instead")
                return
            rate = piece.bytes / max(1e-9, self._clock() - began)
            self._rate = rate if self._rate is None else self._rate + 0.2 * (rate - self._rate)
            self._left -= piece.bytes
            with self._changed:
                mapped.note(piece, registered=True)

    def _run(self) -> None:
        """Register what loads left out, and see now and then whether the host needs some of it back."""
        while True:
            found = self._next_left_out()
            try:
                if found is None:
                    self._relieve()
                else:
                    self._register(*found, evict=False)  # nobody waits for it, so nothing goes for it either
            except Exception as error:  # the thread's edge: pages must go back when the host needs them
                self._on_log(f"weight files are not registered just now: {type(error).__name__}: {error}")
                time.sleep(RELIEF_S)
            finally:
                if found is not None:
                    with self._changed:
                        found[0].registering = False
                        self._changed.notify_all()

    def _next_left_out(self) -> tuple[Mapped, Piece] | None:
        """The next piece to register, whose file nobody unmaps meanwhile; None where there is none now."""
        with self._changed:
            if not self._may_follow():
                self._changed.wait(RELIEF_S)
            while self._may_follow():
                mapped, piece = self._later.popleft()
                if self._files.get(mapped.path) is mapped and not piece.registered:
                    mapped.registering = True
                    return mapped, piece
            return None

    def _may_follow(self) -> bool:
        return bool(self._later) and not self.held and not self._loads

    def _relieve(self) -> None:
        """Give pages back while others have less memory than registering may leave them."""
        if self.registered_bytes():
            with self._driver:
                self._make_room(0, evict=True, kept_too=True)


def _populate_cached(address: int, num_bytes: int) -> bool:
    cached = mostly_cached(address, num_bytes)
    if cached:
        populate(address, num_bytes)
    return cached


def open_warm_tier(
    backend: Backend, settings: WorkerSettings, *, on_log: Callable[[str], None]
) -> WarmTier | None:
    """The warm tier of this worker, as its settings want it; None where pages cannot be registered."""
    if backend.registrar is None or settings.stream == "ring":
        return None
    host = HostProbe()
    limit = settings.warm_budget_bytes

    def room(registered: int) -> int:
        host.refresh_limits()
        memory = host.read()
        # Registered pages still count as cache that could go, although they cannot.
        spare = memory.available_bytes - registered - max(LEAST_SPARE, memory.total_bytes // SPARE_SHARE)
        return spare if limit is None else min(spare, limit - registered)

    shares = settings.stream == "auto"

    def ring_rate() -> float | None:
        return (backend.ring_rate() or settings.ring_rate) if shares else None

    return WarmTier(backend.registrar, room, on_log=on_log, ring_rate=ring_rate, shares=shares)
