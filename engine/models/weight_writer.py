"""Writes safetensors files as a stream: header first, then the tensors in parts, from several threads.

No file is ever whole in memory: every tensor gives its bytes a part at a time, and where each
part goes is known beforehand. Imports no torch.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.models.dtypes import DTYPES

PART_BYTES = 32 * 2**20
PROGRESS_S = 5.0


class Content(Protocol):
    """The numbers of one tensor."""

    def parts(self, first: int, count: int) -> Iterable[memoryview]:
        """The bytes of `count` elements from element `first` on; asked from several threads at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPlan:
    """One tensor that will be written."""

    name: str
    dtype: str
    """As the header spells it, such as `BF16`."""
    shape: tuple[int, ...]
    content: Content

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return DTYPES[self.dtype].bytes

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePlan:
    """One file that will be written."""

    name: str
    """Relative to the component's folder."""
    tensors: tuple[TensorPlan, ...]
    """In the order in which they will lie there."""
    header: bytes
    """With the length before it."""

    @property
    def bytes(self) -> int:
        return len(self.header) + sum(tensor.bytes for tensor in self.tensors)


def plan_file(name: str, tensors: Iterable[TensorPlan], *, boundary: int = 8) -> FilePlan:
    """A file of `tensors` in their order, the first on a multiple of `boundary` bytes."""
    ordered = tuple(tensors)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in ordered:
        begin, end = end, end + tensor.bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # Padded with spaces, as the library pads it for a boundary of 8.
    text += b" " * (-(8 + len(text)) % boundary)
    return FilePlan(name=name, tensors=ordered, header=len(text).to_bytes(8, "little") + text)


def library_order(tensors: Iterable[TensorPlan]) -> list[TensorPlan]:
    """As the safetensors library lays out one file: the widest dtype first, then by name."""
    return sorted(tensors, key=lambda tensor: (-tensor.width, tensor.name))


def plan_shards(stem: str, tensors: Sequence[TensorPlan], limit: int) -> tuple[FilePlan, ...]:
    """Files of at most `limit` bytes of tensors, filled in the order given as save_pretrained fills them.

    One file named after `stem` alone where that is enough.
    """
    shards: list[list[TensorPlan]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    if len(shards) == 1:
        return (plan_file(f"{stem}.safetensors", library_order(tensors)),)
    return tuple(
        plan_file(f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors", shard)
        for number, shard in enumerate(shards, 1)
    )


def shard_table(files: Sequence[FilePlan]) -> bytes:
    """The `*.safetensors.index.json` of `files`."""
    table = {
        "metadata": {"total_size": sum(tensor.bytes for file in files for tensor in file.tensors)},
        "weight_map": {tensor.name: file.name for file in files for tensor in file.tensors},
    }
    return (json.dumps(table, indent=2, sort_keys=True) + "\n").encode()


def write_files(
    files: Sequence[tuple[Path, FilePlan]],
    *,
    writers: int,
    on_progress: Callable[[int], None] = lambda num_bytes: None,
    progress_s: float = PROGRESS_S,
) -> None:
    """Write each file into its folder, under another name until it is whole. Synced by nobody.

    `on_progress(bytes so far)` is called every `progress_s`, on the thread that called.

    Raises:
        OSError: the disk is full or fails; what was written stays, under the other names.
    """
    with ExitStack() as stack:
        writing = _Writing([stack.enter_context(_OpenFile(folder, plan)) for folder, plan in files])
        threads = stack.enter_context(ThreadPoolExecutor(writers))
        pending = {threads.submit(writing.run) for _ in range(writers)}
        try:
            while pending:
                done, pending = wait(pending, timeout=progress_s, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if pending:
                    on_progress(writing.written_bytes)
        finally:
            # The stack waits for the writers before it closes the files under them.
            writing.stop()


class _OpenFile:
    """A file being written."""

    def __init__(self, folder: Path, plan: FilePlan) -> None:
        self.path = folder / plan.name
        self.left_bytes = plan.bytes - len(plan.header)
        self.writers = 0
        self.parts = _parts(plan)
        self.handle = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(self.handle, plan.bytes)
            _write_all(self.handle, plan.header, 0)
        except BaseException:
            os.close(self.handle)
            raise

    @property
    def _part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    def appear(self) -> None:
        """Take its own name: it is whole."""
        self._part.rename(self.path)

    def __enter__(self) -> _OpenFile:
        return self

    def __exit__(self, *raised: object) -> None:
        os.close(self.handle)


class _Writing:
    """What is left to write; the writers share it, and its lock guards the files' fields."""

    def __init__(self, files: list[_OpenFile]) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stopped = False
        self.written_bytes = 0

    def run(self) -> None:
        """Write parts until none is left: one writer's work."""
        while (taken := self._take()) is not None:
            file, part = taken
            try:
                offset = part.offset
                for piece in part.tensor.content.parts(part.first, part.count):
                    offset += _write_all(file.handle, piece, offset)
            except BaseException:
                self.stop()
                raise
            self._wrote(file, part.count * part.tensor.width)

    def stop(self) -> None:
        """Let the writers end after the parts that they have."""
        self._stopped = True

    def _take(self) -> tuple[_OpenFile, _Part] | None:
        with self._lock:
            if self._stopped:
                return None
            # A file system lets one writer at a time into a file, so they spread over the files.
            for file in sorted(self._files, key=lambda file: (file.writers, -file.left_bytes)):
                part = next(file.parts, None)
                if part is not None:
                    file.writers += 1
                    return file, part
            return None

    def _wrote(self, file: _OpenFile, num_bytes: int) -> None:
        with self._lock:
            file.writers -= 1
            file.left_bytes -= num_bytes
            self.written_bytes += num_bytes
            whole = file.left_bytes == 0
        if whole:
            file.appear()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Elements of a tensor, and where in the file they go."""

    tensor: TensorPlan
    first: int
    count: int
    offset: int


def _parts(plan: FilePlan) -> Iterator[_Part]:
    begin = len(plan.header)
    for tensor in plan.tensors:
        step = PART_BYTES // tensor.width
        for first in range(0, tensor.elements, step):
            count = min(step, tensor.elements - first)
            yield _Part(tensor=tensor, first=first, count=count, offset=begin + first * tensor.width)
        begin += tensor.bytes


def _write_all(handle: int, content: bytes | memoryview, offset: int) -> int:
    left = memoryview(content)
    while left:
        written = os.pwrite(handle, left, offset)
        left = left[written:]
        offset += written
    return len(content)
