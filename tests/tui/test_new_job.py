"""Writing a job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, TextArea

from engine.errors import InvalidRequest
from engine.wire import JobSpec
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.draft import Draft, load_draft
from turbotui.screens import new_job

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]


def submitted(client: ScriptedClient) -> list[JobSpec]:
    return [call[1] for call in client.asked if call[0] == "submit"]


async def open_editor(pilot: Any) -> None:
    await live(pilot)
    await pilot.press("a")
    await pilot.pause()


async def test_enter_submits_the_prompt_with_the_settings_shown(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        assert "480p 16:9" in screen_text(app) and "wan-demo-small" in screen_text(app)
        await pilot.press(*"a fox", "enter")
        await until(pilot, lambda: bool(submitted(client)))
        await until(pilot, lambda: "✓ job 99 queued" in screen_text(app))
    expected = JobSpec(
        model="wan-demo-small", prompt="a fox", resolution="480p", aspect_ratio="16:9", steps=4, seed=0
    )
    assert submitted(client) == [expected]


async def test_ctrl_j_breaks_the_line_and_letters_are_letters(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press("q", "x", "ctrl+j", "f", "enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert submitted(client)[0].prompt == "qx\nf"


async def test_fields_are_walked_and_changed_by_keys(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press("x", "tab", "right", "down", "right", "down", *"33", "down", "left", "down", *"7")
        await pilot.press("down", *"/tmp/a.png", "down", "right", "enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert submitted(client)[0] == JobSpec(
        model="wan-demo-i2v",
        prompt="x",
        image="/tmp/a.png",
        resolution="480p",
        aspect_ratio="1:1",
        frames=33,
        steps=3,
        seed=7,
        ode=True,
    )


async def test_a_refusal_stays_in_place_with_what_was_typed(console: Build) -> None:
    client = scripted(scenes.cpu(NOW), submit=InvalidRequest("frames must be 4n + 1, got 18; take 17 or 21"))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(*"a fox", "enter")
        await until(pilot, lambda: "! frames must be 4n + 1, got 18; take 17 or 21" in screen_text(app))
        await pilot.pause(new_job.FORECAST_AFTER_S * 2)
        assert "! frames must be 4n + 1" in screen_text(app), "a late forecast wiped the refusal away"
        assert app.screen.query_one(TextArea).text == "a fox"
        del client._answers["submit"]
        await pilot.press("enter")
        await until(pilot, lambda: len(submitted(client)) == 2)


async def test_the_forecast_follows_what_is_typed(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await until(pilot, lambda: "peak 19.0 GiB  fits now" in screen_text(app))
        asked = sum(call[0] == "forecast" for call in client.asked)
        client._answers["forecast"] = InvalidRequest("steps must be 1 to 4, got 9")
        await pilot.press(*"hello")
        await until(pilot, lambda: "! steps must be 1 to 4, got 9" in screen_text(app))
        # Five letters within the pause are one question.
        assert sum(call[0] == "forecast" for call in client.asked) <= asked + 2


async def test_a_draft_survives_closing_and_quitting(console: Build, tmp_path: Path) -> None:
    path = tmp_path / "state" / "draft.json"
    first = console([scenes.cpu(NOW)], draft_path=path)
    async with first.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(*"cat", "escape")
        await pilot.press("a")
        await pilot.pause()
        assert first.screen.query_one(TextArea).text == "cat"
        await pilot.press("s", "ctrl+q")
        await pilot.pause()
    assert load_draft(path).prompt == "cats"
    second = console([scenes.cpu(NOW)], draft_path=path)
    async with second.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        assert second.screen.query_one(TextArea).text == "cats"


async def test_a_submitted_prompt_leaves_the_draft(console: Build, tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    app = console([scenes.cpu(NOW)], draft_path=path)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(*"cat", "enter")
        await until(pilot, lambda: "queued" in screen_text(app))
    assert load_draft(path).prompt == "" and load_draft(path).model == "wan-demo-small"


@pytest.mark.parametrize("prompt", ["一只猫在雪地里跑，慢镜头", "[bold]not markup[/bold]"])
async def test_a_prompt_is_sent_as_it_was_pasted(console: Build, prompt: str) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        app.screen.query_one(TextArea).insert(prompt)
        await pilot.press("enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert submitted(client)[0].prompt == prompt


async def test_a_path_of_nobody_and_a_folder_that_is_gone_are_lines_and_not_the_end(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    app.draft = Draft(prompt="a fox", model="wan-demo-i2v", image="~nosuch/first.png")
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await until(pilot, lambda: any(call[0] == "forecast" for call in client.asked))
        forecasts = [call[1].image for call in client.asked if call[0] == "forecast"]
        assert forecasts[0].startswith("/") and forecasts[0].endswith("/~nosuch/first.png")
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        await pilot.press("enter")
        await until(pilot, lambda: "! the path '~nosuch/first.png' cannot be made" in screen_text(app))
        monkeypatch.chdir(tmp_path)
        await pilot.press("enter")
        await until(pilot, lambda: bool(submitted(client)))


async def test_what_is_no_number_is_a_line_and_not_the_end(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(*"fox")
        for name in ("frames", "seed"):
            app.screen.query_one(f"#{name}", Input).value = "²"
            await until(pilot, lambda said=f"! {name} must be a whole number": said in screen_text(app))  # type: ignore[misc]
            await pilot.press("enter")
            app.screen.query_one(f"#{name}", Input).value = ""
        assert submitted(client) == []


def test_a_draft_whose_numbers_are_none_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    path.write_text(json.dumps({"prompt": "cat", "frames": "abc", "seed": "1e5", "steps": 3}))
    assert load_draft(path) == Draft(prompt="cat", steps=3)


async def test_what_stays_resident_is_chosen_and_kept_in_the_draft(console: Build, tmp_path: Path) -> None:
    client = scripted(scenes.busy(NOW))
    path = tmp_path / "draft.json"
    app = console(client, draft_path=path)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        field = app.screen.query_one("#residency", new_job.ChoiceField)
        assert field.values == ["auto", "DiT only", "keep text", "keep both experts"]
        field.focus()
        await pilot.press("left")
        assert "both experts stay as long as possible" in screen_text(app)
        # A model with one DiT has no two experts to keep.
        app.screen.query_one("#model", new_job.ChoiceField).focus()
        await pilot.press("right")
        assert field.values == ["auto", "DiT only", "keep text"] and field.value == "auto"
        field.focus()
        await pilot.press("right")
        app.screen.query_one(TextArea).focus()
        await pilot.press("x", "enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert submitted(client)[0].residency == "dit_only"
    assert load_draft(path).residency == "dit_only"


async def test_a_residency_of_another_build_is_none(console: Build) -> None:
    app = console([scenes.cpu(NOW)])
    app.draft = Draft(prompt="x", model="wan-demo-small", residency="keep_all")
    assert app.draft.spec(image_to_video=False).residency is None
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        assert "‹ auto ›" in screen_text(app)
