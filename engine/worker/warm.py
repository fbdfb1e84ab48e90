"""Weight files whose pages the driver has registered: the warm tier, from which a load costs the bus.

A registered page cannot leave memory and is copied by the device alone, at 55 GB/s and without a
core of the host. Registering takes about as long as one copy, so it is done piece by piece ahead
of the copies of a first load; a later one finds all pieces there. Pieces that are not in the page
cache go through the ring, which reads them in many threads, and are registered afterwards.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engine.models.index import FileIndex
from engine.models.page_cache import mostly_cached
from engine.telemetry.host import HostProbe
from engine.worker.backend import Backend, Registrar
from engine.worker.channel import WorkerSettings

PIECE_BYTES = 256 * 2**20
"""Registered at once. Smaller ones cost more calls, larger ones make the first copy wait longer."""
WORTHWHILE = 0.7
"""Registering slower than this share of the ring's rate is left for after the load."""

LEAST_SPARE = 4 * 2**30
SPARE_SHARE = 10
"""What registering leaves to the host: this many bytes, and this part of its memory."""

PieceState = Literal["absent", "queued", "registered", "cold", "refused"]


@dataclass(kw_only=True, slots=True, eq=False)
class _Piece:
    begin: int
    bytes: int
    state: PieceState = "absent"
    settled: threading.Event = field(default_factory=threading.Event)
    """Set while the state is not `queued`."""

    def set(self, state: PieceState) -> None:
        self.state = state
        if state == "queued":
            self.settled.clear()
        else:
            self.settled.set()


class Mapped:
    """One weight file, mapped for reading and never read through the mapping by the host.

    Raises:
        OSError: it cannot be opened or mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        for piece in self.pieces:
            piece.settled.set()
        self.users = 0
        self.last_used = 0.0

    @property
    def registered_bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces if piece.state == "registered")

    def pieces_of(self, offset: int, num_bytes: int) -> list[_Piece]:
        """Those that a range touches."""
        return self.pieces[offset // PIECE_BYTES : (offset + num_bytes - 1) // PIECE_BYTES + 1]

    def spans(self, offset: int, num_bytes: int) -> Iterator[tuple[int, Tensor | None]]:
        """As `Source.spans`; waits for a piece that is just being registered."""
        end = offset + num_bytes
        for piece in self.pieces_of(offset, num_bytes):
            piece.settled.wait()
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

    Any thread may call it. One thread of its own talks to the driver.
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
        self._ring_rate = ring_rate
        self._clock = clock
        self._changed = threading.Condition()
        self._files: dict[Path, Mapped] = {}
        self._ahead: deque[tuple[Mapped, _Piece]] = deque()
        """What a load waits for, in its order."""
        self._later: deque[tuple[Mapped, _Piece]] = deque()
        """What may be registered once nothing waits."""
        self._kept: frozenset[Path] = frozenset()
        self._rate: float | None = None
        self.refusal: str | None = None
        """Why the host registers nothing, once it has refused."""
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

    @contextmanager
    def in_use(
        self, files: Iterable[FileIndex], needed: Iterable[tuple[Path, int, int]]
    ) -> Iterator[Mapping[Path, Mapped]]:
        """Map `files` for a load that needs ranges (path, offset, bytes) in that order.

        What is not registered yet is so ahead of the copies where that pays, and afterwards where
        it does not. A file that cannot be mapped is left out.
        """
        with self._changed:
            mapped = {file.path: found for file in files if (found := self._find(file.path)) is not None}
            for found in mapped.values():
                found.users += 1
                found.last_used = self._clock()
            ahead = self._queue(mapped, needed)
        try:
            yield mapped
        finally:
            with self._changed:
                for piece in ahead:
                    if piece.state == "queued":  # the load ended before it came to this one
                        piece.set("absent")
                for found in mapped.values():
                    found.users -= 1
                    self._later.extend(
                        (found, piece) for piece in found.pieces if piece.state != "registered"
                    )
                self._changed.notify_all()

    def register(self, path: Path) -> bool:
        """Register all of a file that is in the page cache; False where some of it was not taken."""
        with self._changed:
            found = self._find(path)
            if found is None:
                return False
            found.last_used = self._clock()
            wanted = [piece for piece in found.pieces if piece.state != "registered"]
            for piece in wanted:
                if piece.state != "queued":
                    piece.set("queued")
                    self._ahead.append((found, piece))
            self._changed.notify_all()
        for piece in wanted:
            piece.settled.wait()
        return all(piece.state == "registered" for piece in wanted)

    def drop(self, paths: Iterable[Path]) -> int:
        """Let go of these files' pages; bytes that were registered. Those in use by a load stay."""
        gone = 0
        with self._changed:
            for path in paths:
                mapped = self._files.get(path)
                if mapped is None or mapped.users:
                    continue
                self._forget_queued(mapped)
                while any(piece.state == "queued" for piece in mapped.pieces):
                    self._changed.wait()  # the one that is being registered just now
                gone += self._unregister(mapped)
                del self._files[path]
                mapped.close()
        return gone

    # ----------------------------------------------------------------- under the lock

    def _find(self, path: Path) -> Mapped | None:
        """The mapping of the file that lies there now."""
        found = self._files.get(path)
        try:
            stamp = _stamp(os.stat(path))
            if found is not None and found.stamp != stamp and not found.users:
                self._forget_queued(found)
                self._unregister(found)
                del self._files[path]
                found.close()
                found = None
            if found is None:
                found = self._files[path] = Mapped(path)
        except (OSError, ValueError):
            return None
        return found if found.stamp == stamp else None

    def _queue(self, mapped: Mapping[Path, Mapped], needed: Iterable[tuple[Path, int, int]]) -> list[_Piece]:
        if self.refusal is not None:
            return []
        ring = self._ring_rate()
        if self._rate is not None and ring is not None and self._rate < WORTHWHILE * ring:
            return []
        ahead: list[_Piece] = []
        for path, offset, num_bytes in needed:
            if path not in mapped or not num_bytes:
                continue
            for piece in mapped[path].pieces_of(offset, num_bytes):
                if piece.state in ("absent", "cold"):
                    piece.set("queued")
                    ahead.append(piece)
                    self._ahead.append((mapped[path], piece))
        if ahead and ring is None and len(ahead) > 3:
            # The short measurement: one piece through the ring tells what it would be worth here.
            ahead[2].set("absent")
        self._changed.notify_all()
        return ahead

    def _forget_queued(self, mapped: Mapped) -> None:
        for queue in (self._ahead, self._later):
            kept = [item for item in queue if item[0] is not mapped]
            for found, piece in queue:
                if found is mapped and piece.state == "queued":
                    piece.set("absent")
            queue.clear()
            queue.extend(kept)

    def _unregister(self, mapped: Mapped) -> int:
        gone = 0
        for piece in mapped.pieces:
            if piece.state == "registered":
                with suppress(OSError):
                    self._registrar.unregister(mapped.address + piece.begin)
                piece.set("absent")
                gone += piece.bytes
        return gone

    def _make_room(self, num_bytes: int) -> bool:
        """Give up what was used longest ago, until so many bytes may be registered."""
        while self._room(sum(mapped.registered_bytes for mapped in self._files.values())) < num_bytes:
            idle = [mapped for mapped in self._files.values() if not mapped.users and mapped.registered_bytes]
            idle.sort(key=lambda mapped: (mapped.path in self._kept, mapped.last_used))
            if not idle or idle[0].path in self._kept:
                return False
            self._unregister(idle[0])
        return True

    # ----------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ahead and not self._later:
                    self._changed.wait()
                urgent = bool(self._ahead)
                mapped, piece = self._ahead.popleft() if urgent else self._later.popleft()
                if piece.state == "registered" or (urgent and piece.state != "queued"):
                    continue
                if self.refusal is not None or self._files.get(mapped.path) is not mapped:
                    piece.set("refused")
                    continue
                if not urgent:
                    # Nobody waits for it, so nothing may go for it either.
                    registered = sum(item.registered_bytes for item in self._files.values())
                    if self._room(registered) < piece.bytes:
                        continue
                elif not self._make_room(piece.bytes):
                    piece.set("absent")
                    continue
                piece.set("queued")
            state = self._register(mapped, piece)
            with self._changed:
                piece.set(state)
                self._changed.notify_all()

    def _register(self, mapped: Mapped, piece: _Piece) -> PieceState:
        address = mapped.address + piece.begin
        if not mostly_cached(address, piece.bytes):
            return "cold"
        began = self._clock()
        try:
            self._registrar.register(address, piece.bytes)
        except OSError as error:
            self.refusal = str(error)
            self._on_log(f"{mapped.path}: {error}; weights go through pinned buffers instead")
            return "refused"
        took = max(1e-9, self._clock() - began)
        rate = piece.bytes / took
        self._rate = rate if self._rate is None else self._rate + 0.2 * (rate - self._rate)
        return "registered"


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

    ring_rate = (lambda: 0.0) if settings.stream == "registered" else backend.ring_rate
    return WarmTier(backend.registrar, room, on_log=on_log, ring_rate=ring_rate)
