"""The audit trail's screen: newest first, filtered, opened, and older pages when one walks there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.errors import NotNow
from engine.wire import AuditLine, AuditPage
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.screens.audit import AuditScreen, EntryScreen

from .conftest import NOW, SMALL, WIDE, live, screen_text, scripted, until

Build = Callable[..., TurboApp]


def trail(count: int = 60) -> list[AuditLine]:
    lines = [
        AuditLine(
            at=NOW - 60, ended_at=NOW - 59, uid=1000, user="liwei", pid=4711, program="turbotui",
            terminal="pts/3", action="kill", target="process 90112 of liwei, python\x1b[2J main.py",
            state="done", result="done", bytes=6 * 2**30, elapsed_s=0.512,
        ),
        AuditLine(
            at=NOW - 3600, ended_at=NOW - 3600, uid=1000, user="liwei", pid=4711, action="reset",
            target="GPU 2 GPU-1", state="refused", result="refused: 2 processes hold it",
        ),
        AuditLine(at=NOW - 90_000, uid=1001, pid=1, action="full_cleanup", target="ours", state="asked"),
    ]  # fmt: skip
    more = [
        AuditLine(at=NOW - 100_000 - n, action="park", target=f"worker {n}", state="done", result="done")
        for n in range(count)
    ]
    return [*lines, *more]


def paged(lines: list[AuditLine]) -> Callable[[int, float | None], AuditPage]:
    def answer(limit: int, before: float | None) -> AuditPage:
        left = [line for line in lines if before is None or line.at < before]
        return AuditPage(lines=tuple(left[:50]), older=len(left) > 50)

    return answer


def panel_rows(app: TurboApp) -> list[str]:
    """The open page, row by row, without its frame."""
    assert isinstance(app.screen, EntryScreen)
    panel = app.screen.panel
    return [panel.render_line(y).text.strip("│ ") for y in range(panel.size.height)]


async def test_it_shows_who_did_what_and_how_it_ended(console: Build) -> None:
    client = scripted(scenes.busy(NOW), audit=paged(trail()))
    app = console(client, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("t")
        await until(pilot, lambda: "90112" in screen_text(app))
        text = screen_text(app)
        for part in (
            "liwei pts/3 turbotui",
            "6.00 GiB",
            "0.51 s",
            "GPU reset",
            "2 processes hold it",
            "\u241b[2J",
        ):
            assert part in text, part
        assert text.index("90112") < text.index("GPU reset") < text.index("full cleanup")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EntryScreen))
        told = panel_rows(app)
        assert "when          2026-09-21 14:12:20" in told, "with its day: the text is taken elsewhere"
        assert "what          kill" in told and "outcome       done" in told, "aligned, and nothing twice"
        assert "in its words" not in " ".join(told)
        await pilot.press("y")
        assert app.clipboard.splitlines()[:2] == [
            "when: 2026-09-21 14:12:20", "who: liwei pts/3 turbotui pid 4711 uid 1000",
        ]  # fmt: skip
        await pilot.press("escape", "j", "j", "enter")
        await until(pilot, lambda: isinstance(app.screen, EntryScreen))
        assert "who           uid 1001 pid 1" in panel_rows(app), "no uid twice, no bytes that nobody counted"
        assert not [row for row in panel_rows(app) if row.startswith(("back", "took"))]
        await pilot.press("escape", "g")
        await pilot.press("slash", *"gpu", "enter")
        assert "GPU-1" in screen_text(app) and "90112" not in screen_text(app)
        await pilot.press("escape")
        assert isinstance(app.screen, AuditScreen) and "90112" in screen_text(app)
        await pilot.press("y")
        assert "GPU 2 GPU-1" in app.clipboard
        await pilot.press("G")
        await until(pilot, lambda: len([call for call in client.asked if call[0] == "audit"]) == 2)
        assert isinstance(app.screen, AuditScreen)
        panel = app.screen.panel
        await until(pilot, lambda: panel.entries is not None and len(panel.entries) == 63)
        await pilot.press("q")
        assert app.screen is app.dashboard


async def test_a_refusal_is_shown_in_its_own_words(console: Build) -> None:
    app = console(scripted(scenes.busy(NOW), audit=NotNow("the disk does not answer")))
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("t")
        await until(pilot, lambda: "the disk does not answer" in screen_text(app))


async def test_a_new_deed_leaves_the_older_pages_where_one_has_walked(console: Build) -> None:
    lines = trail()
    twin = lines[5]
    lines.insert(6, twin)  # of the same moment, by the same
    client = scripted(scenes.busy(NOW), audit=lambda limit, before: paged(lines)(limit, before))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("t")
        await until(pilot, lambda: "90112" in screen_text(app))
        assert isinstance(app.screen, AuditScreen)
        panel = app.screen.panel
        await pilot.press("G")
        await until(pilot, lambda: panel.entries is not None and len(panel.entries) == 64)
        await pilot.press("G")
        chosen = panel.entry
        assert chosen is lines[-1] and len(panel._by_key) == 64
        lines.insert(0, replace(lines[0], at=NOW - 1, target="process 555"))
        app.screen.action_read()
        await until(pilot, lambda: panel.entries is not None and panel.entries[0].target == "process 555")
        assert panel.entries == tuple(lines) and panel.entry == chosen and not panel.older
        # So many at once that some lie between: the newest page alone is sure.
        lines[:0] = [replace(lines[0], at=NOW + n, target=f"process {n}") for n in range(60, 0, -1)]
        app.screen.action_read()
        await until(pilot, lambda: panel.entries is not None and panel.entries[0].at == NOW + 60)
        assert panel.entries == tuple(lines[:50]) and panel.older
