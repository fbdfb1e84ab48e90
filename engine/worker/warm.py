"""Weight files whose pages the driver has registered: the warm tier, from which a load costs the bus.

A registered page cannot leave memory and is copied by the device alone, at 55 GB/s and without a
core of the host. Registering takes about as long as one copy, so a first load registers piece by
piece on its own thread, while the piece before travels; a second thread that did it ahead would
hold the driver's lock against the copies. A later load finds all pieces there. Pieces that are
not in the page cache go through the ring, which reads them in many threads, and are registered
afterwards.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engine.models.index import FileIndex
from engine.models.page_cache import may_know, mostly_cached, populate
from engine.telemetry.host import HostProbe
from engine.worker.backend import Backend, Registrar
from engine.worker.channel import WorkerSettings

PIECE_BYTES = 256 * 2**20
"""Registered at once. Smaller ones cost more calls, larger ones make the first copy wait longer."""
MEASURED_PIECES = 4
"""Read through pinned buffers once on a host, to know which way is the quicker."""
POPULATE_THREADS = 4
"""That enter pages in the page tables ahead of a load that registers them."""

LEAST_SPARE = 4 * 2**30
SPARE_SHARE = 10
"""What registering leaves to the host: this many bytes, and this part of its memory."""

PieceState = Literal["absent", "registered", "cold", "refused"]


@dataclass(kw_only=True, slots=True, eq=False)
class _Piece:
    begin: int
    bytes: int
    state: PieceState = "absent"
    populated: Future[bool] | None = None
    """Its pages are being entered in the page tables by another thread: whether they were cached."""


class Mapped:
    """One weight file, mapped for reading and never read through the mapping by the host.

    Raises:
        OSError: it cannot be opened or mapped.
    """

    def __init__(self, path: Path, register: Callable[[Mapped, _Piece], None]) -> None:
        """`register` is asked for each piece that a load comes to and that is not registered."""
        self.path = path
        self.truth = may_know(path)
        """Whether the kernel tells us which of its pages are cached."""
        self._register = register
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.stamp = _stamp(os.fstat(handle))
            self._map = mmap.mmap(handle, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        finally:
            os.close(handle)
        with warnings.catch_warnings():
            # torch has no read-only tensors and says so; nothing of ours writes to this one.
            warnings.simplefilter("ignore")
            self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self.address = self._bytes.data_ptr()
        size = len(self._map)
        self.pieces = [
            _Piece(begin=begin, bytes=min(PIECE_BYTES, size - begin)) for begin in range(0, size, PIECE_BYTES)
        ]
        self.users = 0
        self.registering = False
        """Whether it is being registered while no load uses it."""
        self.last_used = 0.0

    @property
    def registered_bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces if piece.state == "registered")

    def pieces_of(self, offset: int, num_bytes: int) -> list[_Piece]:
        """Those that a range touches."""
        return self.pieces[offset // PIECE_BYTES : (offset + num_bytes - 1) // PIECE_BYTES + 1]

    def spans(self, offset: int, num_bytes: int) -> Iterator[tuple[int, Tensor | None]]:
        """As `Source.spans`; registers what it comes to where that pays."""
        end = offset + num_bytes
        for piece in self.pieces_of(offset, num_bytes):
            if piece.state != "registered":
                self._register(self, piece)
            length = min(end, piece.begin + piece.bytes) - offset
            yield length, self._bytes[offset : offset + length] if piece.state == "registered" else None
            offset += length

    def close(self) -> None:
        """Drop the mapping; no piece may be registered any more."""
        self._bytes = torch.empty(0, dtype=torch.uint8)
        with suppress(BufferError):  # a view is still held somewhere: it goes with that
            self._map.close()


class WarmTier:
    """Registers the pieces of weight files within a budget, the least recently used going first.

    Any thread may call it. One lock guards the table and another the driver, so that looking never
    waits for a registration.
    """

    def __init__(
        self,
        registrar: Registrar,
        room: Callable[[int], int],
        *,
        on_log: Callable[[str], None],
        ring_rate: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`room(registered)` says how many more bytes may be registered beside so many.

        `ring_rate()` is what the ring reaches in bytes a second, None before it was used.
        """
        self._registrar = registrar
        self._room = room
        self._on_log = on_log
        self.ring_rate = ring_rate
        self._clock = clock
        self._changed = threading.Condition()
        self._driver = threading.Lock()
        self._populating = ThreadPoolExecutor(POPULATE_THREADS, thread_name_prefix="populate")
        self._files: dict[Path, Mapped] = {}
        self._later: deque[tuple[Mapped, _Piece]] = deque()
        """What is registered once no load runs."""
        self._kept: frozenset[Path] = frozenset()
        self._rate: float | None = None
        self.refusal: str | None = None
        """Why the host registers nothing, once it has refused."""
        self.held = False
        """Whether loads go without registering for now: it would hold up whatever maps memory."""
        threading.Thread(target=self._run, name="registrar", daemon=True).start()

    # ----------------------------------------------------------------- asked from outside

    @property
    def rate(self) -> float | None:
        """Bytes a second at which the host registers pages that it has; None before any."""
        return self._rate

    def registered_bytes(self, paths: Iterable[Path] | None = None) -> int:
        """Of these files, or of all."""
        with self._changed:
            chosen = self._files.values() if paths is None else filter(None, map(self._files.get, paths))
            return sum(mapped.registered_bytes for mapped in chosen)

    def keep(self, paths: Iterable[Path]) -> None:
        """Files that a person wants warm: the last to be given up."""
        with self._changed:
            self._kept = frozenset(paths)

    def a_cached_file(self) -> Path | None:
        """One whose pages are surely in memory, for measuring; None before any was registered."""
        with self._changed:
            whole = (
                mapped.path
                for mapped in self._files.values()
                if mapped.pieces[0].state == "registered" and len(mapped.pieces) > MEASURED_PIECES
            )
            return next(whole, None)

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
        with self._changed:
            mapped = {file.path: found for file in files if (found := self._find(file.path)) is not None}
            for found in mapped.values():
                found.users += 1
                found.last_used = self._clock()
        self._populate(mapped, needed)
        try:
            yield mapped
        finally:
            with self._changed:
                for found in mapped.values():
                    found.users -= 1
                    left = (piece for piece in found.pieces if piece.state != "registered")
                    self._later.extend((found, piece) for piece in left)
                self._changed.notify_all()

    def register(self, path: Path) -> bool:
        """Register all of a file that is in the page cache; False where some of it was not taken."""
        with self._changed:
            found = self._find(path)
            if found is None:
                return False
            found.users += 1
            found.last_used = self._clock()
        try:
            for piece in found.pieces:
                self._register(found, piece, evict=True)
            return all(piece.state == "registered" for piece in found.pieces)
        finally:
            with self._changed:
                found.users -= 1

    def drop(self, paths: Iterable[Path]) -> int:
        """Let go of these files' pages; bytes that were registered. Those in use by a load stay."""
        gone = 0
        for path in paths:
            with self._driver, self._changed:
                mapped = self._files.get(path)
                if mapped is not None and not mapped.users:
                    gone += self._forget(mapped)
        return gone

    # ----------------------------------------------------------------- under the table's lock

    def _find(self, path: Path) -> Mapped | None:
        """The mapping of the file that lies there now."""
        found = self._files.get(path)
        try:
            stamp = _stamp(os.stat(path))
            if found is not None and found.stamp != stamp and not (found.users or found.registering):
                self._forget(found)
                found = None
            if found is None:
                found = self._files[path] = Mapped(path, self._register_for_load)
        except (OSError, ValueError):
            return None
        return found if found.stamp == stamp else None

    def _forget(self, mapped: Mapped) -> int:
        """Unregister and unmap a file that no load uses; bytes that were registered."""
        gone = self._unregister(mapped)
        del self._files[mapped.path]
        mapped.close()
        return gone

    def _unregister(self, mapped: Mapped) -> int:
        gone = 0
        for piece in mapped.pieces:
            if piece.state == "registered":
                with suppress(OSError):
                    self._registrar.unregister(mapped.address + piece.begin)
                gone += piece.bytes
            piece.state = "absent"
        return gone

    def _make_room(self, num_bytes: int, *, evict: bool) -> bool:
        """Give up what was used longest ago, until so many bytes may be registered."""
        while self._room(sum(mapped.registered_bytes for mapped in self._files.values())) < num_bytes:
            idle = [mapped for mapped in self._files.values() if not mapped.users and mapped.registered_bytes]
            idle.sort(key=lambda mapped: (mapped.path in self._kept, mapped.last_used))
            if not evict or not idle or idle[0].path in self._kept:
                return False
            self._unregister(idle[0])
        return True

    # ----------------------------------------------------------------- registering

    def _populate(self, mapped: Mapping[Path, Mapped], needed: Iterable[tuple[Path, int, int]]) -> None:
        """Let threads look up the pages that a load will register, in its order.

        It registers none where pinned buffers are quicker here: then they follow afterwards.
        """
        ring = self.ring_rate()
        slower = self._rate is not None and ring is not None and self._rate < ring
        if self.held or slower or self.refusal is not None:
            return
        for path, offset, num_bytes in needed:
            if path not in mapped or not num_bytes or not mapped[path].truth:
                continue
            for piece in mapped[path].pieces_of(offset, num_bytes):
                if piece.state in ("absent", "cold") and piece.populated is None:
                    address = mapped[path].address + piece.begin
                    piece.populated = self._populating.submit(_populate_cached, address, piece.bytes)

    def _register_for_load(self, mapped: Mapped, piece: _Piece) -> None:
        if piece.populated is not None:
            self._register(mapped, piece, evict=True)

    def _register(self, mapped: Mapped, piece: _Piece, *, evict: bool) -> None:
        """Register one piece, if the host lets us and there is room."""
        with self._driver:
            if piece.state == "registered" or self.refusal is not None:
                return
            with self._changed:
                if self._files.get(mapped.path) is not mapped or not self._make_room(
                    piece.bytes, evict=evict
                ):
                    return
            address = mapped.address + piece.begin
            ahead, piece.populated = piece.populated, None
            cached = ahead.result() if ahead is not None else _populate_cached(address, piece.bytes)
            if not cached or not mapped.truth:
                piece.state = "cold"
                return
            began = self._clock()
            try:
                self._registrar.register(address, piece.bytes)
            except OSError as error:
                piece.state = "refused"
                self.refusal = str(error)
                self._on_log(f"{mapped.path}: {error}; weights go through pinned buffers instead")
                return
            rate = piece.bytes / max(1e-9, self._clock() - began)
            self._rate = rate if self._rate is None else self._rate + 0.2 * (rate - self._rate)
            piece.state = "registered"

    def _run(self) -> None:
        while True:
            with self._changed:
                while self.held or not self._later:
                    self._changed.wait()
                mapped, piece = self._later.popleft()
                if self._files.get(mapped.path) is not mapped:
                    continue
                mapped.registering = True  # so that nobody unmaps it meanwhile
            # Nobody waits for it, so nothing goes for it either.
            self._register(mapped, piece, evict=False)
            with self._changed:
                mapped.registering = False


def _populate_cached(address: int, num_bytes: int) -> bool:
    cached = mostly_cached(address, num_bytes)
    if cached:
        populate(address, num_bytes)
    return cached


def _stamp(info: os.stat_result) -> tuple[int, int, int, int]:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


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

    def ring_rate() -> float | None:
        return None if settings.stream == "registered" else backend.ring_rate() or settings.ring_rate

    return WarmTier(backend.registrar, room, on_log=on_log, ring_rate=ring_rate)
