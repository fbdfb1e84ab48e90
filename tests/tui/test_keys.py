"""Keys beyond the dashboard: help on every screen, the guide, the mouse, copying, settings with mistakes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.command import CommandPalette

import turbotui.screens
from turbotui.actions import BY_ID
from turbotui.app import TurboApp
from turbotui.client import scene_plans, scenes
from turbotui.draft import Draft
from turbotui.screens.guide import KEYS, TOPICS, GuideScreen
from turbotui.screens.help import HelpScreen, ScreenKeysScreen
from turbotui.screens.keys import SAID
from turbotui.screens.many import ManyScreen
from turbotui.screens.new_job import NewJobScreen
from turbotui.screens.window import WindowScreen
from turbotui.text import t, texts_of
from turbotui.theme import theme_folders
from turbotui.widgets.key_line import KeyHint, fitting_hints

from .conftest import NOW, SMALL, WIDE, Clock, burst, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]


def every_screen() -> list[type[WindowScreen[Any]]]:
    for module in pkgutil.iter_modules(turbotui.screens.__path__):
        importlib.import_module(f"turbotui.screens.{module.name}")
    found: list[type[WindowScreen[Any]]] = []
    waiting: list[type[WindowScreen[Any]]] = [WindowScreen]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return found


def test_every_key_of_every_screen_says_what_it_does() -> None:
    english = texts_of("en")
    screens = every_screen()
    assert len(screens) > 12
    unsaid = {
        (screen.__name__, binding.action)
        for screen in screens
        for binding in screen.__dict__.get("BINDINGS", ())
        if isinstance(binding, Binding)
        and binding.action not in SAID
        and not binding.description.startswith(("help.", "screen."))
    }
    assert unsaid == set()
    said = {text for screen in screens for _keys, text in screen.key_help} | set(SAID.values()) - {"back"}
    assert said <= set(english)


def test_the_guide_names_every_button_and_only_actions_that_are() -> None:
    assert set(KEYS) <= set(BY_ID)
    for language in ("en", "zh_CN"):
        texts = texts_of(language)
        assert {f"guide.{topic}" for topic in TOPICS} | {f"guide.{topic}_ours" for topic in TOPICS} <= set(
            texts
        )


@pytest.mark.parametrize(
    ("panel", "first", "second"),
    [("4", "Here: Queue", "run a job again"), ("6", "Here: Log", "lines that contain")],
)
async def test_help_begins_with_the_panel_that_has_the_focus(
    console: Build, panel: str, first: str, second: str
) -> None:
    app = console([scenes.busy(NOW)], keys={"retry": "F7"})
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press(panel, "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        text = screen_text(app)
        assert text.index(first) < text.index("Everywhere") and second in text
        assert panel != "4" or "F7" in text
        await pilot.press("H")
        await until(pilot, lambda: isinstance(app.screen, GuideScreen))
        assert "restart application" in screen_text(app)
        await pilot.press("G")
        assert "bench switch" in screen_text(app)
        await pilot.press("q")
        assert app.screen is app.dashboard


OPENED = ("l", "c", "t", "m", "u", "W", "L", "C", "E", "exclamation_mark", "full_stop", "w", "R", "X", "H")


async def test_a_question_mark_shows_each_screens_own_keys(console: Build, tmp_path: Any) -> None:
    client = scripted(
        scenes.busy(NOW),
        explain_switch=scenes.switch_plan,
        reset_plan=scene_plans.reset_plan,
        full_cleanup_plan=lambda: scene_plans.full_cleanup_plan(NOW),
    )
    app = console(client, recordings=tmp_path, restart_engine=lambda: None)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        for key in OPENED:
            await pilot.press(key)
            await until(pilot, lambda: app.screen is not app.dashboard, f"{key} opens something")
            opened = app.screen
            await pilot.press("question_mark")
            await until(pilot, lambda: isinstance(app.screen, ScreenKeysScreen), f"? over {opened}")
            assert "Keys of this screen" in screen_text(app)
            await pilot.press("question_mark")
            assert app.screen is opened
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.dashboard, f"esc from {opened}")
        assert not {call[0] for call in client.asked} & {
            "cleanup",
            "reset",
            "full_cleanup",
            "switch",
            "unload",
        }


async def test_the_persons_keys_hold_on_other_screens_too(console: Build) -> None:
    app = console(
        scripted(scenes.busy(NOW), check=scene_plans.found(NOW), last_check=scene_plans.found(NOW)),
        keys={"down": "J", "quit": "Q", "findings": "F8"},
    )
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.link.take_findings(scene_plans.found(NOW))
        await pilot.press("F8")
        await pilot.pause()
        panel = app.screen.query_one("#findings")
        first = panel.chosen  # type: ignore[attr-defined]
        await pilot.press("j")
        assert panel.chosen == first  # type: ignore[attr-defined]
        await pilot.press("J")
        assert panel.chosen != first  # type: ignore[attr-defined]
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, ScreenKeysScreen))
        assert "J" in screen_text(app) and "F8" in screen_text(app)
        await pilot.press("Q", "F8")
        assert app.screen is app.dashboard


async def test_settings_with_mistakes_are_told_and_listed_in_the_palette(console: Build) -> None:
    app = console(
        [scenes.busy(NOW)], keys={"fre": "b", "free": "x"}, problems=("console.hologram is unknown",)
    )
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "console.hologram" in panel_text(app, "receipt"))
        assert "2 more" in panel_text(app, "receipt")
        app.tell_left_out("the theme is broken")
        await pilot.pause()
        assert "the theme is broken  and 3 more" in panel_text(app, "receipt"), "they are not forgotten"
        titles = [command.title for command in app.get_system_commands(app.dashboard)]
        assert "Settings that were left out" in titles
        app.commands.left_out()
        await pilot.pause()
        assert "fre" in screen_text(app) and "hologram" in screen_text(app)


async def test_ctrl_c_copies_what_is_selected_and_leaves_otherwise(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.screen.get_selected_text = lambda: "chosen text"  # type: ignore[method-assign]
        await pilot.press("ctrl+c")
        assert app.clipboard == "chosen text" and app.is_running
        del app.screen.get_selected_text
        app.copy_text("x" * 100_000)
        assert len(app.clipboard) == 74_994 and "74,994" in panel_text(app, "receipt")
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)


async def test_the_mouse_goes_off_and_on_and_says_so(console: Build, clock: Clock) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("M")
        assert not app.mouse and "the mouse is the terminal's" in panel_text(app, "receipt")
        await pilot.press("M")
        assert app.mouse and "the mouse is the console's" in panel_text(app, "receipt")


async def test_what_the_mouse_selects_in_a_panel_is_copied_by_cells(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        queue = app.dashboard.query_one("#queue")
        row = next(y for y in range(queue.size.height) if "一只猫" in queue.render_line(y).text)
        line = queue.render_line(row)
        start = line.text.index("一")  # of one cell each so far
        await pilot.mouse_down("#queue", offset=(start, row))
        await pilot.hover("#queue", offset=(start + 6, row))
        await pilot.mouse_up("#queue", offset=(start + 6, row))
        assert any(segment.style and segment.style.reverse for segment in queue.render_line(row))
        await pilot.press("ctrl+c")
        assert app.clipboard.startswith("一只猫") and len(app.clipboard) <= 4 and app.is_running
        assert not any(segment.style and segment.style.reverse for segment in queue.render_line(row))


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_the_form_of_a_job_tells_its_keys(console: Build, size: tuple[int, int]) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        app.drafts.own.keep(Draft(model="wan2.2-a14b"))
        await pilot.press("a", "question_mark")
        await pilot.pause()
        form = app.screen
        assert isinstance(form, NewJobScreen) and form.prompt.text == "?"
        assert "^t image" in screen_text(app) and "esc keep ─╯" in screen_text(app)
        fields = ["prompt", "model", "frames", "seed", "samples", "image", "shape"]
        for name in fields:
            form.form.focus_field(name)
            await pilot.press("f1" if name in ("prompt", "image") else "question_mark")
            await until(pilot, lambda: isinstance(app.screen, ScreenKeysScreen), name)
            text = screen_text(app)
            assert "empty the form" in text and "alt+b alt+f" in text and "ctrl+t" in text, name
            await pilot.press("f1")
            await until(pilot, lambda: app.screen is form)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, ManyScreen))
        await pilot.press("f1")
        await until(pilot, lambda: "queue also what is there" in screen_text(app))


async def test_warm_files_tell_their_keys(console: Build) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("4", "W", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, ScreenKeysScreen))
        assert "letters narrow the list" in screen_text(app)


async def test_the_palette_shows_names_as_they_are(console: Build, tmp_path: Path) -> None:
    (tmp_path / "themes").mkdir()
    dark = (theme_folders()[0] / "dark.toml").read_text("utf-8")
    for name in ("[@click=app.leave]c", "esc\x1baped"):
        (tmp_path / "themes" / f"{name}.toml").write_text(dark, "utf-8")
    problems = ("console.[/red]x is unknown, [future] too",)
    app = console([scenes.busy(NOW)], problems=problems, config_dir=tmp_path)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        for typed, wanted in (
            ("settings", "console.[/red]x is unknown, [future] too"),
            ("theme: [@c", "Theme: [@click=app.leave]c"),
            ("theme: esc", "Theme: esc␛aped"),
        ):
            await pilot.press("colon")
            await until(pilot, lambda: isinstance(app.screen, CommandPalette))
            await burst(pilot, *typed)
            await until(pilot, lambda wanted=wanted: wanted in screen_text(app), wanted)  # type: ignore[misc]
            await pilot.press("escape", "escape")
            await until(pilot, lambda: app.screen is app.dashboard)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_at_80x24_the_key_line_names_what_the_focused_panel_can_do(
    console: Build, language: str
) -> None:
    app = console([scenes.busy(NOW)])
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        app.speak(language)
        for panel, actions in (
            ("3", ("unload", "warm")),
            ("4", ("open", "video", "cancel")),
            ("5", ("kill",)),
        ):
            await pilot.press(panel)
            await pilot.pause()
            line = panel_text(app, "keys")
            for action in (*actions, "switch", "add", "leaks", "palette", "help", "quit"):
                assert f"{app.key_of(action)} {t(f'key.{action}')} " in f"{line} ", (panel, action, line)


def test_what_does_nothing_now_leaves_the_key_line_first() -> None:
    def hint(action: str, rank: int, *, enabled: bool = True) -> KeyHint:
        return KeyHint(action=action, key="k", label="four", enabled=enabled, rank=rank)

    hints = (hint("head", 2), hint("dim", 1, enabled=False), hint("own", 1), hint("more", 3), hint("tail", 0))
    for cells, kept in (
        (35, "head dim own more tail"),
        (28, "head own more tail"),
        (14, "own tail"),
        (6, ""),
    ):
        assert [each.action for each in fitting_hints(hints, cells)] == kept.split(), cells


@pytest.mark.parametrize(("language", "nothing"), [("en", "nothing is called"), ("zh_CN", "没有叫")])
async def test_the_palette_begins_with_the_day_and_is_searched_in_any_language(
    console: Build, language: str, nothing: str
) -> None:
    app = console([scenes.busy(NOW)], language=language)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("colon")
        await until(pilot, lambda: t("action.switch") in screen_text(app))
        assert t("action.previous") in screen_text(app), "the first actions are those of all day"
        assert "🔎" not in screen_text(app)
        await pilot.press(*"unload")
        await until(pilot, lambda: f"{t('action.unload')}  (u)" in screen_text(app))
        await pilot.press(*"zzz")
        await until(pilot, lambda: nothing in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.dashboard)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_help_is_told_whole_and_begins_with_the_panels_first_key(
    console: Build, size: tuple[int, int], language: str
) -> None:
    app = console([scenes.busy(NOW)], language=language)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("4", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        panel = app.screen.panel
        rows = [row.plain() for row in panel.page(app.dashboard.view_now(), panel.size.width - 4)]
        assert not [row for row in rows if "…" in row]
        assert "↵" in rows[1] and t("help.open") in rows[1]
