"""One file of a repository into the hub's cache: goes on where it broke off, kept only when it is right."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from engine.errors import NotNow, StorageUnusable, WorkFailed
from engine.models.getting.cache import CachedRepository, make_folder
from engine.models.getting.hub import Hub, RemoteFile, Repository, Unreachable
from engine.units import size_text

CHUNK = 16 << 20
TRIES = 5
"""Cuts in a row without a byte in between, after which it is given up."""

OnBytes = Callable[[int, bool], None]
"""Gets how much of the file is there, and whether it is only being read again."""


def fetch_file(
    hub: Hub, repository: Repository, path: str, file: RemoteFile, cached: CachedRepository, on_bytes: OnBytes
) -> Path:
    """Fetch `path` unless it is there; where it lies.

    What came of it before goes on from there, and what breaks off stays for the next time.

    Raises:
        Unreachable, Refused: as `Hub.repository`.
        WorkFailed: its bytes come to another digest than the Hub says; they are removed.
        NotNow: another process fetches it.
        StorageUnusable: the disk refused.
    """
    pointer = cached.snapshot(repository.commit, path)
    blob = cached.blob(file.digest)
    if not _is_whole(pointer, file.bytes):
        if not _is_whole(blob, file.bytes):
            make_folder(blob.parent)
            try:
                _fetch_blob(hub, repository, path, file, cached, on_bytes)
            except OSError as error:
                raise _refused_by_disk(blob.parent, path, error) from error
        try:
            pointer = cached.keep(repository.commit, path, file.digest)
        except OSError as error:
            raise _refused_by_disk(cached.folder, path, error) from error
    on_bytes(file.bytes, False)
    return pointer


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _refused_by_disk(folder: Path, path: str, error: OSError) -> StorageUnusable:
    if error.errno == errno.ENOSPC:
        return StorageUnusable(
            f"the disk of {folder} is full; {path} goes on from here once there is room, or set HF_HOME to "
            "another disk"
        )
    return StorageUnusable(f"{path} cannot be written to {folder}: {error.strerror or error}; check its disk")


def _fetch_blob(
    hub: Hub, repository: Repository, path: str, file: RemoteFile, cached: CachedRepository, on_bytes: OnBytes
) -> None:
    part = cached.part(file.digest)
    with _only_fetcher(part, path) as handle:
        if os.fstat(handle).st_size > file.bytes:
            os.ftruncate(handle, 0)
        sink = _Sink(handle, file, on_bytes)
        sink.read_again()
        failures = 0
        while sink.have < file.bytes or file.bytes == 0:
            before = sink.have
            try:
                source = hub.source(repository, path)
                if source.etag != file.digest.rpartition(":")[2]:
                    raise WorkFailed(
                        f"{path} of {repository.name} changed on the Hub meanwhile; fetch it again"
                    )
                stream = cast(BinaryIO, sink)
                hub.stream(source, stream, have=sink.have, size=file.bytes, name=repository.name)
            except (Unreachable, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's; what huggingface_hub raises of its own has no number
                failures = 1 if sink.have > before else failures + 1
                if failures >= TRIES or hub.offline:
                    if isinstance(error, Unreachable):
                        raise
                    raise Unreachable(
                        f"{path} breaks off after {size_text(sink.have)} of {size_text(file.bytes)} again "
                        "and again; what came stays, try again later"
                    ) from error
                time.sleep(min(1.0, 0.1 * failures))
            if file.bytes == 0:
                break
        if (found := sink.digest()) != file.digest:
            os.unlink(part)
            raise WorkFailed(
                f"{path} of {repository.name} came as {found} where the Hub says {file.digest}; it was "
                f"removed. Fetch it again; if that repeats, {hub.endpoint} does not give what was released"
            )
        os.fsync(handle)
        os.replace(part, cached.blob(file.digest))


@contextmanager
def _only_fetcher(part: Path, path: str) -> Iterator[int]:
    """The part's file, open and locked; closed at the end, whatever of it has come."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow(f"another process fetches {path} already; wait for it, or end it") from None
        except OSError:
            pass  # a file system without locks
        yield handle
    finally:
        os.close(handle)


class _Sink(io.RawIOBase):
    """The part's file as huggingface_hub writes to it: counted, and its digest taken on the way."""

    def __init__(self, handle: int, file: RemoteFile, on_bytes: OnBytes) -> None:
        super().__init__()
        self._handle = handle
        self._file = file
        self._on_bytes = on_bytes
        self._hash = self._fresh_hash()
        self.have = 0

    def read_again(self) -> None:
        """Take in what lies in the file already."""
        while data := os.pread(self._handle, CHUNK, self.have):
            self._hash.update(data)
            self.have += len(data)
            self._on_bytes(self.have, True)

    def digest(self) -> str:
        return f"{self._file.digest.partition(':')[0]}:{self._hash.hexdigest()}"

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(cast(bytes, data))
        while view:
            # Straight to the file: what was told to have come is there whenever this process ends.
            count = os.pwrite(self._handle, view, self.have)
            self._hash.update(view[:count])
            self.have += count
            view = view[count:]
        self._on_bytes(self.have, False)
        return len(cast(bytes, data))

    def tell(self) -> int:
        return self.have

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Only back to the beginning: a server that knows no ranges gives everything again."""
        if offset != 0 or whence != os.SEEK_SET:
            raise io.UnsupportedOperation
        self._hash = self._fresh_hash()
        self.have = 0
        return 0

    def truncate(self, size: int | None = None) -> int:
        size = self.have if size is None else size
        os.ftruncate(self._handle, size)
        return size

    def _fresh_hash(self) -> hashlib._Hash:
        if self._file.digest.startswith("sha256:"):
            return hashlib.sha256()
        # A small file is known by git's name for its blob.
        return hashlib.sha1(b"blob %d\0" % self._file.bytes, usedforsecurity=False)
