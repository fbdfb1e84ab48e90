"""The images that were put here from other machines, as first frames of jobs.

Named by their digest, so that one put twice lies there once, whatever it is called; bounded in bytes,
the oldest that no job needs go first. Each appears whole or not at all. Blocks, but for what a caller
awaits between chunks.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from engine.daemon.threads import in_thread
from engine.errors import InvalidRequest, StorageUnusable
from engine.paths import private_dir
from engine.planning.image_file import MAX_FILE_BYTES, REMEDY, check_image
from engine.units import size_text
from engine.wire import StoredImage

MOST_BYTES = 2**30
BUFFER_BYTES = 2**20
PART = ".part"
PART_S = 3600.0
"""A part older than this has no writer any more."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class ImageStore:
    """Event loop's thread; the disk is touched in threads."""

    def __init__(
        self, folder: Path, *, needed: Callable[[], frozenset[str]], most_bytes: int = MOST_BYTES
    ) -> None:
        """`needed` tells the images of jobs that have not ended."""
        self.folder = folder
        self._needed = needed
        self._most_bytes = most_bytes
        self._finishing = threading.Lock()
        """Room is made, and a name given, for one at a time."""

    async def receive(
        self, chunks: AsyncIterator[bytes], *, name: str, size: int, sha256: str
    ) -> StoredImage:
        """Keep an image of `size` bytes whose digest must be `sha256`; `name` is what it was called.

        Raises:
            InvalidRequest: too large, other bytes than announced, or no image that a job could begin with.
            StorageUnusable: the disk does not take it.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise InvalidRequest("sha256 is no digest; give the 64 hexadecimal digits of the file's SHA-256")
        if not 0 < size <= MAX_FILE_BYTES:
            raise InvalidRequest(f"an image of {size_text(size)} is not taken; {REMEDY}")
        part = await in_thread(self._begin, name="images")
        digest, written, buffer = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                written += len(chunk)
                if written > size:
                    break
                digest.update(chunk)
                buffer += chunk
                if len(buffer) >= BUFFER_BYTES:
                    await in_thread(partial(_append, part, bytes(buffer)), name="images")
                    buffer.clear()
            if written != size or digest.hexdigest() != sha256:
                raise InvalidRequest(
                    f"the image did not arrive whole: {written} of {size} bytes, or with another digest; "
                    "put it again"
                )
            await in_thread(partial(_append, part, bytes(buffer)), name="images")
            return await in_thread(partial(self._finish, part, name, size, sha256), name="images")
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _begin(self) -> Path:
        try:
            folder = private_dir(self.folder)
            for old in folder.glob(f"*{PART}"):
                with suppress(OSError):
                    if time.time() - old.stat().st_mtime > PART_S:
                        old.unlink()
            handle, path = tempfile.mkstemp(suffix=PART, dir=folder)  # 0600
            os.close(handle)
            return Path(path)
        except OSError as error:
            raise StorageUnusable(f"no image can be kept in {self.folder}: {error.strerror}") from error

    def _finish(self, part: Path, name: str, size: int, sha256: str) -> StoredImage:
        try:
            width, height = check_image(part)
        except InvalidRequest as error:
            raise InvalidRequest(str(error).replace(repr(str(part)), repr(name))) from error
        target = self.folder / f"{sha256[:16]}-{_safe(name)}"
        try:
            with self._finishing:
                if (there := self._same(size, sha256)) is not None:
                    target = there
                else:
                    self._make_room(size, target)
                    os.replace(part, target)
                os.utime(target)
        except OSError as error:
            raise StorageUnusable(f"{target} cannot be written: {error.strerror}") from error
        return StoredImage(path=str(target), bytes=size, sha256=sha256, width=width, height=height)

    def _same(self, size: int, sha256: str) -> Path | None:
        """The file that holds these bytes already, under whatever name."""
        for path in sorted(self.folder.glob(f"{sha256[:16]}-*")):
            with suppress(OSError), open(os.open(path, _READ), "rb") as file:
                info = os.fstat(file.fileno())
                if (
                    stat.S_ISREG(info.st_mode)
                    and info.st_size == size
                    and hashlib.file_digest(file, "sha256").hexdigest() == sha256
                ):
                    return path
        return None

    def _make_room(self, size: int, target: Path) -> None:
        """Let the oldest go that no job needs."""
        kept = []
        for path in self.folder.iterdir():
            if path.suffix != PART and path != target:
                with suppress(FileNotFoundError):  # somebody removes them too
                    info = path.lstat()
                    kept.append((info.st_mtime, info.st_size, path))
        needed = self._needed()
        total = size + sum(bytes_ for _at, bytes_, _path in kept)
        for _at, bytes_, path in sorted(kept):
            if total <= self._most_bytes:
                return
            if str(path) not in needed:
                path.unlink(missing_ok=True)
                total -= bytes_
        if total > self._most_bytes:
            raise StorageUnusable(
                f"{self.folder} holds {size_text(total - size)} of images that jobs wait with; "
                "let some jobs end first"
            )


def _append(part: Path, data: bytes) -> None:
    try:
        handle = os.open(part, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError as error:
        raise StorageUnusable(f"the image cannot be written: {error.strerror}") from error


def _safe(name: str) -> str:
    """A file's name of letters, digits, dots and dashes that says what it was called."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    suffix = f".{suffix.lower()}" if dot and f".{suffix.lower()}" in SUFFIXES else ".image"
    stem = re.sub(r"[^\w-]+", "_", stem or name)[:60].encode("utf-8")[:120].decode("utf-8", "ignore")
    return (stem.strip("_") or "image") + suffix
