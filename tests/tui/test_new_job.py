"""Writing a job."""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key, Paste
from textual.widgets import Input, TextArea

from engine.errors import InvalidRequest
from engine.wire import Job, JobChanged, JobSpec, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.draft import Draft, draft_of, load_draft, save_draft
from turbotui.format import cell_width
from turbotui.screens import new_job
from turbotui.screens.new_job import NewJobScreen
from turbotui.text import t, texts_of
from turbotui.widgets import forecast
from turbotui.widgets.fields import REMARK_COLUMN, ChoiceField
from turbotui.widgets.prompt_area import BURST_S
from turbotui.widgets.queue import QueuePanel
from turbotui.widgets.shapes import ShapeField, boxes

from .conftest import NOW, SMALL, WIDE, burst, live, screen_text, scripted, until

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
        assert "‹ 480p › 832x480 " in " ".join(screen_text(app).split())
        assert "wan-demo-small" in screen_text(app)
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


async def test_a_model_that_takes_no_jobs_is_not_offered_and_says_why(console: Build) -> None:
    snapshot = scenes.cpu(NOW)
    models = tuple(replace(model, no_jobs="no proj_l") for model in snapshot.status.models)
    usable = replace(models[-1], name="wan-usable", no_jobs=None)
    for offered in (models, (*models, usable)):
        status = replace(snapshot.status, models=offered)
        app = console(scripted(replace(snapshot, status=status)))
        async with app.run_test(size=WIDE) as pilot:
            await live(pilot)
            assert "not distilled: it takes no jobs" in screen_text(app)
            await pilot.press("a")
            await pilot.pause()
            if offered is models:
                assert "no model to run a job on" in screen_text(app)
            else:
                # The only one there is: no arrows beside it.
                assert "Model          wan-usable" in screen_text(app)


async def test_fields_are_walked_and_changed_by_keys(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(
            "x", "tab", "right", "down", "down", "left", "down", *"33", "down", "left", "down", *"7"
        )
        await pilot.press("down", "down", *"/tmp/a.png", "down", "right", "enter")
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
        await pilot.pause(forecast.ASK_AFTER_S * 2)
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
        await until(pilot, lambda: "peak 19.0 GiB  of 128 GiB" in screen_text(app))
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
    app.drafts.own.keep(Draft(prompt="a fox", model="wan-demo-i2v", image="~nosuch/first.png"))
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
            await until(pilot, lambda: "! '²' is no whole number" in screen_text(app))
            app.screen.query_one(TextArea).focus()
            await pilot.press("enter")
            await pilot.pause()
            assert app.screen.focused is not None and app.screen.focused.id == name
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
        field = app.screen.query_one("#residency", ChoiceField)
        assert field.values == ["auto", "DiT only", "keep text", "keep both experts"]
        field.focus()
        await pilot.press("left")
        assert "both experts stay as long as possible" in screen_text(app)
        # A model with one DiT has no two experts to keep.
        app.screen.query_one("#model", ChoiceField).focus()
        await pilot.press("right")
        assert field.values == ["auto", "DiT only", "keep text"] and field.value == "auto"
        field.focus()
        await pilot.press("right")
        app.screen.query_one(TextArea).focus()
        await pilot.press("x", "enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert submitted(client)[0].residency == "dit_only"
    assert load_draft(path).residency == "dit_only"


async def test_the_kind_of_attention_is_chosen_with_its_top_k_and_kept_in_the_draft(
    console: Build, tmp_path: Path
) -> None:
    client = scripted(scenes.busy(NOW))
    path = tmp_path / "draft.json"
    app = console(client, draft_path=path)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        field = app.screen.query_one("#attention", ChoiceField)
        topk = app.screen.query_one("#sla_topk_row")
        assert field.values == ["auto", "dense", "SLA", "SageSLA"] and field.value == "auto"
        assert "SLA, as the model was trained" in screen_text(app) and topk.display
        field.focus()
        await pilot.press("right")
        assert "not as this model was trained, and slower" in screen_text(app)
        await until(pilot, lambda: not topk.display)
        await pilot.press("left", "left")
        assert "SLA with 8-bit products: the fastest" in screen_text(app)
        await until(pilot, lambda: topk.display)
        app.screen.query_one("#sla_topk", Input).focus()
        await pilot.press(*"1.5")
        await until(pilot, lambda: "above 0, at most 1" in screen_text(app))
        await pilot.press("backspace", "backspace", "backspace", *"0.15")
        app.screen.query_one(TextArea).focus()
        await pilot.press("x", "enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert (submitted(client)[0].attention, submitted(client)[0].sla_topk) == ("sagesla", 0.15)
    assert (load_draft(path).attention, load_draft(path).sla_topk) == ("sagesla", "0.15")


async def test_a_residency_of_another_build_is_none(console: Build) -> None:
    app = console([scenes.cpu(NOW)])
    app.drafts.own.keep(Draft(prompt="x", model="wan-demo-small", residency="keep_all"))
    assert app.drafts.own.current.spec(image_to_video=False).residency is None
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        assert "‹ auto ›" in screen_text(app)


async def test_a_wrong_value_is_named_beside_its_field_while_it_is_typed(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press(*"fox")
        for name, typed, said, right in (
            ("frames", "82", "! not 4n + 1: take 81 or 85", "81"),
            ("frames", "999", "! this model makes at most 161", "161"),
            ("seed", "9223372036854775808", "! at most 9223372036854775807", "9"),
            ("samples", "101", "! take 1 to 100", "1"),
        ):
            app.screen.query_one(f"#{name}", Input).value = typed
            await until(pilot, lambda said=said: said in screen_text(app), said)  # type: ignore[misc]
            app.screen.query_one(TextArea).focus()
            await pilot.press("enter")
            await pilot.pause()
            assert app.screen.focused is not None and app.screen.focused.id == name
            app.screen.query_one(f"#{name}", Input).value = right
        assert submitted(client) == []
        await pilot.press("enter")
        await until(pilot, lambda: bool(submitted(client)))


async def test_an_empty_prompt_is_refused_at_the_prompt(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "! the prompt is empty" in screen_text(app))
        assert isinstance(app.screen.focused, TextArea) and submitted(client) == []


async def test_a_refusal_of_the_engine_goes_to_the_field_that_it_names(console: Build) -> None:
    words = "seed is -1; choose 0 to 9223372036854775807"
    app = console(scripted(scenes.busy(NOW), submit=InvalidRequest(words)))
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press("x", "enter")
        await until(pilot, lambda: getattr(app.screen.focused, "id", "") == "seed")
        assert words in screen_text(app)


async def test_shapes_stand_side_by_side_in_proportion_and_are_clicked(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        field = app.screen.query_one(ShapeField)
        assert [shape.name for shape in field.shapes] == ["16:9", "9:16", "4:3", "3:4", "1:1"]
        placed = boxes(field.shapes, 60, 5)
        for shape, box in zip(field.shapes, placed, strict=True):
            assert box.width / box.height / 2 == pytest.approx(shape.width / shape.height, rel=0.25)
        for columns in (28, 36, 42, 60):
            last = boxes(field.shapes, columns, 5)[-1]
            assert last.left + last.width <= columns + 2
        assert screen_text(app).count("┏") == 1
        await pilot.click(ShapeField, offset=(13 + placed[1].left + 1, 2))
        assert field.value == "9:16" and "480x832" in screen_text(app)
        odd = [replace(shape, name="10:16") if shape.name == "9:16" else shape for shape in field.shapes]
        field.offer(odd, "16:9")
        field.redraw()
        assert "│ 10:16 " in screen_text(app), "a name that has no room inside stands beside"
        assert boxes(odd, 60, 5)[2].left == boxes(odd, 60, 5)[1].left + boxes(odd, 60, 5)[1].width + 6 + 2
        field.offer([replace(shape, name=shape.name.replace("10:", "9:")) for shape in odd], "9:16")
        # A resolution that has no such shape falls back to the model's own.
        app.screen.query_one("#resolution").focus()
        await pilot.press("right")
        assert field.value == "16:9" and "1280x720" in screen_text(app)
        await pilot.press("x")
        assert app.screen.query_one(TextArea).text == "", "a letter went from a choice to the prompt"


async def test_samples_are_jobs_with_seeds_in_a_row(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(*"fox")
        app.screen.query_one("#seed", Input).value = "7"
        app.screen.query_one("#samples", Input).value = "3"
        await until(pilot, lambda: "jobs with seeds 7 to 9" in screen_text(app))
        await until(pilot, lambda: "takes 41 s  all 3 2m03s" in screen_text(app))
        app.screen.query_one("#samples").focus()
        await pilot.press("enter")
        await until(pilot, lambda: "✓ 3 jobs queued: 99 to 101" in screen_text(app))
    (batch,) = [call[1] for call in client.asked if call[0] == "submit_many"]
    assert [spec.seed for spec in batch.specs] == [7, 8, 9] and batch.again


async def test_samples_side_by_side_are_one_job(console: Build) -> None:
    client = scripted(scenes.cpu(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await open_editor(pilot)
        await pilot.press(*"fox")
        together = app.screen.query_one("#together")
        assert not together.display, "one sample lies beside none"
        app.screen.query_one("#samples", Input).value = "3"
        await until(pilot, lambda: bool(together.display))
        together.focus()
        await pilot.press("right")
        await until(pilot, lambda: "one job, 3 in one video" in screen_text(app))
        app.screen.query_one("#samples", Input).value = "9"
        await until(pilot, lambda: "! take 1 to 8" in screen_text(app))
        app.screen.query_one("#samples", Input).value = "3"
        # What it costs is that of all of them.
        await until(pilot, lambda: 3 in [call[1].samples for call in client.asked if call[0] == "forecast"])
        await pilot.press("enter")
        await until(pilot, lambda: bool(submitted(client)))
    assert submitted(client)[0].samples == 3


async def test_keys_of_the_number_fields_step_and_draw(console: Build) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        frames, seed = (app.screen.query_one(f"#{name}", Input) for name in ("frames", "seed"))
        frames.focus()
        await pilot.press("+")
        assert frames.value == "85"
        await pilot.press("-", "-")
        assert frames.value == "77"
        frames.value = "78"
        await pilot.press("-")
        assert frames.value == "77"
        seed.focus()
        await pilot.press("r")
        first = seed.value
        await pilot.press("r")
        assert first.isdecimal() and seed.value.isdecimal() and seed.value != first
        await pilot.press("ctrl+u", *"12")
        assert seed.value == "12"


async def test_a_paste_of_many_lines_is_one_prompt_without_what_a_terminal_would_obey(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        area = app.screen.query_one(TextArea)
        area.post_message(Paste("一只猫\r\nin \x1b]0;owned\x07snow\u202e\tnow\r"))
        await until(pilot, lambda: bool(area.text))
        assert area.text == "一只猫\nin ]0;ownedsnow now\n" and submitted(client) == []
        assert "\x1b" not in screen_text(app)
        area.post_message(Paste("x" * 100_000))
        await until(pilot, lambda: " of 100000 pasted characters are kept" in screen_text(app))
        assert len(area.text) == 8000, "as many as the engine takes"


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_long_prompt_is_counted_as_it_is_typed(
    console: Build, size: tuple[int, int], language: str
) -> None:
    count = texts_of(language)["new.count"]
    snapshot = scenes.busy(NOW)
    assert isinstance(snapshot, Snapshot)
    engine = replace(snapshot.status.engine, max_prompt_chars=100)
    snapshot = replace(snapshot, status=replace(snapshot.status, engine=engine))
    app = console(scripted(snapshot), language=language)
    async with app.run_test(size=size) as pilot:
        await open_editor(pilot)
        area = app.screen.query_one(TextArea)
        area.post_message(Paste("x" * 79))
        await until(pilot, lambda: len(area.text) == 79)
        assert count.format(count=79, most=100) not in screen_text(app)
        await burst(pilot, "y")
        await until(pilot, lambda: count.format(count=80, most=100) in screen_text(app), "the count")
        assert "esc" in next(row for row in screen_text(app).splitlines() if "80" in row and "100" in row)
        area.post_message(Paste("x" * 30))
        await until(pilot, lambda: count.format(count=100, most=100) in screen_text(app), "what is taken")
        await burst(pilot, "y")
        await until(pilot, lambda: count.format(count=101, most=100) in screen_text(app), "what is too much")


async def test_a_paste_that_comes_as_keys_is_one_prompt_too(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        area = app.screen.query_one(TextArea)
        pasted = "the first line\rK\rlast\r"
        keys = [Key("enter", "\r") if each == "\r" else Key(each, each) for each in pasted]
        for place, key in enumerate(keys):
            key.time = keys[0].time + place * BURST_S / 20
            area.post_message(key)
        await until(pilot, lambda: area.text == pasted.replace("\r", "\n"), "the pasted lines")
        assert submitted(client) == []
        await pilot.press("enter")
        await until(pilot, lambda: bool(submitted(client)))


async def test_an_older_draft_is_told_of_and_cleared_and_brought_back(console: Build, clock: Any) -> None:
    app = console([scenes.busy(NOW)])
    app.drafts.own.keep(Draft(prompt="a fox", model="wan2.1-1.3b", frames="17", seed="5"))
    clock.passed = 3 * 3600
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        assert "draft of 3h00m ago" in screen_text(app)
        await pilot.press("ctrl+l")
        await pilot.pause()
        assert app.screen.query_one(TextArea).text == "" and app.drafts.own.current.seed == ""
        assert app.drafts.own.current.model == "wan2.1-1.3b"
        await pilot.press("ctrl+l")
        await pilot.pause()
        assert app.screen.query_one(TextArea).text == "a fox" and app.drafts.own.current.frames == "17"
        await pilot.press("escape", "a")
        await pilot.pause()
        assert "ago" not in screen_text(app).splitlines()[0]


async def test_what_the_title_adds_goes_once_it_is_untrue(console: Build) -> None:
    """ctrl+l after typing empties what was typed: it brings nothing back any more."""
    app = console([scenes.busy(NOW)])
    app.drafts.own.keep(Draft(prompt="a fox", model="wan2.1-1.3b"))
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press("ctrl+l")
        await pilot.pause()
        assert "cleared, ctrl+l brings it back" in screen_text(app)
        await pilot.press("x")
        await until(pilot, lambda: "brings it back" not in screen_text(app))
        await pilot.press("ctrl+t", "y")
        await pilot.pause()
        assert "begins with no image" in screen_text(app)
        await pilot.press("tab")
        screen = app.screen
        assert isinstance(screen, NewJobScreen)
        for _ in range(8):
            if not screen.form.image_to_video:
                await pilot.press("right")
        assert screen.form.image_to_video
        await until(pilot, lambda: "begins with no image" not in screen_text(app))


async def test_to_look_at_a_draft_does_not_write_it_anew(console: Build, tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    save_draft(path, Draft(prompt="kept", saved_at=NOW - 100))
    app = console([scenes.busy(NOW)], draft_path=path)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.pause(0.5)
        await pilot.press("escape")
        # Meanwhile another console has written.
        save_draft(path, Draft(prompt="theirs", saved_at=NOW - 50))
    assert load_draft(path).prompt == "theirs"


async def test_a_change_is_on_the_disk_within_a_second(console: Build, tmp_path: Path) -> None:
    path = tmp_path / "draft.json"
    app = console([scenes.busy(NOW)], draft_path=path)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press(*"a fox")
        await until(pilot, lambda: load_draft(path).prompt == "a fox")
        await pilot.pause()
        assert load_draft(path).saved_at == NOW and not list(tmp_path.glob("*.new"))


async def test_a_job_is_changed_beside_ones_own_draft(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    app.drafts.own.keep(Draft(prompt="my own", model="wan2.1-1.3b"))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("e")
        await pilot.pause()
        assert "Job 41 again" in screen_text(app)
        assert app.screen.query_one(TextArea).text == "a red fox in falling snow, slow pan"
        assert app.screen.query_one("#image", Input).value == "/home/me/fox.png"
        await pilot.press(*" now", "escape", "e")
        await pilot.pause()
        assert app.screen.query_one(TextArea).text.endswith("pan now"), "what was changed is kept"
        await pilot.press("escape", "a")
        await pilot.pause()
        assert app.screen.query_one(TextArea).text == "my own"
        await pilot.press("escape", "e", "enter")
        await until(pilot, lambda: bool(submitted(client)))
        assert submitted(client)[0].prompt.endswith("pan now")
        await pilot.pause()
        await pilot.press("e")
        await pilot.pause()
        assert app.screen.query_one(TextArea).text.endswith("slow pan"), "what was sent is used up"


async def test_a_job_is_changed_from_its_page(console: Build) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("enter", "e")
        await pilot.pause()
        assert isinstance(app.screen, new_job.NewJobScreen) and "Job 41 again" in screen_text(app)


def test_what_a_job_says_beyond_the_defaults_is_carried_along() -> None:
    spec = JobSpec(
        model="m", prompt="x\x1b", resolution="480p", aspect_ratio="1:1", frames=17, steps=2, seed=3,
        sigma_max=120.0, output_dir="/data/x", priority=5, residency="dit_only",
    )  # fmt: skip
    job = Job(id=7, spec=spec, status="done", created_at=0.0)
    draft = draft_of(job, kind="t2v", output_dir="/videos")
    again = draft.spec(image_to_video=False)
    assert again == replace(spec, prompt="x")
    usual = replace(job, spec=replace(spec, sigma_max=80.0, output_dir="/videos", priority=0))
    plain = draft_of(usual, kind="t2v", output_dir="/videos").spec(image_to_video=False)
    assert (plain.sigma_max, plain.output_dir) == (None, None)


def test_a_job_asked_again_attends_as_its_next_model_does_unless_it_asked_for_another_kind() -> None:
    def again(attention: Any, topk: float | None, doubt: str | None = None) -> tuple[str, float | None]:
        spec = JobSpec(model="m", prompt="x", attention=attention, sla_topk=topk)
        job = Job(id=7, spec=spec, status="done", created_at=0.0, doubt=doubt)
        draft = draft_of(job, kind="t2v", output_dir=None)
        spec = draft.spec(image_to_video=False)
        return spec.attention, spec.sla_topk

    assert again("sla", 0.1) == again("dense", None) == again("auto", None) == ("auto", None)
    assert again("sla", 0.15) == ("auto", 0.15)
    assert again("sla", 0.1, "no proj_l") == ("sla", 0.1)
    assert again("dense", None, "was trained for") == ("dense", None)
    assert again("sagesla", 0.1) == ("sagesla", 0.1)


async def test_the_cursor_goes_to_the_job_that_was_queued(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("4", "j", "a", *"a fox", "enter")
        await until(pilot, lambda: "✓ job 99 queued" in screen_text(app))
        queue = app.dashboard.query_one(QueuePanel)
        before = queue.chosen_job
        assert before != 99
        queued = Job(id=99, spec=submitted(client)[0], status="queued", created_at=NOW, position=9)
        client.push(JobChanged(job=queued))
        await until(pilot, lambda: queue.chosen_job == 99)
        await pilot.press("enter")
        await until(pilot, lambda: "a fox" in screen_text(app) and app.screen is not app.dashboard)
        await pilot.press("escape", "k")
        # Once is enough: whoever walks on is not called back.
        client.push(JobChanged(job=replace(queued, held=True)))
        await until(pilot, lambda: app.link.state.job(99).held)
        assert queue.chosen_job != 99


async def test_an_answer_that_comes_after_escape_does_no_harm(console: Build) -> None:
    goes_on = threading.Event()

    def late(spec: JobSpec) -> Job:
        goes_on.wait(3)
        return Job(id=99, spec=spec, status="queued", created_at=NOW, position=1)

    app = console(scripted(scenes.busy(NOW), submit=late))
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        await pilot.press(*"a fox", "enter", "escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.pause(0.1)
        goes_on.set()
        await until(pilot, lambda: "✓ job 99 queued" in screen_text(app))


async def test_what_hides_in_a_field_is_shown_and_sent_as_it_is(console: Build) -> None:
    hidden = "a\u200bcat \U0001f468\u200d\U0001f469 e\u0301" + "\u2060" * 90
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, new_job.NewJobScreen))
        app.post_message(Paste(hidden))
        await until(pilot, lambda: "cat" in screen_text(app))
        assert isinstance(app.screen, new_job.NewJobScreen)
        assert app.screen.current_draft().prompt == hidden
        rows = screen_text(app).splitlines()
        row = next(row for row in rows if "cat" in row)
        assert "a\ufffdcat \U0001f468\U0001f469 e\u0301\ufffd" in row
        shown = [cell for cell in row if not unicodedata.combining(cell)]
        assert sum(2 if unicodedata.east_asian_width(cell) == "W" else 1 for cell in shown) == 80
        image = app.screen.query_one("#image", Input)
        image.value = "/a\u202egnp.b"
        await pilot.pause()
        assert "/a\ufffdgnp.b" in image.render_line(0).text and image.value == "/a\u202egnp.b"


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_what_is_said_beside_the_fields_stands_below_each_other(console: Build, language: str) -> None:
    app = console(scripted(scenes.busy(NOW)), language=language)
    async with app.run_test(size=SMALL) as pilot:
        await open_editor(pilot)
        for remark in ("steps_remark", "seed_remark", "samples_remark"):
            said = t(f"new.{remark}")
            line = next(line for line in screen_text(app).splitlines() if said in line)
            assert cell_width(line.partition(said)[0]) == 2 + REMARK_COLUMN, line
