"""The end of a job that was queued here is told in the last line, with the keys for its video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from textual.widgets import Input

from engine.wire import BatchQueued, Job, JobChanged, JobSpec, JobState
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.text import t

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, scripted, until
from .test_remote import FarBox

Build = Callable[..., TurboApp]

SIZES_AND_LANGUAGES = [(size, language) for size in (SMALL, WIDE) for language in ("en", "zh_CN")]


def job(job_id: int, status: JobState, **fields: Any) -> JobChanged:
    ended = {"started_at": NOW + 1, "finished_at": NOW + 4.9} if status in ("done", "failed") else {}
    if status == "done":
        ended["output"] = f"/videos/{job_id}.mp4"  # type: ignore[assignment]
    spec = JobSpec(model="wan2.1-1.3b", prompt="a red fox")
    made = Job(id=job_id, spec=spec, created_at=NOW, status=status, **ended)  # type: ignore[arg-type]
    return JobChanged(job=replace(made, **fields))


async def queue_one(pilot: Any, client: Any) -> None:
    """Write a job and queue it; the scripted engine calls it 99."""
    await pilot.press("a", "f", "o", "x", "enter")
    await until(pilot, lambda: any(call[0] == "submit" for call in client.asked), "a submission")
    await until(pilot, lambda: t("did.submit", id=99) in panel_text(pilot.app, "receipt"), "its answer")


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_the_end_of_an_own_job_is_told_with_its_keys(
    console: Build, clock: Clock, size: tuple[int, int], language: str
) -> None:
    client = scripted(scenes.idle(NOW))
    app = console(client, language=language)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await queue_one(pilot, client)
        client.push(job(99, "running"))
        await until(pilot, lambda: app.link.state.running is not None)
        assert t("did.submit", id=99) in panel_text(app, "receipt")
        clock.passed = 60.0  # what was said then is over long since
        client.push(job(99, "done"))
        done = t("ended.done", id=99, took="3.9 s")
        await until(pilot, lambda: done in panel_text(app, "receipt"), "the end")
        said = panel_text(app, "receipt").strip()
        assert said == f"{done}  v {t('ended.opens')}  y {t('ended.copies')}"
        # The same news again is no other end.
        clock.passed = 90.0
        client.push(job(99, "done", attempt=1))
        client.push(job(7, "done"))  # another console's
        await until(pilot, lambda: app.link.state.job(7) is not None)
        app.dashboard.tick()
        assert t("ended.done", id=99, took="").strip() not in panel_text(app, "receipt")
        assert t("ended.done", id=7, took="").strip() not in panel_text(app, "receipt")


@pytest.mark.parametrize("size", [SMALL, WIDE])
async def test_keys_are_named_only_where_they_mean_that_job(console: Build, size: tuple[int, int]) -> None:
    client = scripted(scenes.idle(NOW))
    app = console(client, keys={"copy": "Y"})
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await queue_one(pilot, client)
        client.push(job(99, "running"))
        await until(pilot, lambda: app.link.state.running is not None)
        await pilot.press("4", "G")  # job 30, the last of those that have ended
        client.push(job(99, "done"))
        await until(pilot, lambda: "✓ job 99 done 3.9 s" in panel_text(app, "receipt"))
        assert panel_text(app, "receipt").strip() == "✓ job 99 done 3.9 s"
        # From the history v means the newest video, and so does what copies.
        await pilot.press("r")
        await until(pilot, lambda: ("retry", 30) in client.asked)
        await pilot.press("2")
        client.push(job(7, "queued"))  # the answer was sooner than the news of its waiting again
        await until(pilot, lambda: app.link.state.job(7) is not None)
        assert "job 30 done" not in panel_text(app, "receipt")
        client.push(job(30, "queued"))
        client.push(job(30, "done", finished_at=NOW + 9.0))
        await until(pilot, lambda: "✓ job 30 done 8.0 s  v opens  Y copies" in panel_text(app, "receipt"))


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_a_failure_says_why_and_a_cancelled_job_nothing(
    console: Build, size: tuple[int, int], language: str
) -> None:
    client = scripted(scenes.idle(NOW))
    app = console(client, language=language)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await queue_one(pilot, client)
        client.push(job(99, "failed", error="the disk is full"))
        words = t("notice.failed", id=99, model="wan2.1-1.3b", error="the disk is full")
        await until(pilot, lambda: f"! {words}" in panel_text(app, "receipt"))
        await queue_one(pilot, client)
        client.push(job(99, "cancelled", finished_at=NOW + 9.0))
        await until(pilot, lambda: app.link.state.job(99).status == "cancelled")  # type: ignore[union-attr]
        await pilot.pause()
        assert t("did.submit", id=99) in panel_text(app, "receipt")


async def test_a_job_that_ends_at_its_next_step_is_told_of_once_it_has(console: Build) -> None:
    running = scenes.running_job(NOW)
    client = scripted(scenes.busy(NOW), cancel=running)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("4", "g", "x")
        await until(pilot, lambda: t("did.cancel_running", id=41) in panel_text(app, "receipt"))
        client.push(JobChanged(job=replace(running, status="cancelled", finished_at=NOW + 1)))
        await until(pilot, lambda: t("did.cancel_cancelled", id=41) in panel_text(app, "receipt"))


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_ends_behind_another_screen_are_told_together_when_it_is_gone(
    console: Build, size: tuple[int, int], language: str
) -> None:
    batch = BatchQueued(job_ids=(31, 101, 102), queued=2)  # 31 was there before
    client = scripted(scenes.idle(NOW), submit_many=batch)
    app = console(client, language=language)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("a", "f", "o", "x")
        app.screen.query_one("#samples", Input).value = "3"
        await pilot.press("enter")
        await until(pilot, lambda: "101" in panel_text(app, "receipt"), "an answer")
        await pilot.press("question_mark")
        await pilot.pause()
        assert app.screen is not app.dashboard
        for job_id in (101, 102):
            client.push(job(job_id, "running"))
            client.push(job(job_id, "done"))
        await until(pilot, lambda: len(app.link.state.finished) >= 4)
        assert "3.9 s" not in panel_text(app, "receipt")
        await pilot.press("escape")
        client.push(job(7, "queued"))
        told = t("ended.done", id=102, took="3.9 s") + t("notice.more", count=1)
        await until(pilot, lambda: told in panel_text(app, "receipt"))


async def test_of_a_far_job_the_key_is_named_that_fetches_it(console: Build) -> None:
    client = scripted(scenes.idle(NOW))
    app = console(client, box=FarBox())
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await queue_one(pilot, client)
        client.push(job(99, "running"))
        await until(pilot, lambda: app.link.state.running is not None)
        client.push(job(99, "done"))
        said = "✓ job 99 done 3.9 s  V fetches it here  y copies"
        await until(pilot, lambda: said in panel_text(app, "receipt"))
