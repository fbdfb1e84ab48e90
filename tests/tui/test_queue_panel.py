"""The queue as a person walks it: what a click means, what is out of sight, and how it is emptied."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import NotNow
from engine.wire import Job, JobChanged, JobSpec, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.screens.confirm import ConfirmScreen
from turbotui.text import t
from turbotui.widgets.queue import QueuePanel

from .conftest import NOW, SMALL, WIDE, Clock, burst, live, panel_text, screen_text, scripted, settled, until

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


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_cancelling_goes_down_the_queue_and_never_on_to_the_running_job(
    console: Build, size: tuple[int, int], language: str
) -> None:
    client = scripted(long_queue(4), cancel=lambda job_id: cancel(job_id))
    app = console(client, language=language)

    def cancel(job_id: int) -> Job:
        job = replace(jobs[job_id], status="cancelled", position=None, finished_at=NOW + job_id)
        client.push(JobChanged(job=job))
        return job

    async with app.run_test(size=size) as pilot:
        await live(pilot)
        jobs = {job.id: job for job in app.link.state.jobs}
        panel = app.dashboard.query_one(QueuePanel)
        await pilot.press("4", "g", "j", "j")
        # The second, then those below it, then the one above; then the key means nothing any more.
        for job_id, onward in ((7, 8), (8, 9), (9, 6), (6, 6)):
            assert panel.chosen == job_id
            await pilot.press("x")
            assert panel.chosen == onward, "the next x must not wait for the answer"
            await until(pilot, lambda job_id=job_id: app.link.state.job(job_id).status == "cancelled")  # type: ignore[misc]
            app.dashboard.tick()
            assert panel.chosen == onward and onward in rows_of(app)
        await pilot.press("x")
        ended = t("cancel.ended", id=6, status=t("status.cancelled"))
        assert ended in panel_text(app, "receipt")
        assert [call[1] for call in client.asked if call[0] == "cancel"] == [7, 8, 9, 6]


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_the_palette_empties_the_queue_after_a_question(
    console: Build, size: tuple[int, int], language: str
) -> None:
    def hold(job_id: int, held: bool) -> Job:
        if job_id == 6:  # it began while the question was read
            raise NotNow("job 6 does not wait")
        return replace(jobs[job_id], held=held)

    client = scripted(long_queue(), hold=hold)
    app = console(client, language=language)

    async def ask() -> None:
        await pilot.press("colon")
        await until(pilot, lambda: app.screen is not app.dashboard)
        await burst(pilot, *t("emptying.all"))
        await until(pilot, lambda: t("emptying.all_help") in screen_text(app), "the command")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen), "the question")
        await settled(pilot, 0.1)

    async with app.run_test(size=size) as pilot:
        await live(pilot)
        jobs = {job.id: job for job in app.link.state.jobs}
        client.asked.clear()
        await ask()
        text = screen_text(app)
        assert t("emptying.title") in text and "prompt 6" in text and t("list.more", count=9) in text
        assert t("emptying.loses", count=12)[:20] in text and t("emptying.runs", id=5).strip() in text
        await pilot.press("enter")  # the cancelling answer has the focus
        await until(pilot, lambda: app.screen is app.dashboard)
        assert client.asked == []
        await ask()
        await pilot.press("right", "enter")
        await until(pilot, lambda: t("did.cancel_waiting", count=11) in panel_text(app, "receipt"))
        assert [call[1] for call in client.asked if call[0] == "cancel"] == list(range(17, 6, -1))


async def test_the_palette_does_not_offer_to_empty_an_empty_queue_and_read_only_refuses(
    console: Build,
) -> None:
    client = scripted(long_queue(0))
    app = console(client, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert t("emptying.all") not in [command.title for command in app.get_system_commands(app.screen)]
        client.push(
            JobChanged(job=Job(id=9, spec=JobSpec(model="m", prompt="p"), status="queued", created_at=0))
        )
        await until(pilot, lambda: bool(app.link.state.waiting))
        offered = {command.title: command.callback for command in app.get_system_commands(app.screen)}
        offered[t("emptying.all")]()
        assert t("why.read_only") in panel_text(app, "receipt") and app.screen is app.dashboard


@pytest.mark.parametrize(("size", "language"), SIZES_AND_LANGUAGES)
async def test_a_time_left_says_that_it_is_an_estimate_and_is_left_out_where_there_is_none(
    console: Build, size: tuple[int, int], language: str
) -> None:
    snapshot = scenes.busy(NOW)
    client = scripted(snapshot)
    app = console(client, language=language)
    running = scenes.running_job(NOW)
    assert running.progress is not None
    unknown = replace(running, progress=replace(running.progress, eta_s=None))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("4")
        places = ["queue", *(["header"] if size == WIDE else ["running"])]
        assert all("~6.0 s" in panel_text(app, place) for place in places)
        client.push(JobChanged(job=unknown))
        await until(pilot, lambda: app.link.state.running == unknown)
        app.dashboard.tick()
        assert all("6.0 s" not in panel_text(app, place) for place in places)
        assert "71 %" in panel_text(app, "queue")
