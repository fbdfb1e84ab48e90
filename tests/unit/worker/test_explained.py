"""A job moves what was explained, in that order: the same stages, loads ahead, evictions and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from engine.embeddings import EmbeddingStore
from engine.planning.explaining import explain_job
from engine.planning.residency import REST, Needed, Resident, Stage
from engine.planning.shapes import DEFAULT_SIGMA_MAX
from engine.planning.stages import JobStage, job_stages, returning
from engine.wire import PlanStep, Residency
from engine.wire import Stage as StageName
from engine.worker.channel import ComponentChanged, RunJob
from engine.worker.components import Model
from engine.worker.cpu import CpuBackend
from engine.worker.embedding_cache import EmbeddingCache
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore

from .conftest import I2V, SMALL, STAGE_BYTES

STEPS = 4
"""Enough for both experts."""


def planned(model: Model, stage: JobStage, work: Mapping[StageName, int]) -> Stage:
    size = model.components[stage.component].bytes
    return Stage(
        name=stage.name,
        needed=(Needed(model=model.name, component=stage.component, bytes=size),),
        working_bytes=work[stage.footprint],
        ahead=stage.ahead,
    )


def explained(
    store: ComponentStore, model: Model, request: RunJob, *, with_text: bool
) -> tuple[PlanStep, ...]:
    kind = "i2v" if model.files.kind == "i2v" else "t2v"
    stages = job_stages(kind, STEPS, DEFAULT_SIGMA_MAX[kind], with_text=with_text)
    here = [
        Resident(
            model=item.model, component=item.name, bytes=item.bytes, leased=False, last_used=item.last_used
        )
        for item in store.components()
        if item.arena.attached
    ]
    return explain_job(
        here,
        [planned(model, stage, request.stage_bytes) for stage in stages],
        budget_bytes=request.budget_bytes,
        mode=request.spec.residency or "auto",
        back=[planned(model, stage, request.stage_bytes) for stage in returning(kind, stages)],
    )


def moves_of(steps: tuple[PlanStep, ...]) -> list[tuple[str, str]]:
    """(begins or ends, component) as a store would tell it; a swap is told apart."""
    words = {"evict": "out", "load": "in", "ahead": "in", "swap": "swap"}
    return [(words[step.action], f"{step.model}/{step.component}") for step in steps]


class Watched:
    """What a store said of components that came and went."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, str]] = []
        self._state: dict[str, str] = {}

    def heard(self, changed: ComponentChanged) -> None:
        label = f"{changed.model}/{changed.component}"
        before = self._state.get(label, "absent")
        self._state[label] = changed.state
        if changed.state == "loading" and before != "loading":
            self.moves.append(("in", label))
        elif changed.state == "absent" and before != "absent":
            self.moves.append(("out", label))

    def until_still(self, store: ComponentStore) -> None:
        for item in store.components():
            if item.loading is not None:
                item.loading.wait(lambda: None)


@pytest.mark.parametrize("mode", ["auto", "dit_only", "keep_text"])
@pytest.mark.parametrize("spare", ["plenty", "little"])
@pytest.mark.parametrize("again", [False, True], ids=["new prompt", "kept prompt"])
def test_a_text_to_video_job_does_what_was_explained(
    job: Callable[..., RunJob], tmp_path: Path, spare: str, mode: Residency, again: bool
) -> None:
    backend, watched = CpuBackend(), Watched()
    store = ComponentStore(backend, on_component=watched.heard, on_moved=lambda receipt: None)
    embeddings = EmbeddingCache(EmbeddingStore(tmp_path / "embeddings", 2**27))

    request = job(steps=STEPS, residency=mode)
    model = store.open(request.model)
    if spare == "little":
        budget = model.components["dit"].bytes + model.components["vae"].bytes + STAGE_BYTES
        # Decoding takes all that there is beside its own weights, so the DiT leaves for it.
        work = {**request.stage_bytes, "decode": budget - model.components["vae"].bytes}
        request = msgspec.structs.replace(request, budget_bytes=budget, stage_bytes=work)

    def run() -> None:
        run_job(
            request,
            store,
            backend,
            report=lambda progress: None,
            cancelled=lambda: False,
            embeddings=embeddings,
        )
        watched.until_still(store)

    if again:
        run()
    watched.moves.clear()
    told = explained(store, model, request, with_text=not again)
    run()
    assert watched.moves == moves_of(told)
    assert any(step.component == "text" for step in told if step.action != "evict") is not again
    if spare == "little":
        returned = [step.component for step in told if step.stage == REST]
        assert returned == ([] if mode == "dit_only" else ["dit"])
        assert f"{SMALL}/dit" in store.weights() or mode == "dit_only"


def test_an_image_to_video_job_does_what_was_explained(job: Callable[..., RunJob], tmp_path: Path) -> None:
    image = tmp_path / "first.png"
    Image.new("RGB", (32, 32), (9, 90, 190)).save(image)
    backend, watched = CpuBackend(), Watched()
    store = ComponentStore(backend, on_component=watched.heard, on_moved=lambda receipt: None)
    request = job(I2V, image=str(image), steps=STEPS)
    model = store.open(request.model)
    told = explained(store, model, request, with_text=True)
    run_job(request, store, backend, report=lambda progress: None, cancelled=lambda: False)
    watched.until_still(store)
    assert watched.moves == moves_of(told)
    assert [step.stage for step in told] == ["text", "text", "text", "image"]
