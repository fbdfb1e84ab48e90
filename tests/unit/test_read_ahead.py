"""The next job's files, read while the running one computes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from engine.daemon import read_ahead
from engine.daemon.read_ahead import ReadAhead
from engine.models import page_cache
from engine.models.card import inferred_card
from engine.models.model import Model, ModelComponent
from engine.telemetry.host import HostMemory, HostProbe

SIZE = 4 * 2**20


class FakeHost(HostProbe):
    def __init__(self, available_bytes: int) -> None:
        super().__init__()
        self.available_bytes = available_bytes

    def read(self) -> HostMemory:
        return HostMemory(total_bytes=2**40, available_bytes=self.available_bytes, limited_by_cgroup=False)


@pytest.fixture
def model_of(tmp_path: Path) -> Callable[[str], Model]:
    def make(name: str) -> Model:
        components = []
        for part in ("text", "dit"):
            path = tmp_path / f"{name}-{part}"
            path.write_bytes(os.urandom(SIZE))
            components.append(
                ModelComponent(
                    name=part, folder=tmp_path, bytes=SIZE, identity=part, dtype="bfloat16", files=(path,)
                )
            )
        card = inferred_card(name, "t2v")
        return Model(name=name, kind="t2v", path=tmp_path, card=card, components=tuple(components))

    return make


class FakeCache:
    """A page cache that takes what it is told to."""

    def __init__(self) -> None:
        self.declines = False
        self.knows = True
        self.files: set[str] = set()

    def cached_bytes(self, paths: Iterable[Path]) -> int | None:
        return sum(SIZE for path in paths if path.name in self.files) if self.knows else None


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> FakeCache:
    found = FakeCache()
    monkeypatch.setattr(page_cache, "cached_bytes", found.cached_bytes)
    monkeypatch.setattr(read_ahead, "LOOK_S", 0.001)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, cache: FakeCache) -> list[str]:
    """Names of the files that the kernel was asked to read; none of them is in the cache before."""
    found: list[str] = []

    def advise(handle: int, begin: int, num_bytes: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        found.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        if not cache.declines:
            cache.files.add(found[-1])

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return found


async def _until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def test_it_reads_each_file_once_in_a_jobs_order_and_says_so(
    model_of: Callable[[str], Model], asked: list[str]
) -> None:
    said: list[str] = []
    ahead = ReadAhead(on_read=said.append, host=FakeHost(2**40))
    model = model_of("a")
    for _ in range(3):
        ahead.want(model)
    await _until(lambda: len(said) == 2)
    assert asked == ["a-text", "a-dit"]
    assert said[0].startswith("a/text, 4.0 MiB read for the next job")


async def test_what_the_kernel_declined_or_nobody_can_see_is_not_called_read(
    model_of: Callable[[str], Model], asked: list[str], cache: FakeCache
) -> None:
    said: list[str] = []
    ahead = ReadAhead(on_read=said.append, host=FakeHost(2**40))
    cache.declines = True
    ahead.want(model_of("a"))
    await _until(lambda: len(said) == 2)
    assert said[0].startswith("a/text, 4.0 MiB asked for, for the next job, and 0 B of it in memory after")
    cache.knows = False
    ahead.want(model_of("b"))
    await _until(lambda: len(said) == 4)
    assert "how much has come cannot be known" in said[2]


async def test_the_same_model_is_read_again_once_nothing_was_wanted_between(
    model_of: Callable[[str], Model], asked: list[str], cache: FakeCache
) -> None:
    said: list[str] = []
    ahead = ReadAhead(on_read=said.append, host=FakeHost(2**40))
    model = model_of("a")
    ahead.want(model)
    await _until(lambda: len(said) == 2)
    cache.files.clear()
    ahead.want(None)
    ahead.want(model)
    await _until(lambda: len(said) == 4)
    assert asked == ["a-text", "a-dit"] * 2


async def test_what_is_on_the_device_or_in_the_cache_is_left_alone(
    model_of: Callable[[str], Model], asked: list[str], cache: FakeCache
) -> None:
    said: list[str] = []
    ahead = ReadAhead(on_read=said.append, host=FakeHost(2**40))
    ahead.want(model_of("a"), present=["text"])
    await _until(lambda: len(said) == 1)
    assert asked == ["a-dit"]
    cache.files |= {"b-text", "b-dit"}
    ahead.want(model_of("b"))
    ahead.want(None)
    ahead.want(model_of("c"))
    await _until(lambda: len(said) == 3)
    assert not any(name.startswith("b") for name in asked)


async def test_it_reads_nothing_that_would_crowd_out_others(
    model_of: Callable[[str], Model], asked: list[str]
) -> None:
    said: list[str] = []
    host = FakeHost(SIZE)
    ahead = ReadAhead(on_read=said.append, host=host)
    ahead.want(model_of("a"))
    await asyncio.sleep(0.05)
    assert asked == []
    host.available_bytes = 2**40
    ahead.want(model_of("b"))
    await _until(lambda: len(said) == 2)


async def test_another_wish_ends_the_one_under_way(
    model_of: Callable[[str], Model], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "STEP_BYTES", SIZE // 8)
    said: list[str] = []
    ahead = ReadAhead(on_read=said.append, host=FakeHost(2**40))
    a, b = model_of("a"), model_of("b")
    advise = os.posix_fadvise

    def interrupt(handle: int, begin: int, num_bytes: int, advice: int) -> None:
        advise(handle, begin, num_bytes, advice)
        if len(asked) == 3:
            ahead.want(b)

    monkeypatch.setattr(os, "posix_fadvise", interrupt)
    ahead.want(a)
    await _until(lambda: len(said) == 2)
    assert asked[:3] == ["a-text"] * 3 and asked[3] == "b-text"
    assert "a-dit" not in asked


async def test_a_file_that_is_gone_is_nobodys_fault(
    model_of: Callable[[str], Model], asked: list[str]
) -> None:
    said: list[str] = []
    ahead = ReadAhead(on_read=said.append, host=FakeHost(2**40))
    model = model_of("a")
    model.components[0].files[0].unlink()
    ahead.want(model)
    await _until(lambda: len(said) == 1)
    assert asked == ["a-dit"]
