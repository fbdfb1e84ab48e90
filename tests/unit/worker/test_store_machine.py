"""Leases, switches, loads ahead and unloads in any order: what must hold after each of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.errors import EngineError, JobCancelled, NotFound, NotNow
from engine.planning.residency import Needed, Stage
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, Model
from engine.worker.loading import Loading
from engine.worker.store import ComponentStore

from .conftest import I2V, SMALL

Files = Callable[[str], ModelFiles]
MODELS = st.sampled_from([SMALL, I2V])
PART = {SMALL: ("text", "dit", "vae"), I2V: ("text", "vae", "dit.high", "dit.low")}
PLACES = st.sampled_from([(model, part) for model in (SMALL, I2V) for part in PART[model]])
BUDGETS = st.sampled_from([2**40, 30 * 2**20, 16 * 2**20])
ENDS = st.sampled_from(["well", "raising", "cancelled", "kept open"])


class StoreMachine(RuleBasedStateMachine):
    files: Files
    store: ComponentStore
    """One for all runs, each of which leaves nothing in it: opening the models is most of a run's time."""
    monkeypatch: pytest.MonkeyPatch

    def __init__(self) -> None:
        super().__init__()
        self.open_leases: list[tuple[Component, ExitStack]] = []

    def _model(self, name: str) -> Model:
        return self.store.open(self.files(name))

    def _lease(self, model: Model, part: str, budget: int, under_compute: bool, cancel: bool) -> Any:
        def moved(component: Component, done: int, total: int) -> None:
            if cancel:
                raise JobCancelled("cancelled")

        return self.store.lease(
            model,
            (part,),
            stage="stage",
            stage_bytes=0,
            budget_bytes=budget,
            under_compute=under_compute,
            moved=moved,
        )

    @rule(place=PLACES, budget=BUDGETS, end=ENDS, under_compute=st.booleans())
    def lease(self, place: tuple[str, str], budget: int, end: str, under_compute: bool) -> None:
        model = self._model(place[0])
        component = model.components[place[1]]
        stack = ExitStack()
        try:
            with stack:
                stack.enter_context(
                    self._lease(model, place[1], budget, under_compute, cancel=end == "cancelled")
                )
                assert component.leases > 0 and component.arena.attached
                assert under_compute or component.resident
                if end == "raising":
                    raise RuntimeError("boom")
                if end == "kept open":
                    self.open_leases.append((component, stack.pop_all()))
        except RuntimeError as error:
            assert str(error) == "boom"
        except EngineError:
            pass

    @precondition(lambda self: self.open_leases)
    @rule(which=st.integers(0, 10), raising=st.booleans())
    def end_lease(self, which: int, raising: bool) -> None:
        _, stack = self.open_leases.pop(which % len(self.open_leases))
        if raising:
            with pytest.raises(RuntimeError, match="late"), stack:
                raise RuntimeError("late")
        else:
            stack.close()

    @rule(place=st.one_of(st.none(), PLACES), whole=st.booleans())
    def unload(self, place: tuple[str, str] | None, whole: bool) -> None:
        model, part = place or (None, None)
        receipt = self.store.unload(model, None if whole else part)
        if not receipt.ok:
            assert receipt.error_code in (NotNow.code, NotFound.code)
            return
        gone = [item for item in self.store.components() if model in (None, item.model)]
        assert not any(item.arena.attached for item in gone if whole or part in (None, item.name))

    @rule()
    def free(self) -> None:
        self.store.free()
        assert all(item.leases for item in self.store.components() if item.arena.attached)

    @rule(
        name=MODELS,
        fails=st.integers(0, 5),
        budget=BUDGETS,
        given_up=st.one_of(st.none(), st.integers(0, 40)),
    )
    def switch(self, name: str, fails: int, budget: int, given_up: int | None) -> None:
        """`fails`: which load of it the device refuses, once and for good; 0 for none.

        `given_up`: after how many looks a person does; None for never.
        """
        real, asked = Component.begin_load, 0
        looks = 0
        self._model(name)
        before = self.store.weights()

        def scarce(component: Component, *args: Any) -> Loading:
            nonlocal asked
            asked += component.model == name
            if asked == fails and component.model == name:
                raise MemoryError
            return real(component, *args)

        def check() -> None:
            nonlocal looks
            looks += 1
            if given_up is not None and looks > given_up:
                raise JobCancelled("cancelled")

        with self.monkeypatch.context() as patch:
            patch.setattr(Component, "begin_load", scarce)
            receipt = self.store.switch(self.files(name), budget, check=check)
        if receipt.ok:
            assert {label.partition("/")[0] for label in self.store.weights()} <= {name}
        else:
            assert self.store.weights() == before

    @rule(name=MODELS)
    def load_ahead(self, name: str) -> None:
        model = self._model(name)
        stages = [
            Stage(
                name=part,
                needed=(Needed(model=name, component=part, bytes=model.components[part].bytes),),
                working_bytes=0,
            )
            for part in PART[name]
        ]
        self.store.load_ahead(model, PART[name], now=stages[0], later=stages[1:], budget_bytes=2**40)

    @rule()
    def settle(self) -> None:
        for item in self.store.components():
            if item.loading is not None:
                item.loading.wait(lambda: None)
        self.store.settle()
        assert not any(item.broken for item in self.store.components() if not item.leases)
        assert all(item.resident for item in self.store.components() if item.arena.attached)

    @invariant()
    def leased_ones_are_there(self) -> None:
        for component, _ in self.open_leases:
            assert component.leases > 0
            assert component.arena.attached
            assert component.arena.held_bytes == component.bytes

    @invariant()
    def what_is_counted_is_attached(self) -> None:
        attached = {item.label: item.bytes for item in self.store.components() if item.arena.attached}
        assert self.store.weights() == attached

    @invariant()
    def leases_are_those_that_are_open(self) -> None:
        assert sum(item.leases for item in self.store.components()) == len(self.open_leases)

    def teardown(self) -> None:
        for _, stack in self.open_leases:
            stack.close()
        self.store.settle()
        self.store.unload()
        assert self.store.weights() == {}
        assert not any(item.arena.attached for item in self.store.components())


def test_any_order_of_leases_switches_and_unloads(
    store: ComponentStore, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"files": staticmethod(files), "store": store, "monkeypatch": monkeypatch}
    machine = type("Machine", (StoreMachine,), known)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate,),  # to shrink what fails would take minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
