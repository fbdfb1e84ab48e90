"""How the screen of models to have looks, pinned as SVG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.wire import ErrandStatus
from turbotui.app import TurboApp
from turbotui.client import scene_models, scenes

from .conftest import NOW, SMALL, WIDE, Clock, live, screen_text, scripted, until

SHOWN = {
    "found": (("i",), "1m52s"),
    "part": (("i", *["down"] * 5), "proj_l"),
    "fetch": (("i", "g"), "64.3 GiB"),
    "confirm": (("i", "g", "enter"), "apache-2.0"),
}
"""Keys, and what is on the screen once it is whole."""


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
@pytest.mark.parametrize("name", SHOWN)
def test_models_to_have(
    snap_compare: Callable[..., bool],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: tuple[int, int],
    language: str,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    keys, whole = SHOWN[name]
    engine = scripted(
        scenes.first_run(NOW),
        scan_models=scene_models.scan(),
        released_models=scene_models.released(),
        get_plan=scene_models.plan(),
        model_errand=ErrandStatus(errand=scene_models.errand()),
    )
    app = TurboApp(
        lambda: engine,
        where="me@gpubox01",
        wall=clock.wall,
        monotonic=clock.monotonic,
        language=language,
    )

    async def before(pilot: Any) -> None:
        await live(pilot)
        for place, key in enumerate(keys):
            await pilot.press(key)
            if place == 0:
                await until(pilot, lambda: "TurboWan2.2" in screen_text(app))
            elif key == "g":
                await until(pilot, lambda: "64.3 GiB" in screen_text(app))
        await until(pilot, lambda: whole in screen_text(app), whole)
        app.dashboard.tick()
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=before)
