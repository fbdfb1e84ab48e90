"""How writing a job looks, pinned as SVG; `pytest --snapshot-update` after a change that was meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from engine.wire import Explanation, JobForecast, JobSpec, PlanStep, SwitchRequest
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.draft import Draft, save_draft
from turbotui.prompt_history import PromptHistory
from turbotui.screens.earlier import EarlierScreen
from turbotui.screens.image_field import ImageThumb
from turbotui.screens.many import ManyScreen

from .conftest import NOW, SMALL, WIDE, Clock, live, screen_text, scripted, settled, until

HUGE = (200, 50)
DRAFT = Draft(
    prompt="a red fox in falling snow, slow pan; 一只猫在雪地里跑，慢镜头", model="wan2.2-a14b",
    resolution="480p 9:16", frames="81", samples="4", image="/home/me/狐狸.png", saved_at=NOW - 10800,
)  # fmt: skip
SIZES = pytest.mark.parametrize("size", [SMALL, WIDE, HUGE], ids=["80x24", "120x36", "200x50"])
LANGUAGES = pytest.mark.parametrize("language", ["en", "zh_CN"])


def plan(_spec: JobSpec) -> Explanation:
    """The text encoder goes as the job runs, and another model goes before."""
    steps = (
        PlanStep(stage="text", action="evict", model="wan2.1-1.3b", component="dit", bytes=scenes.gib(2.6),
                 reason="", held_bytes=0),
        PlanStep(stage="denoise", action="evict", model="wan2.2-a14b", component="text",
                 bytes=scenes.gib(10.6), reason="", held_bytes=0),
    )  # fmt: skip
    return replace(scenes.switch_plan(SwitchRequest(model="wan2.1-14b")), steps=steps)


def waits(_spec: JobSpec) -> JobForecast:
    return JobForecast(
        width=480, height=832, frames=81, steps=4, weights_bytes=scenes.gib(37.8),
        peak_bytes=scenes.gib(124), fits_now=False, fits_empty=True, expected_s=133.0,
        reason="needs 124 GiB, can have 119 GiB; liwei 90112 ComfyUI main.py 6.20 GiB, unseen 14.0 GiB",
    )  # fmt: skip


@pytest.fixture
def look(
    snap_compare: Callable[..., bool], clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., None]:
    monkeypatch.delenv("NO_COLOR", raising=False)

    def check(
        size: tuple[int, int],
        seen: str,
        *keys: str | Callable[[Any], Any],
        draft: Draft = DRAFT,
        language: str = "en",
        **answers: Any,
    ) -> None:
        save_draft(tmp_path / "draft.json", draft)
        app = TurboApp(
            lambda: scripted(scenes.busy(NOW), explain=plan, **answers),
            where="me@gpubox01",
            wall=clock.wall,
            monotonic=clock.monotonic,
            draft_path=tmp_path / "draft.json",
            language=language,
        )

        async def before(pilot: Any) -> None:
            await live(pilot)
            await pilot.press("a")
            await pilot.pause()
            for key in keys:
                if isinstance(key, str):
                    await pilot.press(key)
                else:
                    await key(pilot)
                await pilot.pause()
            await until(pilot, lambda: seen in screen_text(app), seen)
            await settled(pilot)

        assert snap_compare(app, terminal_size=size, run_before=before)

    return check


@SIZES
@LANGUAGES
def test_a_draft_is_resumed(look: Callable[..., None], size: tuple[int, int], language: str) -> None:
    async def read(pilot: Any) -> None:
        # That the image has gone is told in a row of its own, which moves what is below it.
        thumb = pilot.app.screen.query_one(ImageThumb)
        await until(pilot, lambda: thumb.display or size == SMALL, "what became of the image")

    look(size, "41 s", "tab", "tab", "tab", read, language=language)


@LANGUAGES
def test_wrong_values_are_named(look: Callable[..., None], language: str) -> None:
    wrong = replace(DRAFT, frames="82", samples="101")
    look(SMALL, "81 or 85" if language == "en" else "81 或 85", draft=wrong, language=language)


@LANGUAGES
def test_a_job_that_would_wait_says_for_whom(look: Callable[..., None], language: str) -> None:
    look(SMALL, "liwei", language=language, forecast=waits)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
@LANGUAGES
def test_earlier_prompts(
    look: Callable[..., None], size: tuple[int, int], language: str, tmp_path: Path
) -> None:
    history = PromptHistory(tmp_path / "prompts.json")
    history.add(replace(DRAFT, prompt="海边的灯塔，雾中，慢速推进，电影质感，35mm"), NOW - 7200)
    history.add(replace(DRAFT, prompt="neon reflected in wet asphalt\x1b[2J", seed="7"), NOW - 3600)

    async def opened(pilot: Any) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, EarlierScreen))

    look(size, "35mm", "ctrl+r", opened, "down", language=language)


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
@LANGUAGES
def test_many_from_a_file(
    look: Callable[..., None], size: tuple[int, int], language: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    # The path is on the picture, so it must be the same each time.
    (tmp_path / "prompts.txt").write_text("# night\n一只猫在雪地里跑\na city\n" + "x" * 40_000 + "\n")
    monkeypatch.chdir(tmp_path)

    async def opened(pilot: Any) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, ManyScreen))
        pilot.app.screen.query_one("#path", Input).value = "prompts.txt"

    look(size, "40,000", "ctrl+o", opened, language=language)
