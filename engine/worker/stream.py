"""Moves weights from their files into an arena, in the files' order and in small chunks.

The files are read where they lie: no copy of a file is ever made in host memory. They are read
by `preadv` and not through a mapping, since a file that is truncated while mapped kills the
process with SIGBUS where a short read is one sentence; on cpu the bytes go straight from the
page cache into the arena.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.index import FETCH_AGAIN, ComponentIndex
from engine.worker.arena import Layout
from engine.worker.backend import CHUNK_BYTES, Backend, Chunk

TORCH_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {spelling: getattr(torch, dtype.name) for spelling, dtype in DTYPES.items()}
)
"""The header's spelling to torch's."""


class Source(Protocol):
    """Bytes of one file, readable from several threads at once."""

    def read_into(self, offset: int, into: memoryview) -> None:
        """Fill `into` with the file's bytes from `offset` on.

        Raises:
            ModelUnusable: the file ends before, or cannot be read.
        """

    def close(self) -> None: ...


class FileSource:
    """A weight file read through the page cache.

    Raises:
        ModelUnusable: it is gone, cannot be opened, or has not the length that its index saw.
    """

    def __init__(self, path: Path, *, expected_bytes: int) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ModelUnusable(f"{path} cannot be read: {error.strerror}; {FETCH_AGAIN}") from error
        size = os.fstat(self._handle).st_size
        if size != expected_bytes:
            self.close()
            raise ModelUnusable(
                f"{path} has {size} bytes and had {expected_bytes} when it was looked at; {FETCH_AGAIN}"
            )

    def read_into(self, offset: int, into: memoryview) -> None:
        while into:
            try:
                count = os.preadv(self._handle, [into], offset)
            except OSError as error:
                raise ModelUnusable(
                    f"{self.path} cannot be read at byte {offset}: {error.strerror}; check its disk"
                ) from error
            if count == 0:
                raise ModelUnusable(f"{self.path} is truncated: it ends at byte {offset}; {FETCH_AGAIN}")
            into = into[count:]
            offset += count

    def read_ahead(self, offset: int, num_bytes: int) -> None:
        """Let the kernel fetch this part; returns at once."""
        os.posix_fadvise(self._handle, offset, num_bytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """One tensor on its way from its file to its slot."""

    slot: str
    """First name of the slot."""
    path: Path
    begin: int
    bytes: int
    dtype: torch.dtype
    """In the file."""


def plan_transfers(layout: Layout, index: ComponentIndex) -> tuple[Transfer, ...]:
    """Which bytes of which file fill each slot, in the order in which they lie there.

    Raises:
        ModelUnusable: a tensor is missing, has another shape, or the module has no place for it.
            A tensor dropped in silence would be a wrong video without an error.
    """
    transfers: list[Transfer] = []
    known: set[str] = set()
    for slot in layout.slots:
        known.update(slot.names)
        name = next((name for name in slot.names if name in index.tensors), None)
        if name is None:
            raise ModelUnusable(f"{index.folder} lacks the tensor {slot.names[0]!r}; {FETCH_AGAIN}")
        entry = index.tensors[name]
        if entry.shape != slot.shape:
            raise ModelUnusable(
                f"{index.file_of[name]} holds {name!r} as {entry.shape} where its configuration wants "
                f"{slot.shape}; {FETCH_AGAIN}"
            )
        transfers.append(
            Transfer(
                slot=slot.names[0],
                path=index.file_of[name],
                begin=entry.begin,
                bytes=entry.bytes,
                dtype=TORCH_DTYPES[entry.dtype],
            )
        )
    strangers = [name for name in index.tensors if name not in known]
    if strangers:
        raise ModelUnusable(
            f"{index.file_of[strangers[0]]} holds {strangers[0]!r} and {len(strangers) - 1} more tensors "
            "that this model has no place for; convert the model for this build"
        )
    return tuple(sorted(transfers, key=lambda transfer: (str(transfer.path), transfer.begin)))


def fill(
    slots: Mapping[str, Tensor],
    transfers: Iterable[Transfer],
    index: ComponentIndex,
    backend: Backend,
    *,
    moved: Callable[[int], None],
) -> None:
    """Copy every transfer into its slot's flat view; the bytes have arrived on return.

    `moved(bytes)` is called after each chunk; what it raises ends the copy.

    Raises:
        ModelUnusable: a file changed or cannot be read.
    """
    with ExitStack() as stack:
        sources: dict[Path, FileSource] = {}
        for file in index.files:
            source = stack.enter_context(FileSource(file.path, expected_bytes=file.bytes))
            source.read_ahead(file.data_begin, file.data_end - file.data_begin)
            sources[file.path] = source
        backend.copy(_chunks(slots, transfers, sources), moved)


def _chunks(
    slots: Mapping[str, Tensor], transfers: Iterable[Transfer], sources: Mapping[Path, Source]
) -> Iterator[Chunk]:
    for transfer in transfers:
        flat = slots[transfer.slot]
        width = transfer.dtype.itemsize
        step = CHUNK_BYTES // width
        for first in range(0, transfer.bytes // width, step):
            count = min(step, transfer.bytes // width - first)
            yield Chunk(
                source=sources[transfer.path],
                offset=transfer.begin + first * width,
                bytes=count * width,
                dtype=transfer.dtype,
                target=flat[first : first + count],
            )
