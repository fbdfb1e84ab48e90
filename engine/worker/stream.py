"""Which bytes of which file fill which slot of an arena, and the files, open for one load.

The files are read where they lie: no copy of a file is ever made in host memory. The host reads
them by `preadv`, since a file that is truncated while mapped kills a process that touches the
mapping, where a short read is one sentence; the device copies from registered pages by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType

import torch
from torch import Tensor

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.index import FETCH_AGAIN, ComponentIndex, FileIndex, check_unchanged
from engine.worker.arena import Layout
from engine.worker.backend import Part, Source
from engine.worker.mapped import Mapped
from engine.worker.warm import WarmTier

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
                size = os.fstat(self._handle).st_size
                raise ModelUnusable(f"{self.path} is truncated: it ends at byte {size}; {FETCH_AGAIN}")
            into = into[count:]
            offset += count

    def spans(
        self, offset: int, num_bytes: int, *, prefers_reading: Callable[[int], bool]
    ) -> Iterator[tuple[int, Tensor | None]]:
        if self._mapped is None:
            yield num_bytes, None
        else:
            yield from self._mapped.spans(offset, num_bytes, prefers_reading=prefers_reading)

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
    """A run of bytes on its way from its file to the arena: one tensor, or several that lie alike in both."""

    segment: int
    path: Path
    begin: int
    bytes: int
    """In the file."""
    target: int
    """Where they begin in the arena."""
    dtype: torch.dtype
    kept: torch.dtype
    """In the file and in the arena; both uint8 where nothing is converted."""


def order_of(index: ComponentIndex) -> dict[str, int]:
    """The rank of each tensor's name as the files have them."""
    names = sorted(index.tensors, key=lambda name: (str(index.file_of[name]), index.tensors[name].begin))
    return {name: rank for rank, name in enumerate(names)}


def plan_transfers(layout: Layout, index: ComponentIndex) -> tuple[Transfer, ...]:
    """Which bytes of which file fill the arena: by segment, and in each in the files' order.

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
        dtype = TORCH_DTYPES[entry.dtype]
        if dtype.is_floating_point != slot.dtype.is_floating_point:
            # Converted they would be other numbers: an int8 weight means nothing without its scales.
            raise ModelUnusable(
                f"{index.file_of[name]} holds {name!r} as {entry.dtype} where its configuration wants "
                f"{str(slot.dtype).removeprefix('torch.')}; {FETCH_AGAIN}"
            )
        same = dtype == slot.dtype
        transfers.append(
            Transfer(
                segment=slot.segment,
                path=index.file_of[name],
                begin=entry.begin,
                bytes=entry.bytes,
                target=slot.begin,
                dtype=torch.uint8 if same else dtype,
                kept=torch.uint8 if same else slot.dtype,
            )
        )
    strangers = [name for name in index.tensors if name not in known]
    if strangers:
        raise ModelUnusable(
            f"{index.file_of[strangers[0]]} holds {strangers[0]!r} and {len(strangers) - 1} more tensors "
            "that this model has no place for; convert the model for this build"
        )
    transfers.sort(key=lambda item: (item.segment, str(item.path), item.begin))
    return tuple(_runs(transfers))


def _runs(transfers: Iterable[Transfer]) -> Iterator[Transfer]:
    """Join what follows each other without a gap on both sides: few long copies instead of many short."""
    run: Transfer | None = None
    for item in transfers:
        if (
            run is not None
            and (run.segment, run.path) == (item.segment, item.path)
            and (run.begin + run.bytes, run.target + run.bytes) == (item.begin, item.target)
            and run.dtype == item.dtype == torch.uint8
        ):
            run = replace(run, bytes=run.bytes + item.bytes)
            continue
        if run is not None:
            yield run
        run = item
    if run is not None:
        yield run


@contextmanager
def open_sources(
    files: Sequence[FileIndex], transfers: Iterable[Transfer], warm: WarmTier | None
) -> Iterator[Mapping[Path, Source]]:
    """The files of one component, open until the block ends, for `transfers` in their order.

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


def parts_of(transfers: Iterable[Transfer], memory: Tensor, sources: Mapping[Path, Source]) -> Iterator[Part]:
    """What the backend copies into an arena's bytes."""
    for transfer in transfers:
        num_bytes = transfer.bytes // transfer.dtype.itemsize * transfer.kept.itemsize
        yield Part(
            source=sources[transfer.path],
            offset=transfer.begin,
            bytes=transfer.bytes,
            dtype=transfer.dtype,
            target=memory[transfer.target : transfer.target + num_bytes].view(transfer.kept),
        )
