"""A model is quantised beside a running engine, and a job runs its int8 sibling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from engine.errors import InvalidRequest
from engine.wire import JobRuns, JobSpec, Manifest
from tests.daemon.live import LiveEngine, wait_for
from turbotui.cli import main

SIBLING = "wan-demo-small-int8"


@pytest.fixture(scope="module")
def sibling(live: LiveEngine) -> Iterator[str]:
    """Made by the command, found by the engine; taken away again, since others count the models."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in live.environ.items():
            patch.setenv(name, value)
        assert main(["quantize", "wan-demo-small", "--json"]) == 0
    wait_for(lambda: any(model.name == SIBLING for model in live.client.models()), 10, "its sibling")
    yield SIBLING
    shutil.rmtree(live.paths.models / SIBLING)
    wait_for(lambda: not any(model.name == SIBLING for model in live.client.models()), 10, "its sibling")


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
