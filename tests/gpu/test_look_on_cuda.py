"""Looks into a process with a real GPU: the map adds up, and sites and nobody's blocks are told."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.worker.cuda import CudaBackend
from engine.worker.leaks.facts import Findings, Inspect, Inspected, Trace
from engine.worker.leaks.inspector import Inspector
from engine.worker.store import ComponentStore
from tests.gpu.backends import connected
from tests.unit.worker import leak_plants as plants

MIB = 2**20


class Asked:
    """An inspector whose answers come at once."""

    def __init__(self, backend: CudaBackend) -> None:
        store = ComponentStore(backend, on_component=lambda _: None, on_moved=lambda _: None)
        self._answers: list[Inspected] = []
        self.inspector = Inspector(backend, store, root=self, send=self._answers.append)

    def look(self) -> Findings:
        found = self.ask(Inspect(inspection_id=1)).findings
        assert found is not None
        return found

    def ask(self, message: Inspect | Trace) -> Inspected:
        self.inspector.ask(message)
        self.inspector.serve()
        return self._answers.pop()


@pytest.fixture(scope="module")
def backend() -> Iterator[CudaBackend]:
    backend = connected()
    backend.warm_up()
    yield backend


@pytest.fixture
def asked(backend: CudaBackend) -> Iterator[Asked]:
    asked = Asked(backend)
    yield asked
    asked.ask(Trace(inspection_id=2, on=False))
    plants.clear()
    gc.collect()
    torch.cuda.empty_cache()


def test_a_plant_is_told_with_its_line_only_where_it_was_made_while_tracing(asked: Asked) -> None:
    plants.KEPT.append(torch.ones(8 * MIB, device="cuda"))
    assert asked.ask(Trace(inspection_id=3, on=True)).tracing.on
    plants.BY_NAME["new"] = plants.new_on("cuda", 16 * MIB)
    found = asked.look()
    held = {item.holder.path[-1]: item for item in found.tensors if item.holder.file == plants.__file__}
    new, old = held["[new]"], held["[0]"]
    assert new.place == "device" and new.site is not None and new.bytes == 64 * MIB
    assert (new.site.file, new.site.line) == (plants.__file__, plants.line_of("return torch.ones(count"))
    assert old.site is None and "before tracing" in (old.site_reason or "")
    assert any(site.line == new.site.line and site.bytes == new.bytes for site in found.sites)
    assert found.tracing.entries > 0


def test_the_map_is_the_allocator_s_own_count(asked: Asked) -> None:
    kept = [torch.ones(3 * MIB, device="cuda") for _ in range(4)]
    del kept[1:3]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    late = torch.ones(4 * MIB, device="cuda")
    late.record_stream(side)
    with torch.cuda.stream(side):
        torch.cuda._sleep(1_000_000_000)  # type: ignore[no-untyped-call]
    del late
    told = asked.look().allocator
    stats = torch.cuda.memory_stats()
    torch.cuda.synchronize()
    assert told is not None
    assert told.reserved_bytes == stats["reserved_bytes.all.current"]
    assert told.live_bytes == stats["allocated_bytes.all.current"]
    assert sum(told.awaiting.values()) >= 16 * MIB
    parts = told.live_bytes + sum(told.awaiting.values()) + told.fragmented_bytes + told.releasable_bytes
    assert parts == told.reserved_bytes


def test_a_block_that_an_autograd_graph_alone_holds_has_no_python_owner(asked: Asked) -> None:
    asked.ask(Trace(inspection_id=3, on=True))
    before = sum(item.bytes for item in asked.look().unowned)
    leaf = torch.ones(5 * MIB, device="cuda", requires_grad=True)
    graph = (leaf * 2).exp().sum()  # keeps the exponential, of which no tensor is left in Python
    found = asked.look()
    grown = [item for item in found.unowned if item.site and item.site.file == __file__]
    assert sum(item.bytes for item in grown) >= 20 * MIB
    assert sum(item.bytes for item in found.unowned) - before >= 20 * MIB
    assert any("autograd" in text for text in grown[0].suspects)
    del graph


def test_a_library_s_workspace_is_named(asked: Asked) -> None:
    a = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
    torch.mm(a, a)
    assert any(item.library == "cuBLAS" for item in asked.look().unowned)


def test_an_export_is_what_torch_s_own_viewer_reads(asked: Asked, tmp_path: Path) -> None:
    asked.ask(Trace(inspection_id=3, on=True))
    plants.KEPT.append(torch.ones(MIB, device="cuda"))
    file = tmp_path / "snapshot.pickle"
    answer = asked.ask(Inspect(inspection_id=4, export=str(file), export_format="pickle"))
    assert answer.exported_bytes == file.stat().st_size
    snapshot = pickle.loads(file.read_bytes())
    assert {"segments", "device_traces"} <= snapshot.keys()
    from torch.cuda._memory_viz import trace_plot

    page: str = trace_plot(snapshot)  # type: ignore[no-untyped-call]
    assert "<script" in page.lower()
