"""What differs between devices: their memory, copies, counters and errors. The one file that knows.

Everything else in the worker is written against `Backend`. Making one touches the device;
importing this module does not.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.wire import Proof
from engine.worker.channel import AllocatorSample

RING_BUFFERS = 16
RING_THREADS = 12
"""Threads that read into the ring: the fastest count measured on a 16-core host."""
CHUNK_BYTES = 16 * 2**20
"""The most that one copy moves; also the size of a pinned buffer, and how late a cancel is seen."""


class Readable(Protocol):
    """Bytes of a file, as `engine.worker.stream.Source` gives them."""

    def read_into(self, offset: int, into: memoryview) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chunk:
    """At most `CHUNK_BYTES` of one tensor, on their way from a file to the device."""

    source: Readable
    offset: int
    bytes: int
    """In the file."""
    dtype: torch.dtype
    """In the file; where `target` has another one, the copy casts."""
    target: Tensor
    """1-D, contiguous, on the device."""


class DeviceMemory(Protocol):
    """One region of device memory whose bytes can be given back and taken again.

    A tensor that somebody kept from before `release` holds nothing back.
    """

    def commit(self) -> Tensor:
        """The region as a uint8 tensor, its bytes arbitrary; allocates them."""

    def release(self) -> None:
        """Give the bytes back. Harmless when they are not there."""


class Backend(Protocol):
    """A device as the worker needs it."""

    @property
    def kind(self) -> Literal["cuda", "cpu"]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def device_name(self) -> str: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def proof(self) -> Proof:
        """What `held_bytes` rests on."""

    @property
    def residue_name(self) -> str:
        """What it is that stays when less came back than was expected."""

    def new_memory(self, num_bytes: int) -> DeviceMemory: ...

    def copy(self, chunks: Iterable[Chunk], moved: Callable[[int], None]) -> None:
        """Copy `chunks` in their order, calling `moved(bytes)` after each; all have arrived on return.

        Whatever `moved` raises ends the copy, with no read or copy under way.
        """

    def generator(self, seed: int) -> torch.Generator: ...
    def synchronize(self) -> None: ...

    def free_cache(self) -> None:
        """Give back to the system what the allocator holds without need."""

    def held_bytes(self) -> int:
        """What this process holds on the device, as far as it can tell itself."""

    def live_bytes(self) -> int:
        """Bytes in live tensors; on cpu the whole process."""

    def start_peak(self) -> None:
        """Begin a new measurement of `peak_bytes`."""

    def peak_bytes(self) -> int:
        """The highest `live_bytes` since `start_peak`."""

    def sample(self, weights: Mapping[str, int]) -> AllocatorSample: ...

    def warm_up(self) -> None:
        """Load the libraries that the first matrix product and attention call would load."""

    def is_oom(self, error: BaseException) -> bool: ...

    def is_fatal(self, error: BaseException) -> bool:
        """Whether the device context is broken, so that only a new process can go on."""


# --------------------------------------------------------------------------- cpu


class HostMemory:
    """Anonymous private memory whose pages go back to the kernel on release.

    The mapping itself stays as long as a tensor over it does, so using a leaked view reads
    zeros where it would be a segmentation fault after munmap.
    """

    def __init__(self, num_bytes: int, moved: Callable[[], None]) -> None:
        # A mapping of zero bytes is refused; shared anonymous memory would survive DONTNEED.
        self._map = mmap.mmap(-1, max(1, num_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes = num_bytes
        self._moved = moved

    def commit(self) -> Tensor:
        self._moved()
        return torch.frombuffer(self._map, dtype=torch.uint8, count=self._bytes)

    def release(self) -> None:
        self._moved()
        self._map.madvise(mmap.MADV_DONTNEED)


class CpuBackend:
    """The host's memory and cores; what it holds is the process's resident set."""

    kind: Literal["cpu"] = "cpu"
    proof: Proof = "process-rss"
    residue_name = "the process's own heap"

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._moves = 0
        self._peak_resets = True
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._libc = ctypes.CDLL(None)

    @property
    def device_name(self) -> str:
        for line in _proc("cpuinfo").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return os.uname().machine

    @property
    def total_bytes(self) -> int:
        return os.sysconf("SC_PHYS_PAGES") * self._page

    def new_memory(self, num_bytes: int) -> DeviceMemory:
        return HostMemory(num_bytes, self._count_move)

    def copy(self, chunks: Iterable[Chunk], moved: Callable[[int], None]) -> None:
        staging: Tensor | None = None
        for chunk in chunks:
            self._count_move()
            if chunk.target.dtype == chunk.dtype:
                chunk.source.read_into(chunk.offset, _host_view(chunk.target))
            else:
                if staging is None:
                    staging = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
                part = staging[: chunk.bytes]
                chunk.source.read_into(chunk.offset, _host_view(part))
                chunk.target.copy_(part.view(chunk.dtype))
            moved(chunk.bytes)

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(seed)

    def synchronize(self) -> None:
        pass

    def free_cache(self) -> None:
        # Without it glibc keeps the pages of freed activations and an unload looks smaller than it is.
        trim = getattr(self._libc, "malloc_trim", None)
        if trim is not None:
            trim(0)

    def held_bytes(self) -> int:
        return int(_proc("self/statm").split()[1]) * self._page

    def live_bytes(self) -> int:
        return self.held_bytes()

    def start_peak(self) -> None:
        try:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
                handle.write("5")  # resets VmHWM
        except OSError:
            self._peak_resets = False

    def peak_bytes(self) -> int:
        if self._peak_resets:
            for line in _proc("self/status").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return self.held_bytes()

    def sample(self, weights: Mapping[str, int]) -> AllocatorSample:
        return AllocatorSample(taken_at=time.monotonic(), device_allocs=self._moves, weights=dict(weights))

    def warm_up(self) -> None:
        _first_calls(self.device, (torch.float32, torch.bfloat16))

    def is_oom(self, error: BaseException) -> bool:
        if isinstance(error, OSError):
            return error.errno == errno.ENOMEM
        return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
            isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
        )

    def is_fatal(self, error: BaseException) -> bool:
        return False

    def _count_move(self) -> None:
        self._moves += 1


# --------------------------------------------------------------------------- cuda


class CudaMemory:
    """One block of the caching allocator, resized to nothing on release."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self._bytes = num_bytes
        self._device = device
        self._tensor: Tensor | None = None

    def commit(self) -> Tensor:
        if self._tensor is None:
            self._tensor = torch.empty(self._bytes, dtype=torch.uint8, device=self._device)
        else:
            # The same storage again: views kept from an earlier load become valid, not dangling.
            self._tensor.untyped_storage().resize_(self._bytes)
        return self._tensor

    def release(self) -> None:
        if self._tensor is not None:
            self._tensor.untyped_storage().resize_(0)


class CudaBackend:
    """One GPU, the only one visible to this process."""

    kind: Literal["cuda"] = "cuda"
    proof: Proof = "allocator"
    residue_name = "live tensors and cache that shares a segment with them"

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0)
        properties = torch.cuda.get_device_properties(self.device)
        self.device_name: str = properties.name
        self.total_bytes: int = properties.total_memory
        # Same seed, same frames: cuDNN may otherwise pick kernels that add in any order.
        torch.backends.cudnn.deterministic = True
        self._ring: _Ring | None = None

    def new_memory(self, num_bytes: int) -> DeviceMemory:
        return CudaMemory(num_bytes, self.device)

    def copy(self, chunks: Iterable[Chunk], moved: Callable[[int], None]) -> None:
        if self._ring is None:
            # Pinning costs 0.5 s a GiB: once for the process, never for each load.
            self._ring = _Ring(self.device)
        self._ring.copy(chunks, moved)

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(seed)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def free_cache(self) -> None:
        torch.cuda.empty_cache()

    def held_bytes(self) -> int:
        return torch.cuda.memory_reserved(self.device)

    def live_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def start_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def sample(self, weights: Mapping[str, int]) -> AllocatorSample:
        taken_at = time.monotonic()
        stats = torch.cuda.memory_stats(self.device)
        return AllocatorSample(
            taken_at=taken_at,
            device_allocs=stats.get("num_device_alloc", 0) + stats.get("num_device_free", 0),
            weights=dict(weights),
            allocated_bytes=stats.get("allocated_bytes.all.current", 0),
            active_bytes=stats.get("active_bytes.all.current", 0),
            reserved_bytes=stats.get("reserved_bytes.all.current", 0),
            requested_bytes=stats.get("requested_bytes.all.current", 0),
            inactive_split_bytes=stats.get("inactive_split_bytes.all.current", 0),
            num_ooms=stats.get("num_ooms", 0),
            num_alloc_retries=stats.get("num_alloc_retries", 0),
        )

    def warm_up(self) -> None:
        _first_calls(self.device, (torch.bfloat16, torch.float32))
        self.synchronize()
        self.free_cache()

    def is_oom(self, error: BaseException) -> bool:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        text = str(error)
        return isinstance(error, RuntimeError) and (
            "out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text
        )

    def is_fatal(self, error: BaseException) -> bool:
        if self.is_oom(error):
            return False
        broken = getattr(torch, "AcceleratorError", ())
        return isinstance(error, broken) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


class _Ring:
    """Pinned buffers that threads fill from files while the copy engine empties them.

    Used by one thread at a time, the one that loads.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        whole = torch.empty(RING_BUFFERS * CHUNK_BYTES, dtype=torch.uint8, pin_memory=True)
        self._buffers: tuple[Tensor, ...] = torch.split(whole, CHUNK_BYTES)
        self._emptied = [torch.cuda.Event() for _ in self._buffers]  # type: ignore[no-untyped-call]
        threads = min(RING_THREADS, max(2, os.cpu_count() or 2))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="weights")

    def copy(self, chunks: Iterable[Chunk], moved: Callable[[int], None]) -> None:
        waiting: deque[tuple[Future[None], int, Chunk]] = deque()
        casts = False
        # The arena's bytes may have been freed by work that still runs on the current stream.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            for number, chunk in enumerate(chunks):
                casts = casts or chunk.target.dtype != chunk.dtype
                slot = number % len(self._buffers)
                if len(waiting) == len(self._buffers):
                    moved(self._send(*waiting.popleft()))
                self._emptied[slot].synchronize()
                into = _host_view(self._buffers[slot][: chunk.bytes])
                waiting.append((self._pool.submit(chunk.source.read_into, chunk.offset, into), slot, chunk))
            while waiting:
                moved(self._send(*waiting.popleft()))
        finally:
            for future, _, _ in waiting:
                future.cancel()
            for future, _, _ in waiting:
                if not future.cancelled():
                    future.exception()
            self._stream.synchronize()
            if casts:
                # Each cast went through a buffer on the device; 20 MiB of cache would stay.
                torch.cuda.empty_cache()

    def _send(self, read: Future[None], slot: int, chunk: Chunk) -> int:
        read.result()
        with torch.cuda.stream(self._stream):
            chunk.target.copy_(self._buffers[slot][: chunk.bytes].view(chunk.dtype), non_blocking=True)
            self._emptied[slot].record(self._stream)
        return chunk.bytes


def open_backend(kind: Literal["cuda", "cpu"]) -> Backend:
    """The backend of this process; on `cuda` this makes the context.

    Raises:
        RuntimeError: no usable GPU; the text is the driver's.
    """
    if kind == "cpu":
        return CpuBackend()
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return CudaBackend()


def _first_calls(device: torch.device, dtypes: Iterable[torch.dtype]) -> None:
    with torch.inference_mode():
        for dtype in dtypes:
            a = torch.ones(1, 2, 64, 64, device=device, dtype=dtype)
            F.linear(a[0, 0], a[0, 0])
            F.scaled_dot_product_attention(a, a, a)
        del a
    gc.collect()


def _host_view(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous host tensor, writable."""
    return tensor.view(torch.uint8).numpy().data


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text("utf-8", "replace")
    except OSError:
        return ""
