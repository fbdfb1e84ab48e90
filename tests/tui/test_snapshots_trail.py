"""How another program's log, the audit trail, help and the guide look, pinned as SVG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turbotui.app import TurboApp

from .conftest import SMALL, WIDE, Clock, live, screen_text, scripted, until
from .test_audit import paged, trail
from .test_snapshots import last_minute

LARGE = (200, 50)
DATA = Path(__file__).parents[1] / "data" / "foreign"
SHOWN = {
    "foreign-log": (("6",), "7860"),
    "audit": (("t",), "90112"),
    "help": (("6", "question_mark"), "ctrl+x"),
    "guide": (("H",), "empty_cache"),
    "screen-keys": (("b", "question_mark"), "PgUp"),
}
"""Keys, and what is on the screen once it is whole."""


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE, LARGE], ids=["80x24", "120x36", "200x50"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_page(
    snap_compare: Callable[..., bool],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: tuple[int, int],
    language: str,
) -> None:
    if size == LARGE and language == "zh_CN":
        pytest.skip("as at 120x36")
    monkeypatch.delenv("NO_COLOR", raising=False)
    keys, whole = SHOWN[name]
    app = TurboApp(
        lambda: scripted(audit=paged(trail(12))),
        where="me@gpubox01",
        wall=clock.wall,
        monotonic=clock.monotonic,
        language=language,
        log=DATA / "webui-zh-gbk.log" if name == "foreign-log" else None,
    )

    async def before(pilot: Any) -> None:
        await until(pilot, lambda: app.link.state.link == "connected")
        for event in last_minute("gpu"):
            app.link._take(event)
        await live(pilot)
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await until(pilot, lambda: whole in screen_text(app), whole)
        app.dashboard.tick()
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=before)
