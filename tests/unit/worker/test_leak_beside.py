"""What a look tells beside tensors in containers: storages, buffers, files, the heap, a GPU's allocator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.worker.cpu import CpuBackend
from engine.worker.leaks import allocator_snapshot
from engine.worker.leaks.allocator_snapshot import AllocatorSnapshot
from engine.worker.leaks.facts import Findings
from engine.worker.leaks.graph import Heap
from engine.worker.leaks.live import Storage, _is_namespace
from engine.worker.leaks.look import _is_pinned, _pinned_in_use, look
from engine.worker.leaks.tracing import UNTRACED, Tracer
from engine.worker.mapped import Mapped
from engine.worker.store import ComponentStore
from tests.unit.worker import leak_plants as plants
from tests.unit.worker.test_leak_look import BYTES, _clear, planted, seen_now

__all__ = ["_clear", "seen_now"]


def test_a_bare_storage_is_found_and_an_instances_names_are_holders_of_their_own(
    seen_now: Callable[..., Findings],
) -> None:
    storage = plants.new().untyped_storage()
    plants.HELD.append([storage])
    number = storage.nbytes()
    del storage
    keepers = [plants.Keeper(plants.new()) for _ in range(2)]
    for keeper in keepers:
        vars(keeper)["more"] = plants.new()  # which has its attributes in a dictionary from now on
    plants.HELD.extend(keepers)
    del keepers, keeper
    found = planted(seen_now())
    (bare,) = (item for item in found if item.shape == (BYTES,))
    assert (bare.bytes, bare.storages, bare.dtype) == (number, 1, "uint8")
    assert bare.holder.path == (f"module {plants.__name__}", "HELD", "[0]", "[0]")
    kept = [item for item in found if ".Keeper." in item.holder.path[-1]]
    assert [item.storages for item in kept] == [1, 1, 1, 1]


def test_names_of_a_module_that_the_collector_does_not_list_are_holders_of_their_own() -> None:
    namespace = {"__name__": "plugin", "A": plants.new()}
    with Heap() as heap:
        assert _is_namespace(namespace, heap) and not _is_namespace({"A": namespace["A"]}, heap)


class Keeping(CpuBackend):
    """Keeps a buffer, as a GPU's does for its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = plants.new()

    def kept(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "buffers of copies", self.buffer


def test_buffers_of_the_backend_are_accounted_for_and_are_no_finding(store: ComponentStore) -> None:
    backend = Keeping()
    plants.HELD.append(backend.buffer)
    found = look(backend=backend, store=store, tracer=Tracer("cpu"), roots={}, job_id=None)
    assert found.accounted["buffers of copies"] == BYTES and not planted(found)


def test_a_mapped_weight_file_is_no_finding(seen_now: Callable[..., Findings], tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * (1 << 20))
    plants.HELD.append(Mapped(path, lambda mapped, piece, prefers: None))
    assert plants.HELD[0].size == 1 << 20
    assert not [item for item in seen_now().tensors if item.bytes == 1 << 20]


def test_what_is_beyond_the_groups_that_are_told_is_counted(
    seen_now: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.worker.leaks.look.MOST_GROUPS", 1)
    plants.KEPT.append(torch.zeros(64 * 2**20, dtype=torch.uint8))
    plants.BY_NAME["small"] = plants.new()
    found = seen_now()
    assert len(found.tensors) == 1 and found.tensors[0].bytes >= 64 * 2**20
    assert found.rest_bytes >= BYTES and found.rest_storages >= 1
    monkeypatch.setattr("engine.worker.leaks.look.MOST_GROUPS", 64)
    monkeypatch.setattr("engine.worker.leaks.look.HOLDERS_S", 0.0)
    found = seen_now()
    assert len(found.tensors) == 1 and any("time was up" in text for text in found.unknown)


def test_the_free_pieces_of_the_heap_are_told(
    seen_now: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.worker.leaks.look.heap_free_bytes", lambda: 123)
    assert seen_now().heap_free_bytes == 123


def test_pinned_blocks_in_use_are_counted_as_torch_rounds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def storage(size: int, *, pinned: bool, place: Any = "cpu") -> Storage:
        tensor = SimpleNamespace(is_pinned=lambda: pinned)
        return Storage(place=place, address=1, bytes=size, tensors=[tensor])

    beside = [
        storage(5000, pinned=True), storage(2**20, pinned=True), storage(2**20, pinned=False),
        storage(16, pinned=True), storage(2**20, pinned=True, place="cuda"),
    ]  # fmt: skip
    assert _pinned_in_use(beside) is None, "asked without a context it would make one"
    monkeypatch.setattr("engine.worker.leaks.look.has_context", lambda: True)
    assert _pinned_in_use(beside) == 8192 + 2**20
    assert [_is_pinned(one, one.tensors[0]) for one in beside] == [True, True, False, True, False]


def test_a_look_beside_a_gpus_allocator_tells_its_map_and_what_no_tensor_holds(
    store: ComponentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [{"size": 1 << 20, "state": "active_allocated"}, {"size": 1 << 20, "state": "inactive"}]
    segments = [{"address": 1 << 40, "total_size": 2 << 20, "stream": 7, "blocks": blocks}]
    segments += [{"address": 1 << 41, "total_size": 4096, "blocks": []}] * allocator_snapshot.MOST_SEGMENTS
    monkeypatch.setattr("engine.worker.leaks.look.read_snapshot", lambda: AllocatorSnapshot(segments))
    backend: Any = CpuBackend()
    backend.kind = "cuda"
    found = look(backend=backend, store=store, tracer=Tracer("cuda"), roots={}, job_id=None)
    (block,) = found.unowned
    assert (block.bytes, block.stream, block.site_reason) == (1 << 20, "7", UNTRACED)
    assert found.allocator is not None and found.allocator.fragmented_bytes == 1 << 20
    assert "1 smaller segments are not shown" in found.unknown
    monkeypatch.setattr("engine.worker.leaks.look.read_snapshot", lambda: None)
    bare = look(backend=backend, store=store, tracer=Tracer("cuda"), roots={}, job_id=None)
    assert bare.allocator is None and any("no context on it yet" in text for text in bare.unknown)
