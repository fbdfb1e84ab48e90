"""Which bytes of which file fill which slot of an arena, and the files, open for one load.

The files are read where they lie: no copy of a file is ever made in host memory. The host reads
them by `preadv`, since a file that is truncated while mapped kills a process that touches the
mapping, where a short read is one sentence; the device copies from registered pages by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType

import torch
from torch import Tensor

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.index import FETCH_AGAIN, ComponentIndex, FileIndex, check_unchanged
from engine.worker.arena import Layout
from engine.worker.backend import Backend, Part, Source
from engine.worker.warm import Mapped, WarmTier

TORCH_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {spelling: getattr(torch, dtype.name) for spelling, dtype in DTYPES.items()}
)
"""The header's spelling to torch's."""


class FileSource:
    """A weight file, read through the page cache or copied from its registered pages.

    Raises:
        ModelUnusable: it is gone, cannot be opened, or has not the length that its index saw.
    """

    def __init__(self, path: Path, *, expected_bytes: int, mapped: Mapped | None = None) -> None:
        self.path = path
        self._mapped = mapped
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

    def spans(self, offset: int, num_bytes: int) -> Iterator[tuple[int, Tensor | None]]:
        if self._mapped is None:
            yield num_bytes, None
        else:
            yield from self._mapped.spans(offset, num_bytes)

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
    segment: int
    path: Path
    begin: int
    bytes: int
    dtype: torch.dtype
    """In the file."""


def plan_transfers(layout: Layout, index: ComponentIndex) -> tuple[Transfer, ...]:
    """Which bytes of which file fill each slot: by segment, and in each in the files' order.

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
        if slot.dtype.is_floating_point != DTYPES[entry.dtype].floating:
            # Converted they would be other numbers: an int8 weight means nothing without its scales.
            raise ModelUnusable(
                f"{index.file_of[name]} holds {name!r} as {entry.dtype} where its configuration wants "
                f"{str(slot.dtype).removeprefix('torch.')}; {FETCH_AGAIN}"
            )
        transfers.append(
            Transfer(
                slot=slot.names[0],
                segment=slot.segment,
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
    return tuple(sorted(transfers, key=lambda item: (item.segment, str(item.path), item.begin)))


@contextmanager
def open_sources(
    files: Sequence[FileIndex], transfers: Iterable[Transfer], warm: WarmTier | None
) -> Iterator[Mapping[Path, Source]]:
    """The files of one component, open until the block ends, their pages being registered in the
    order in which `transfers` need them.

    Raises:
        ModelUnusable: a file is gone or is not the one that was indexed.
    """
    with ExitStack() as stack:
        for file in files:
            check_unchanged(file)
        mapped: Mapping[Path, Mapped] = {}
        if warm is not None:
            needed = [(item.path, item.begin, item.bytes) for item in transfers]
            mapped = stack.enter_context(warm.in_use(files, needed))
        yield {
            file.path: stack.enter_context(
                FileSource(file.path, expected_bytes=file.bytes, mapped=mapped.get(file.path))
            )
            for file in files
        }


def parts_of(
    transfers: Iterable[Transfer], slots: Mapping[str, Tensor], sources: Mapping[Path, Source]
) -> Iterator[Part]:
    """What the backend copies."""
    for transfer in transfers:
        yield Part(
            source=sources[transfer.path],
            offset=transfer.begin,
            bytes=transfer.bytes,
            dtype=transfer.dtype,
            target=slots[transfer.slot],
        )


def fill(
    slots: Mapping[str, Tensor],
    transfers: Iterable[Transfer],
    index: ComponentIndex,
    backend: Backend,
    *,
    moved: Callable[[int], None],
) -> None:
    """Copy every transfer into its slot's flat view; the bytes have arrived on return.

    `moved(bytes)` is called after each copy that was queued; what it raises ends them.

    Raises:
        ModelUnusable: a file changed or cannot be read.
    """
    with open_sources(index.files, (), None) as sources:
        backend.copy(parts_of(transfers, slots, sources), moved)
        backend.mark_copies().wait()
