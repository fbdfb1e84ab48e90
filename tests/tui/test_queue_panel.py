"""The queue as a person walks it: what a click means, what is out of sight, and how it is emptied."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.wire import Job, JobChanged, JobSpec, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.text import t
from turbotui.widgets.queue import QueuePanel

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, scripted, until

Build = Callable[..., TurboApp]

SIZES_AND_LANGUAGES = [(size, language) for size in (SMALL, WIDE) for language in ("en", "zh_CN")]


def long_queue(waiting: int = 12) -> Snapshot:
    """Job 5 runs, four have ended before it and `waiting` wait behind it."""

    def job(job_id: int, **fields: Any) -> Job:
        spec = JobSpec(model="wan2.1-1.3b", prompt=f"prompt {job_id}")
        return Job(id=job_id, spec=spec, created_at=NOW - 100 + job_id, **fields)

    ended = [
        job(
            job_id, status="done", started_at=NOW - 90, finished_at=NOW - 80 + job_id,
            output=f"/videos/{job_id}.mp4",
        )
        for job_id in (1, 2, 3, 4)
    ]  # fmt: skip
    running = job(5, status="running", started_at=NOW - 5, progress=scenes.running_job(NOW).progress)
    queued = [job(5 + place, status="queued", position=place) for place in range(1, waiting + 1)]
    return replace(scenes.busy(NOW), jobs=(*ended, running, *queued))


def rows_of(app: TurboApp) -> list[int]:
    """The jobs in sight, from the top, by what is drawn."""
    rows = panel_text(app, "queue").splitlines()[1:-1]
    return [int(words[1]) for row in rows if (words := row.split())[1].isdecimal()]


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_a_click_means_the_row_that_is_drawn_there(
    console: Build, size: tuple[int, int], language: str
) -> None:
    client = scripted(long_queue())
    app = console(client, language=language)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        panel = app.dashboard.query_one(QueuePanel)
        await pilot.press("4", "G")
        scrolled = rows_of(app)
        assert scrolled[0] == 5 and scrolled[-1] == 1, "the running job is pinned above the end of the list"
        for place, job_id in enumerate(scrolled):
            await pilot.press("G")
            assert rows_of(app) == scrolled
            await pilot.click("#queue", offset=(4, 1 + place))
            assert panel.chosen == job_id
        # The last row of all: the frame is none.
        await pilot.press("G")
        await pilot.click("#queue", offset=(4, 1 + len(scrolled)))
        assert panel.chosen == 1
        await pilot.click("#queue", offset=(4, 1))
        await pilot.press("x")
        await until(pilot, lambda: any(call[0] == "cancel" for call in client.asked))
        assert [call for call in client.asked if call[0] == "cancel"] == [("cancel", 5)]


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_a_scrolled_queue_says_how_many_rows_are_out_of_sight_and_where(
    console: Build, size: tuple[int, int], language: str
) -> None:
    app = console(scripted(long_queue()), language=language)
    order = [5, *range(6, 18), 4, 3, 2, 1]
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("4", "g")
        panel = app.dashboard.query_one(QueuePanel)
        seen = set()
        for step in (0, *[1] * (len(order) - 1), *[-1] * (len(order) - 1)):
            panel.move(step)
            await pilot.pause()
            shown = rows_of(app)
            first = shown[0] if shown == order[: len(shown)] else shown[1]
            above = order.index(first) - (first != 5)
            below = len(order) - 1 - order.index(shown[-1])
            assert above + below + len(shown) == len(order), "none twice, and no gap"
            foot = panel_text(app, "queue").splitlines()[-1]
            assert [int(number) for number in re.findall(r"\d+", foot)] == [n for n in (above, below) if n]
            words = "list.more" if not above else "list.above_more" if below else "list.above"
            assert f" {t(words, above=above, count=below)} " in foot
            assert panel.chosen in shown
            seen.add((above > 0, below > 0))
        assert seen == {(False, True), (True, True), (True, False)}


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_outside_the_queue_a_running_job_ends_only_by_a_second_press(
    console: Build, clock: Clock, size: tuple[int, int], language: str
) -> None:
    client = scripted(long_queue())
    app = console(client, language=language, keys={"cancel": "Z"} if language == "en" else {})
    key = "Z" if language == "en" else "x"

    def cancelled() -> list[int]:
        return [call[1] for call in client.asked if call[0] == "cancel"]

    async with app.run_test(size=size) as pilot:
        await live(pilot)
        done = t("cancel.done_so_far", share="71 %")
        asks = t("cancel.again", press=key, id=5, done=done)
        for panel in "136":
            client.asked.clear()
            await pilot.press(panel, key)
            assert asks in panel_text(app, "receipt") and cancelled() == []
            clock.passed += 3.1
            app.dashboard.tick()
            assert asks not in panel_text(app, "receipt"), "it would not be so any more"
            await pilot.press(key)
            assert cancelled() == []
            clock.passed += 2.9
            await pilot.press(key)
            await until(pilot, lambda: cancelled() == [5])
            await until(pilot, lambda: app.pending is None)
            await pilot.press(key)
            await pilot.pause()
            assert cancelled() == [5], "the next end is asked for anew"
            clock.passed += 10.0
        # Another job may run by the second press: it was not meant.
        await pilot.press("6", key)
        jobs = {job.id: job for job in app.link.state.jobs}
        client.push(JobChanged(job=replace(jobs[5], status="done", finished_at=NOW)))
        client.push(JobChanged(job=replace(jobs[6], status="running", started_at=NOW)))
        await until(pilot, lambda: app.link.state.running == app.link.state.job(6))
        client.asked.clear()
        await pilot.press(key)
        assert t("cancel.again", press=key, id=6, done="") in panel_text(app, "receipt")
        assert cancelled() == []
        # In the queue the row under the cursor is meant, at once.
        await pilot.press("4", "g", key)
        await until(pilot, lambda: cancelled() == [6])
