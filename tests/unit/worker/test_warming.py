"""Files kept in memory where a cgroup leaves less than they take: never more than it has, and said so."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.models import page_cache
from engine.units import size_text
from engine.wire import Receipt
from engine.worker import mapped, warm, warming
from engine.worker.channel import ActionEnded, DropWarm, ModelFiles, Wanted, Warm, WorkerSettings
from engine.worker.store import ComponentStore
from engine.worker.warm import LEAST_SPARE, WarmTier, open_warm_tier
from engine.worker.warming import Warmer
from tests.host_tree import HostTree

from .conftest import LARGE, SMALL
from .test_warm import FakeRegistrar

GIB, MIB = 2**30, 2**20
PIECE = MIB
Files = Callable[[str], ModelFiles]
Ask = Callable[..., Receipt]


class Measured(FakeRegistrar):
    """Remembers the most that was ever registered."""

    most_bytes = 0

    def register(self, address: int, num_bytes: int, *, read_only: bool = True) -> None:
        super().register(address, num_bytes, read_only=read_only)
        self.most_bytes = max(self.most_bytes, self.bytes)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(warm, "RELIEF_S", 0.02)
    # What the file system says of its cache is the page cache's own test.
    monkeypatch.setattr(warm, "mostly_cached", lambda address, num_bytes: True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostTree:
    """Our cgroup, which a test gives its limit."""
    tree = HostTree(tmp_path)
    tree.limit("max", current=0)
    for module in (warm, warming):
        monkeypatch.setattr(module, "HostProbe", tree.probe)
    return tree


@pytest.fixture
def registrar() -> Measured:
    return Measured()


@pytest.fixture
def tier(tree: HostTree, registrar: Measured) -> WarmTier:
    backend = SimpleNamespace(registrar=registrar, ring_rate=lambda: None)
    tier = open_warm_tier(backend, WorkerSettings(), on_log=print)  # type: ignore[arg-type]
    assert tier is not None
    return tier


@pytest.fixture
def ask(store: ComponentStore, files: Files) -> Ask:
    """Have parts of the small model kept warm; the receipt."""

    def ask(tier: WarmTier | None, *names: str) -> Receipt:
        wanted = tuple(Wanted(model=files(SMALL), component=name) for name in names)
        return _answer(store, tier, Warm(action_id=1, wanted=wanted, kept=wanted))

    return ask


@pytest.fixture
def size_of(store: ComponentStore, files: Files) -> Callable[..., int]:
    """Bytes of the small model's files of these components."""

    def size(*names: str) -> int:
        indices = (store.component(files(SMALL), name).index for name in names)
        return sum(file.bytes for index in indices for file in index.files)

    return size


def _answer(store: ComponentStore, tier: WarmTier | None, message: Warm | DropWarm) -> Receipt:
    ended: queue.SimpleQueue[ActionEnded] = queue.SimpleQueue()
    Warmer(store, tier, on_ended=ended.put).ask(message)
    return ended.get(timeout=30).receipt


def test_a_cgroup_smaller_than_what_must_stay_free_registers_nothing_and_says_why(
    tree: HostTree, tier: WarmTier, registrar: Measured, ask: Ask
) -> None:
    tree.limit(2 * GIB, current=GIB // 2)
    receipt = ask(tier, "dit")
    assert not receipt.ok
    assert receipt.error == (
        f"{SMALL}/dit could not be kept whole: registered files leave 4.00 GiB of this cgroup's memory free, "
        "and engine.warm_budget_bytes may allow less"
    )
    assert (registrar.most_bytes, receipt.loaded_bytes) == (0, 0)


@pytest.mark.parametrize("limit", [6 * GIB, 60 * GIB])
def test_no_more_is_registered_than_the_cgroup_s_headroom_less_what_must_stay_free(
    tree: HostTree,
    tier: WarmTier,
    registrar: Measured,
    store: ComponentStore,
    files: Files,
    size_of: Callable[..., int],
    ask: Ask,
    limit: int,
) -> None:
    (tree.proc / "meminfo").write_text("MemTotal: 134217728 kB\nMemFree: 1 kB\nMemAvailable: 134217728 kB\n")
    # Room for the text encoder and a part of the DiT, most of it as file pages that can go.
    room = size_of("text") + 5 * PIECE + 1000
    current = limit - max(LEAST_SPARE, limit // 10) - room + GIB
    tree.limit(limit, current=current, inactive_file=GIB)
    receipt = ask(tier, "text", "dit", "vae")
    assert not receipt.ok and receipt.error is not None
    assert receipt.error.startswith(f"{SMALL}/dit, {SMALL}/vae could not be kept whole: registered files")
    assert room - 2 * PIECE < registrar.most_bytes <= room
    assert receipt.loaded_bytes == registrar.bytes == tier.registered_bytes()
    with store.lease(store.open(files(SMALL)), ("vae",), stage="x", stage_bytes=0, budget_bytes=GIB):
        assert registrar.most_bytes <= room


def test_a_cgroup_that_fills_up_gets_registered_pages_back(
    tree: HostTree, tier: WarmTier, registrar: Measured, size_of: Callable[..., int], ask: Ask
) -> None:
    tree.limit(7 * GIB, current=GIB)
    assert ask(tier, "text").ok
    assert registrar.bytes == size_of("text")
    room = size_of("text") // 2
    tree.limit(7 * GIB, current=7 * GIB - LEAST_SPARE - room)
    deadline = time.monotonic() + 5
    while registrar.bytes > room:
        assert time.monotonic() < deadline, "nothing was given back"
        time.sleep(0.01)
    assert registrar.bytes >= room - PIECE


def test_what_a_cgroup_has_no_memory_for_is_not_even_read(
    tree: HostTree, size_of: Callable[..., int], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(warming, "read_ahead", read.extend)
    monkeypatch.setattr(page_cache, "cached_bytes", lambda paths: 0)
    tree.limit(GIB, current=GIB - 8 * MIB)
    receipt = ask(None, "dit")
    assert read == []
    assert not receipt.ok
    assert receipt.error == (
        f"{SMALL}/dit could not be kept whole: {size_text(size_of('dit'))} would have to be read, "
        "and this cgroup has 8.0 MiB left"
    )


def test_pages_that_leave_while_others_come_are_missed(
    tree: HostTree, size_of: Callable[..., int], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = size_of("dit") // 2
    monkeypatch.setattr(page_cache, "cached_bytes", lambda paths: half)
    receipt = ask(None, "dit")
    assert (receipt.ok, receipt.loaded_bytes) == (False, half)
    assert receipt.error == (
        f"{SMALL}/dit could not be kept whole: some of it left memory again; this host has 8.00 GiB left"
    )


def test_a_host_with_room_keeps_all_and_says_nothing(
    tree: HostTree, tier: WarmTier, registrar: Measured, size_of: Callable[..., int], ask: Ask
) -> None:
    names = ("text", "dit", "vae")
    receipt = ask(tier, *names)
    assert (receipt.ok, receipt.error) == (True, None)
    assert receipt.loaded_bytes == registrar.bytes == size_of(*names)


def test_a_file_that_models_share_is_let_go_of_once(
    store: ComponentStore, models_with_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = True

    def drop(paths: list[Path]) -> None:
        nonlocal cached
        cached = False

    def cached_bytes(paths: list[Path]) -> int:
        return sum(path.stat().st_size for path in paths) if cached else 0

    monkeypatch.setattr(page_cache, "drop", drop)
    monkeypatch.setattr(page_cache, "cached_bytes", cached_bytes)
    roots = {name: models_with_demo / "demo" / name for name in (SMALL, LARGE)}
    wanted = tuple(
        Wanted(model=ModelFiles(name=name, kind="t2v", path=str(root)), component="vae")
        for name, root in roots.items()
    )
    receipt = _answer(store, None, DropWarm(action_id=1, wanted=wanted))
    size = (roots[SMALL] / "vae" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert (receipt.expected_bytes, receipt.returned_bytes) == (size, size)
