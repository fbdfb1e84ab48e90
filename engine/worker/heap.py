"""The process's own heap, which glibc keeps at its size when what lay in it has gone."""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)
_trim = getattr(_libc, "malloc_trim", None)
TRIMS = _trim is not None
"""Whether this host's C library can."""


class _Counted(ctypes.Structure):
    """mallinfo2 of glibc 2.33 and later: ten counters of the heap."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    ]  # fmt: skip


_count = getattr(_libc, "mallinfo2", None)
if _count is not None:
    _count.restype = _Counted


_gone_bytes = 0
"""Free pieces that the last trim left: their pages have gone, and they count as free all the same."""


def trim_heap() -> None:
    """Give free pages of the heap back to the kernel; does nothing where the C library has no such call.

    Takes 1 to 3 ms, and what is allocated next takes its pages anew.
    """
    global _gone_bytes
    if _trim is not None:
        _trim(0)
        _gone_bytes = _free_bytes()


def heap_free_bytes() -> int | None:
    """Freed and kept by the C library since the heap was trimmed; at the least: a piece may be used anew.

    None where it does not tell. Takes the lock of each arena in turn, for microseconds.
    """
    global _gone_bytes
    if _count is None:
        return None
    free = _free_bytes()
    _gone_bytes = min(_gone_bytes, free)
    return free - _gone_bytes


def _free_bytes() -> int:
    return 0 if _count is None else int(_count().fordblks)
