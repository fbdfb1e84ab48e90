"""One weight file, whatever its format: how it is opened and read, and what its index says.

A file is looked at through one open handle, so that the length, the inode and the header in an
index are those of one file even while another takes its name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ModelUnusable

HEADER_LIMIT = 100_000_000
"""Bytes of a header, a pickle or a table of contents; the safetensors library refuses longer
headers too."""

SAMPLES = 16
SAMPLE_BYTES = 4096

FETCH_AGAIN = "fetch or convert the model again"


class UnsupportedFormat(ModelUnusable):
    """A file that is whole by all that its headers tell, in a format that this build does not read."""

    def __init__(self, sentence: str, *, title: str) -> None:
        """`title` names the format in a few words."""
        super().__init__(sentence)
        self.title = title


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """One tensor of a file."""

    dtype: str
    """As a safetensors header spells it, such as `BF16`."""
    shape: tuple[int, ...]
    begin: int
    """Absolute offset in the file, not counted from the end of the header."""
    end: int

    @property
    def bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of a file, in bytes."""

    begin: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FileIndex:
    """One weight file whose header has been read and found right.

    Its tensors may share bytes and have gaps between them.
    """

    path: Path
    tensors: Mapping[str, TensorEntry]
    """By name, in the order in which they lie in the file."""
    metadata: Mapping[str, str]
    bytes: int
    """Length of the file."""
    inode: int
    """When the header was read, as are the length and the time of change."""
    mtime_ns: int
    header: tuple[Span, ...]
    """What describes the tensors: a header, or a pickle and a table of contents."""
    header_sha256: str = field(repr=False)
    """Of the bytes in `header`, one after another."""

    @property
    def data_begin(self) -> int:
        """Absolute offset of the first tensor's first byte."""
        return min(entry.begin for entry in self.tensors.values())

    @property
    def data_end(self) -> int:
        """Absolute offset past the last tensor's last byte."""
        return max(entry.end for entry in self.tensors.values())

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors, tied ones once: what they take when resident, without alignment."""
        return sum(end - begin for begin, end in {(item.begin, item.end) for item in self.tensors.values()})


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """An open weight file, as it was when it was opened."""

    path: Path
    handle: int
    num_bytes: int
    inode: int
    mtime_ns: int

    def read(self, begin: int, length: int) -> bytes:
        """Exactly that part of the file.

        Raises:
            ModelUnusable: the file ends before, or cannot be read.
        """
        parts: list[bytes] = []
        end = begin + length
        while begin < end:
            try:
                part = os.pread(self.handle, end - begin, begin)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if not part:
                raise ModelUnusable(f"{self.path} is truncated: it ends at byte {begin}; {FETCH_AGAIN}")
            parts.append(part)
            begin += len(part)
        return b"".join(parts)

    def sha256(self, spans: Iterable[Span]) -> str:
        """Of the bytes in `spans`, one after another.

        Raises:
            ModelUnusable: as `read`.
        """
        digest = hashlib.sha256()
        for span in spans:
            digest.update(self.read(span.begin, span.end - span.begin))
        return digest.hexdigest()


@contextmanager
def open_weight_file(path: Path) -> Iterator[WeightFile]:
    """The file at `path`, open for reading; closed at the end.

    Raises:
        ModelUnusable: it is missing, cannot be opened, or is no regular file.
    """
    try:
        # A FIFO or a device under a weight file's name must not block whoever scans the folder.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise ModelUnusable(f"{str(path)!r} is no path of a weight file; {FETCH_AGAIN}") from error
    try:
        try:
            info = os.fstat(handle)
        except OSError as error:
            raise unreadable(path, error) from error
        if not stat.S_ISREG(info.st_mode):
            raise ModelUnusable(f"{path} is not a regular file; {FETCH_AGAIN}")
        yield WeightFile(
            path=path, handle=handle, num_bytes=info.st_size, inode=info.st_ino, mtime_ns=info.st_mtime_ns
        )
    finally:
        os.close(handle)


def samples_of(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """Bytes here and there between `begin` and `end`, which tell weights apart whose headers are alike.

    Raises:
        ModelUnusable: the file cannot be read.
    """
    stride = max(1, (end - begin) // SAMPLES)
    try:
        with open(path, "rb", buffering=0) as handle:
            for sample in range(begin, begin + SAMPLES * stride, stride):
                yield os.pread(handle.fileno(), max(0, min(SAMPLE_BYTES, end - sample)), sample)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ModelUnusable:
    """The sentence for a file that could not be opened or read."""
    if isinstance(error, FileNotFoundError):
        return ModelUnusable(f"{path} is missing; {FETCH_AGAIN}")
    return ModelUnusable(f"{path} cannot be read: {error.strerror}; check its permissions and its disk")
