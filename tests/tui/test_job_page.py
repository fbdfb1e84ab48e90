"""A job's page: latents while it denoises, frames after it, and the ledger all the while."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual._compositor import Compositor, LayoutUpdate

from engine.errors import NotFound
from engine.wire import (
    JobChanged,
    JobCourse,
    JobState,
    Logged,
    LogLine,
    MemorySampled,
    OomReport,
    PreviewMade,
    StageRecord,
)
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.screens import beside, job_ledger
from turbotui.screens.job import JobScreen
from turbotui.screens.job_picture import BYTES_PER_S, MOST_FPS, wait_s
from turbotui.screens.job_stages import lines_of_cut, lines_of_running
from turbotui.widgets.picture import PictureView

from . import job_scenes
from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until
from .test_remote import FarBox

Build = Callable[..., TurboApp]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return job_scenes.make_clip(tmp_path_factory.mktemp("clip") / "30.mp4")


def running() -> ScriptedClient:
    return scripted(scenes.busy(NOW), preview=job_scenes.preview, course=job_scenes.course)


async def open_page(pilot: Any) -> JobScreen:
    await live(pilot)
    await pilot.press("4", "enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, JobScreen))
    screen = pilot.app.screen
    assert isinstance(screen, JobScreen)
    return screen


def asked(client: ScriptedClient, name: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in client.asked if call[0] == name]


def shown(screen: JobScreen) -> PictureView:
    return screen.query_one(PictureView)


async def redrawn(pilot: Any, screen: JobScreen, condition: Callable[[], bool]) -> None:
    """Wait for an answer, drawing as the screen's own timer does."""

    def drawn() -> bool:
        screen.refresh_panel()
        return condition()

    await until(pilot, drawn)


async def test_a_running_job_shows_its_latents_and_asks_for_each_step_once(console: Build) -> None:
    client = running()
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        client.push(PreviewMade(job_id=41, step=2))
        await until(pilot, lambda: app.link.state.preview is not None)
        assert not asked(client, "preview")  # nobody looks
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "latents after step 2 of 4" in screen_text(app))
        picture = shown(screen).picture
        assert picture is not None and (picture.width, picture.height) == (16, 9)
        client.push(PreviewMade(job_id=41, step=3))
        await redrawn(pilot, screen, lambda: "latents after step 3 of 4" in screen_text(app))
        client.push(PreviewMade(job_id=7, step=1))
        await redrawn(pilot, screen, lambda: app.link.state.preview == PreviewMade(job_id=7, step=1))
        for _ in range(3):
            screen.refresh_panel()
        assert set(asked(client, "preview")) == {(41, 2), (41, 3), (41, None)}
        assert len(asked(client, "preview")) == 3
        await pilot.press("left")
        assert "latents after step 2 of 4" in screen_text(app)
        await pilot.press("right")
        assert "latents after step 3 of 4" in screen_text(app)


async def test_the_ledger_stands_while_the_job_runs(console: Build) -> None:
    app = console(running())
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "held:" in screen_text(app))
        text = screen_text(app)
        high, low, decode = (
            next(line for line in text.splitlines() if name in line)
            for name in ("denoise dit.high", "denoise dit.low", "· decode")
        )
        assert "9.1 s" in high and "18.2 GiB" in high and "13.0 GiB" in high
        # 24 s ran, 6 are left: 0.7 of 30.
        assert "4.2 s" in low and "~21 s" in low and "13.0 GiB" in low and "19.2 GiB" in low
        assert "~5.7 s" in decode and "-" in decode
        assert "2.10 GiB before the first stage" in text
        assert "as long as the last job of this size took" in text


async def test_without_previews_it_says_why_there_is_no_picture(console: Build) -> None:
    client = scripted(scenes.busy(NOW), preview=NotFound("none"))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_page(pilot)
        assert "comes after the first step" in screen_text(app)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_frames_of_a_finished_video_are_stepped_through(
    console: Build, clip: Path, size: tuple[int, int]
) -> None:
    app = console(scripted(job_scenes.done(clip), course=job_scenes.course_at_end))
    async with app.run_test(size=size) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        await pilot.pause()
        middle, high = shown(screen).picture, shown(screen).size.height
        await pilot.press("right")
        assert "10/17" in screen_text(app)
        assert shown(screen).picture != middle
        await pilot.press("left", "left")
        assert "8/17" in screen_text(app)
        await redrawn(pilot, screen, lambda: "denoise dit.low" in screen_text(app))
        await pilot.press("G")
        assert "+0 B" in screen_text(app)
        await pilot.pause()
        # It has scrolled away with its fields, as far as they have.
        assert shown(screen).size.height == high - screen.panel.top
        await pilot.press("g")
        assert shown(screen).display


async def test_space_plays_and_holds_and_the_clip_goes_round(console: Build, clip: Path) -> None:
    app = console(scripted(job_scenes.done(clip)))
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        await pilot.press("space")
        assert "▶ 1/17" in screen_text(app) or "▶ 2/17" in screen_text(app)
        seen = set()
        for _ in range(5):
            seen.add(screen._pictures.place)
            await pilot.pause(0.3)
        assert len(seen) > 2
        await pilot.press("space")
        held = screen._pictures.place
        await pilot.pause(0.5)
        assert screen._pictures.place == held and "‖" in screen_text(app)


async def test_z_gives_the_picture_the_whole_page_and_takes_it_back(console: Build, clip: Path) -> None:
    app = console(scripted(job_scenes.done(clip)))
    async with app.run_test(size=SMALL) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        small = shown(screen).size
        await pilot.press("z")
        await pilot.pause()
        assert shown(screen).size.width > 2 * small.width
        assert "lighthouse" not in screen_text(app) and "9/17" in screen_text(app)
        await pilot.press("z")
        await pilot.pause()
        assert shown(screen).size == small and "lighthouse" in screen_text(app)


async def test_a_video_that_is_gone_is_said_to_be(console: Build, tmp_path: Path) -> None:
    app = console(scripted(job_scenes.done(tmp_path / "gone.mp4")))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "gone.mp4 is not there any more" in screen_text(app))
        await pilot.press("space", "left", "z")  # nothing to play, and no harm


async def test_a_video_of_another_machine_is_not_read_from_this_one(console: Build, clip: Path) -> None:
    far: Any = FarBox()
    app = console(scripted(job_scenes.done(clip)), box=far, where=far.name)
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(
            pilot, screen, lambda: "the video lies on me@far; V fetches it here" in screen_text(app)
        )
        await pilot.press("space", "left")
        await pilot.pause(0.2)
        screen.refresh_panel()
        assert "9/17" not in screen_text(app) and not screen._pictures.frames


async def test_without_colour_the_picture_is_made_of_characters(
    console: Build, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = console(scripted(job_scenes.done(clip)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        drawn = "".join(shown(screen).render_line(y).text for y in range(shown(screen).size.height))
        assert drawn.isascii() and len(set(drawn)) > 2


async def test_behind_an_open_page_only_what_changes_is_drawn(
    console: Build, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[bool] = []
    render = Compositor.render_update

    def counted(self: Compositor, *args: Any, **kwargs: Any) -> Any:
        update = render(self, *args, **kwargs)
        whole.append(isinstance(update, LayoutUpdate))
        return update

    app = console(scripted(job_scenes.done(clip)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        await pilot.pause(0.2)
        monkeypatch.setattr(Compositor, "render_update", counted)
        for second in range(1, 6):
            app.link._take(MemorySampled(device=scenes.gpu(NOW, scenes.gpu_balance(NOW, live=second))))
            app.dashboard.tick()
            await pilot.pause(0.05)
        assert whole and not any(whole)


async def test_only_cells_that_changed_are_sent_and_a_clip_keeps_within_its_bytes(
    console: Build, clip: Path
) -> None:
    app = console(scripted(job_scenes.done(clip)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        pictures, view = screen._pictures, shown(screen)
        whole = view.spent_bytes
        pictures.move(1)
        screen._redraw(clip=True)
        assert 0 < view.spent_bytes < whole / 2
        assert round(wait_s(view.spent_bytes) * BYTES_PER_S) >= view.spent_bytes
        assert wait_s(0) == 1 / MOST_FPS


async def test_a_manifest_that_is_a_pipe_or_hangs_does_not_hold_the_console_up(
    console: Build, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "30.json")
    assert beside.read_manifest(str(tmp_path / "30.json")) is None
    (tmp_path / "long.json").write_bytes(b" " * beside.MOST_BYTES + b"{}")
    assert beside.read_manifest(str(tmp_path / "long.json")) is None
    hangs = threading.Event()
    monkeypatch.setattr(job_ledger, "read_manifest", lambda _path: hangs.wait(10) and None)
    told = job_scenes.done(clip)
    ended = replace(told.jobs[0], manifest=str(tmp_path / "30.json"))
    app = console(scripted(replace(told, jobs=(ended,))))
    try:
        async with app.run_test(size=WIDE) as pilot:
            screen = await open_page(pilot)
            await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.dashboard)
    finally:
        hangs.set()


def frame(app: TurboApp) -> str:
    """The lower edge of the page."""
    return next(row for row in reversed(screen_text(app).splitlines()) if "╰" in row and "esc" in row)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_the_frame_names_the_keys_that_can_act_and_the_way_back_whole(
    console: Build, clip: Path, size: tuple[int, int], language: str
) -> None:
    app = console(scripted(job_scenes.done(clip)), language=language)
    async with app.run_test(size=size) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        back, small = ("esc back", "z small again") if language == "en" else ("esc 返回", "z 缩小")
        keys = frame(app)
        assert f"{back} ╯" in keys and "v " in keys and "y " in keys
        arrows = next(row for row in screen_text(app).splitlines() if "9/17" in row)
        assert "← → " in arrows and " z" in arrows, "what the picture's keys are is said below it"
        assert " x " not in keys and " h " not in keys and " r " not in keys
        await pilot.press("z")
        await pilot.pause()
        assert f"{small}  {back} ╯" in frame(app)
        assert screen_text(app).count("z ") == 1, "once is enough"
        await pilot.press("z")
        assert small not in screen_text(app)
        waiting = replace(app.link.state.jobs[0], status="queued", output=None)
        app.link._take(JobChanged(job=waiting))
        await redrawn(pilot, screen, lambda: " x " in frame(app) and " h " in frame(app))
        assert f"{back} ╯" in frame(app) and "v " not in frame(app)
        app.read_only = True
        screen.panel.redraw()
        await pilot.pause()
        assert " x " not in frame(app) and " d " not in frame(app) and "y " in frame(app)


async def test_a_long_line_of_the_jobs_log_is_told_whole(console: Build, clip: Path) -> None:
    app = console(scripted(job_scenes.done(clip)))
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        words = " ".join(f"word{place}" for place in range(40))
        job_id = screen.panel.job_id
        line = LogLine(seq=9001, at=NOW, level="error", event="job", text=words, job_id=job_id)
        app.link._take(Logged(line=line))
        told = screen.panel.page(app.dashboard.view_now(), 100)
        text = " ".join(" ".join(row.plain().split()) for row in told)
        assert words in text and "…" not in text
        early = replace(line, seq=9002, at=NOW - 86400 * 3, text="begun")
        app.link._take(Logged(line=early))
        told = screen.panel.page(app.dashboard.view_now(), 100)
        assert any("09-18 14:13 job" in row.plain() for row in told), "a date is told whole, too"


async def test_a_retry_shows_nothing_of_the_attempt_before(console: Build) -> None:
    client = running()
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        client.push(PreviewMade(job_id=41, step=2))
        await until(pilot, lambda: app.link.state.preview is not None)
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "latents after step 2 of 4" in screen_text(app))
        first = app.link.state.job(41)
        assert first is not None
        app.link._take(JobChanged(job=replace(first, status="queued", started_at=None, progress=None)))
        await redrawn(pilot, screen, lambda: "latents after step" not in screen_text(app))
        assert screen._pictures.picture is None
        # The same step of the next attempt is another picture.
        app.link._take(JobChanged(job=replace(first, attempt=first.attempt + 1)))
        await redrawn(pilot, screen, lambda: asked(client, "preview").count((41, 2)) == 2)


def test_a_stage_that_was_left_out_is_not_still_to_come() -> None:
    course = JobCourse(
        job_id=41,
        ended=(StageRecord(stage="denoise", elapsed_s=3.6, before_bytes=1, peak_bytes=2, after_bytes=1),),
        current="decode",
        current_since=NOW,
        current_before_bytes=1,
        shares={"text": 0.1, "denoise": 0.5, "decode": 0.3, "write": 0.1},
        from_last=True,
    )
    lines = lines_of_running(scenes.running_job(NOW), course, NOW)
    assert [(line.name, line.state) for line in lines] == [
        ("denoise", "ended"), ("decode", "current"), ("write", "coming"),
    ]  # fmt: skip
    begins = lines_of_running(scenes.running_job(NOW), replace(course, ended=(), current=None), NOW)
    assert [line.state for line in begins] == ["coming"] * 4


def test_the_stage_that_was_cut_off_stands_last_also_where_the_worker_died_in_it() -> None:
    course = replace(job_scenes.course(41), current=None, current_since=None)
    cut = StageRecord(stage="denoise dit.low", elapsed_s=4.5, before_bytes=1, peak_bytes=3, after_bytes=2)
    job = replace(scenes.running_job(NOW), status="cancelled", finished_at=NOW, progress=None)
    last = lines_of_cut(job, replace(course, cut_off=cut))[-1]
    assert (last.name, last.state, last.took_s, last.peak_bytes) == ("denoise dit.low", "cut", 4.5, 3)
    died = lines_of_cut(job, job_scenes.course(41))[-1]  # which has told its begin, and nothing after
    assert (died.name, died.state, died.peak_bytes) == ("denoise dit.low", "cut", None)
    assert died.took_s == pytest.approx(4.2)
    assert [line.state for line in lines_of_cut(job, course)] == ["ended"] * 3, "ended between two stages"


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_a_job_that_was_ended_shows_the_stage_that_was_cut_off(
    console: Build, status: JobState, size: tuple[int, int], language: str
) -> None:
    cut = job_scenes.record("denoise dit.low", 4.5, 13.0, 19.1, 18.0)

    def course(job_id: int) -> JobCourse:
        told = job_scenes.course(job_id)
        return replace(told, current=None, current_since=None, cut_off=cut)

    client = scripted(scenes.busy(NOW), preview=job_scenes.preview, course=course)
    app = console(client, language=language)
    async with app.run_test(size=size) as pilot:
        screen = await open_page(pilot)
        job = app.link.state.job(41)
        assert job is not None
        app.link._take(JobChanged(job=replace(job, status=status, progress=None, finished_at=NOW)))
        said = "被中断" if language == "zh_CN" else "was cut off after 4.5 s and had reached 19.1 GiB"
        for _ in range(20):
            if said in screen_text(app):
                break
            await pilot.press("j")
        await redrawn(pilot, screen, lambda: said in screen_text(app))
        assert any(
            "x " in row and "dit.low" in row and "4.5 s" in row and "19.1 GiB" in row
            for row in screen_text(app).splitlines()
        )


async def test_a_job_that_ran_out_of_memory_tells_what_there_was(console: Build) -> None:
    report = OomReport(
        job_id=41, attempt=1, at=NOW, device_id="GPU-0", device_name="H200", stage="denoise", step=1, steps=4,
        component="wan/dit", asked_bytes=3 * 2**30, free_bytes=0, total_bytes=1, held_bytes=1, budget_bytes=1,
        estimated_bytes=1, parts=(), freeable=(), fits=(), message="",
        lines=("Job 41 asked for 3.00 GiB in the stage denoise.", "Of 1.00 GiB then 0 B were free."),
    )  # fmt: skip
    client = scripted(
        scenes.busy(NOW), preview=job_scenes.preview, course=job_scenes.course, out_of_memory=report
    )
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        assert not asked(client, "out_of_memory"), "it runs"
        job = app.link.state.job(41)
        assert job is not None
        failed = replace(job, status="failed", error="no memory left", error_code="out_of_memory")
        app.link._take(JobChanged(job=replace(failed, progress=None, finished_at=NOW)))
        await redrawn(pilot, screen, lambda: "Job 41 asked for 3.00 GiB" in screen_text(app))
        assert asked(client, "out_of_memory") == [(41,)]


def drawn(screen: JobScreen) -> list[str]:
    """The rows of the picture, with their colours."""
    view = shown(screen)
    return [repr(list(view.render_line(y))) for y in range(view.size.height)]


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_picture_scrolls_away_row_by_row_with_its_fields(
    console: Build, clip: Path, size: tuple[int, int], language: str
) -> None:
    told = job_scenes.done(clip)
    spec = replace(told.jobs[0].spec, prompt="a lighthouse in fog " * 60)  # else the page is in sight whole
    app = console(scripted(replace(told, jobs=(replace(told.jobs[0], spec=spec),))), language=language)
    async with app.run_test(size=size) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: "9/17" in screen_text(app))
        await pilot.pause()
        whole = drawn(screen)
        for above in (1, 2):
            if above == 1:
                await pilot.press("j")
            else:
                screen.panel.on_mouse_scroll_down()
            await pilot.pause()
            assert screen.panel.top == above and drawn(screen) == whole[above:]
            rows = screen_text(app).splitlines()
            caption = next(y for y, row in enumerate(rows) if "9/17" in row)
            assert caption == shown(screen).region.bottom, "what it is stands right below it"
        await pilot.press("left")
        await pilot.pause()
        assert "8/17" in screen_text(app) and len(drawn(screen)) == len(whole) - 2
        assert drawn(screen) != whole[2:], "its keys do what they say"
        await pilot.press(*("j" * (len(whole) - 1)))
        left = len(whole) - screen.panel.top
        assert shown(screen).display == (left > 0) and ("8/17" in screen_text(app)) == (left >= 0)
