"""The page cache, as the kernel tells of it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
import torch

from engine.models.page_cache import PAGE, cached_bytes, drop, main, mostly_cached

NUM_BYTES = 64 * PAGE + 100


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of which no page is cached."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(NUM_BYTES))
    with path.open("rb") as handle:
        os.fdatasync(handle)
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_bytes([path]):
        pytest.skip("this file system keeps its pages whatever it is told")
    return path


def test_cached_bytes_grow_as_a_file_is_read_and_fall_when_it_is_dropped(file: Path) -> None:
    assert cached_bytes([file]) == 0
    with file.open("rb") as handle:
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        handle.read(1)
    first = cached_bytes([file])
    assert first is not None and PAGE <= first < NUM_BYTES
    file.read_bytes()
    assert cached_bytes([file]) == NUM_BYTES
    assert cached_bytes([file, file]) == 2 * NUM_BYTES
    drop([file])
    assert cached_bytes([file]) == 0


def test_a_file_that_is_gone_is_unknown_and_not_zero(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = file.with_name("gone")
    assert cached_bytes([gone]) is None
    assert cached_bytes([file, gone]) is None
    drop([gone])
    assert main([str(gone)]) == 0
    assert capsys.readouterr().out == f'{{"{gone}": null}}\n'


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_mostly_cached_asks_for_a_few_pages_of_a_mapping(file: Path) -> None:
    with file.open("rb") as handle:
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        with mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            view = torch.frombuffer(mapped, dtype=torch.uint8)
            address = view.data_ptr()
            assert not mostly_cached(address, NUM_BYTES)
            os.pread(handle.fileno(), NUM_BYTES // 2, 0)
            assert not mostly_cached(address, NUM_BYTES)
            os.pread(handle.fileno(), NUM_BYTES, 0)
            assert mostly_cached(address, NUM_BYTES)
            assert not mostly_cached(0, PAGE)  # where nothing is mapped
            del view
