"""Which of a model and its int8 sibling runs, with the reason; and what is said where neither can."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from engine.config import EngineConfig
from engine.daemon.budget import Budget
from engine.daemon.job_plans import JobPlan, JobPlans
from engine.errors import DoesNotFit, InvalidRequest, ModelUnusable
from engine.jobs.model import Owner
from engine.jobs.store import JobStore
from engine.models.model import Model, ModelComponent
from engine.models.siblings import int8_siblings, originals, weights_digest
from engine.planning.footprint import GIB, estimate_footprint
from engine.planning.quant import as_int8
from engine.wire import JobRuns, JobSpec, Quant
from tests.unit.test_footprint import released

BF16 = released(large=True)
INT8_BYTES = 14_533_273_728
"""Of the released quantised 14B model."""


def named(model: Model, name: str, **card: str) -> Model:
    return dataclasses.replace(model, name=name, card=msgspec.structs.replace(model.card, **card))


def int8(name: str, **card: str) -> Model:
    return named(as_int8(BF16), name, **card)


SIBLING = int8("wan-int8", quantised_from="wan", quantised_weights=weights_digest(BF16))


def other_weights(model: Model) -> Model:
    def change(part: ModelComponent) -> ModelComponent:
        return dataclasses.replace(part, identity="sha256:another")

    return dataclasses.replace(model, components=tuple(map(change, model.components)))


def plans(tmp_path: Path, models: Sequence[Model], room: float | None) -> JobPlans:
    catalog = SimpleNamespace(
        models=lambda: tuple(models), get=lambda name: next(each for each in models if each.name == name)
    )
    bytes_ = 0 if room is None else round(room * GIB)
    budget = Budget(now_bytes=bytes_ // 2, empty_bytes=bytes_, held_by="bob 7 12.00 GiB")
    memory = SimpleNamespace(device_kind="cuda", budget=lambda: None if room is None else budget)
    return JobPlans(catalog, memory, EngineConfig(), output_dir=tmp_path)  # type: ignore[arg-type]


def admit(
    tmp_path: Path, models: Sequence[Model], room: float | None, *, model: str = "wan", quant: Quant = "auto"
) -> JobPlan:
    return plans(tmp_path, models, room).admit(JobSpec(model=model, prompt="a fox", quant=quant))


def refused(tmp_path: Path, models: Sequence[Model], room: float, quant: Quant = "auto") -> str:
    plan = admit(tmp_path, models, room, quant=quant)
    budget = Budget(now_bytes=0, empty_bytes=round(room * GIB), held_by="nobody")
    with pytest.raises(DoesNotFit) as error:
        plan.refuse_if_too_large(budget)
    return str(error.value)


def test_the_model_that_was_named_runs_where_it_fits(tmp_path: Path) -> None:
    plan = admit(tmp_path, [BF16, SIBLING], 80)
    assert (plan.model, plan.runs) == (BF16, None)


def test_the_int8_sibling_runs_where_only_it_fits_and_both_figures_are_told(tmp_path: Path) -> None:
    plan = admit(tmp_path, [BF16, SIBLING], 24)
    assert plan.model == SIBLING
    assert plan.runs == JobRuns(
        model="wan-int8",
        quant="int8",
        reason="bf16 needs 28.90 GiB of 24.00 GiB; int8 needs 15.82 GiB",
    )
    assert plan.admitted.spec.model == "wan", "it is told as it was asked for"
    assert plan.footprint == estimate_footprint(SIBLING, 832, 480, 81, device_kind="cuda")


def test_what_others_hold_now_decides_nothing(tmp_path: Path) -> None:
    """bf16 fits the empty device and not beside them: the job waits, as it would without a sibling."""
    assert admit(tmp_path, [BF16, SIBLING], 30).model == BF16


def test_a_device_that_was_not_read_yet_decides_nothing(tmp_path: Path) -> None:
    assert admit(tmp_path, [BF16, SIBLING], None).model == BF16


@pytest.mark.parametrize(
    ("model", "quant", "runs"),
    [
        ("wan", "int8", JobRuns(model="wan-int8", quant="int8")),
        ("wan", "bf16", None),
        ("wan-int8", "bf16", JobRuns(model="wan", quant="bf16")),
        ("wan-int8", "int8", None),
        ("wan-int8", "auto", None),
    ],
)
def test_what_was_asked_for_runs_whatever_fits(
    tmp_path: Path, model: str, quant: Quant, runs: JobRuns | None
) -> None:
    for room in (8.0, 24.0, 80.0):
        assert admit(tmp_path, [BF16, SIBLING], room, model=model, quant=quant).runs == runs


def test_where_neither_fits_the_first_one_is_refused_as_ever(tmp_path: Path) -> None:
    said = refused(tmp_path, [BF16, SIBLING], 12)
    assert said.startswith(
        "wan at 832x480 with 81 frames needs 28.90 GiB, and the empty device has 12.00 GiB"
    )
    assert "quant" not in said


def test_a_refusal_names_the_way_to_a_sibling_that_would_fit(tmp_path: Path) -> None:
    said = refused(tmp_path, [BF16], 24)
    assert said.endswith("or run `turbotui quantize wan`: with int8 weights it needs 15.82 GiB")
    assert "quantize" not in refused(tmp_path, [BF16], 12), "that one would not fit either"
    said = refused(tmp_path, [BF16, SIBLING], 24, "bf16")
    assert said.endswith("or leave quant out: wan-int8 needs 15.82 GiB")


def test_a_sibling_that_there_is_not_is_refused_with_the_way_to_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"wan has no int8 sibling; `turbotui quantize wan` makes it"):
        admit(tmp_path, [BF16], 80, quant="int8")
    with pytest.raises(InvalidRequest, match="the model that wan-int8 was quantised from is not here"):
        admit(tmp_path, [SIBLING], 80, model="wan-int8", quant="bf16")
    broken = dataclasses.replace(BF16, configs=None, problem="its files are gone")
    for quant in ("auto", "int8"):
        with pytest.raises(ModelUnusable, match="its files are gone"):
            admit(tmp_path, [broken, SIBLING], 80, quant=quant)


def test_a_sibling_is_known_by_its_card_its_weights_or_its_released_name() -> None:
    renamed = named(BF16, "mine")
    by_hand = int8("x", quantised_from="wan")
    release = int8("WAN-quant")
    mine = [SIBLING, by_hand, release, int8("other"), renamed]
    assert [model.name for model in int8_siblings(BF16, mine)] == ["wan-int8", "x", "WAN-quant"]
    assert [model.name for model in int8_siblings(renamed, mine)] == ["wan-int8"]
    assert originals(SIBLING, [renamed, BF16]) == [BF16, renamed], "the one that its card names comes first"
    retrained = other_weights(BF16)
    assert [model.name for model in int8_siblings(retrained, mine)] == ["x", "WAN-quant"]
    small = released()
    assert int8_siblings(named(small, "wan"), mine) == [], "another net"
    assert int8_siblings(SIBLING, mine) == []


def test_the_estimate_of_a_sibling_that_is_not_made_is_that_of_the_released_one() -> None:
    found = as_int8(BF16).component("dit").bytes
    assert abs(found - INT8_BYTES) < 0.001 * INT8_BYTES


def test_what_runs_is_kept_with_the_job_and_older_builds_read_past_it(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    try:
        runs = JobRuns(model="wan-int8", quant="int8", reason="bf16 needs more")
        spec = JobSpec(model="wan", prompt="a fox")
        job = store.submit(spec, 7, runs)
        assert (job.spec, job.runs, job.model) == (spec, runs, "wan-int8")
        assert store.duplicate(job.id).runs == runs
        owner = Owner(instance="i", engine_pid=1, boot_id="b")
        claimed = store.claim(job.id, owner, output="/x.mp4")
        assert (claimed.runs, claimed.model) == (None, "wan"), "decided anew as it starts"
        store.finish(job.id, "failed", error="x", error_code="work_failed")
        store.retry(job.id)
        assert store.claim(job.id, owner, output="/x.mp4", runs=runs).runs == runs
        row = store._tables.row(job.id)
        assert msgspec.json.decode(row["spec"], type=JobSpec) == spec
    finally:
        store.close()
