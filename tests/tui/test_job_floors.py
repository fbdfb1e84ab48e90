"""The floors below a job's ledger: a line in cells, a sentence in either language; what grows stands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.leaks.trend import trends
from engine.units import MIB
from engine.wire import Held, LedgerLine, LedgerPage, Trend
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.screens.job_floors import floor_rows
from turbotui.sparkline import sparkline

from . import job_scenes
from .conftest import NOW, SMALL, WIDE, Clock, live, screen_text, scripted, until
from .test_job_page import open_page, redrawn
from .test_snapshots import last_minute

Build = Callable[..., TurboApp]


def night(each: int) -> tuple[Trend, ...]:
    """Of forty jobs, each of which leaves `each` bytes on the device."""
    return trends(
        [
            LedgerLine(
                id=job, at=NOW, kind="job", target=f"job {job}", device_id="GPU-1", worker="7 1.00",
                job_id=job, model="m", shape="s", elapsed_s=6.0, weights=Held(before=0, after=0),
                allocated=Held(before=(job - 1) * each, after=job * each),
                rss=Held(before=2 * 10**9, after=2 * 10**9 + job % 5 * MIB), pinned=Held(before=0, after=0),
            )
            for job in range(1, 43)
        ]
    )  # fmt: skip


def keeping(each: int) -> ScriptedClient:
    page = LedgerPage(lines=(), older=True, trends=night(each), worker="7 1.00")
    return scripted(
        scenes.busy(NOW), preview=job_scenes.preview, course=job_scenes.course, ledger=lambda *_asked: page
    )


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "device floor +0 B a job over 40 jobs"), ("zh_CN", "设备底线 每次任务 +0 B，共 40 次任务")],
)
async def test_a_jobs_page_shows_what_jobs_left_behind(console: Build, language: str, sentence: str) -> None:
    app = console(keeping(0), language=language)
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: bool(screen.panel.ledger.trends))
        await pilot.press("G")
        screen.refresh_panel()
        await until(pilot, lambda: sentence in screen_text(app))
        assert "▁" * 40 in screen_text(app)


async def test_they_are_asked_for_once_a_state(console: Build) -> None:
    client = keeping(0)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: bool(screen.panel.ledger.trends))
        for _ in range(5):
            screen.refresh_panel()
        await pilot.pause()
        assert [call for call in client.asked if call[0] == "ledger"] == [("ledger", 1, None, None)]


@pytest.mark.parametrize("width", [30, 60, 120])
async def test_what_grows_stands_out_at_any_width(console: Build, width: int) -> None:
    app = console(keeping(MIB))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        screen = await open_page(pilot)
        view = screen.view()
        found = night(MIB)
        rows = floor_rows(view, found, width)
        texts = ["".join(text for text, _style in _parts(row)) for row in rows]
        assert all(row.cells <= width for row in rows)
        told = " ".join(" ".join(texts).split())
        assert "device floor +1.0 MiB a job over 40 jobs" in told
        grown = next(text for text in texts if text.startswith("! "))
        assert grown[2:].split()[0] == sparkline(found[0].floors, min(40, width // 2))
        assert sum(text.startswith("! ") for text in texts) == 1
        assert floor_rows(view, (), width) == []


def _parts(row: Any) -> list[tuple[str, Any]]:
    return [(segment.text, segment.style) for segment in row.segments]


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
def test_a_page_with_floors(
    snap_compare: Callable[..., bool],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    language: str,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    app = TurboApp(
        lambda: keeping(MIB),
        where="me@gpubox01",
        wall=clock.wall,
        monotonic=clock.monotonic,
        language=language,
    )

    async def before(pilot: Any) -> None:
        await until(pilot, lambda: app.link.state.link == "connected")
        for event in last_minute("gpu"):
            app.link._take(event)
        screen = await open_page(pilot)
        await redrawn(pilot, screen, lambda: bool(screen.panel.ledger.trends))
        await pilot.press("G")
        await pilot.pause()

    assert snap_compare(app, run_before=before, terminal_size=size)
