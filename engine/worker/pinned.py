"""Host memory that the device copies from by itself.

In huge pages, entered before the device is asked to pin them: 256 MiB take 0.01 s then, where the
driver's own allocation takes 0.13.
"""

from __future__ import annotations

import ctypes
import mmap

import torch
from torch import Tensor

from engine.worker.backend import Registrar

HUGE_BYTES = 2 * 2**20
_MADV_POPULATE_WRITE = 23
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class HostBuffer:
    """Anonymous memory of this process; it has its pages once it was populated, pinned or written.

    Raises:
        OSError: the host has no address space for it.
    """

    def __init__(self, num_bytes: int) -> None:
        whole = mmap.mmap(-1, num_bytes + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        tensor = torch.frombuffer(whole, dtype=torch.uint8)
        skipped = -tensor.data_ptr() % HUGE_BYTES
        self.tensor: Tensor = tensor[skipped : skipped + num_bytes]
        """uint8, 1-D, on a huge page's boundary."""
        self.pinned_bytes = 0
        self.refusal: str | None = None
        """Why the host would not pin it; copies from it are right all the same, and slow."""
        # A kernel that knows no such advice gives small pages, of which pinning makes no difference.
        _libc.madvise(self.tensor.data_ptr(), num_bytes, mmap.MADV_HUGEPAGE)

    def populate(self) -> None:
        """Give it its pages now; other threads of Python run meanwhile."""
        _libc.madvise(self.tensor.data_ptr(), self.tensor.numel(), _MADV_POPULATE_WRITE)

    def pin(self, registrar: Registrar) -> None:
        """Let the device copy from it by itself, for as long as the process lives."""
        try:
            registrar.register(self.tensor.data_ptr(), self.tensor.numel(), read_only=False)
            self.pinned_bytes = self.tensor.numel()
        except OSError as error:
            self.refusal = str(error)


def pinned_bytes() -> int | None:
    """Host memory in torch's pinned blocks; None where this process has no GPU.

    Torch 2.11's count of what is in use never shrinks: `engine.worker.leaks.look` goes by tensors.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    read = getattr(torch.cuda, "host_memory_stats", None)
    counted: dict[str, int] = {} if read is None else read()
    value = counted.get("allocated_bytes.current")
    return None if value is None else int(value)
