"""Prompt embeddings on disk, so that a repeated prompt needs no text encoder.

One file for each key, which says everything that the embedding depends on. The files hold bytes
whose meaning only the worker knows: this module imports neither torch nor safetensors, since the
daemon counts and clears what the workers of any number of engines keep.

A cache may lose whatever it holds and must never give back anything else: what is written is not
synced, and what is read is checked against a digest. Nothing here fails a job.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import StorageUnusable
from engine.paths import private_dir

SUFFIX = ".safetensors"
MAGIC = b"turbotui embedding 1\n"
"""Begins every file; then come the digest and the data."""
HEADER_BYTES = len(MAGIC) + hashlib.sha256().digest_size

_KEY = re.compile(r"[0-9a-f]{64}")
_ENTRY = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")
_PART = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}\.part")
"""What a writer calls its file until it is whole. Locked for as long as that writer lives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingUsage:
    """What lies in a store, or was taken out of it."""

    entries: int
    bytes: int
    """Of the files, headers included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    name: str
    bytes: int
    used_ns: int
    """When it was last written or found; wall clock, since the epoch."""


class EmbeddingStore:
    """The files of one folder, the least recently used of which go when they exceed `max_bytes`.

    Any number of processes may use one folder. No object of this class is for two threads.
    """

    def __init__(self, folder: Path, max_bytes: int, *, clock: Callable[[], int] = time.time_ns) -> None:
        """`max_bytes` 0 switches the store off; `clock` gives nanoseconds since the epoch.

        Raises:
            ValueError: `max_bytes` is negative.
        """
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be at least 0, got {max_bytes}")
        self.folder = folder
        self.max_bytes = max_bytes
        self._clock = clock
        self._told: str | None = None

    def get(self, key: str) -> bytes | None:
        """What was put under `key`, or None; marks it as used.

        A file of ours that is damaged is removed. What is not a plain file of ours under an
        entry's name, or cannot be read, is left alone.

        Raises:
            ValueError: `key` is none of `embedding_key`'s.
        """
        path = self._path(key)
        content = self._read(path, mark=True)
        if content is None:
            return None
        data = content[HEADER_BYTES:]
        if content[:HEADER_BYTES] != _header(key, data):
            with suppress(OSError):
                path.unlink()
            return None
        return data

    def holds(self, key: str) -> bool:
        """Whether `get` would find it; marks and removes nothing.

        Raises:
            ValueError: `key` is none of `embedding_key`'s.
        """
        content = self._read(self._path(key), mark=False)
        return content is not None and content[:HEADER_BYTES] == _header(key, content[HEADER_BYTES:])

    def put(self, key: str, data: bytes) -> str | None:
        """Keep `data` under `key` and drop the least recently used beyond the budget.

        Data that alone exceeds the budget is not kept. Where nothing can be written, that is
        returned as one sentence the first time and None while it stays so.

        Raises:
            ValueError: `key` is none of `embedding_key`'s.
        """
        path = self._path(key)
        if HEADER_BYTES + len(data) > self.max_bytes:
            return None
        reason = None
        try:
            private_dir(self.folder)
            self._remove_leftovers()
            self._write(path, _header(key, data), data)
            self._evict(keep=path.name)
        except StorageUnusable as error:
            reason = f"prompt embeddings are not kept: {error}"
        except OSError as error:
            reason = (
                f"prompt embeddings are not kept: {self.folder} cannot be written "
                f"({error.strerror or error}); make room, or set engine.embedding_cache_bytes to 0"
            )
        told, self._told = self._told, reason
        return None if reason == told else reason

    def usage(self) -> EmbeddingUsage:
        """What the store holds.

        Raises:
            StorageUnusable: the folder is there and cannot be read.
        """
        try:
            return _sum(list(self._entries()))
        except OSError as error:
            raise StorageUnusable(
                f"{self.folder} cannot be read: {error.strerror}; check its permissions and its disk"
            ) from error

    def clear(self) -> EmbeddingUsage:
        """Remove every entry; gives what was removed.

        Raises:
            StorageUnusable: some of it cannot be removed.
        """
        try:
            self._remove_leftovers()
            removed = [entry for entry in self._entries() if self._remove(entry)]
        except OSError as error:
            raise StorageUnusable(
                f"{self.folder} cannot be cleared: {error.strerror}; check its permissions and its disk"
            ) from error
        return _sum(removed)

    # ----------------------------------------------------------------- files

    def _path(self, key: str) -> Path:
        # Nothing else may become a file's name.
        if not _KEY.fullmatch(key):
            raise ValueError(f"an embedding's key is 64 hexadecimal digits, got {key!r}")
        return self.folder / f"{key}{SUFFIX}"

    def _read(self, path: Path, *, mark: bool) -> bytes | None:
        """All of a file of ours, marked as used or not; None where there is none that can be read."""
        try:
            # A FIFO under an entry's name must not block a job.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            info = os.fstat(handle)
            # A file beyond the budget is none that a store of this size keeps: it is not even read.
            if not _is_ours(info) or info.st_size > self.max_bytes:
                return None
            parts = []
            while part := os.read(handle, 1 << 20):
                parts.append(part)
            if mark:
                # On a read-only folder it is found all the same.
                with suppress(OSError):
                    now = self._clock()
                    os.utime(handle, ns=(now, now))
            return b"".join(parts)
        except OSError:
            return None
        finally:
            os.close(handle)

    def _write(self, path: Path, header: bytes, data: bytes) -> None:
        """Give `path` its content in one go: whoever reads sees the old file or the whole new one."""
        part, handle = self._create_part(path)
        try:
            with open(handle, "wb") as file:
                file.write(header)
                file.write(data)
                file.flush()
                now = self._clock()
                os.utime(handle, ns=(now, now))
                # Not synced: what a crash cuts short, the digest gives away.
                os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def _create_part(self, path: Path) -> tuple[Path, int]:
        """A new file beside `path` that is locked, so that nobody takes it for a dead writer's."""
        while True:
            part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process looks for leftovers and has just found it
            except OSError:
                return part, handle  # without locks nobody removes it either
            else:
                if os.fstat(handle).st_nlink:
                    return part, handle
            os.close(handle)

    def _remove_leftovers(self) -> None:
        """Delete what writers that died left behind; a file whose writer lives is locked."""
        for name, _ in self._scan(_PART):
            with suppress(OSError):
                handle = os.open(
                    self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (self.folder / name).unlink()
                finally:
                    os.close(handle)

    def _evict(self, *, keep: str) -> None:
        """Drop the least recently used until the rest is within the budget; never `keep`.

        A clock that was set back makes the newest entry look like the oldest.
        """
        entries = list(self._entries())
        excess = sum(entry.bytes for entry in entries) - self.max_bytes
        for entry in sorted(entries, key=lambda entry: (entry.used_ns, entry.name)):
            if excess <= 0:
                return
            if entry.name != keep:
                self._remove(entry)
                excess -= entry.bytes

    def _remove(self, entry: _Entry) -> bool:
        """Whether it was still there to be removed."""
        try:
            (self.folder / entry.name).unlink()
        except FileNotFoundError:
            return False
        return True

    def _entries(self) -> Iterator[_Entry]:
        for name, info in self._scan(_ENTRY):
            yield _Entry(name=name, bytes=info.st_size, used_ns=info.st_mtime_ns)

    def _scan(self, names: re.Pattern[str]) -> Iterator[tuple[str, os.stat_result]]:
        """The plain files of ours with such names; none where there is no folder."""
        try:
            with os.scandir(self.folder) as found:
                candidates = [entry for entry in found if names.fullmatch(entry.name)]
        except FileNotFoundError:
            return
        for entry in candidates:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process was quicker
            if _is_ours(info):
                yield entry.name, info


def embedding_key(
    *, encoder: str, tokenizer: str, cleaning: int, length: int, dtype: str, device_kind: str, prompt: str
) -> str:
    """The key of an embedding: 64 hexadecimal digits over everything that decides its values.

    Each part is preceded by its length, so that no two sets of parts read the same.
    """
    digest = hashlib.sha256()
    for part in (encoder, tokenizer, str(cleaning), str(length), dtype, device_kind, prompt):
        # A prompt from a file name may hold bytes that are no text.
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def _header(key: str, data: bytes) -> bytes:
    """What precedes `data`; the key in its digest tells a file that was renamed."""
    digest = hashlib.sha256(key.encode("ascii"))
    digest.update(data)
    return MAGIC + digest.digest()


def _is_ours(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) and info.st_uid == os.getuid()


def _sum(entries: list[_Entry]) -> EmbeddingUsage:
    return EmbeddingUsage(entries=len(entries), bytes=sum(entry.bytes for entry in entries))
