"""The screen of models to have: what was found, what can be fetched, and what is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.wire import ErrandStatus, ImportRequest, ModelScan
from turbotui.app import TurboApp
from turbotui.client import scene_models, scenes
from turbotui.client.scripted import ScriptedClient

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]


def client(**answers: Any) -> ScriptedClient:
    given = {"scan_models": scene_models.scan(), "released_models": scene_models.released()} | answers
    return scripted(scenes.first_run(NOW), **given)


def asked(client: ScriptedClient, name: str) -> list[Any]:
    return [call for call in client.asked if call[0] == name]


async def opened(pilot: Any, app: TurboApp, whole: str = "TurboWan2.2") -> None:
    await live(pilot)
    await pilot.press("i")
    await until(pilot, lambda: whole in screen_text(app), whole)


@pytest.mark.parametrize("size", [SMALL, WIDE])
async def test_what_was_found_is_imported_by_one_key(console: Build, size: tuple[int, int]) -> None:
    running = ErrandStatus(errand=scene_models.errand())
    engine = client(import_model=running, model_errand=running)
    app = console(engine)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("3")
        await pilot.pause()
        assert "i: find models here" in screen_text(app)
        await opened(pilot, app)
        text = screen_text(app)
        assert "↵ imports it" in text and "lacks 1 part" in text and "in part" in text
        await pilot.press("down", "enter")
        await until(pilot, lambda: "cannot be imported yet" in screen_text(app))
        assert "the expert for low noise was not found" in screen_text(app)
        assert not asked(engine, "import_model")
        await pilot.press("up", "enter")
        await until(pilot, lambda: "4.10 GiB of 13.7 GiB" in screen_text(app))
        ((_, request),) = asked(engine, "import_model")
        assert request == ImportRequest(
            name=scene_models.scan().models[0].name, paths=scene_models.scan().models[0].paths
        )


async def test_fetching_tells_size_and_licence_and_asks_first(console: Build) -> None:
    engine = client(
        get_plan=scene_models.plan(),
        get_model=ErrandStatus(errand=scene_models.errand()),
        model_errand=ErrandStatus(errand=scene_models.errand("done")),
    )
    app = console(engine)
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, app)
        await pilot.press("g")
        await until(pilot, lambda: "13.7 GiB" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "apache-2.0" in screen_text(app))
        text = screen_text(app)
        assert "812 GiB" in text and "none named on its page" in text and "/root/.cache" in text
        await pilot.pause(0.1)
        await pilot.press("enter")  # Cancel has the focus
        await until(pilot, lambda: "apache-2.0" not in screen_text(app))
        assert not asked(engine, "get_model")
        await pilot.press("enter")
        await until(pilot, lambda: "apache-2.0" in screen_text(app))
        await pilot.pause(0.1)
        await pilot.press("right", "enter")
        # Its end is asked for, and what is here is looked at again.
        await until(pilot, lambda: "is here: m switches to it" in screen_text(app))
        assert len(asked(engine, "get_model")) == 1 and len(asked(engine, "released_models")) == 2


async def test_without_the_hub_the_commands_for_elsewhere_are_shown_and_copied(console: Build) -> None:
    engine = client(get_plan=scene_models.plan(offline=True))
    app = console(engine)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, app)
        await pilot.press("g")
        await until(pilot, lambda: "13.7 GiB" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "cannot be reached" in screen_text(app))
        assert "curl -fL" in screen_text(app) and "turbotui import /root/turbowan" in screen_text(app)
        await pilot.press("y")
        assert "copied" in screen_text(app)


async def test_a_console_that_only_looks_imports_and_fetches_nothing(console: Build) -> None:
    engine = client()
    app = console(engine, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, app)
        assert "imports it" not in screen_text(app) and "↵ import" not in screen_text(app)
        assert "g fetchable" in screen_text(app), "what can be looked at keeps its key"
        for keys in (("enter",), ("g", "enter"), ("x",)):
            await pilot.press(*keys)
            await pilot.pause(0.05)
        assert "only looks" in screen_text(app) or "nothing is being fetched" in screen_text(app)
        assert not [call for call in engine.asked if call[0] in ("get_model", "get_plan", "import_model")]


async def test_in_chinese_every_line_stays_within_the_frame(console: Build) -> None:
    app = console(client(), language="zh_CN")
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, app)
        text = screen_text(app)
        assert "本机上的模型" in text and "缺 1 部分" in text
        await pilot.press("g")
        await until(pilot, lambda: "可以下载的模型" in screen_text(app))


async def test_where_nothing_is_found_the_keys_that_it_names_work(console: Build) -> None:
    nothing = ModelScan(at=NOW, elapsed_s=0.1, models=(), parts=(), places=("/root",), others=0)
    engine = client(scan_models=nothing)
    app = console(engine)
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, app, "Nothing here makes a model")
        assert "D demo  g fetch" in screen_text(app) and "↵ import" not in screen_text(app)
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        await pilot.press("D")
        await until(pilot, lambda: bool(asked(engine, "make_demo_models")))
        assert app.screen is app.dashboard


async def test_what_is_under_way_names_the_key_that_ends_it(console: Build) -> None:
    app = console(client(model_errand=ErrandStatus(errand=scene_models.errand())))
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, app)
        await until(pilot, lambda: "x gives it up" in screen_text(app))
        assert "mo…" not in screen_text(app), "a name in three cells says nothing"
    app = console(client())
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, app)
        await pilot.press("g")
        await until(pilot, lambda: "64.3 GiB" in screen_text(app))
        assert "↵ fetch  i found here  esc back" in screen_text(app) and "gives it up" not in screen_text(app)
