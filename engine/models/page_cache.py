"""How much of a file lies in the page cache, as the kernel tells it.

`mincore` tells the truth to whoever owns the file or may write it, and claims everything for
others; so it is asked by the owner only, and for others the answer is None.

    python -P -m engine.models.page_cache FILE...      prints {"FILE": bytes or null, ...}
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PAGE = mmap.PAGESIZE
_WINDOW = 2**30
"""Mapped at once: a mapping costs address space only, its answer one byte a page."""
_PRESENT = bytes(value & 1 for value in range(256))
"""Of each byte of an answer the lowest bit; the others are undefined."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_longlong,
]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_MADV_POPULATE_READ = 22
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


def may_know(path: Path) -> bool:
    """Whether the kernel tells this user the truth about the file."""
    try:
        return os.geteuid() in (0, os.stat(path).st_uid) or os.access(path, os.W_OK)
    except OSError:
        return False


def cached_bytes(paths: Iterable[Path]) -> int | None:
    """Bytes of these files that lie in the page cache; None where that cannot be known."""
    total = 0
    for path in paths:
        found = _cached_bytes_of(path)
        if found is None:
            return None
        total += found
    return total


def one_name_each(paths: Iterable[Path]) -> list[Path]:
    """One name of each file that is there: models of a family share some, as links."""
    found: dict[tuple[int, int], Path] = {}
    for path in paths:
        with suppress(OSError):
            info = os.stat(path)
            found.setdefault((info.st_dev, info.st_ino), path)
    return list(found.values())


def mostly_cached(address: int, num_bytes: int, *, samples: int = 64) -> bool:
    """Whether nearly all of a mapping's pages are in the page cache, by asking for a few of them."""
    pages = max(1, num_bytes // PAGE)
    stride = max(1, pages // samples)
    vector = ctypes.create_string_buffer(1)
    asked = present = 0
    for page in range(0, pages, stride):
        if _libc.mincore(address + page * PAGE, PAGE, vector) != 0:
            return False
        asked += 1
        present += vector.raw[0] & 1
    return present * 16 >= asked * 15


def populate(address: int, num_bytes: int) -> None:
    """Enter a mapping's cached pages in the page tables, so that registering finds them there.

    Reads what is not cached. Where the kernel is too old or the file too short, nothing happens:
    whoever needs the pages finds out.
    """
    _libc.madvise(address, num_bytes, _MADV_POPULATE_READ)


def drop(paths: Iterable[Path]) -> None:
    """Ask the kernel to forget these files' pages; what others map or have pinned stays."""
    for path in paths:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # Pages that are still to be written cannot go.
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass
        finally:
            os.close(handle)


def _cached_bytes_of(path: Path) -> int | None:
    if not may_know(path):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(handle).st_size
        present = 0
        for begin in range(0, size, _WINDOW):
            found = _present_pages(handle, begin, min(_WINDOW, size - begin))
            if found is None:
                return None
            present += found
    finally:
        os.close(handle)
    return min(size, present * PAGE)


def _present_pages(handle: int, begin: int, num_bytes: int) -> int | None:
    pages = -(-num_bytes // PAGE)
    address = _libc.mmap(None, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, handle, begin)
    if address == _MAP_FAILED:
        return None
    try:
        vector = ctypes.create_string_buffer(pages)
        if _libc.mincore(address, num_bytes, vector) != 0:
            return None
        return vector.raw.translate(_PRESENT).count(1)
    finally:
        _libc.munmap(address, num_bytes)


def main(arguments: list[str]) -> int:
    print(json.dumps({name: cached_bytes([Path(name)]) for name in arguments}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
