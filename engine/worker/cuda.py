"""One NVIDIA GPU, the only one visible to this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from engine.telemetry.host import read_own
from engine.wire import Proof
from engine.worker.backend import (
    CHUNK_BYTES,
    Batch,
    Counted,
    DeviceMemory,
    Mark,
    Part,
    Source,
    first_calls,
    later_calls,
)
from engine.worker.bound import lacks_host_memory
from engine.worker.casting import CastLane
from engine.worker.channel import AllocatorSample
from engine.worker.pinned import HostBuffer, pinned_bytes
from engine.worker.registrar import HostRegistrar, make_context
from engine.worker.ring import RING_BUFFERS, Ring


class CudaMemory:
    """One block of the caching allocator, resized to nothing on release."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self._bytes = num_bytes
        self._device = device
        self._tensor: Tensor | None = None

    def commit(self) -> Tensor:
        if self._tensor is None:
            self._tensor = torch.empty(self._bytes, dtype=torch.uint8, device=self._device)
        elif self._tensor.untyped_storage().nbytes() != self._bytes:
            # The same storage again: views kept from an earlier load become valid, not dangling.
            # One that has its size already would be allocated anew and copied.
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
        self.device_name = ""
        self.total_bytes = 0
        self.registrar = HostRegistrar()
        self._copying = threading.Lock()
        self._buffers = HostBuffer(RING_BUFFERS * CHUNK_BYTES)
        self._ring: Ring | None = None
        self._casts: CastLane | None = None

    def connect(self) -> None:
        threading.Thread(target=self._buffers.populate, name="buffers", daemon=True).start()
        make_context()
        torch.cuda.init()  # type: ignore[no-untyped-call]
        properties = torch.cuda.get_device_properties(self.device)
        self.device_name = properties.name
        self.total_bytes = properties.total_memory
        # Same seed, same frames: cuDNN may otherwise pick kernels that add in any order.
        torch.backends.cudnn.deterministic = True
        self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def new_memory(self, num_bytes: int) -> DeviceMemory:
        return CudaMemory(num_bytes, self.device)

    def copy(self, batches: Iterable[Batch], moved: Callable[[int], None]) -> None:
        with self._copying, torch.no_grad():
            ring = self._open_ring()
            try:
                for batch in batches:
                    for part in batch.parts:
                        if part.dtype == part.target.dtype:
                            self._copy_bytes(part, ring, moved)
                        else:
                            if self._casts is None:
                                self._casts = CastLane(self.device, self._copies, self.registrar)
                            self._casts.copy(part, ring, moved)
                    ring.then(partial(self._tell_queued, batch.queued))
                ring.flush()
            except BaseException:
                ring.abandon()
                self._copies.synchronize()
                raise

    def _copy_bytes(self, part: Part, ring: Ring, moved: Callable[[int], None]) -> None:
        target = part.target.view(torch.uint8)
        done = 0
        # While threads fill the ring this thread would wait: it registers the next pages meanwhile.
        for length, host in part.source.spans(part.offset, part.bytes, prefers_reading=ring.has_room):
            into = target[done : done + length]
            if host is None:
                ring.put(part.source, part.offset + done, length, partial(_land, into), moved)
            else:
                with torch.cuda.stream(self._copies):
                    into.copy_(host, non_blocking=True)
                moved(length)
            done += length

    def _tell_queued(self, queued: Callable[[Mark], None]) -> None:
        queued(self.mark_copies())

    def prepare_copies(self) -> str | None:
        with self._copying:
            self._open_ring()
        return self._buffers.refusal

    def _open_ring(self) -> Ring:
        if self._ring is None:
            self._buffers.pin(self.registrar)
            self._ring = Ring(self._copies, self._buffers.tensor)
        return self._ring

    def measure_ring(self, source: Source, num_bytes: int) -> None:
        with self._copying:
            self._open_ring().measure(source, num_bytes)

    def kept(self) -> Iterable[tuple[str, Tensor]]:
        yield "buffers of copies", self._buffers.tensor
        if self._casts is not None:
            yield from (("buffers of casts", tensor) for tensor in self._casts.kept())

    def ring_rate(self) -> float | None:
        return None if self._ring is None else self._ring.rate

    def mark_copies(self) -> Mark:
        return _CudaMark(self._copies)

    def mark_compute(self) -> Mark:
        return _CudaMark(torch.cuda.current_stream(self.device))

    def copies_wait(self, mark: Mark) -> None:
        if isinstance(mark, _CudaMark):
            self._copies.wait_event(mark.event)

    def compute_waits(self, mark: Mark) -> None:
        if isinstance(mark, _CudaMark):
            torch.cuda.current_stream(self.device).wait_event(mark.event)

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

    def count(self) -> Counted:
        own, pinned = read_own(), pinned_bytes()
        counted = replace(self._counted("current"), rss_bytes=own.anonymous_bytes)
        if pinned is None:
            return counted
        buffers = self._buffers.pinned_bytes + (0 if self._casts is None else self._casts.pinned_bytes)
        # To the kernel the driver's pinned blocks are shared memory, to the byte; our buffers are anonymous.
        shared = None if own.shared_bytes is None else max(0, own.shared_bytes - pinned)
        return replace(counted, shared_bytes=shared, pinned_bytes=pinned + buffers)

    def count_peak(self) -> Counted:
        return self._counted("peak")

    def _counted(self, which: Literal["current", "peak"]) -> Counted:
        stats = torch.cuda.memory_stats_as_nested_dict(self.device)
        return Counted(
            allocated_bytes=stats["requested_bytes"]["all"][which],
            reserved_bytes=stats["reserved_bytes"]["all"][which],
        )

    def sample(self, weights: Mapping[str, int]) -> AllocatorSample:
        taken_at = time.monotonic()
        stats = torch.cuda.memory_stats(self.device)
        return AllocatorSample(
            taken_at=taken_at,
            read_at=time.monotonic(),
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
        first_calls(self.device, (torch.bfloat16,))
        # Not the whole device: weights may be travelling already.
        self.mark_compute().wait()
        self.free_cache()

    def warm_up_rest(self) -> Iterator[None]:
        yield from later_calls(self.device)
        self.mark_compute().wait()
        self.free_cache()

    def is_oom(self, error: BaseException) -> bool:
        if isinstance(error, torch.OutOfMemoryError) or lacks_host_memory(error):
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


def _land(into: Tensor, first: int, host: Tensor) -> None:
    """Queue the copy of bytes that need no cast, on the current stream."""
    into[first : first + host.numel()].copy_(host, non_blocking=True)


class _CudaMark:
    """An event, recorded when it is made."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        # Blocking: a thread that waits must not take a core from those that read files.
        self.event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self.event.record(stream)

    def wait(self) -> None:
        self.event.synchronize()
