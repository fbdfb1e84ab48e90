"""A model is quantised beside a running engine, and a job runs its int8 sibling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import msgspec
import pytest

from engine.errors import InvalidRequest, NotFound, NotNow
from engine.wire import JobRuns, JobSpec, Manifest, QuantiseRequest
from tests.daemon.live import LiveEngine, wait_for

SIBLING = "wan-demo-small-int8"


@pytest.fixture(scope="module")
def sibling(live: LiveEngine) -> Iterator[str]:
    """Made by the engine; taken away again, since others count the models."""
    request = QuantiseRequest(model="wan-demo-small")
    plan = live.client.plan_quantising(request)
    assert (plan.name, plan.layers) == (SIBLING, 50)
    assert live.client.quantise(request) == replace(plan, free_bytes=ANY)
    with pytest.raises(NotNow, match="wan-demo-small is being quantised; wait for its end, or stop it"):
        live.client.quantise(request)
    wait_for(lambda: SIBLING in names(live), 10, "its sibling")
    wait_for(lambda: all(model.quantising is None for model in live.client.models()), 10, "its end")
    yield SIBLING
    shutil.rmtree(live.paths.models / SIBLING)
    wait_for(lambda: SIBLING not in names(live), 10, "that it is gone")


def names(live: LiveEngine) -> set[str]:
    return {model.name for model in live.client.models()}


def test_a_job_runs_the_int8_sibling_where_that_is_asked_for(
    live: LiveEngine, short: JobSpec, sibling: str
) -> None:
    model = next(model for model in live.client.models() if model.name == sibling)
    assert (model.problem, model.dtype, model.quantised_from) == (None, "int8", "wan-demo-small")
    wanted = replace(short, model="wan-demo-small", quant="int8")
    runs = JobRuns(model=sibling, quant="int8")
    assert live.client.forecast(wanted).runs == runs
    assert live.client.explain(wanted).runs == runs
    job = live.run(wanted)
    assert (job.status, job.error) == ("done", None)
    assert (job.spec.model, job.spec.quant, job.runs) == ("wan-demo-small", "int8", runs)
    assert job.manifest is not None
    manifest = msgspec.json.decode(Path(job.manifest).read_bytes(), type=Manifest)
    assert (manifest.spec.model, manifest.runs) == (sibling, runs)
    back = live.run(replace(short, model=sibling, quant="bf16"))
    assert back.runs == JobRuns(model="wan-demo-small", quant="bf16")
    assert back.manifest is not None
    other = msgspec.json.decode(Path(back.manifest).read_bytes(), type=Manifest)
    assert other.weights["dit"] != manifest.weights["dit"]
    assert other.weights["text"] == manifest.weights["text"]
    assert other.frames_sha256 != manifest.frames_sha256


def test_a_sibling_that_there_is_not_is_refused(live: LiveEngine, short: JobSpec) -> None:
    with pytest.raises(InvalidRequest, match="`turbotui quantize wan-demo-large` makes it"):
        live.client.submit(replace(short, model="wan-demo-large", quant="int8"))


def test_what_cannot_be_quantised_is_refused_and_nothing_is_there_to_stop(live: LiveEngine) -> None:
    with pytest.raises(NotFound, match="no model 'nobody'"):
        live.client.quantise(QuantiseRequest(model="nobody"))
    with pytest.raises(NotNow, match="no model is being quantised"):
        live.client.stop_quantising()


def test_one_that_is_stopped_leaves_no_model(live: LiveEngine) -> None:
    live.client.quantise(QuantiseRequest(model="wan-demo-large"))
    assert live.client.stop_quantising().model == "wan-demo-large"
    wait_for(lambda: all(model.quantising is None for model in live.client.models()), 10, "its end")
    left = live.paths.models / ".wan-demo-large-int8-quantising"
    wait_for(lambda: _stops(live), 10, "that another may begin")
    assert "wan-demo-large-int8" not in names(live)
    shutil.rmtree(left, ignore_errors=True)


def _stops(live: LiveEngine) -> bool:
    try:
        live.client.stop_quantising()
    except NotNow:
        return True
    return False
