"""The choice between a model and its int8 sibling: in the form, on a job's page, in the models panel."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.wire import (
    Job,
    JobForecast,
    JobRuns,
    JobSpec,
    ModelsChanged,
    QuantisePlan,
    QuantiseProgress,
    QuantiseRequest,
    Snapshot,
)
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.draft import Draft, draft_of
from turbotui.widgets.fields import ChoiceField

from .conftest import NOW, WIDE, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]
RUNS = JobRuns(
    model="wan2.1-14b-int8", quant="int8", reason="bf16 needs 33.10 GiB of 24.00 GiB; int8 needs 19.20 GiB"
)


def with_sibling() -> tuple[Snapshot, ModelsChanged]:
    snapshot = scenes.busy(NOW)
    models = list(snapshot.status.models)
    place = next(number for number, model in enumerate(models) if model.name == "wan2.1-14b")
    original = models[place]
    models[place] = replace(original, sibling="wan2.1-14b-int8")
    sibling = replace(
        original, name="wan2.1-14b-int8", dtype="int8", sibling=original.name, quantised_from=original.name
    )
    return snapshot, ModelsChanged(models=(*models, sibling))


def forecast(spec: JobSpec) -> JobForecast:
    return JobForecast(
        width=832, height=480, frames=81, steps=4, weights_bytes=14 << 30, peak_bytes=19 << 30,
        fits_now=True, fits_empty=True, runs=RUNS,
    )  # fmt: skip


async def open_form(app: TurboApp, pilot: Any, draft: Draft) -> ChoiceField:
    app.drafts.own.keep(draft)
    await live(pilot)
    await until(pilot, lambda: len(app.link.state.models) > 3)
    await pilot.press("a")
    await pilot.pause()
    return app.screen.query_one("#quant", ChoiceField)


async def test_the_choice_is_offered_where_there_are_two_and_sent(console: Build) -> None:
    client = scripted(*with_sibling())
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        field = await open_form(app, pilot, Draft(prompt="x", model="wan2.1-14b"))
        assert field.display and field.values == ["auto", "bf16", "int8"]
        assert "wan2.1-14b-int8 where bf16 does not fit" in screen_text(app)
        field.focus()
        await pilot.press("right")
        assert "runs wan2.1-14b" in screen_text(app)
        await pilot.press("right")
        assert "runs wan2.1-14b-int8" in screen_text(app)
        app.screen.query_one("#prompt").focus()
        await pilot.press("enter")
        sent = lambda: [call[1] for call in client.asked if call[0] == "submit"]  # noqa: E731
        await until(pilot, lambda: bool(sent()))
    assert (sent()[0].model, sent()[0].quant) == ("wan2.1-14b", "int8")


async def test_a_model_without_a_sibling_offers_nothing(console: Build) -> None:
    app = console(scripted(*with_sibling()))
    async with app.run_test(size=WIDE) as pilot:
        field = await open_form(app, pilot, Draft(prompt="x", model="wan2.1-1.3b", quant="int8"))
        assert not field.display and field.value == "auto"


async def test_what_runs_in_its_place_is_told_with_the_figures_before_it_is_sent(console: Build) -> None:
    app = console(scripted(*with_sibling(), forecast=forecast))
    async with app.run_test(size=WIDE) as pilot:
        await open_form(app, pilot, Draft(prompt="x", model="wan2.1-14b"))
        told = "runs wan2.1-14b-int8: bf16 needs 33.10 GiB of 24.00 GiB; int8 needs 19.20 GiB"
        await until(pilot, lambda: told in screen_text(app))


async def test_the_page_of_a_job_says_what_runs_and_why(console: Build) -> None:
    snapshot, models = with_sibling()
    jobs = tuple(replace(job, runs=RUNS) if job.status == "running" else job for job in snapshot.jobs)
    app = console(scripted(replace(snapshot, jobs=jobs), models))
    async with app.run_test(size=(200, 50)) as pilot:
        await live(pilot)
        await pilot.press("4", "enter")
        await until(pilot, lambda: "runs as" in screen_text(app))
        assert "wan2.1-14b-int8: bf16 needs 33.10 GiB of 24.00 GiB" in screen_text(app)


async def test_the_panel_shows_a_sibling_as_one(console: Build) -> None:
    app = console(scripted(*with_sibling()))
    async with app.run_test(size=(260, 50)) as pilot:
        await live(pilot)
        await until(pilot, lambda: "sibling" in panel_text(app, "models"))
        line = next(line for line in panel_text(app, "models").splitlines() if "sibling" in line)
        assert "wan2.1-14b-int8" in line


def test_a_draft_of_a_job_asks_for_the_same(console: Build) -> None:
    spec = JobSpec(model="wan2.1-14b", prompt="x", quant="bf16")
    job = Job(id=7, spec=spec, status="done", created_at=0.0, runs=None)
    draft = draft_of(job, kind="t2v", output_dir=None)
    assert draft.spec(image_to_video=False) == spec
    other = Draft(prompt="x", model="m", quant="fp8")
    assert other.spec(image_to_video=False).quant == "auto"


async def test_a_model_is_quantised_after_its_plan_was_seen_and_can_be_stopped(console: Build) -> None:
    snapshot, models = with_sibling()
    client = scripted(snapshot, models)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("8")
        await until(pilot, lambda: "choose a model in the models panel" in screen_text(app))
        await pilot.press("3", "G", "8")
        await until(pilot, lambda: "no device memory" in screen_text(app))
        text = screen_text(app)
        assert "27.0 GiB to 14.0 GiB" in text and "200 GiB" in text
        assert re.search(r"layers to int8  \d+ ", text), "a name and its figure are two words"
        await pilot.press("enter")  # on Cancel
        assert [call[0] for call in client.asked].count("quantise") == 0
        await pilot.press("8")
        await until(pilot, lambda: "no device memory" in screen_text(app))
        await pilot.press("right", "enter")
        await until(pilot, lambda: any(call[0] == "quantise" for call in client.asked))


async def test_a_plan_that_comes_late_takes_no_keys_from_another_dialog(console: Build) -> None:
    go = threading.Event()

    def slow(request: QuantiseRequest) -> QuantisePlan:
        go.wait(5)
        return QuantisePlan(
            model=request.model, name="x-int8", path="/m", source_bytes=2, bytes=1, free_bytes=9, layers=4
        )

    app = console(scripted(*with_sibling(), plan_quantising=slow))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("3", "G", "8", "m")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        go.set()
        await until(pilot, lambda: app.pending is None)
        assert len(app.screen_stack) == 2 and "no device memory" not in screen_text(app)


async def test_one_that_is_under_way_shows_how_far_and_is_stopped(console: Build) -> None:
    snapshot, models = with_sibling()
    progress = QuantiseProgress(
        name="x-int8", stage="write", file="transformer/a", done_bytes=37, bytes=100, elapsed_s=3.0
    )
    last = replace(models.models[-1], quantising=progress)
    client = scripted(snapshot, ModelsChanged(models=(*models.models[:-1], last)))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "to int8 37 %" in panel_text(app, "models"))
        await pilot.press("3", "G", "8")
        await until(pilot, lambda: "It is being made" in screen_text(app))
        await pilot.press("right", "enter")
        await until(pilot, lambda: any(call[0] == "stop_quantising" for call in client.asked))


async def test_a_console_that_only_looks_quantises_nothing(console: Build) -> None:
    client = scripted(*with_sibling())
    app = console(client, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("3", "G", "8")
        await pilot.pause(0.2)
    assert not [call for call in client.asked if call[0] == "plan_quantising"]
