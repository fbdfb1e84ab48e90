"""A switch or a reload given up at any point: nothing is left half loaded, the previous model is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import JobCancelled, ModelUnusable
from engine.wire import Receipt
from engine.worker.cancels import Cancels
from engine.worker.channel import ModelFiles
from engine.worker.components import Component
from engine.worker.cpu import CpuBackend
from engine.worker.loading import Loading
from engine.worker.store import ComponentStore

from .conftest import BUDGET, I2V, LARGE, SMALL, Seen

Files = Callable[[str], ModelFiles]
SAMPLES = 16
"""Points of one action at which it is given up, the first and the last among them."""


class Asked:
    """Counts how often an action looks whether it is given up, and gives it up at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.count = 0
        self.at = at

    def __call__(self) -> None:
        self.count += 1
        if self.at is not None and self.count > self.at:
            raise JobCancelled("cancelled")


def points(whole: int) -> list[int]:
    return sorted({round(number * (whole - 1) / (SAMPLES - 1)) for number in range(SAMPLES)})


def loaded(store: ComponentStore, files: ModelFiles, *names: str) -> None:
    model = store.open(files)
    for name in names or tuple(model.components):
        with store.lease(model, (name,), stage="x", stage_bytes=0, budget_bytes=BUDGET):
            pass


def attached(store: ComponentStore) -> dict[str, int]:
    """What has memory on the device, by the arenas themselves."""
    return {item.label: item.arena.held_bytes for item in store.components() if item.arena.attached}


def forward(store: ComponentStore, files: ModelFiles) -> Tensor:
    model = store.open(files)
    generator = torch.Generator().manual_seed(5)
    with (
        store.lease(model, ("dit",), stage="x", stage_bytes=0, budget_bytes=BUDGET) as modules,
        torch.inference_mode(),
    ):
        net: Any = modules["dit"]
        out: Tensor = net(
            torch.randn(1, 16, 2, 4, 4, generator=generator).to(net.dtype),
            torch.tensor([932.0]),
            torch.randn(1, 8, net.config.text_dim, generator=generator).to(net.dtype),
        )
    return out


def check_given_up(receipt: Receipt) -> None:
    assert (receipt.ok, receipt.error_code) == (False, "cancelled")
    assert receipt.error is not None and receipt.error.startswith("cancelled")
    assert receipt.loaded_bytes == 0


@pytest.mark.parametrize("target", [LARGE, I2V])
def test_a_switch_given_up_at_any_point_leaves_the_previous_model_whole(
    store: ComponentStore, files: Files, backend: CpuBackend, seen: Seen, target: str
) -> None:
    loaded(store, files(SMALL))
    before, expected = attached(store), forward(store, files(SMALL))
    whole = Asked()
    assert store.switch(files(target), BUDGET, check=whole).ok
    assert store.switch(files(SMALL), BUDGET).ok
    assert whole.count > SAMPLES
    for point in points(whole.count):
        backend.free_cache()
        held = backend.held_bytes()
        receipt = store.switch(files(target), BUDGET, check=Asked(at=point))
        check_given_up(receipt)
        assert attached(store) == store.weights() == before, point
        assert all(item.loading is None for item in store.components() if item.model == target)
        assert all(item.resident for item in store.components() if item.model == SMALL)
        assert torch.equal(forward(store, files(SMALL)), expected)
        backend.free_cache()
        assert abs(backend.held_bytes() - held) < store.open(files(target)).components["vae"].bytes // 2
        text = "before anything was moved" if point == 0 else f"{SMALL} is loaded as before"
        assert receipt.error == f"cancelled{' ' if point == 0 else '; '}{text}"
        assert seen.leased() == set()
    assert store.switch(files(target), BUDGET).ok


def test_a_switch_over_nothing_that_is_given_up_leaves_nothing(store: ComponentStore, files: Files) -> None:
    receipt = store.switch(files(LARGE), BUDGET, check=Asked(at=20))
    check_given_up(receipt)
    assert receipt.error == "cancelled; nothing was loaded before it"
    assert attached(store) == {}


def test_parts_of_the_target_that_were_there_before_are_there_after(
    store: ComponentStore, files: Files
) -> None:
    loaded(store, files(LARGE), "vae")
    loaded(store, files(SMALL), "text", "dit")
    before = attached(store)
    for point in (1, 5, 10):
        check_given_up(store.switch(files(LARGE), BUDGET, check=Asked(at=point)))
        assert attached(store) == before


def test_a_cancel_whose_way_back_fails_says_what_is_gone(
    store: ComponentStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(store, files(SMALL), "text", "dit")
    real = Component.begin_load

    def broken(self: Component, *args: Any) -> Loading:
        if self.label == f"{SMALL}/dit":
            raise ModelUnusable("its file is gone")
        return real(self, *args)

    monkeypatch.setattr(Component, "begin_load", broken)
    receipt = store.switch(files(LARGE), BUDGET, check=Asked(at=10))
    check_given_up(receipt)
    assert receipt.error == "cancelled; and not all could be brought back: its file is gone"
    assert set(attached(store)) == {f"{SMALL}/text"}


@pytest.mark.parametrize("begun", [False, True], ids=["fresh", "begun before"])
def test_a_reload_given_up_at_any_point_leaves_nothing(files: Files, begun: bool) -> None:
    wanted = [(files(SMALL), name) for name in ("text", "dit", "vae")]

    def reload(check: Asked) -> tuple[ComponentStore, Receipt]:
        store = ComponentStore(CpuBackend(), on_component=lambda _: None, on_moved=lambda _: None)
        if begun:
            for item in wanted:
                store.begin(*item)
        return store, store.restore(wanted, check=check)

    whole = Asked()
    store, receipt = reload(whole)
    assert receipt.ok and len(store.weights()) == 3
    for point in points(whole.count if not begun else 4):
        store, receipt = reload(Asked(at=point))
        if receipt.ok:  # what was begun before is there sooner than anybody asks
            assert begun and len(store.weights()) == 3
            continue
        check_given_up(receipt)
        assert attached(store) == store.weights() == {}
        assert all(item.loading is None for item in store.components())
        # What the worker was told to begin may come later than the wish to give it up.
        store.begin(*wanted[0])
        assert attached(store) == {}
        loaded(store, files(SMALL), "dit")


def test_a_reload_that_is_given_up_leaves_what_is_in_use(store: ComponentStore, files: Files) -> None:
    model = store.open(files(SMALL))
    with store.lease(model, ("dit",), stage="x", stage_bytes=0, budget_bytes=BUDGET):
        loaded(store, files(SMALL), "vae")
        receipt = store.restore([(files(SMALL), name) for name in model.components], check=Asked(at=0))
        check_given_up(receipt)
        assert set(attached(store)) == {f"{SMALL}/dit"}


def test_a_wish_is_forgotten_with_its_action_and_those_before_it() -> None:
    cancels = Cancels()
    for number in (3, 4, 9):
        cancels.ask(number)
    with pytest.raises(JobCancelled):
        cancels.check(4)
    cancels.ended(4)
    cancels.check(3)
    cancels.check(4)
    with pytest.raises(JobCancelled):
        cancels.check(9)
