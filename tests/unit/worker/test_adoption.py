"""Models that share a text encoder and a VAE: one takes over the other's memory, nothing is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotNow
from engine.wire import ReceiptStep
from engine.worker.backend import Batch
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.components import Component
from engine.worker.cpu import CpuBackend
from engine.worker.loading import Loading
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore

from .conftest import BUDGET, LARGE, SMALL, Seen

Files = Callable[[str], ModelFiles]
OTHER = "other"
SHARED = {"text": "text_encoder", "vae": "vae"}


class CountingBackend(CpuBackend):
    """Counts the bytes that it copies from each folder."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[str, int] = {}

    def copy(self, batches: Iterable[Batch], moved: Callable[[int], None]) -> None:
        for batch in batches:
            parts = list(batch.parts)
            for part in parts:
                name = part.source.path.parent.name  # type: ignore[attr-defined]
                self.read[name] = self.read.get(name, 0) + part.bytes
            super().copy([replace(batch, parts=parts)], moved)


@pytest.fixture
def backend() -> CountingBackend:
    return CountingBackend()


def _link(source: str, target: str) -> object:
    os.link(source, target)
    return target


@pytest.fixture
def linked(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """The large model's DiT with the small one's text encoder and VAE, hard-linked."""
    # Beside the models, which may lie on another file system than a test's own folder.
    root = tmp_path_factory.mktemp("linked") / OTHER
    shutil.copytree(demo_models / LARGE, root)
    for folder in SHARED.values():
        shutil.rmtree(root / folder)
        shutil.copytree(demo_models / SMALL / folder, root / folder, copy_function=_link)
    return ModelFiles(name=OTHER, kind="t2v", path=str(root))


def _labels(model: str, *names: str) -> set[str]:
    return {f"{model}/{name}" for name in names}


def _loaded(store: ComponentStore, model: ModelFiles, *names: str) -> None:
    for name in names:
        with store.lease(store.open(model), (name,), stage="x", stage_bytes=0, budget_bytes=BUDGET):
            pass


def test_a_switch_takes_over_what_is_the_same_and_reads_only_the_rest(
    store: ComponentStore, files: Files, linked: ModelFiles, backend: CountingBackend
) -> None:
    _loaded(store, files(SMALL), "text", "dit", "vae")
    backend.read.clear()
    receipt = store.switch(linked, BUDGET)
    assert receipt.ok
    assert set(store.weights()) == _labels(OTHER, "text", "dit", "vae")
    assert set(backend.read) == {"transformer"}
    names = [step.name for step in receipt.steps]
    assert {f"keep {OTHER}/{name}, the same weights" for name in SHARED} <= set(names)
    opened = {item.label: item for item in store.components()}
    assert receipt.loaded_bytes == opened[f"{OTHER}/dit"].bytes
    assert receipt.expected_bytes == opened[f"{SMALL}/dit"].bytes
    assert sum(store.weights().values()) == sum(item.bytes for item in opened.values() if item.resident)


def test_jobs_of_both_models_in_turn_move_only_their_dits_and_make_their_own_frames(
    store: ComponentStore,
    files: Files,
    linked: ModelFiles,
    backend: CountingBackend,
    job: Callable[..., RunJob],
    seen: Seen,
) -> None:
    def frames(model: ModelFiles) -> str:
        return run_job(job(model), store, backend, report=seen.progress.append, cancelled=lambda: False)[
            0
        ].frames_sha256

    alone = {}
    for model in (files(SMALL), linked):
        alone[model.name] = frames(model)
        store.unload()
    assert alone[SMALL] != alone[OTHER]
    assert frames(files(SMALL)) == alone[SMALL]
    backend.read.clear()
    assert frames(linked) == alone[OTHER]
    assert frames(files(SMALL)) == alone[SMALL]
    assert set(backend.read) == {"transformer"}
    assert not _labels(OTHER, *SHARED) & set(store.weights())


def test_a_failed_switch_gives_back_what_it_took_over(
    store: ComponentStore,
    files: Files,
    linked: ModelFiles,
    backend: CountingBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _loaded(store, files(SMALL), "text", "dit", "vae")
    before = store.weights()
    real = Component.begin_load

    def scarce(self: Component, *args: Any) -> Loading:
        if self.label == f"{OTHER}/dit":
            raise MemoryError
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", scarce)
    backend.read.clear()
    receipt = store.switch(linked, BUDGET)
    assert not receipt.ok
    assert store.weights() == before
    assert set(backend.read) == {"transformer"}  # the small one's, brought back
    assert (receipt.expected_bytes, receipt.loaded_bytes) == (0, 0)


def test_a_switch_refused_for_a_leased_part_takes_over_nothing(
    store: ComponentStore, files: Files, linked: ModelFiles
) -> None:
    small = store.open(files(SMALL))
    _loaded(store, files(SMALL), "text", "vae")
    steps: list[ReceiptStep] = []
    with store.lease(small, ("dit",), stage="x", stage_bytes=0, budget_bytes=BUDGET):
        refused = store.switch(linked, BUDGET, on_step=steps.append)
        assert (refused.ok, refused.error_code) == (False, NotNow.code)
        assert refused.error is not None and f"{SMALL}/dit is in use" in refused.error
        assert set(store.weights()) == _labels(SMALL, "text", "dit", "vae")
    assert steps == []


def test_a_leased_part_is_not_taken_over(
    store: ComponentStore, files: Files, linked: ModelFiles, backend: CountingBackend
) -> None:
    with store.lease(store.open(files(SMALL)), ("vae",), stage="x", stage_bytes=0, budget_bytes=BUDGET):
        _loaded(store, linked, "vae")
        assert set(store.weights()) == {f"{SMALL}/vae", f"{OTHER}/vae"}


@pytest.mark.parametrize("change", ["copied", "edited", "touched"])
def test_what_only_looks_the_same_is_read_anew(
    store: ComponentStore, files: Files, linked: ModelFiles, backend: CountingBackend, change: str
) -> None:
    folder = Path(linked.path) / "vae"
    if change == "copied":
        weights = folder / "diffusion_pytorch_model.safetensors"
        content = weights.read_bytes()
        weights.unlink()
        weights.write_bytes(content)
    else:
        config = folder / "config.json"
        settings = json.loads(config.read_text("utf-8"))
        config.unlink()  # or the small model's, which is linked, would be edited as well
        if change == "edited":
            settings["latents_mean"] = [0.25] * 16
        else:
            settings["a_note"] = "the same net, spelt otherwise"
        config.write_text(json.dumps(settings), "utf-8")
    _loaded(store, files(SMALL), "text", "vae")
    backend.read.clear()
    _loaded(store, linked, "text", "vae")
    assert set(backend.read) == {"vae"}
    assert set(store.weights()) == {f"{SMALL}/vae", f"{OTHER}/text", f"{OTHER}/vae"}
