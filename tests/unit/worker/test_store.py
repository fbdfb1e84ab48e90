"""The component store: leases, evictions, switches and their receipts."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import (
    DoesNotFit,
    JobCancelled,
    ModelUnusable,
    NotFound,
    NotNow,
    OutOfMemory,
    WorkFailed,
)
from engine.wire import ReceiptStep
from engine.worker import model_switch
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, Model
from engine.worker.cpu import CpuBackend
from engine.worker.loading import Loading
from engine.worker.store import ComponentStore

from .conftest import BUDGET, I2V, LARGE, SMALL, Seen

Files = Callable[[str], ModelFiles]


def _lease(store: ComponentStore, model: Model, *names: str, budget: int = BUDGET, stage_bytes: int = 0):  # type: ignore[no-untyped-def]
    return store.lease(model, names, stage="denoise", stage_bytes=stage_bytes, budget_bytes=budget)


def _bytes(model: Model) -> int:
    return sum(component.bytes for component in model.components.values())


def _labels(model: str, *names: str) -> set[str]:
    return {f"{model}/{name}" for name in names}


def test_a_leased_component_is_resident_and_stays_so_after_the_lease(
    store: ComponentStore, files: Files, seen: Seen
) -> None:
    model = store.open(files(SMALL))
    assert store.weights() == {}
    with _lease(store, model, "dit") as modules:
        assert modules["dit"].patch_embedding.weight.numel() > 0
        assert store.weights() == {f"{SMALL}/dit": model.components["dit"].bytes}
        assert seen.leased() == {f"{SMALL}/dit"}
    assert seen.leased() == set()
    assert set(store.weights()) == {f"{SMALL}/dit"}
    assert [item.state for item in seen.components[:2]] == ["loading", "resident"]
    assert seen.components[1].load_s is not None
    (receipt,) = seen.receipts
    assert (receipt.action, receipt.target, receipt.ok) == ("load", f"{SMALL}/dit", True)
    assert receipt.loaded_bytes == model.components["dit"].bytes


@pytest.mark.parametrize("error", [RuntimeError("boom"), JobCancelled("cancelled"), MemoryError()])
def test_a_lease_closes_however_its_block_ends(
    store: ComponentStore, files: Files, seen: Seen, error: Exception
) -> None:
    model = store.open(files(SMALL))
    with pytest.raises(type(error)), _lease(store, model, "vae"):
        raise error
    assert seen.leased() == set()
    assert store.unload().ok


def test_a_stage_evicts_what_is_idle_and_says_why(store: ComponentStore, files: Files, seen: Seen) -> None:
    large, small = store.open(files(LARGE)), store.open(files(SMALL))
    with _lease(store, large, "dit"):
        pass
    budget = large.components["dit"].bytes
    with _lease(store, small, "dit", budget=budget):
        assert set(store.weights()) == {f"{SMALL}/dit"}
    unload = next(receipt for receipt in seen.receipts if receipt.action == "unload")
    assert unload.target == f"{LARGE}/dit"
    assert unload.expected_bytes == large.components["dit"].bytes
    assert unload.returned_bytes == pytest.approx(unload.expected_bytes, rel=0.05)
    assert "it is idle, of another model" in unload.steps[0].name
    assert (unload.proof, unload.proof_reason is None) == ("process-rss", False)


def test_a_leased_component_cannot_be_evicted_or_unloaded(
    store: ComponentStore, files: Files, seen: Seen
) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "dit"):
        with (
            pytest.raises(OutOfMemory, match=f"{SMALL}/dit"),
            _lease(store, small, "vae", budget=small.components["vae"].bytes + 1),
        ):
            pass
        for refused in (store.unload(SMALL), store.switch(files(LARGE), BUDGET)):
            assert (refused.ok, refused.error_code) == (False, NotNow.code)
            assert refused.error is not None and f"{SMALL}/dit is in use" in refused.error
        assert store.free().returned_bytes is not None
        assert set(store.weights()) == {f"{SMALL}/dit"}
    assert seen.leased() == set()


def test_a_lease_that_cannot_fit_changes_nothing(store: ComponentStore, files: Files, seen: Seen) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "vae"):
        pass
    with pytest.raises(DoesNotFit), _lease(store, small, "dit", budget=1000):
        pass
    assert set(store.weights()) == {f"{SMALL}/vae"}
    assert seen.leased() == set()


def test_a_cancelled_load_leaves_the_component_absent_and_free(
    store: ComponentStore, files: Files, seen: Seen, backend: CpuBackend
) -> None:
    large = store.open(files(LARGE))
    before = backend.held_bytes()

    def cancel(component: Component, done: int, total: int) -> None:
        assert component.name == "dit"
        if done > total // 2:
            raise JobCancelled("cancelled")

    with (
        pytest.raises(JobCancelled),
        store.lease(large, ("dit",), stage="denoise", stage_bytes=0, budget_bytes=BUDGET, moved=cancel),
    ):
        pass
    assert store.weights() == {}
    assert seen.leased() == set()
    assert seen.components[-1].state == "absent"
    assert backend.held_bytes() - before < large.components["dit"].bytes // 4


def test_a_device_without_room_is_asked_again_after_everything_idle_is_gone(
    store: ComponentStore, files: Files, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = store.open(files(LARGE)), store.open(files(SMALL))
    with _lease(store, large, "vae"):
        pass
    real = Component.begin_load
    asked: list[str] = []

    def scarce(self: Component, *args: Any) -> Loading:
        asked.append(self.label)
        if len(asked) == 1:
            raise MemoryError
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", scarce)
    with _lease(store, small, "vae"):
        assert set(store.weights()) == {f"{SMALL}/vae"}
    assert asked == [f"{SMALL}/vae"] * 2
    unload = next(receipt for receipt in seen.receipts if receipt.action == "unload")
    assert "no room" in unload.steps[0].name


def test_a_device_that_stays_without_room_is_an_out_of_memory_error(
    store: ComponentStore, files: Files, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = store.open(files(SMALL))

    def scarce(self: Component, *args: Any) -> Loading:
        raise MemoryError

    monkeypatch.setattr(Component, "begin_load", scarce)
    with pytest.raises(OutOfMemory, match=f"loading {SMALL}/vae"), _lease(store, small, "vae"):
        pass
    assert store.weights() == {}
    assert seen.leased() == set()
    assert [receipt.ok for receipt in seen.receipts] == [False]


@pytest.mark.parametrize(
    ("model", "component", "left"),
    [
        (None, None, set()),
        (SMALL, None, _labels(LARGE, "vae")),
        (SMALL, "vae", _labels(SMALL, "text") | _labels(LARGE, "vae")),
        (None, "vae", _labels(SMALL, "text")),
    ],
)
def test_unload_takes_all_a_model_or_a_component(
    store: ComponentStore, files: Files, model: str | None, component: str | None, left: set[str]
) -> None:
    for name, parts in ((SMALL, ("text", "vae")), (LARGE, ("vae",))):
        with _lease(store, store.open(files(name)), *parts):
            pass
    before = store.weights()
    receipt = store.unload(model, component)
    assert set(store.weights()) == left
    assert receipt.expected_bytes == sum(size for name, size in before.items() if name not in left)
    assert receipt.returned_bytes is not None
    assert receipt.returned_bytes >= 0.95 * receipt.expected_bytes
    assert store.unload(model, component).expected_bytes == 0


def test_unloading_what_is_unknown_names_what_is_known(store: ComponentStore, files: Files) -> None:
    assert store.unload().ok
    store.open(files(SMALL))
    refused = store.unload("wan-demo-tall")
    assert (refused.ok, refused.error_code) == (False, NotFound.code)
    assert refused.error is not None
    assert re.search(rf"wan-demo-tall.*{SMALL}/text", refused.error)


def test_free_gives_back_all_that_is_idle(store: ComponentStore, files: Files) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "text", "dit", "vae"):
        pass
    receipt = store.free()
    assert store.weights() == {}
    assert (receipt.action, receipt.expected_bytes) == ("free", _bytes(small))


def test_free_of_the_cache_alone_leaves_what_is_idle(store: ComponentStore, files: Files) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "vae"):
        pass
    receipt = store.free(idle=False)
    assert set(store.weights()) == {f"{SMALL}/vae"}
    assert (receipt.action, receipt.target, receipt.expected_bytes) == ("free", "cache", 0)


def test_a_switch_leaves_the_target_and_nothing_else(store: ComponentStore, files: Files) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "text", "dit", "vae"):
        pass
    steps: list[ReceiptStep] = []
    receipt = store.switch(files(LARGE), BUDGET, on_step=steps.append)
    assert receipt.ok
    assert set(store.weights()) == _labels(LARGE, "text", "dit", "vae")
    assert receipt.expected_bytes == _bytes(small)
    assert receipt.returned_bytes is not None
    assert receipt.returned_bytes >= 0.95 * _bytes(small)
    assert receipt.loaded_bytes == _bytes(store.open(files(LARGE)))
    assert tuple(steps) == receipt.steps
    names = [step.name for step in steps]
    assert names[0] == "fits"
    assert names.index(f"unload {SMALL}/dit") < names.index("verify") < names.index(f"load {LARGE}/dit")
    assert store.switch(files(LARGE), BUDGET).loaded_bytes == 0


def test_a_switch_that_cannot_fit_is_refused_before_anything_is_unloaded(
    store: ComponentStore, files: Files
) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "vae"):
        pass
    refused = store.switch(files(LARGE), small.components["vae"].bytes)
    assert (refused.ok, refused.error_code) == (False, DoesNotFit.code)
    assert refused.error is not None and f"{LARGE}/dit needs" in refused.error
    assert set(store.weights()) == _labels(SMALL, "vae")


def test_a_switch_loads_what_fits_when_not_all_does(store: ComponentStore, files: Files) -> None:
    i2v = store.open(files(I2V))
    budget = _bytes(i2v) - i2v.components["dit.low"].bytes
    assert store.switch(files(I2V), budget).ok
    assert set(store.weights()) == _labels(I2V, "text", "dit.high", "vae")


def test_a_failed_switch_brings_the_previous_model_back(
    store: ComponentStore, files: Files, copy_of: Files
) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "text", "dit"):
        pass
    broken = copy_of(LARGE)
    store.open(broken)
    vae = Path(broken.path) / "vae" / "diffusion_pytorch_model.safetensors"
    stamp = vae.stat()
    os.truncate(vae, stamp.st_size)  # same stamp of size; the file ends while it is read

    def cut(component: Component, done: int, total: int) -> None:
        if component.name == "vae":
            os.truncate(vae, 4096)

    receipt = store.switch(broken, BUDGET, moved=cut)
    assert not receipt.ok
    assert receipt.error is not None
    assert "truncated" in receipt.error
    # A damaged file would refuse the switch; found out half way it is a failure.
    assert receipt.error_code == WorkFailed.code
    assert receipt.loaded_bytes == 0
    assert set(store.weights()) == _labels(SMALL, "text", "dit")
    assert any(step.name == f"bring back {SMALL}/dit" for step in receipt.steps)
    # What was given up took its time as well.
    assert any(step.name == f"load {LARGE}/vae, given up" for step in receipt.steps)


def test_a_switch_tells_how_far_a_load_has_come(
    store: ComponentStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_switch, "PROGRESS_S", 0.0)
    told: list[ReceiptStep] = []
    receipt = store.switch(files(LARGE), BUDGET, on_step=told.append)
    under_way = [step for step in told if step.total_bytes is not None]
    assert {step.name for step in under_way} == {f"load {LARGE}/{name}" for name in ("text", "dit", "vae")}
    dit = [step.bytes for step in under_way if step.name == f"load {LARGE}/dit"]
    assert dit == sorted(dit) and dit[-1] == store.open(files(LARGE)).components["dit"].index.bytes
    assert [step for step in told if step.total_bytes is None] == list(receipt.steps)


def test_a_reload_never_makes_room_by_what_it_has_just_loaded_and_names_what_is_missing(
    store: ComponentStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Component.begin_load

    def scarce(self: Component, *args: Any) -> Loading:
        if self.label == f"{LARGE}/vae":
            raise MemoryError
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", scarce)
    receipt = store.restore([(files(LARGE), name) for name in ("text", "dit", "vae")])
    components = store.open(files(LARGE)).components
    assert not receipt.ok and f"{LARGE}/vae" in (receipt.error or "")
    assert set(store.weights()) == _labels(LARGE, "text", "dit")
    assert receipt.loaded_bytes == components["text"].bytes + components["dit"].bytes


@pytest.mark.parametrize("refused", ["once", "always"])
def test_a_switch_never_makes_room_by_what_it_has_just_loaded(
    store: ComponentStore, files: Files, seen: Seen, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    with _lease(store, store.open(files(SMALL)), "text", "dit"):
        pass
    real, asked = Component.begin_load, 0

    def scarce(self: Component, *args: Any) -> Loading:
        nonlocal asked
        if self.label == f"{LARGE}/vae":
            asked += 1
            if refused == "always" or asked == 1:
                raise MemoryError
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", scarce)
    receipt = store.switch(files(LARGE), BUDGET)
    assert asked == 1
    assert not receipt.ok
    assert receipt.error is not None
    assert f"no memory left while loading {LARGE}/vae" in receipt.error
    assert receipt.error_code == OutOfMemory.code
    assert set(store.weights()) == _labels(SMALL, "text", "dit")
    assert [item.action for item in seen.receipts if item.action == "unload"] == []


def test_a_failed_switch_counts_what_it_put_back_as_neither_returned_nor_loaded(
    store: ComponentStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "text", "dit"):
        pass
    with _lease(store, store.open(files(LARGE)), "vae"):
        pass
    real = Component.begin_load

    def broken(self: Component, *args: Any) -> Loading:
        if self.label == f"{LARGE}/dit":
            raise ModelUnusable("its file is damaged")
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", broken)
    receipt = store.switch(files(LARGE), BUDGET)
    assert receipt.error == "its file is damaged"
    assert set(store.weights()) == _labels(SMALL, "text", "dit") | _labels(LARGE, "vae")
    assert (receipt.expected_bytes, receipt.residue_bytes, receipt.loaded_bytes) == (0, 0, 0)
    assert receipt.returned_bytes is not None
    assert receipt.returned_bytes < small.components["dit"].bytes // 4


def test_a_failed_switch_that_cannot_put_all_back_says_what_is_gone(
    store: ComponentStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "text", "dit"):
        pass
    real = Component.begin_load

    def broken(self: Component, *args: Any) -> Loading:
        if self.name == "dit":
            raise ModelUnusable(f"{self.label} is damaged")
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", broken)
    receipt = store.switch(files(LARGE), BUDGET)
    assert receipt.error == (
        f"{LARGE}/dit is damaged; and not all could be brought back: {SMALL}/dit is damaged"
    )
    assert set(store.weights()) == _labels(SMALL, "text")
    assert receipt.expected_bytes == small.components["dit"].bytes
    assert receipt.returned_bytes == pytest.approx(receipt.expected_bytes, rel=0.05)
    assert receipt.loaded_bytes == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: shutil.rmtree(root / "tokenizer"), "tokenizer is missing"),
        (lambda root: (root / "tokenizer" / "tokenizer.json").write_text("{"), "no usable tokenizer"),
        (lambda root: (root / "transformer" / "config.json").unlink(), r"config\.json is missing"),
        (lambda root: (root / "transformer" / "config.json").write_text("{"), r"config\.json is damaged"),
        (lambda root: (root / "vae" / "config.json").write_text('{"z_dim": "x"}'), "describes no vae"),
        (
            lambda root: os.truncate(root / "vae" / "diffusion_pytorch_model.safetensors", 9000),
            "truncated",
        ),
    ],
)
def test_a_damaged_model_is_one_sentence_and_the_others_go_on(
    store: ComponentStore, files: Files, copy_of: Files, damage: Callable[[Path], object], said: str
) -> None:
    broken = copy_of(LARGE)
    damage(Path(broken.path))
    with pytest.raises(ModelUnusable, match=said) as refused:
        store.open(broken)
    assert "\n" not in str(refused.value)
    with _lease(store, store.open(files(SMALL)), "vae"):
        assert set(store.weights()) == _labels(SMALL, "vae")


def test_replaced_files_are_read_anew(store: ComponentStore, files: Files, copy_of: Files) -> None:
    own = copy_of(I2V)
    root = Path(own.path)
    with _lease(store, store.open(own), "dit.high") as modules:
        before = modules["dit.high"].proj_out.weight.clone()
    identity = store.open(own).components["dit.high"].index.identity
    shutil.copy(
        root / "transformer_2" / "diffusion_pytorch_model.safetensors",
        root / "transformer" / "diffusion_pytorch_model.safetensors",
    )
    model = store.open(own)
    assert model.components["dit.high"].index.identity != identity
    assert store.weights() == {}
    with _lease(store, model, "dit.high") as modules:
        assert not torch.equal(modules["dit.high"].proj_out.weight, before)


def test_an_edited_configuration_is_read_anew(store: ComponentStore, copy_of: Files) -> None:
    own = copy_of(SMALL)
    with _lease(store, store.open(own), "vae", "dit"):
        pass
    config = Path(own.path) / "vae" / "config.json"
    settings = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps(settings | {"latents_mean": [0.5] * 16}), "utf-8")
    model = store.open(own)
    vae: Any = model.components["vae"].module
    assert vae.config.latents_mean == [0.5] * 16
    assert set(store.weights()) == _labels(SMALL, "dit")
    assert store.open(own).components["vae"].module is vae
    config.write_text("{", "utf-8")
    with pytest.raises(ModelUnusable, match=r"vae/config\.json is damaged"):
        store.open(own)
    assert set(store.weights()) == _labels(SMALL, "dit")


def test_an_edited_tokenizer_is_read_anew(store: ComponentStore, copy_of: Files) -> None:
    own = copy_of(SMALL)
    before = store.open(own).tokenizer
    assert store.open(own).tokenizer is before
    path = Path(own.path) / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"model_max_length": 77}), "utf-8")
    assert store.open(own).tokenizer.model_max_length == 77


def test_an_edited_model_stays_as_it_is_while_some_of_it_is_leased(
    store: ComponentStore, copy_of: Files
) -> None:
    own = copy_of(SMALL)
    model = store.open(own)
    before = dict(model.components)
    with _lease(store, model, "dit"):
        os.utime(Path(own.path) / "vae" / "config.json", ns=(1, 1))
        assert store.open(own).components == before
    after = store.open(own).components
    assert after["vae"] is not before["vae"]
    assert after["dit"] is before["dit"]


def test_free_from_another_thread_does_not_touch_what_is_in_use(store: ComponentStore, files: Files) -> None:
    small = store.open(files(SMALL))
    with _lease(store, small, "text"):
        pass
    with _lease(store, small, "dit"):
        thread = threading.Thread(target=store.free)
        thread.start()
        thread.join()
        assert set(store.weights()) == _labels(SMALL, "dit")
