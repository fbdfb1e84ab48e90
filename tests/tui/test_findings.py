"""What the baseline check found as a person meets it: said where memory is, read in full, mended by a key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.wire import BalancePart, CheckReport, Finding, FindingsChanged, MemorySampled
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.seen import Seen, load_seen, save_seen
from turbotui.text import use_language

from .conftest import NOW, SMALL, WIDE, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]

UNSEEN = Finding(
    kind="unseen", severity="warning", title="14.0 GiB on GPU 2 has no process that can be seen.",
    evidence=("The driver counts 14.0 GiB beyond its own reserve.",
              "Likeliest: somebody whom this engine cannot see, since it runs in a container."),
    bytes=14 * 2**30, since=NOW - 41520, remedy="Have it looked for where all is seen.",
    admin_line="box, GPU 2: please look on the host", device_id=scenes.GPU,
)  # fmt: skip
ORPHAN = Finding(
    kind="orphan", severity="notice", title="Process 90112 is left over.",
    evidence=("Its parent has ended.",), bytes=6 * 2**30, remedy="End it.",
    remedy_command="turbotui kill 90112", pid=90112, start_time=230000.25,
)  # fmt: skip
BROKEN = Finding(
    kind="recovery_action", severity="critical", title="The driver wants a reset of GPU 2.",
    evidence=("It says so.",), remedy="Reset it.", device_id=scenes.GPU,
)  # fmt: skip


def found(*findings: Finding, at: float = NOW, **fields: Any) -> CheckReport:
    return CheckReport(at=at, elapsed_s=0.2, findings=findings, new=len(findings), **fields)


def without_unseen() -> MemorySampled:
    return MemorySampled(device=scenes.gpu(NOW, scenes.gpu_balance(NOW, unseen=0.0)))


def colour(app: TurboApp, panel_id: str, text: str) -> Any:
    panel = app.dashboard.query_one(f"#{panel_id}")
    segments = [segment for y in range(panel.size.height) for segment in panel.render_line(y)]
    return next(segment.style for segment in segments if text in segment.text)


@pytest.mark.parametrize(("size", "panel"), [(WIDE, "memory"), (SMALL, "tabs")], ids=["120x36", "80x24"])
async def test_the_bar_says_what_nobody_holds_and_since_when(
    console: Build, size: tuple[int, int], panel: str
) -> None:
    app = console(scripted(scenes.busy(NOW), last_check=found(UNSEEN)))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await until(pilot, lambda: "! unseen 14.0 GiB" in panel_text(app, panel))
        assert colour(app, panel, "! unseen") == app.paint.alarm
        if size == WIDE:
            assert "unseen 14.0 GiB since 02:41, l finds it" in panel_text(app, panel)


async def test_the_worst_that_was_not_read_is_said_until_it_is_read(console: Build) -> None:
    client = scripted(scenes.busy(NOW), without_unseen(), last_check=found(ORPHAN))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "! Process 90112 is left over.  c shows it" in panel_text(app, "memory"))
        assert colour(app, "memory", "left over") == app.paint.text
        client.push(FindingsChanged(report=found(BROKEN, ORPHAN, at=NOW + 1)))
        await until(pilot, lambda: "wants a reset of GPU 2. +1  c shows it" in panel_text(app, "memory"))
        assert colour(app, "memory", "wants a reset") == app.paint.error
        await pilot.press("c")
        await pilot.pause()
        await pilot.press("escape")
        await until(pilot, lambda: "wants a reset" not in panel_text(app, "memory"))


async def test_a_critical_finding_goes_before_unseen_memory(console: Build) -> None:
    app = console(scripted(scenes.busy(NOW), last_check=found(BROKEN, UNSEEN)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "wants a reset" in panel_text(app, "memory"))


async def test_an_answer_that_comes_late_does_not_hide_a_later_check(console: Build) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.link.take_findings(found(ORPHAN, at=NOW + 5))
        app.link.take_findings(found(at=NOW))
        assert app.link.state.check is not None and app.link.state.check.findings == (ORPHAN,)


async def test_the_process_that_a_finding_names_is_marked_and_no_other(console: Build) -> None:
    other = replace(ORPHAN, pid=81223, start_time=99999.0)
    app = console(scripted(scenes.busy(NOW), last_check=found(ORPHAN, other, UNSEEN)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "90112!" in panel_text(app, "card"))
        text = panel_text(app, "card")
        assert "81223!" not in text and "?!unseen" in text


async def test_a_ghost_is_called_one(console: Build) -> None:
    balance = scenes.gpu_balance(NOW)
    parts = tuple(
        BalancePart(kind="ghost", owner="unseen", bytes=part.bytes) if part.kind == "unseen" else part
        for part in balance.parts
    )
    app = console([scenes.busy(NOW), MemorySampled(device=scenes.gpu(NOW, replace(balance, parts=parts)))])
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "? ghost 14.0" in panel_text(app, "memory"))
        assert "! ghost 14.0 GiB" in panel_text(app, "memory") and "unseen" not in panel_text(app, "memory")
        assert "ghost" in panel_text(app, "card")


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_the_screen_shows_evidence_and_remedy_and_copies(
    console: Build, size: tuple[int, int], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scripted(scenes.busy(NOW), last_check=found(UNSEEN, ORPHAN, unknown=("MPS: not looked at",)))
    app = console(client, language=language)
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await until(pilot, lambda: app.link.state.check is not None)
        await pilot.press("c")
        await pilot.pause()
        text = screen_text(app)
        told = {
            "en": ("The driver counts 14.0 GiB", "Have it looked for"),
            # What this build knows is said in Chinese; what it does not stays as the engine said it.
            "zh_CN": ("这个引擎看不到的某个进程", "请能看到全部进程的人去查", "The driver counts 14.0 GiB"),
        }[language]
        for part in ("02:41", "14.0", *told, "MPS: not looked at"):
            assert part in text, part
        offers = {"en": "y copies command", "zh_CN": "y 复制命令"}[language]
        assert offers not in text, "it has none"
        await pilot.press("y")
        assert copied == []
        await pilot.press("a", "j")
        await pilot.pause()
        assert "turbotui kill 90112" in screen_text(app) and "Its parent has ended." in screen_text(app)
        app.screen.panel.said = ""  # type: ignore[attr-defined]
        app.screen.panel.redraw()  # type: ignore[attr-defined]
        await until(pilot, lambda: offers in screen_text(app))
        await pilot.press("y")
        assert copied == ["box, GPU 2: please look on the host", "turbotui kill 90112"]
        await pilot.press("c")
        assert len(app.screen_stack) == 1
    use_language("en")


async def test_looking_again_says_that_it_looks_and_shows_what_is_found(console: Build) -> None:
    go = threading.Event()

    def check() -> CheckReport:
        go.wait(5)
        return found(BROKEN, at=NOW + 9)

    app = console(scripted(scenes.busy(NOW), check=check))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("c")
        await pilot.pause()
        assert "no check is known yet; r looks now" in screen_text(app)
        await pilot.press("r")
        await pilot.pause()
        assert "looking…" in screen_text(app)
        go.set()
        await until(pilot, lambda: "wants a reset" in screen_text(app))
        assert "looking…" not in screen_text(app)


async def test_hostile_words_of_a_finding_reach_no_cell(
    console: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "a\x1b]0;x\x07b\u202ec\nrm -rf\x9b"
    hostile = Finding(
        kind=evil, severity="warning", title=evil, evidence=(evil,), remedy=evil, remedy_command=evil,
        admin_line=evil, changed=evil, pid=90112, start_time=230000.25,
    )  # fmt: skip
    app = console(scripted(scenes.busy(NOW), without_unseen(), last_check=found(hostile, unknown=(evil,))))
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: app.link.state.check is not None)
        for keys in ((), ("c",), ("y",), ("escape", "5", "j", "enter")):
            await pilot.press(*keys)
            await pilot.pause()
            assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(screen_text(app))
        assert len(copied) == 1 and copied[0].isprintable()


def test_what_was_seen_comes_back_and_damage_is_nothing_seen(tmp_path: Path) -> None:
    path = tmp_path / "state" / "console.json"
    seen = Seen(left_at=NOW, findings=frozenset({"unseen|GPU-1|||"}))
    save_seen(path, seen)
    assert load_seen(path) == seen
    for text in ("", "[]", '{"left_at": "x", "findings": [1, {}]}', '{"left_at": true}', "\x00"):
        path.write_text(text)
        assert load_seen(path).findings == frozenset()
    path.write_text('{"left_at": "x"}')
    assert load_seen(path) == Seen()
