"""The host's memory and cores as a device: the same engine where there is no GPU."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engine.telemetry.host import read_own, read_rss
from engine.wire import Proof
from engine.worker.backend import (
    CHUNK_BYTES,
    Batch,
    Counted,
    DeviceMemory,
    Mark,
    Part,
    Passed,
    Source,
    first_calls,
    host_view,
)
from engine.worker.bound import lacks_host_memory
from engine.worker.channel import AllocatorSample
from engine.worker.heap import trim_heap
from engine.worker.host_tensors import Regions, live_tensor_bytes


class HostMemory:
    """Anonymous private memory whose pages go back to the kernel on release.

    The mapping itself stays as long as a tensor over it does, so using a leaked view reads
    zeros where it would be a segmentation fault after munmap.
    """

    def __init__(self, num_bytes: int, moved: Callable[[], None], regions: Regions) -> None:
        # A mapping of zero bytes is refused; shared anonymous memory would survive DONTNEED.
        self._map = mmap.mmap(-1, max(1, num_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes = num_bytes
        self._moved = moved
        self._regions = regions
        self._begin = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        weakref.finalize(self, regions.forget, self._begin)

    def commit(self) -> Tensor:
        self._moved()
        self._regions.committed(self._begin, self._bytes)
        return torch.frombuffer(self._map, dtype=torch.uint8, count=self._bytes)

    def release(self) -> None:
        self._moved()
        self._map.madvise(mmap.MADV_DONTNEED)
        self._regions.released(self._begin)


class CpuBackend:
    """The host's memory and cores; what it holds is the process's resident set."""

    kind: Literal["cpu"] = "cpu"
    proof: Proof = "process-rss"
    residue_name = "the process's own heap"
    registrar = None

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._moves = 0
        self._regions = Regions()
        self._peak_resets = True

    def connect(self) -> None:
        pass

    @property
    def device_name(self) -> str:
        for line in _proc("cpuinfo").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return os.uname().machine

    @property
    def total_bytes(self) -> int:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def new_memory(self, num_bytes: int) -> DeviceMemory:
        return HostMemory(num_bytes, self._count_move, self._regions)

    def copy(self, batches: Iterable[Batch], moved: Callable[[int], None]) -> None:
        for batch in batches:
            for part in batch.parts:
                self._copy_part(part, moved)
            batch.queued(Passed())

    def _copy_part(self, part: Part, moved: Callable[[int], None]) -> None:
        width = part.dtype.itemsize
        step = CHUNK_BYTES // width
        for first in range(0, part.bytes // width, step):
            self._count_move()
            target = part.target[first : first + step]
            num_bytes, offset = target.numel() * width, part.offset + first * width
            if target.dtype == part.dtype:
                part.source.read_into(offset, host_view(target))
            else:
                read = torch.empty(num_bytes, dtype=torch.uint8)
                part.source.read_into(offset, host_view(read))
                target.copy_(read.view(part.dtype))
            moved(num_bytes)

    def prepare_copies(self) -> str | None:
        return None

    def measure_ring(self, source: Source, num_bytes: int) -> None:
        pass

    def kept(self) -> Iterable[tuple[str, Tensor]]:
        return ()

    def ring_rate(self) -> float | None:
        return None

    def mark_copies(self) -> Mark:
        return Passed()

    def mark_compute(self) -> Mark:
        return Passed()

    def copies_wait(self, mark: Mark) -> None:
        pass

    def compute_waits(self, mark: Mark) -> None:
        pass

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(seed)

    def synchronize(self) -> None:
        pass

    def free_cache(self) -> None:
        # Without it glibc keeps the pages of freed activations and an unload looks smaller than it is.
        trim_heap()

    def held_bytes(self) -> int:
        return read_rss(os.getpid()) or 0

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

    def count(self) -> Counted:
        own = read_own()
        return Counted(
            allocated_bytes=self._regions.committed_bytes + live_tensor_bytes(self._regions),
            rss_bytes=own.anonymous_bytes,
            shared_bytes=own.shared_bytes,
        )

    def count_peak(self) -> Counted:
        # Nobody counts the most that tensors held; of the process the kernel does, mapped files included.
        own = read_own()
        if not self._peak_resets or own.highest_bytes is None or own.file_bytes is None:
            return Counted()
        # Shared memory among it, of which there is no peak.
        return Counted(rss_bytes=max(0, own.highest_bytes - own.file_bytes), shared_bytes=0)

    def sample(self, weights: Mapping[str, int]) -> AllocatorSample:
        return AllocatorSample(taken_at=time.monotonic(), device_allocs=self._moves, weights=dict(weights))

    def warm_up(self) -> None:
        first_calls(self.device, (torch.float32, torch.bfloat16))

    def warm_up_rest(self) -> Iterator[None]:
        yield from ()  # its libraries are in memory, all of them

    def is_oom(self, error: BaseException) -> bool:
        return isinstance(error, torch.OutOfMemoryError) or lacks_host_memory(error)

    def is_fatal(self, error: BaseException) -> bool:
        return False

    def _count_move(self) -> None:
        self._moves += 1


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text("utf-8", "replace")
    except OSError:
        return ""
