"""The memory ledger as a worker writes it: a line of each kind, and to the byte what a stage leaves."""

from __future__ import annotations

import gc
import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.errors import EngineError
from engine.units import MIB
from engine.wire import Held, LedgerLine
from engine.worker import pipeline
from engine.worker.channel import Ledgered, ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.host_tensors import Regions, live_tensor_bytes
from engine.worker.leaving import Frames
from engine.worker.memory_ledger import Kept, MemoryLedger
from engine.worker.pipeline import run_job, shape_of
from engine.worker.store import ComponentStore

from .conftest import BUDGET, I2V, LARGE, SMALL, Seen

MakeJob = Callable[..., RunJob]
PLANTED: list[torch.Tensor] = []


class Books:
    """A store whose lines are kept, and jobs run on it as the worker's loop does."""

    def __init__(self, backend: CpuBackend, seen: Seen) -> None:
        self.written: list[Ledgered] = []
        self.store = ComponentStore(
            backend,
            on_component=seen.components.append,
            on_moved=seen.receipts.append,
            on_line=self.written.append,
        )
        self._backend = backend

    def run(self, job: RunJob, cancelled: Callable[[], bool] = lambda: False) -> list[LedgerLine]:
        """The lines of this job, its own the last."""
        first = len(self.written)
        with self.store.ledger.job(job.job_id, model=job.model.name, shape=shape_of(job)) as line:
            try:
                run_job(job, self.store, self._backend, report=lambda _told: None, cancelled=cancelled)
            except EngineError:
                line.end(ok=False)
            else:
                line.end()
        return [told.line for told in self.written[first:]]


class Copying(pipeline.VideoWriter):
    """Hands on what is no tensor's: the encoder's thread has the last frames for a moment longer."""

    def append(self, frames_THWC: Frames) -> None:
        super().append(frames_THWC.copy())


@pytest.fixture
def books(backend: CpuBackend, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> Books:
    monkeypatch.setattr(pipeline, "VideoWriter", Copying)
    gc.collect()  # the stores of tests before this one
    return Books(backend, seen)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(path)
    return str(path)


def stages(lines: list[LedgerLine]) -> list[LedgerLine]:
    return [line for line in lines if line.kind == "stage"]


@pytest.mark.parametrize("model", [SMALL, I2V])
def test_after_each_stage_there_is_what_the_job_needs_and_nothing_else(
    books: Books, job: MakeJob, picture: str, model: str
) -> None:
    asked = job(model, steps=4, image=picture if model == I2V else None)
    books.run(asked)  # opens the model, which computes tables
    lines = books.run(asked)
    own = lines[-1]
    assert own.kind == "job" and own.ok and own.target == "job 3" and own.shape == "32x32x5x4"
    nets = ["denoise dit.high", "denoise dit.low"] if model == I2V else ["denoise"]
    image = ["image"] if model == I2V else []
    assert [line.target for line in stages(lines)] == ["text", *image, *nets, "decode", "write"]
    assert own.floor_bytes == own.floor_before_bytes
    assert {line.target: line.floor_bytes for line in stages(lines)} == {
        line.target: own.floor_bytes for line in stages(lines)
    }
    kept = {line.target: line.kept_bytes for line in stages(lines)}
    assert kept["text"] >= 512 * 2 and kept["write"] == 0
    assert kept[nets[-1]] > kept["decode"] > 0
    assert all(line.job_id == 3 and line.model == model for line in lines)


@pytest.mark.parametrize(
    ("stage", "place"),
    [("text", "encode_prompt"), ("denoise", "net_velocity"), ("decode", "decode_frames")],
)
def test_a_tensor_that_stays_is_in_the_floor_from_its_stage_on(
    books: Books, job: MakeJob, monkeypatch: pytest.MonkeyPatch, stage: str, place: str
) -> None:
    real = getattr(pipeline, place)

    def leaky(*given: Any) -> Any:
        PLANTED.append(torch.ones(1000))
        return real(*given)

    books.run(job(SMALL, steps=1))
    monkeypatch.setattr(pipeline, place, leaky)
    try:
        lines = books.run(job(SMALL, steps=1))
    finally:
        PLANTED.clear()
    start = lines[-1].floor_before_bytes
    assert start is not None
    grown = {line.target: (line.floor_bytes or 0) - start for line in stages(lines)}
    names = list(grown)
    assert [grown[name] for name in names] == [
        4000 * (names.index(name) >= names.index(stage)) for name in names
    ]
    assert lines[-1].floor_bytes == start + 4000


def test_a_failed_and_a_cancelled_job_have_their_lines(
    books: Books, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.run(job(SMALL, steps=1))

    def fail(*_given: Any) -> Any:
        raise RuntimeError("planted")

    with monkeypatch.context() as planted:
        planted.setattr(pipeline, "net_velocity", fail)
        lines = books.run(job(SMALL, steps=1))
    assert [(line.target, line.ok) for line in lines] == [
        ("text", True),
        ("denoise", False),
        ("job 3", False),
    ]
    assert lines[-1].floor_bytes == lines[-1].floor_before_bytes
    asked = iter([False] * 3)
    lines = books.run(job(SMALL, steps=4), cancelled=lambda: next(asked, True))
    assert not lines[-1].ok and lines[-1].kind == "job"
    assert lines[-1].floor_bytes == lines[-1].floor_before_bytes


def test_loads_unloads_and_switches_have_their_lines(
    books: Books, files: Callable[[str], ModelFiles]
) -> None:
    store, small = books.store, files(SMALL)
    store.switch(small, BUDGET)
    store.switch(files(LARGE), BUDGET)
    store.unload(LARGE, "vae")
    store.restore([(files(LARGE), "vae")])
    store.free()
    with store.lease(
        store.open(small), ("text",), stage="text", stage_bytes=0, budget_bytes=BUDGET, job_id=9
    ):
        pass
    store.unload("no-such-model")
    told = [(told.line.kind, told.line.target, told.line.ok) for told in books.written]
    assert told == [
        ("switch", SMALL, True),
        ("switch", LARGE, True),
        ("unload", f"{LARGE}/vae", True),
        ("load", f"{LARGE}/vae", True),
        ("unload", "cache and idle components", True),
        ("load", f"{SMALL}/text", True),
        ("unload", "no-such-model", False),
    ]
    first, second = (told.line for told in books.written[:2])
    assert first.weights.before == 0 and first.weights.after == second.weights.before != second.weights.after
    assert books.written[5].line.job_id == 9
    for line in (told.line for told in books.written):
        assert line.weights.after is not None and line.allocated.after is not None
        assert line.floor_bytes == line.floor_before_bytes or line.kind in ("switch", "load"), line
    assert all(told.began_at <= told.ended_at <= time.monotonic() for told in books.written)


def test_load_that_travels_under_a_job_ends_its_line_and_one_that_fails_does(
    books: Books, job: MakeJob, copy_of: Callable[[str], ModelFiles]
) -> None:
    lines = books.run(job(SMALL, steps=1))
    loads = {line.target: line for line in lines if line.kind == "load"}
    assert set(loads) == {f"{SMALL}/{name}" for name in ("text", "dit", "vae")}
    damaged = copy_of(SMALL)
    books.store.unload()
    weights = next(Path(damaged.path).glob("transformer/*.safetensors"))
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    lines = books.run(job(damaged, steps=1))
    assert not lines[-1].ok


def test_peaks_are_the_stages_and_the_job_has_the_highest(books: Books, job: MakeJob) -> None:
    lines = books.run(job(SMALL, steps=1))
    peaks = [line.rss.peak for line in stages(lines)]
    assert None not in peaks
    assert lines[-1].rss.peak is not None
    assert lines[-1].rss.peak >= max(peak or 0 for peak in peaks)
    for line in stages(lines):
        assert (line.rss.peak or 0) >= max(line.rss.before or 0, line.rss.after or 0) > 0
    # What nobody counts here is not known, and not nothing.
    assert lines[-1].reserved == lines[-1].device == lines[-1].pinned == Held()


def test_each_storage_counts_once_and_views_and_regions_do_not() -> None:
    regions = Regions()
    before = live_tensor_bytes(regions)
    whole = torch.zeros(1000)
    part = whole[10:20]
    parameter = torch.nn.Parameter(torch.zeros(50))
    meta = torch.empty(10**9, device="meta")
    assert live_tensor_bytes(regions) - before == 4200
    regions.committed(whole.data_ptr(), 4000)
    assert live_tensor_bytes(regions) - before == 200 and regions.committed_bytes == 4000
    regions.released(whole.data_ptr())
    assert live_tensor_bytes(regions) - before == 200 and regions.committed_bytes == 0
    regions.forget(whole.data_ptr())
    assert live_tensor_bytes(regions) - before == 4200
    del whole, part, parameter, meta
    assert live_tensor_bytes(regions) == before


def test_kept_counts_what_lies_on_the_device_and_holds_nothing() -> None:
    kept, there = Kept("cpu"), torch.zeros(100)
    kept.put("a", there, there[:5], None)
    kept.put("b", torch.zeros(9, device="meta"), more=3)
    assert kept.bytes == 403
    kept.put("a", there[:1])
    kept.drop("b", "never")
    assert kept.bytes == 400  # the storage is what stays


def test_whatever_counting_meets_reaches_nobody(backend: CpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object) -> Any:
        raise RuntimeError("the device broke")

    for name in ("count", "count_peak", "start_peak"):
        monkeypatch.setattr(backend, name, refuse)
    written: list[Ledgered] = []
    ledger = MemoryLedger(backend, lambda: {"a/b": 5}, written.append)
    with ledger.line("switch", "a", peak=True):
        pass
    assert written[0].line.allocated == Held() and written[0].line.weights == Held(before=5, after=5)
    with pytest.raises(ValueError, match="mine"), ledger.line("unload", "a"):
        raise ValueError("mine")
    assert not written[1].line.ok
    closed = MemoryLedger(backend, dict, refuse)
    with closed.line("unload", "a"):
        pass


@pytest.mark.parametrize("on_tmpfs", [False, True])
def test_shared_memory_is_the_workers_own_but_for_weight_files_on_a_tmpfs(
    backend: CpuBackend, on_tmpfs: bool
) -> None:
    written: list[Ledgered] = []
    ledger = MemoryLedger(backend, dict, written.append, shares_files=lambda: on_tmpfs)
    with ledger.line("unload", "a"):
        memory = mmap.mmap(-1, 8 * MIB)
        for page in range(0, 8 * MIB, mmap.PAGESIZE):
            memory[page] = 1
    rss = written[0].line.rss
    memory.close()
    assert rss.before is not None and rss.after is not None
    assert (rss.after - rss.before >= 8 * MIB) is not on_tmpfs


def test_a_line_costs_little(books: Books, job: MakeJob) -> None:
    books.run(job(SMALL, steps=1))
    took = []
    for _ in range(20):
        began = time.perf_counter()
        books.store.ledger.begin("unload", "nothing").end()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.02, "two looks at 13,000 objects: 1.5 ms on an idle host"
