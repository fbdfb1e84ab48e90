"""What the worker asks of a device: memory, copies into it, points in its work, counters, errors.

Everything else in the worker is written against `Backend`; `engine.worker.cpu` and
`engine.worker.cuda` are the files that know a device. Importing this module touches none.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.wire import Proof
from engine.worker.channel import AllocatorSample
from engine.worker.nets import frames

CHUNK_BYTES = 16 * 2**20
"""The most that is read from a file at once; also how late a cancel is seen there."""


class Source(Protocol):
    """Bytes of one file, readable from several threads at once."""

    def read_into(self, offset: int, into: memoryview) -> None:
        """Fill `into` with the file's bytes from `offset` on.

        Raises:
            ModelUnusable: the file ends before, or cannot be read.
        """

    def spans(
        self, offset: int, num_bytes: int, *, prefers_reading: Callable[[int], bool]
    ) -> Iterator[tuple[int, Tensor | None]]:
        """Cut a range where its pages begin or end to be registered: (bytes, those bytes or None).

        What is registered comes as a uint8 host tensor from which the device copies by itself; it
        is never read on the host, where a file cut short would end the process. For bytes that
        would be registered now, `prefers_reading(bytes)` says whether the caller would rather read.
        """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Part:
    """One tensor on its way from a file to the device."""

    source: Source
    offset: int
    bytes: int
    """In the file."""
    dtype: torch.dtype
    """In the file; where `target` has another one, the copy casts."""
    target: Tensor
    """1-D, contiguous, on the device."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Parts that are told of together, such as a block of a net."""

    parts: Iterable[Part]
    queued: Callable[[Mark], None]
    """Called when their copies and all earlier ones are queued, with the mark of their end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """Bytes of this process for the memory ledger; None where this device cannot tell."""

    allocated_bytes: int | None = None
    """In live tensors, as they were asked for: without what an allocator rounds up."""
    reserved_bytes: int | None = None
    """Of the driver, by the allocator."""
    rss_bytes: int | None = None
    """Anonymous pages on the host, without mapped files."""
    shared_bytes: int | None = None
    """Pages of shared memory on the host, without what the driver holds in place."""
    pinned_bytes: int | None = None
    """On the host and held in place by the driver, without registered files."""

    @property
    def host_bytes(self) -> int | None:
        """All of this process's own on the host that the driver does not hold in place."""
        return None if self.rss_bytes is None else self.rss_bytes + (self.shared_bytes or 0)

    def highest(self, other: Counted) -> Counted:
        """Of each the more."""
        return Counted(
            allocated_bytes=_more(self.allocated_bytes, other.allocated_bytes),
            reserved_bytes=_more(self.reserved_bytes, other.reserved_bytes),
            rss_bytes=_more(self.rss_bytes, other.rss_bytes),
            shared_bytes=_more(self.shared_bytes, other.shared_bytes),
            pinned_bytes=_more(self.pinned_bytes, other.pinned_bytes),
        )


def _more(one: int | None, other: int | None) -> int | None:
    known = [size for size in (one, other) if size is not None]
    return max(known) if known else None


class Mark(Protocol):
    """A point in the device's work. It has passed once everything queued before it is done."""

    def wait(self) -> None:
        """Block this thread until it has passed; raises what the device answers when it broke."""


class Passed:
    """The mark of a device whose work is done when the call returns."""

    def wait(self) -> None:
        pass


class DeviceMemory(Protocol):
    """One region of device memory whose bytes can be given back and taken again.

    A tensor that somebody kept from before `release` holds nothing back.
    """

    def commit(self) -> Tensor:
        """The region as a uint8 tensor, its bytes arbitrary; allocates them."""

    def release(self) -> None:
        """Give the bytes back. Harmless when they are not there."""


class Registrar(Protocol):
    """Makes host pages known to the device, which then copies from them at the bus's rate."""

    def register(self, address: int, num_bytes: int, *, read_only: bool = True) -> None:
        """Pin the pages; those of a file can only be pinned read-only.

        Raises:
            OSError: the host refuses; the text says why.
        """

    def unregister(self, address: int) -> None:
        """Let go of what was registered from `address` on; copies from it must have ended."""


class Backend(Protocol):
    """A device as the worker needs it. Copies may be queued by any thread, one at a time."""

    def connect(self) -> None:
        """Make the device's context; before it models can be opened, and nothing else done.

        Other threads run meanwhile. It takes 0.2 s, or until another process has ended there.

        Raises:
            RuntimeError: no usable device; the text is the driver's.
        """

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

    @property
    def registrar(self) -> Registrar | None:
        """None where host pages need not be registered."""

    def new_memory(self, num_bytes: int) -> DeviceMemory: ...

    def copy(self, batches: Iterable[Batch], moved: Callable[[int], None]) -> None:
        """Queue the copies of `batches` in their order, calling `moved(bytes)` as they are queued.

        Batches are taken while earlier ones are still being read, and all are queued on return.
        Whatever a callback or `batches` raises ends it, with no read of a file under way.
        """

    def prepare_copies(self) -> str | None:
        """Make the buffers now that the first copy would make; why they are not pinned, if so."""

    def measure_ring(self, source: Source, num_bytes: int) -> None:
        """Find out `ring_rate` by reading so much of a cached file; copies nothing."""

    def kept(self) -> Iterable[tuple[str, Tensor]]:
        """Tensors that it keeps for as long as it lives, by what they are for."""

    def ring_rate(self) -> float | None:
        """Bytes a second that copies through pinned buffers reach here; None before any."""

    def mark_copies(self) -> Mark:
        """The end of the copies queued so far."""

    def mark_compute(self) -> Mark:
        """The end of the work that this thread has queued so far."""

    def copies_wait(self, mark: Mark) -> None:
        """Hold copies queued from now on until `mark` has passed."""

    def compute_waits(self, mark: Mark) -> None:
        """Hold this thread's work queued from now on until `mark` has passed."""

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

    def count(self) -> Counted:
        """What this process holds now; any thread."""

    def count_peak(self) -> Counted:
        """The most of each since `start_peak`, where that is known."""

    def sample(self, weights: Mapping[str, int]) -> AllocatorSample: ...

    def warm_up(self) -> None:
        """Load the libraries that the first matrix product and attention call would load."""

    def warm_up_rest(self) -> Iterator[None]:
        """Load what the first job would load beside those, in short steps; done while nothing is asked."""

    def is_oom(self, error: BaseException) -> bool: ...

    def is_fatal(self, error: BaseException) -> bool:
        """Whether the device context is broken, so that only a new process can go on."""


def open_backend(kind: Literal["cuda", "cpu"]) -> Backend:
    """The backend of this process, which still has to `connect`."""
    if kind == "cpu":
        from engine.worker.cpu import CpuBackend

        return CpuBackend()
    from engine.worker.cuda import CudaBackend

    return CudaBackend()


def first_calls(device: torch.device, dtypes: Iterable[torch.dtype]) -> None:
    """One small matrix product and one attention call in each dtype."""
    with torch.inference_mode():
        for dtype in dtypes:
            a = torch.ones(1, 2, 64, 64, device=device, dtype=dtype)
            F.linear(a[0, 0], a[0, 0])
            F.scaled_dot_product_attention(a, a, a)
        del a
    gc.collect()


def later_calls(device: torch.device) -> Iterator[None]:
    """What else a job calls for the first time: convolutions, norms, attention of the VAE's kind."""
    for dtype in (torch.bfloat16, torch.float32):
        with torch.inference_mode():
            video = torch.ones(1, 16, 4, 16, 16, device=device, dtype=dtype)
            F.conv3d(video, torch.ones(32, 16, 3, 3, 3, device=device, dtype=dtype), padding=1)
            F.conv3d(video, torch.ones(32, 16, 1, 2, 2, device=device, dtype=dtype), stride=(1, 2, 2))
        yield
        with torch.inference_mode():
            F.conv2d(video[0], torch.ones(16, 4, 3, 3, device=device, dtype=dtype), padding=1)
            F.interpolate(video[0].float(), scale_factor=2.0, mode="nearest-exact")
            rows = torch.ones(1, 64, 256, device=device, dtype=dtype)
            F.layer_norm(rows.float(), (256,)).to(dtype)
            F.gelu(F.linear(rows, rows[0]), approximate="tanh")
            F.silu(rows).softmax(-1)
        yield
        with torch.inference_mode():
            wide = torch.ones(1, 1, 256, 384, device=device, dtype=dtype)
            F.scaled_dot_product_attention(wide, wide, wide)
            heads = torch.ones(1, 4, 512, 128, device=device, dtype=dtype)
            F.scaled_dot_product_attention(heads, heads, heads)
        yield
    with torch.inference_mode():
        yield from frames.first_calls(device)


def host_view(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous host tensor, writable."""
    return tensor.view(torch.uint8).numpy().data
