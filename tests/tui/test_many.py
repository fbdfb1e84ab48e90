"""Many jobs from a file, in the console."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from engine.errors import EngineUnavailable, NotNow
from engine.wire import BatchForecast, BatchLine, BatchQueued, JobBatch
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.screens import many
from turbotui.screens.many import ManyPanel, ManyScreen
from turbotui.screens.new_job import NewJobScreen

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]


async def open_many(pilot: Any, path: Path) -> None:
    await live(pilot)
    await pilot.press("a", "ctrl+o")
    await until(pilot, lambda: isinstance(pilot.app.screen, ManyScreen))
    pilot.app.screen.query_one("#path", Input).value = str(path)
    await until(pilot, lambda: told(pilot.app) is not None)


def told(app: TurboApp) -> Any:
    panel = app.screen.query_one(ManyPanel)
    return panel.preview or panel.error


def sent(client: ScriptedClient) -> list[JobBatch]:
    return [call[1] for call in client.asked if call[0] == "submit_many"]


async def test_what_a_file_would_queue_is_shown_and_enter_queues_it(console: Build, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# night\na city\n\n一只猫在雪地里跑\x1b[2J\n" + "x" * 100_000 + "\n")
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_many(pilot, path)
        shown = screen_text(app)
        assert "2 jobs  in all 1m22s" in shown and "! 1 line is left out" in shown
        assert "5 ! it has 100,000 characters" in shown and "\x1b" not in shown
        await pilot.press("enter")
        await until(pilot, lambda: "✓ 2 jobs queued: 99 to 100" in screen_text(app))
    (batch,) = sent(client)
    assert [spec.prompt for spec in batch.specs] == ["a city", "一只猫在雪地里跑\x1b[2J"]
    assert {spec.model for spec in batch.specs} == {"wan-demo-small"} and not batch.again


async def test_what_the_engine_would_refuse_or_has_already_is_told_by_line(
    console: Build, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\ntwo\nthree\nfour\n")

    def forecast_many(batch: JobBatch) -> BatchForecast:
        good = client.forecast(batch.specs[0])
        lines = (
            BatchLine(forecast=good),
            BatchLine(error="frames is 6, which is not 4n + 1"),
            BatchLine(forecast=good, job_id=None if batch.again else 42),
            BatchLine(forecast=good, same_as=1),
        )
        return BatchForecast(lines=lines, expected_s=None)

    client = scripted(
        scenes.cpu(NOW),
        forecast_many=forecast_many,
        submit_many=lambda batch: BatchQueued(job_ids=(99, 42, 99), queued=1),
    )
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_many(pilot, path)
        shown = screen_text(app)
        assert "1 job  highest peak" in shown and "no rate yet" in shown and "is job 42" in shown
        assert "1 line is left out" in shown and "1 is there already" in shown and "1 stands twice" in shown
        bad, first = (shown.index(text) for text in ("2 ! frames is 6", "  1   one"))
        assert bad < first, "what is wrong stands first"
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "is job 42" not in screen_text(app))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "is job 42" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "✓ job 99 queued; 2 were there already" in screen_text(app))
    assert [spec.prompt for spec in sent(client)[0].specs] == ["one", "three", "four"]


async def test_a_lost_answer_is_asked_for_again_without_making_anything_twice(
    console: Build, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\ntwo\n")
    client = scripted(scenes.cpu(NOW), submit_many=EngineUnavailable("the engine does not answer"))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_many(pilot, path)
        await pilot.press("enter")
        await until(pilot, lambda: "whether they are queued is not known" in screen_text(app))
        client._answers["submit_many"] = NotNow("the queue is full")
        await pilot.press("enter")
        await until(pilot, lambda: "! the queue is full" in screen_text(app))
        del client._answers["submit_many"]
        await pilot.press("enter")
        await until(pilot, lambda: "✓ 2 jobs queued" in screen_text(app))
    assert [batch.again for batch in sent(client)] == [False] * 3


async def test_a_file_that_is_none_is_named_and_escape_goes_back_to_the_form(
    console: Build, tmp_path: Path
) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_many(pilot, tmp_path / "nowhere.txt")
        assert "! " in screen_text(app) and "cannot be read" in screen_text(app).replace("\n", "")
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
    assert sent(client) == []


async def test_the_path_is_completed_as_shells_do(console: Build, tmp_path: Path) -> None:
    for name in ("prompts-a.txt", "prompts-b.txt", ".hidden"):
        (tmp_path / name).write_text("x\n")
    (tmp_path / "deeper").mkdir()
    app = console(scripted(scenes.cpu(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a", "ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, ManyScreen))
        field = app.screen.query_one("#path", Input)
        for typed, becomes in ((f"{tmp_path}/pro", "/prompts-"), (f"{tmp_path}/d", "/deeper/")):
            field.value = typed
            await pilot.press("tab")
            await until(pilot, lambda becomes=becomes: field.value == f"{tmp_path}{becomes}")  # type: ignore[misc]
        field.value = f"{tmp_path}/prompts-"
        await pilot.press("tab")
        await until(pilot, lambda: "prompts-a.txt  prompts-b.txt" in screen_text(app))
        field.value = f"{tmp_path}/nothing"
        await pilot.press("tab")
        await pilot.pause(0.1)
        assert field.value == f"{tmp_path}/nothing" and app.screen.focused is field


async def test_samples_and_settings_of_the_form_count_for_every_line(console: Build, tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"prompt": "one"}\n{"prompt": "two", "steps": 1}\n')
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a")
        await pilot.pause()
        app.screen.query_one("#samples", Input).value = "2"
        app.screen.query_one("#seed", Input).value = "7"
        await pilot.pause()
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, ManyScreen))
        app.screen.query_one("#path", Input).value = str(path)
        await until(pilot, lambda: "4 jobs" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: bool(sent(client)))
    assert [(spec.prompt, spec.seed, spec.steps) for spec in sent(client)[0].specs] == [
        ("one", 7, 4), ("one", 8, 4), ("two", 7, 1), ("two", 8, 1)
    ]  # fmt: skip


async def test_a_completion_that_comes_after_escape_does_no_harm(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    usual = many.complete_path
    monkeypatch.setattr(many, "complete_path", lambda path: goes_on.wait(3) and usual(path))
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a", "ctrl+o", *"tmp", "tab", "escape")
        await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
        goes_on.set()
        await pilot.pause(0.2)  # an error in the loop would end the console
        assert app.is_running
