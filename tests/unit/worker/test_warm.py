"""The warm tier, with a registrar that only writes down what it is asked."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.models.index import FileIndex, read_component_index
from engine.models.page_cache import cached_bytes
from engine.worker import mapped, warm
from engine.worker.warm import WarmTier

PIECE = 64 * 1024
PIECES = 4


class FakeRegistrar:
    def __init__(self) -> None:
        self.registered: dict[int, int] = {}
        self.calls: list[tuple[str, int]] = []
        self.refuses = False

    def register(self, address: int, num_bytes: int, *, read_only: bool = True) -> None:
        assert read_only
        assert address not in self.registered, "registered twice"
        if self.refuses:
            raise OSError("the driver would not register: CUDA_ERROR_OUT_OF_MEMORY")
        self.calls.append(("register", address))
        self.registered[address] = num_bytes

    def unregister(self, address: int) -> None:
        self.calls.append(("unregister", address))
        del self.registered[address]

    @property
    def bytes(self) -> int:
        return sum(self.registered.values())


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "PIECE_BYTES", PIECE)
    # What the file system says of its cache is the page cache's own test.
    monkeypatch.setattr(warm, "mostly_cached", lambda address, num_bytes: True)


@pytest.fixture
def registrar() -> FakeRegistrar:
    return FakeRegistrar()


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def tier_of(registrar: FakeRegistrar, log: list[str]) -> Callable[..., WarmTier]:
    ticks = itertools.count()

    def make(budget: int = 2**40, **more: object) -> WarmTier:
        return WarmTier(
            registrar,
            lambda registered: budget - registered,
            on_log=log.append,
            clock=lambda: float(next(ticks)),
            **more,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[str], FileIndex]:
    def make(name: str) -> FileIndex:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        # Four pieces, the last one shorter, header included.
        tensor = torch.arange(PIECE * PIECES - 2000, dtype=torch.int64).to(torch.uint8)
        save_file({"weight": tensor}, folder / "model.safetensors")
        (file,) = read_component_index(folder).files
        return file

    return make


def _never(num_bytes: int) -> bool:
    return False


def _use(
    tier: WarmTier, *files: FileIndex, prefers_reading: Callable[[int], bool] = _never
) -> dict[Path, list[tuple[int, bool]]]:
    """What a load of all bytes of the files would copy: lengths, and whether the device does it alone."""
    needed = [(file.path, 0, file.bytes) for file in files]
    with tier.in_use(files, needed) as in_use:
        return {
            path: [
                (length, there is not None)
                for length, there in found.spans(0, found.size, prefers_reading=prefers_reading)
            ]
            for path, found in in_use.items()
        }


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def _rest(tier: WarmTier) -> None:
    """Until the thread in the background has nothing left to do, and uses no file."""

    def at_rest() -> bool:
        with tier._changed:
            files = tier._files.values()
            return not tier._later and not any(mapped.users or mapped.registering for mapped in files)

    _until(at_rest)


def test_each_piece_is_registered_once_and_spans_cut_at_them(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, file = tier_of(), file_of("a")
    for _ in range(3):
        spans = _use(tier, file)[file.path]
        assert [length for length, _ in spans] == [PIECE] * (PIECES - 1) + [file.bytes - PIECE * (PIECES - 1)]
        assert all(registered for _, registered in spans)
    assert len(registrar.calls) == PIECES
    assert registrar.bytes == tier.registered_bytes([file.path]) == tier.registered_bytes() == file.bytes
    first = min(registrar.registered)
    assert sorted(registrar.registered) == [first + number * PIECE for number in range(PIECES)]
    assert tier.rate is not None


def test_a_range_within_a_file_touches_its_pieces_only_and_has_its_bytes(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, file = tier_of(), file_of("a")
    begin, num_bytes = PIECE - 10, PIECE + 30
    with tier.in_use([file], [(file.path, begin, num_bytes)]) as in_use:
        spans = list(in_use[file.path].spans(begin, num_bytes, prefers_reading=_never))
        tier.held = True  # nothing follows in the background
        assert [length for length, _ in spans] == [10, PIECE, 20]
        content = file.path.read_bytes()[begin : begin + num_bytes]
        assert b"".join(part.numpy().tobytes() for _, part in spans if part is not None) == content
        del spans
    assert len(registrar.calls) == 3


def test_the_budget_holds_and_what_was_used_longest_ago_goes(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    a, b, c = (file_of(name) for name in "abc")
    tier = tier_of(2 * a.bytes)
    _use(tier, a), _use(tier, b), _use(tier, a)
    _use(tier, c)
    assert tier.registered_bytes([b.path]) == 0
    assert tier.registered_bytes([a.path]) == a.bytes
    assert tier.registered_bytes([c.path]) == c.bytes
    assert registrar.bytes == 2 * a.bytes


def test_what_a_load_uses_is_never_given_up(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    a, b = file_of("a"), file_of("b")
    tier = tier_of(a.bytes + PIECE)
    _use(tier, a)
    with tier.in_use([a], [(a.path, 0, a.bytes)]):
        spans = _use(tier, b)[b.path]
        assert [registered for _, registered in spans] == [True, False, False, False]
        assert tier.drop([a.path]) == 0
        assert tier.registered_bytes([a.path]) == a.bytes
    _rest(tier)
    assert ("unregister", min(registrar.registered)) not in registrar.calls
    assert tier.drop([a.path, b.path]) == a.bytes + PIECE
    assert registrar.registered == {}


def test_what_a_person_keeps_outlives_what_was_used_later(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex]
) -> None:
    a, b, c = (file_of(name) for name in "abc")
    tier = tier_of(2 * a.bytes)
    tier.keep([a.path])
    assert tier.register(a.path)
    _use(tier, b), _use(tier, c)
    assert tier.registered_bytes([a.path]) == a.bytes
    assert tier.registered_bytes([b.path]) == 0
    tier.keep([a.path, c.path])
    assert not tier.register(b.path)  # only what is kept is left
    assert tier.registered_bytes([a.path, c.path]) == a.bytes + c.bytes


def test_a_refused_file_goes_unregistered_and_others_are_tried(
    tier_of: Callable[..., WarmTier],
    file_of: Callable[[str], FileIndex],
    registrar: FakeRegistrar,
    log: list[str],
) -> None:
    tier, a, b = tier_of(), file_of("a"), file_of("b")
    registrar.refuses = True
    assert all(not registered for _, registered in _use(tier, a)[a.path])
    _rest(tier)
    assert tier.refusal is not None and "CUDA_ERROR_OUT_OF_MEMORY" in tier.refusal
    assert len(log) == 1, "one line a file, not one a piece"
    assert str(a.path) in log[0] and "CUDA_ERROR_OUT_OF_MEMORY" in log[0] and "pinned buffers" in log[0]
    registrar.refuses = False
    assert all(not registered for _, registered in _use(tier, a)[a.path])
    assert all(registered for _, registered in _use(tier, b)[b.path])
    assert tier.refusal is None
    assert tier.register(a.path), "a person's wish tries again"


def test_a_load_reads_what_the_ring_has_room_for_and_registers_the_rest(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    file = file_of("a")
    room = iter([True, False, True, False])
    tier = tier_of()
    tier.held = False
    spans = _use(tier, file, prefers_reading=lambda num_bytes: next(room))[file.path]
    assert [registered for _, registered in spans] == [False, True, False, True]
    _until(lambda: tier.registered_bytes() == file.bytes)
    assert len(registrar.calls) == PIECES
    alone, other = tier_of(shares=False), file_of("b")
    spans = _use(alone, other, prefers_reading=lambda num_bytes: True)[other.path]
    assert all(registered for _, registered in spans)


def test_nothing_is_registered_in_the_background_while_a_load_runs(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, a, b = tier_of(), file_of("a"), file_of("b")
    with tier.in_use([b], []):
        _use(tier, a, prefers_reading=lambda num_bytes: True)
        time.sleep(0.05)
        assert registrar.calls == []
    _until(lambda: tier.registered_bytes() == a.bytes + b.bytes)


def test_pages_go_back_when_the_host_needs_them_kept_ones_last(
    registrar: FakeRegistrar, file_of: Callable[[str], FileIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "RELIEF_S", 0.01)
    monkeypatch.setattr(warm, "ROOM_AGE_S", 0.0)
    budget = 2**40
    tier = WarmTier(registrar, lambda registered: budget - registered, on_log=print)
    a, b = file_of("a"), file_of("b")
    tier.keep([a.path])
    assert tier.register(a.path) and tier.register(b.path)
    budget = a.bytes + PIECE
    _until(lambda: tier.registered_bytes([b.path]) <= PIECE)
    assert tier.registered_bytes([a.path]) == a.bytes
    with tier.in_use([a], []):
        budget = PIECE
        _until(lambda: tier.registered_bytes([b.path]) == 0)
        time.sleep(0.05)
        assert tier.registered_bytes([a.path]) == a.bytes, "a load uses it"
    _until(lambda: tier.registered_bytes() <= PIECE)
    assert registrar.bytes == tier.registered_bytes()


def test_looking_never_waits_for_the_driver(
    registrar: FakeRegistrar, tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex]
) -> None:
    tier, a, b = tier_of(), file_of("a"), file_of("b")
    _use(tier, a)
    asked, go = threading.Event(), threading.Event()
    unregister = registrar.unregister

    def slow(address: int) -> None:
        asked.set()
        assert go.wait(5)
        unregister(address)

    registrar.unregister = slow  # type: ignore[method-assign]
    dropping = threading.Thread(target=lambda: tier.drop([a.path]))
    dropping.start()
    assert asked.wait(5)
    began = time.monotonic()
    assert tier.registered_bytes() == 0 and tier.registered_bytes([b.path]) == 0
    with tier.in_use([b], []):
        pass
    assert time.monotonic() - began < 1
    go.set()
    dropping.join()
    _rest(tier)


def test_a_file_that_was_replaced_is_mapped_anew(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, file = tier_of(), file_of("a")
    _use(tier, file)
    before = set(registrar.registered)
    os.replace(file_of("b").path, file.path)
    assert all(registered for _, registered in _use(tier, file)[file.path])
    assert {address for call, address in registrar.calls if call == "unregister"} == before
    assert len(registrar.registered) == PIECES
    with tier.in_use([file], []):
        os.utime(file.path, ns=(1, 1))
        with tier.in_use([file], []) as in_use:  # the old one is in use: this load goes without
            assert in_use == {}
    _rest(tier)
    assert tier.drop([file.path]) == file.bytes


def test_a_held_tier_registers_nothing_until_released_and_then_everything(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, file = tier_of(), file_of("a")
    tier.held = True
    assert all(not registered for _, registered in _use(tier, file)[file.path])
    time.sleep(0.05)
    assert registrar.calls == []
    tier.release_hold()
    _until(lambda: tier.registered_bytes([file.path]) == file.bytes)
    assert len(registrar.calls) == PIECES


def test_what_follows_in_the_background_gives_nothing_up(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    a, b = file_of("a"), file_of("b")
    tier = tier_of(a.bytes + PIECE)
    _use(tier, a)
    tier.held = True
    _use(tier, b)
    tier.release_hold()
    _until(lambda: tier.registered_bytes([b.path]) == PIECE)
    _rest(tier)
    assert tier.registered_bytes([a.path]) == a.bytes


def test_where_registering_is_far_slower_than_the_ring_it_comes_after_the_load(
    tier_of: Callable[..., WarmTier],
    file_of: Callable[[str], FileIndex],
    registrar: FakeRegistrar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tier = tier_of(ring_rate=lambda: 1e18)
    a, b = file_of("a"), file_of("b")
    first, *_ = _use(tier, a)[a.path]  # nothing is known before the first
    assert first[1]
    assert not any(registered for _, registered in _use(tier, b)[b.path])
    _until(lambda: tier.registered_bytes() == a.bytes + b.bytes)


def test_cold_pieces_are_not_registered_under_a_load(
    tier_of: Callable[..., WarmTier],
    file_of: Callable[[str], FileIndex],
    registrar: FakeRegistrar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tier, file = tier_of(), file_of("a")
    cached = False
    monkeypatch.setattr(warm, "mostly_cached", lambda address, num_bytes: cached)
    assert not any(registered for _, registered in _use(tier, file)[file.path])
    _rest(tier)
    assert registrar.calls == []
    cached = True
    assert all(registered for _, registered in _use(tier, file)[file.path])


def test_what_was_cached_for_a_load_without_room_is_asked_again_by_the_next(
    tier_of: Callable[..., WarmTier],
    file_of: Callable[[str], FileIndex],
    registrar: FakeRegistrar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = file_of("a"), file_of("b")
    tier = tier_of(a.bytes)
    cached = True
    monkeypatch.setattr(warm, "mostly_cached", lambda address, num_bytes: cached)
    _use(tier, a)
    with tier.in_use([a], [(a.path, 0, a.bytes)]):
        assert not any(registered for _, registered in _use(tier, b)[b.path])
    cached = False
    tier.drop([a.path])
    before = len(registrar.calls)
    assert not any(registered for _, registered in _use(tier, b)[b.path])
    assert registrar.calls[before:] == [], "its pages are gone: the driver would read the disk"


def test_a_file_cut_short_under_its_mapping_is_sliced_and_never_read(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, file = tier_of(), file_of("a")
    with tier.in_use([file], [(file.path, 0, file.bytes)]) as in_use:
        for piece in in_use[file.path].pieces:
            assert piece.populated is not None and piece.populated.result()
        os.truncate(file.path, 100)
        # A touch of what is gone would end this process by SIGBUS.
        spans = list(in_use[file.path].spans(0, file.bytes, prefers_reading=_never))
        assert sum(length for length, _ in spans) == file.bytes
        assert all(part is not None and part.numel() == length for length, part in spans)
        del spans
    assert tier.registered_bytes([file.path]) == file.bytes
    with tier.in_use([file], []) as in_use:  # another length: the old mapping goes
        assert in_use[file.path].size == 100
    _rest(tier)
    assert cached_bytes([file.path]) is not None


def test_what_cannot_be_mapped_is_left_out(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex]
) -> None:
    tier, a, b = tier_of(), file_of("a"), file_of("b")
    b.path.unlink()
    with tier.in_use([a, b], [(b.path, 0, 10), (a.path, 0, 10)]) as in_use:
        assert set(in_use) == {a.path}
    assert not tier.register(b.path)


def test_loads_of_several_threads_register_each_piece_once(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], registrar: FakeRegistrar
) -> None:
    tier, file = tier_of(), file_of("a")
    failed: list[BaseException] = []

    def use() -> None:
        try:
            _use(tier, file)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _rest(tier)
    assert failed == []
    assert len(registrar.calls) == PIECES


def test_a_file_that_models_share_by_a_link_is_registered_once(
    tier_of: Callable[..., WarmTier],
    file_of: Callable[[str], FileIndex],
    registrar: FakeRegistrar,
    tmp_path: Path,
) -> None:
    tier, a = tier_of(), file_of("a")
    link = tmp_path / "linked.safetensors"
    os.link(a.path, link)
    b = replace(a, path=link)
    _use(tier, a)
    assert all(registered for _, registered in _use(tier, b)[b.path])
    assert len(registrar.calls) == PIECES
    assert tier.registered_bytes([a.path]) == tier.registered_bytes([b.path]) == tier.registered_bytes()
    assert tier.registered_bytes([a.path, b.path]) == a.bytes
    tier.keep([b.path])
    assert tier.drop([a.path, b.path]) == a.bytes
    assert registrar.registered == {} and tier.registered_bytes([b.path]) == 0
    # A name that leads to another file by now takes nothing from the other.
    _use(tier, a), _use(tier, b)
    os.replace(file_of("c").path, link)
    _use(tier, b)
    assert tier.registered_bytes([b.path]) == b.bytes
    _use(tier, a)
    assert tier.registered_bytes() == a.bytes + b.bytes


def test_a_file_system_that_hangs_keeps_nobody_from_looking(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    tier, a, b = tier_of(), file_of("a"), file_of("b")
    _use(tier, a)
    asked, go = threading.Event(), threading.Event()
    real = os.stat

    def hang(path: Any, **more: Any) -> os.stat_result:
        if path == b.path:
            asked.set()
            assert go.wait(5)
        return real(path, **more)

    monkeypatch.setattr(warm.os, "stat", hang)
    loading = threading.Thread(target=lambda: _use(tier, b))
    loading.start()
    assert asked.wait(5)
    began = time.monotonic()
    assert tier.registered_bytes() == a.bytes
    assert time.monotonic() - began < 1
    go.set()
    loading.join()


def test_the_registrar_outlives_a_host_that_cannot_be_read(
    registrar: FakeRegistrar, file_of: Callable[[str], FileIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "RELIEF_S", 0.01)
    monkeypatch.setattr(warm, "ROOM_AGE_S", 0.0)
    broken, log, budget = threading.Event(), list[str](), [2**40]

    def room(registered: int) -> int:
        if broken.is_set():
            raise OSError("meminfo is gone")
        return budget[0] - registered

    tier = WarmTier(registrar, room, on_log=log.append)
    a = file_of("a")
    assert tier.register(a.path)
    broken.set()
    _until(lambda: bool(log))
    assert "meminfo is gone" in log[0]
    budget[0] = 0
    broken.clear()
    _until(lambda: registrar.registered == {})


def test_files_that_live_in_memory_are_known_for_shared_memory(
    tier_of: Callable[..., WarmTier], file_of: Callable[[str], FileIndex]
) -> None:
    tier = tier_of()
    assert tier.register(file_of("a").path) and not tier.maps_shared()
    handle = os.memfd_create("weights")  # as in /dev/shm
    try:
        os.truncate(handle, PIECE)
        tier.register(Path(f"/proc/self/fd/{handle}"))
        assert tier.maps_shared()
    finally:
        os.close(handle)
