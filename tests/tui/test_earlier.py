"""Earlier prompts and the person's own editor, from the new-job screen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from textual.events import Paste
from textual.widgets import Input, TextArea

from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.draft import Draft, load_draft
from turbotui.prompt_history import PromptHistory
from turbotui.screens.earlier import EarlierScreen
from turbotui.screens.new_job import NewJobScreen

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]


async def open_earlier(pilot: Any) -> None:
    await live(pilot)
    await pilot.press("a", *"mine", "ctrl+r")
    await until(pilot, lambda: isinstance(pilot.app.screen, EarlierScreen))
    await pilot.pause()


async def test_a_prompt_is_found_by_typing_and_taken_alone(console: Build, tmp_path: Path) -> None:
    PromptHistory(tmp_path / "prompts.json").add(
        Draft(prompt="海边的灯塔\n在雾里", model="wan2.1-1.3b", seed="9", frames="17"), NOW - 7200
    )
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await open_earlier(pilot)
        rows = screen_text(app).splitlines()
        newest = next(row for row in rows if "eight samples" in row)
        assert "15 s" in newest, "jobs known are there, with their age"
        await pilot.press("灯")
        assert "eight samples" not in screen_text(app) and "海边的灯塔↵在雾里" in screen_text(app)
        assert "seed 9" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        assert app.screen.query_one(TextArea).text == "海边的灯塔\n在雾里"
        assert app.screen.query_one("#seed", Input).value == ""
        # What was typed before is one step back.
        await pilot.press("ctrl+z")
        assert app.screen.query_one(TextArea).text == "mine"


async def test_another_key_takes_its_settings_too(console: Build, tmp_path: Path) -> None:
    PromptHistory(tmp_path / "prompts.json").add(
        Draft(prompt="lighthouse", model="wan2.1-1.3b", seed="9", frames="17", steps=2), NOW - 7200
    )
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await open_earlier(pilot)
        app.screen.post_message(Paste("light\nhouse"))
        await pilot.press(*["backspace"] * 6, "tab")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        await pilot.pause()
        draft = app.drafts.own.current
        assert (draft.prompt, draft.model, draft.seed, draft.frames, draft.steps) == (
            "lighthouse", "wan2.1-1.3b", "9", "17", 2
        )  # fmt: skip


async def test_escape_and_a_filter_without_a_match_leave_the_prompt(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await open_earlier(pilot)
        await pilot.press(*"zzz", "enter", "tab")
        assert isinstance(app.screen, EarlierScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        assert app.screen.query_one(TextArea).text == "mine"


async def test_what_was_queued_is_found_again(console: Build, tmp_path: Path) -> None:
    app = console([scenes.idle(NOW)])
    history = PromptHistory(tmp_path / "prompts.json")
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a", *"a fox", "enter")
        await until(pilot, lambda: bool(history.load()))
    assert [entry.draft.prompt for entry in history.load()] == ["a fox"]


def own_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: TurboApp, body: str) -> None:
    script = tmp_path / "editor.sh"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(script))
    # A headless app has no terminal to leave; what it does when it has one is seen in test_terminal.
    monkeypatch.setattr(app, "suspend", nullcontext)


async def test_the_prompt_is_written_in_ones_own_editor(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "draft.json"
    app = console([scenes.busy(NOW)], draft_path=path)
    own_editor(
        tmp_path, monkeypatch, app, 'printf "%s, seen from above\\nin \\033[31mred" "$(cat "$1")" > "$1"'
    )
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a", *"a fox", "tab", "ctrl+g")
        await pilot.pause()
        area = app.screen.query_one(TextArea)
        assert area.text == "a fox, seen from above\nin [31mred" and app.screen.focused is area
    assert load_draft(path).prompt == area.text


async def test_an_editor_that_fails_leaves_the_prompt_and_says_so(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = console([scenes.busy(NOW)])
    own_editor(tmp_path, monkeypatch, app, "exit 1")
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a", *"a fox", "ctrl+g")
        await until(
            pilot, lambda: "ended with 1: the prompt is as it was" in screen_text(app).replace("\n", "")
        )
        monkeypatch.setenv("VISUAL", "no-such-editor")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "is not on the PATH" in screen_text(app))
        monkeypatch.undo()
        await pilot.press("ctrl+g")
        await pilot.pause()
        assert app.screen.query_one(TextArea).text == "a fox"


async def test_a_queued_prompt_is_kept_however_late_its_thread_runs(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form is gone by then, and what it knew of its app with it."""
    closed = threading.Event()
    usual = TurboApp.run_apart

    def late(self: TurboApp, label: str, work: Callable[[], Any], **how: Any) -> None:
        def waiting() -> Any:
            closed.wait(3)
            return work()

        later = type(self.screen) is NewJobScreen and label in ("Earlier prompts", "history")
        usual(self, label, waiting if later else work, **how)

    monkeypatch.setattr(TurboApp, "run_apart", late)
    app = console(scripted(scenes.cpu(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a", *"a fox", "enter")
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.pause(0.1)
        closed.set()
        kept = PromptHistory(tmp_path / "prompts.json")
        await until(pilot, lambda: [entry.draft.prompt for entry in kept.load()] == ["a fox"])
        assert "NoActiveApp" not in screen_text(app)
