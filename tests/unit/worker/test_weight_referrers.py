"""Who holds a tensor of weights: regions and the modules they belong to, and nobody else."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import nn

from engine.errors import NotResident
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore

from .conftest import I2V, SMALL, STAGE_BYTES, Seen

Files = Callable[[str], ModelFiles]


def _strangers(store: ComponentStore) -> list[str]:
    """Every live tensor over a region's bytes that is none of its module's, and who else holds one."""
    gc.collect()
    live = gc.get_objects()
    # Of this store only: what earlier tests left is not looked at.
    regions = [item.arena._home for item in store.components() if item.arena._home.views]
    inside = {region.views[0].untyped_storage().data_ptr() for region in regions}
    views = {id(view) for region in regions for view in region.views}
    # What torch itself keeps of a view: the tensor that it was made from.
    views |= {id(view._base) for region in regions for view in region.views}
    lists = {id(region.views) for region in regions}
    modules = [part for item in store.components() for part in item.module.modules()]
    parameters = {id(value) for part in modules for value in part._parameters.values() if value is not None}
    tables = {id(table) for part in modules for table in (part._parameters, part._buffers)}
    pairs = {id(pair) for item in store.components() for pair in item.arena._parameters}  # (slot, parameter)
    of_regions = [
        item
        for item in live
        if type(item) in (torch.Tensor, nn.Parameter)
        and not item.is_meta
        and item.numel() > 0
        and item.untyped_storage().data_ptr() in inside
    ]
    allowed = views | parameters
    known = lists | tables | pairs | {id(live), id(of_regions)}
    # In one walk through all objects there are, not one for each tensor.
    holders = [item for item in gc.get_referrers(*of_regions) if id(item) not in known]
    return [
        *(f"a tensor {tuple(item.shape)} of nobody's" for item in of_regions if id(item) not in allowed),
        *(f"{type(item).__name__}: {str(item)[:80]}" for item in holders if not isinstance(item, FrameType)),
    ]


@pytest.fixture
def after_a_job(
    store: ComponentStore,
    files: Files,
    backend: CpuBackend,
    job: Callable[..., RunJob],
    seen: Seen,
    tmp_path: Path,
) -> ComponentStore:
    """A store after a job of both experts, which swapped."""
    picture = tmp_path / "picture.png"
    Image.new("RGB", (48, 48), "teal").save(picture)
    largest = max(item.bytes for item in store.open(files(I2V)).components.values())
    made = job(I2V, image=str(picture), steps=4, budget_bytes=largest + STAGE_BYTES)
    run_job(made, store, backend, report=seen.progress.append, cancelled=lambda: False)
    assert any(receipt.action == "swap" for receipt in seen.receipts)
    return store


def test_after_a_job_only_regions_and_modules_hold_weights(after_a_job: ComponentStore) -> None:
    assert after_a_job.weights()
    assert _strangers(after_a_job) == []
    leaked = next(item for item in after_a_job.components() if item.resident).arena._parameters[0][1].data
    assert len(_strangers(after_a_job)) == 1  # so the walk does find one
    del leaked


def test_after_an_unload_no_module_holds_a_weight(after_a_job: ComponentStore) -> None:
    after_a_job.unload()
    assert after_a_job.weights() == {}
    assert _strangers(after_a_job) == []
    for item in after_a_job.components():
        assert all(parameter.numel() == 0 for parameter in item.module.parameters())
        assert not any(parameter.is_meta for parameter in item.module.parameters())


def test_a_module_kept_beyond_its_unload_refuses(store: ComponentStore, files: Files) -> None:
    model = store.open(files(SMALL))
    with store.lease(model, ("vae",), stage="x", stage_bytes=0, budget_bytes=2**30) as modules:
        vae: Any = modules["vae"]
    store.unload()
    with pytest.raises(NotResident, match=f"{SMALL}/vae was used while it is not loaded"):
        vae.decode(torch.zeros(1, 16, 1, 4, 4))


def _use_after_unload(files: ModelFiles, answer: Connection) -> None:
    nothing: Callable[[object], None] = lambda ignored: None  # noqa: E731
    store = ComponentStore(CpuBackend(), on_component=nothing, on_moved=nothing)
    model = store.open(files)
    with store.lease(model, ("dit",), stage="x", stage_bytes=0, budget_bytes=2**30) as modules:
        leaked = cast(Any, modules["dit"]).proj_out.weight.data
        answer.send(leaked.abs().sum().item() > 0)
    store.unload()
    answer.send((leaked.abs().sum().item(), (leaked @ leaked.T).sum().item()))
    leaked.fill_(3)
    with store.lease(model, ("dit",), stage="x", stage_bytes=0, budget_bytes=2**30) as modules:
        answer.send(bool((cast(Any, modules["dit"]).proj_out.weight == 3).any()))


def test_a_view_used_after_an_unload_reads_nothing_and_ends_no_process(files: Files) -> None:
    # Not forked: a child of a process with threads may wait for ever for one that it has not.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_use_after_unload, args=(files(SMALL), there))
    process.start()
    there.close()
    said = []
    with contextlib.suppress(EOFError):
        while here.poll(60):
            said.append(here.recv())
    process.join(60)
    assert (process.exitcode, said) == (0, [True, (0.0, 0.0), False])
