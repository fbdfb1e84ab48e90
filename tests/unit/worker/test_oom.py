"""What is seen when memory runs out, and that nothing of the job is kept alive by having seen it."""

from __future__ import annotations

import errno
import gc
import os
import resource
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.errors import DoesNotFit, OutOfMemory
from engine.telemetry.host import read_virtual
from engine.units import MIB, size_text
from engine.worker import faults, pipeline
from engine.worker import oom as oom_module
from engine.worker.backend import Backend
from engine.worker.bound import bound_of, host_bound
from engine.worker.channel import RunJob
from engine.worker.faults import as_engine_error
from engine.worker.oom import FRESH_S, Allocator, OomWatch
from engine.worker.oom_facts import OomBound
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore
from tests.host_tree import HostTree

from .conftest import SMALL, Seen

MakeJob = Callable[..., RunJob]
TORCH_TEXT = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 3221225472 bytes. Error code 12 (Cannot allocate memory)"
)


def watching(backend: Backend, store: ComponentStore, allocator: Allocator | None = None) -> OomWatch:
    return OomWatch(
        backend,
        store.weights,
        SMALL,
        allocator or Allocator(),
        baseline_bytes=0,
        pinned_in_use=lambda: 16 * MIB,
    )


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
    assert oom.moment.bound.kind == "budget", "no allocation was tried"


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
    backend: Backend, store: ComponentStore
) -> None:
    allocator = Allocator()
    allocator._heard(0, 7 * 2**30, 140 * 2**30, 3 * 2**20)
    oom = watching(backend, store, allocator)
    oom.saw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"))
    assert oom.moment is not None
    assert (oom.moment.asked_bytes, oom.moment.free_bytes) == (7 * 2**30, 3 * 2**20)
    assert allocator.refused is not None
    allocator.refused = replace(allocator.refused, at=allocator.refused.at - FRESH_S - 1)
    oom.saw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"))
    assert oom.moment.asked_bytes == 5 * 2**29


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


@pytest.fixture
def narrow() -> Iterator[int]:
    """The address space of this process ends 64 MiB from here, as under `ulimit -v`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = (read_virtual(os.getpid()) or 0) + 64 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_under_a_limit_of_the_address_space_that_limit_is_what_ran_out_and_nobody_elses_memory(
    backend: Backend, store: ComponentStore, narrow: int
) -> None:
    oom = watching(backend, store)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**30)
    oom.saw(caught.value)
    assert oom.moment is not None
    bound = oom.moment.bound
    assert (bound.kind, bound.limit_bytes) == ("address_space", narrow)
    assert bound.free_bytes is not None and bound.free_bytes <= 64 * MIB
    assert oom.moment.free_bytes is not None and oom.moment.free_bytes > bound.free_bytes
    error = as_engine_error(caught.value, backend, "running job 3")
    assert isinstance(error, OutOfMemory)
    assert f"limits its address space to {size_text(narrow)}" in str(error) and "`ulimit -v`" in str(error)
    assert "other processes" not in str(error)


def test_of_a_cgroup_and_the_machine_the_one_with_less_room_is_named(tmp_path: Path) -> None:
    tree = HostTree(tmp_path)  # of 16 GiB, with 8 available
    tree.limit(2 * 2**30, 2 * 2**30 - 32 * MIB)
    bound = host_bound(tree.proc)
    assert (bound.kind, bound.limit_bytes, bound.free_bytes) == ("cgroup", 2 * 2**30, 32 * MIB)
    tree.limit(12 * 2**30, 0)
    assert host_bound(tree.proc).kind == "host", "the machine has less available than the cgroup allows"


def test_on_a_gpu_the_card_is_named_unless_the_host_refused() -> None:
    card: Any = SimpleNamespace(kind="cuda", total_bytes=140)
    for error in (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory("no memory left")):
        assert bound_of(error, card).kind == "device"
    for lacks in (MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError(TORCH_TEXT)):
        assert bound_of(lacks, card).kind != "device"
    assert bound_of(MemoryError(), card, refused=True).kind == "device"


def test_the_error_of_a_job_on_a_gpu_blames_the_host_where_that_had_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = OomBound(kind="host", limit_bytes=64 * 2**30, free_bytes=MIB)
    monkeypatch.setattr(faults, "bound_of", lambda error, backend: bound)
    card: Any = SimpleNamespace(
        kind="cuda", device_name="NVIDIA H200", total_bytes=140 * 2**30, held_bytes=lambda: 2**30,
        is_fatal=lambda error: False, is_oom=lambda error: True,
    )  # fmt: skip
    error = str(as_engine_error(MemoryError(), card, "running job 3"))
    assert error.startswith("the host had no memory left while running job 3: of 64")
    assert "H200" not in error and "1.0 MiB were available" in error


def test_what_of_pinned_memory_is_in_use_goes_by_tensors_or_says_why_it_is_not_known(
    backend: Backend, store: ComponentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oom_module, "pinned_bytes", lambda: 64 * MIB)
    oom = watching(backend, store)
    oom.saw(MemoryError())
    assert oom.moment is not None
    assert (oom.moment.pinned_bytes, oom.moment.pinned_used_bytes) == (64 * MIB, 16 * MIB)
    oom.saw(DoesNotFit("dit needs 2 GiB"))
    assert oom.moment.pinned_used_bytes is None and "the host's did not run out" in (
        oom.moment.pinned_reason or ""
    )
