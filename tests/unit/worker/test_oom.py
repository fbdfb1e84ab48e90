"""What is seen when memory runs out, and that nothing of the job is kept alive by having seen it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.errors import DoesNotFit, OutOfMemory
from engine.worker import pipeline
from engine.worker.backend import Backend
from engine.worker.channel import RunJob
from engine.worker.oom import FRESH_S, Allocator, OomWatch
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore

from .conftest import SMALL, Seen

MakeJob = Callable[..., RunJob]
TORCH_TEXT = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 3221225472 bytes. Error code 12 (Cannot allocate memory)"
)


def watching(backend: Backend, store: ComponentStore) -> OomWatch:
    return OomWatch(backend, store.weights, SMALL, Allocator(), baseline_bytes=0)


def test_the_moment_tells_what_was_asked_where_and_what_lay_there_and_holds_no_tensor(
    backend: Backend,
    store: ComponentStore,
    job: MakeJob,
    seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def broken(net: Any, x_BCTHW: torch.Tensor, *rest: Any) -> torch.Tensor:
        activations = torch.ones(4 * 2**20)
        held.append(weakref.ref(activations))
        raise RuntimeError(TORCH_TEXT)

    monkeypatch.setattr(pipeline, "net_velocity", broken)
    oom = watching(backend, store)
    seen_alive: list[bool] = []

    def saw(error: BaseException) -> None:
        seen_alive.append(held[0]() is not None)
        oom.saw(error)

    with pytest.raises(OutOfMemory) as caught:
        run_job(
            job(SMALL),
            store,
            backend,
            report=oom.through(seen.progress.append),
            cancelled=lambda: False,
            saw=saw,
        )
    assert seen_alive == [True], "it is looked while all is there"
    gc.collect()
    assert held[0]() is None, "and then nothing keeps it, though the error and the moment live"
    moment = oom.moment
    assert moment is not None and caught.value is not None
    assert (moment.stage, moment.step, moment.steps) == ("denoise", 0, 2)
    assert moment.asked_bytes == 3 * 2**30 and "can't allocate memory" in moment.message
    assert moment.weights.get(f"{SMALL}/dit") and moment.held_bytes > 0
    assert moment.free_bytes is not None and 0 < moment.free_bytes < moment.total_bytes
    assert moment.pinned_bytes is None and moment.releasable_bytes is None, "nobody counts them here"
    assert moment.live_bytes >= 16 * 2**20, "the activations"


def test_a_budget_that_is_too_small_is_seen_as_well(
    backend: Backend, store: ComponentStore, job: MakeJob, seen: Seen
) -> None:
    oom = watching(backend, store)
    with pytest.raises(DoesNotFit):
        run_job(
            job(SMALL, budget_bytes=2**20), store, backend, report=oom.through(seen.progress.append),
            cancelled=lambda: False, saw=oom.saw,
        )  # fmt: skip
    assert oom.moment is not None and "the budget is 1.0 MiB" in oom.moment.message


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total", 5 * 2**29),
        ("CUDA out of memory. Tried to allocate 20.00 MiB.", 20 * 2**20),
        ("no memory left while loading wan/dit (1.00 GiB); this worker", 2**30),
        ("CUDA out of memory", None),
    ],
)
def test_what_was_asked_is_read_out_of_the_text(
    backend: Backend, store: ComponentStore, text: str, asked: int | None
) -> None:
    oom = watching(backend, store)
    oom.saw(torch.OutOfMemoryError(text) if asked != 2**30 else OutOfMemory(text))
    assert oom.moment is not None and oom.moment.asked_bytes == asked
    assert oom.moment.component == ("wan/dit" if asked == 2**30 else None)


def test_what_is_no_want_of_memory_is_not_looked_at(backend: Backend, store: ComponentStore) -> None:
    oom = watching(backend, store)
    oom.saw(RuntimeError("shapes disagree"))
    assert oom.moment is None


def test_what_the_allocator_refused_last_counts_before_the_text_and_only_for_a_moment(
    backend: Backend, store: ComponentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator = Allocator()
    allocator._heard(0, 7 * 2**30, 140 * 2**30, 3 * 2**20)
    oom = OomWatch(backend, store.weights, SMALL, allocator, baseline_bytes=0)
    oom.saw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"))
    assert oom.moment is not None
    assert (oom.moment.asked_bytes, oom.moment.free_bytes) == (7 * 2**30, 3 * 2**20)
    assert allocator.refused is not None
    allocator.refused = replace(allocator.refused, at=allocator.refused.at - FRESH_S - 1)
    oom.saw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"))
    assert (oom.moment.asked_bytes, oom.moment.limit_bytes) == (5 * 2**29, None)
    monkeypatch.setattr("resource.getrlimit", lambda _which: (2**33, -1))
    oom.saw(torch.OutOfMemoryError("CUDA out of memory."))
    assert oom.moment.limit_bytes == 2**33


def test_a_gpus_allocator_is_listened_to_and_the_hosts_is_not(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(torch._C, "_cuda_attach_out_of_memory_observer", heard.append, raising=False)
    allocator = Allocator()
    allocator.attach(backend)
    assert heard == []
    monkeypatch.setattr(type(backend), "kind", "cuda")
    allocator.attach(backend)
    heard[0](0, 5, 100, 1)
    assert allocator.refused is not None and (
        allocator.refused.asked_bytes,
        allocator.refused.free_bytes,
    ) == (5, 1)
