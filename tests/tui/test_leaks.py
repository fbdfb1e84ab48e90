"""The screen of leaks as a person meets it: verdicts first, what holds them, and a key that gives it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest

from engine.errors import NotNow
from engine.wire import (
    ExportRequest,
    Grown,
    Holder,
    LeakReport,
    Mark,
    MarkRequest,
    MemorySampled,
    RemedyAction,
    RemedyRequest,
    Segment,
    SinceMark,
    Site,
    TraceRequest,
    Tracing,
    Trend,
    Verdict,
    VerdictKind,
)
from turbotui.app import TurboApp
from turbotui.client import scene_leaks, scene_plans, scenes
from turbotui.client.scripted import ScriptedClient
from turbotui.screens.job import JobScreen
from turbotui.screens.leak_pages import ResultScreen, VerdictScreen
from turbotui.screens.leaks import LeaksScreen
from turbotui.text import texts_of
from turbotui.theme import GLYPHS
from turbotui.widgets.segment_map import AWAITING, BETWEEN, block_states, sums

from .conftest import NOW, SMALL, WIDE, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]
MIB, GIB = 2**20, 2**30
LARGE = (200, 50)


def engine(**answers: Any) -> ScriptedClient:
    answers.setdefault("leaks", scene_leaks.leak_report(NOW))
    answers.setdefault("remedy", scene_leaks.remedied)
    return scripted(scenes.busy(NOW), check=scene_plans.found(NOW), **answers)


async def opened(pilot: Any, client: ScriptedClient) -> str:
    """The screen with its report in it."""
    await live(pilot)
    await pilot.press("l")
    await until(pilot, lambda: "looked" in text_of(pilot) or "用时" in text_of(pilot), "a report")
    assert isinstance(pilot.app.screen, LeaksScreen)
    return text_of(pilot)


def text_of(pilot: Any) -> str:
    return screen_text(pilot.app)


def asked(client: ScriptedClient, name: str) -> list[Any]:
    return [call[1] for call in client.asked if call[0] == name and len(call) > 1]


@pytest.mark.parametrize("size", [SMALL, WIDE, LARGE], ids=["80x24", "120x36", "200x50"])
async def test_the_leak_stands_first_with_its_holder_and_its_remedy(
    console: Build, size: tuple[int, int]
) -> None:
    client = engine()
    app = console(client)
    async with app.run_test(size=size) as pilot:
        text = await opened(pilot, client)
        text = text[text.index("Leaks  1 leak, 2.10 GiB") :]  # the same words stand behind it
        assert "in 0.41 s, 81,204 objects" in text
        assert text.index("tensor") < text.index("unseen") < text.index("component") < text.index("OOM")
        for words in ("held by", "STORE", "[17]", "preview.py:12", "made in preview.py:41 remember"):
            assert words in text
        assert "f Remedy End the worker, which gives back all" in text and "job 31" in text
        # What the path and the site show is not said twice.
        assert "It is reached by" not in text and "The holder is written at" not in text
        if size != SMALL:
            for words in (
                "+118 MiB a job", "level over 18 jobs", "20.1 GiB in 49 segments", "pipeline.py:212",
                "tracing is on since 13:13, costs 1.8 % of a step",
            ):  # fmt: skip
                assert words in text


async def test_in_a_small_terminal_the_arrows_turn_to_trends_map_and_sites(console: Build) -> None:
    client = engine()
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, client)
        for words in ("+118 MiB a job", "~ awaiting 0.3", "tracing is on since 13:13"):
            await pilot.press("right")
            assert words in text_of(pilot)
        await pilot.press("left", "left", "left")
        assert "held by" in text_of(pilot)


async def test_a_remedy_asks_first_is_run_as_it_was_shown_and_is_compared(console: Build) -> None:
    client = engine()
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press("f")
        await until(pilot, lambda: "Replace the worker" in text_of(pilot))
        assert "Gives back    at least 2.10 GiB" in text_of(pilot) and "compared with that" in text_of(pilot)
        await until(pilot, lambda: app.screen.painted)  # type: ignore[attr-defined]
        await pilot.press("enter")  # Cancel has the focus
        assert asked(client, "remedy") == [] and isinstance(app.screen, LeaksScreen)
        await pilot.press("f")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        await pilot.press("right", "enter")
        await until(pilot, lambda: isinstance(app.screen, ResultScreen))
        assert asked(client, "remedy") == [RemedyRequest(remedy=scene_leaks.FIX)]
        text = text_of(pilot)
        assert "✓ predicted 2.10 GiB, 2.09 GiB came back" in text and "residue" in text
        bars = [line for line in text.splitlines() if "predicted " in line or "came back " in line]
        assert len(bars) >= 2
        await pilot.press("escape")
        assert [call[0] for call in client.asked].count("leaks") == 2  # looked again after it
        assert "✓ predicted 2.10 GiB" in text_of(pilot)


async def test_a_remedy_that_brings_less_says_so_and_one_that_fails_says_why(console: Build) -> None:
    def short(request: RemedyRequest) -> Any:
        return replace(scene_leaks.remedied(request), returned_bytes=GIB, kept=False)

    client = engine(remedy=short)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press("f")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "! predicted 2.10 GiB, only 1.00 GiB came back" in text_of(pilot))
        await pilot.press("escape")
        client._answers["remedy"] = NotNow("a switch is under way; try again")
        await until(pilot, lambda: "looked" in text_of(pilot))
        await pilot.press("f")
        await until(pilot, lambda: getattr(app.screen, "painted", False) and "Cancel" in text_of(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "a switch is under way; try again" in text_of(pilot))
        assert isinstance(app.screen, LeaksScreen)


async def test_ending_anothers_process_asks_a_second_time(console: Build) -> None:
    client = engine()
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press("j", "j", "j")
        assert "held by process 90112 of liwei" in text_of(pilot)
        await pilot.press("f")
        await until(pilot, lambda: "End the process" in text_of(pilot))
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        first = app.screen
        await pilot.press("right", "enter")
        await until(pilot, lambda: app.screen is not first and getattr(app.screen, "painted", False))
        assert asked(client, "remedy") == [] and "liwei" in text_of(pilot)
        await pilot.press("right", "enter")
        await until(pilot, lambda: bool(asked(client, "remedy")))
        (request,) = asked(client, "remedy")
        assert request.other_user and request.remedy.pid == 90112


async def test_what_has_no_remedy_asks_nothing_and_its_line_can_be_copied(console: Build) -> None:
    client = engine()
    app = console(client)
    copied: list[str | None] = []
    app.copy_text = copied.append  # type: ignore[assignment,method-assign]
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press("j", "f")
        assert "nothing here gives it back" in text_of(pilot) and isinstance(app.screen, LeaksScreen)
        await pilot.press("y", "a", "j", "y")
        assert copied[0] is not None and copied[0].startswith("gpubox01, GPU 2")
        assert copied[1:] == ["turbotui unload wan2.2-a14b/text"]


async def test_tracing_is_switched_by_a_key_and_says_its_cost(console: Build) -> None:
    off = replace(scene_leaks.leak_report(NOW), tracing=Tracing(on=False), sites=())
    client = engine(leaks=off, trace=Tracing(on=True, since=NOW, cost_share=0.004))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        assert "tracing is off and costs nothing" in text_of(pilot)
        assert "tracing is off: what is allocated" in text_of(pilot)
        await pilot.press("t")
        await until(pilot, lambda: "✓ tracing is on, costs 0.4 % of a step" in text_of(pilot))
        assert asked(client, "trace") == [TraceRequest(on=True)]
        client._answers["trace"] = Tracing(on=True)
        await until(pilot, lambda: "looked" in text_of(pilot))
        await pilot.press("t")
        await until(pilot, lambda: "its cost is not measured yet" in text_of(pilot))


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_what_grew_since_a_mark_is_told_by_line_and_by_holder(
    console: Build, size: tuple[int, int]
) -> None:
    report = scene_leaks.leak_report(NOW)
    site = Site(file="/opt/nodes/preview.py", line=41, function="remember")
    holder = Holder(path=("module preview", "STORE", "[17]"), kind="global")
    grown = (Grown(bytes=96 * MIB, count=3, site=site),)
    since = SinceMark(at=NOW - 60, sites=grown, holders=(Grown(bytes=-2 * GIB, count=-4, holder=holder),))
    client = engine(leaks=replace(report, since=None), mark=Mark(at=NOW - 60))
    app = console(client)
    async with app.run_test(size=size) as pilot:
        await opened(pilot, client)
        await pilot.press("m")
        await until(pilot, lambda: "✓ marked" in text_of(pilot))
        client._answers["leaks"] = replace(report, since=since)
        await pilot.press("r")
        if size == SMALL:
            await pilot.press("left")  # the last section, from the first
        await until(pilot, lambda: "+3  preview.py:41  remember" in text_of(pilot))
        text = text_of(pilot)
        assert "─ Since 14:12" in text.replace("─ Since  14", "─ Since 14")
        assert "+96M" in text and "-4  module preview > STORE > [17]" in text
        await pilot.press("m")
        await until(pilot, lambda: len(asked(client, "mark")) == 2)
        assert asked(client, "mark") == [MarkRequest(on=True), MarkRequest(on=False)]


async def test_a_snapshot_is_written_in_the_form_that_is_chosen(console: Build) -> None:
    client = engine()
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press("e")
        await until(pilot, lambda: getattr(app.screen, "painted", False) and "memory_viz" in text_of(pilot))
        await pilot.press("right", "right", "enter")
        await until(pilot, lambda: bool(asked(client, "export_snapshot")))
        (request,) = asked(client, "export_snapshot")
        path = "/home/me/Videos/turbotui/memory-20260921-141320.pickle"
        assert request == ExportRequest(path=path, format="pickle")
        await until(pilot, lambda: "✓ /home/me/Videos" in text_of(pilot))


async def test_enter_tells_all_of_it_and_opens_the_job_that_ran_out(console: Build) -> None:
    client = engine()
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, client)
        await pilot.press("enter")
        assert isinstance(app.screen, VerdictScreen) and "tensor: leak  2.10 GiB" in text_of(pilot)
        await pilot.press("escape", "G")
        assert "processes and the driver: the check has not ended within 1.7 s " in text_of(pilot), "whole"
        assert "f remedy" not in text_of(pilot), "of what is unknown there is none"
        await pilot.press("k")
        assert "opens the job, with its report" in text_of(pilot)
        await pilot.press("enter")
        assert isinstance(app.screen, JobScreen) and app.screen.panel.job_id == 31
        await pilot.press("escape", "c")
        await until(pilot, lambda: "Findings" in text_of(pilot))


async def test_the_keys_that_a_verdicts_page_names_work_on_it(console: Build) -> None:
    client = engine()
    app = console(client)
    copied: list[str | None] = []
    app.copy_text = copied.append  # type: ignore[assignment,method-assign]
    async with app.run_test(size=SMALL) as pilot:
        await opened(pilot, client)
        await pilot.press("j", "j", "enter")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        assert "f remedy  y copies the command  esc back" in text_of(pilot)
        await pilot.press("y")
        assert copied == ["turbotui unload wan2.2-a14b/text"] and "✓ copied" in text_of(pilot)
        await pilot.press("f")
        await until(pilot, lambda: getattr(app.screen, "painted", False) and "Cancel" in text_of(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: isinstance(app.screen, ResultScreen))
        assert [request.remedy.target for request in asked(client, "remedy")] == ["wan2.2-a14b/text"]
        await pilot.press("escape", "k", "enter")
        await until(pilot, lambda: "a copies the admin's line  esc back" in text_of(pilot))
        assert "f remedy  a copies" not in text_of(pilot)


async def test_before_tracing_on_a_cpu_its_cost_is_told_and_agreed_to(console: Build) -> None:
    off = replace(scene_leaks.leak_report(NOW), tracing=Tracing(on=False, device="cpu"), sites=())
    client = engine(leaks=off, trace=Tracing(on=True, since=NOW, device="cpu"))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        assert "tracing is off; on, a step takes up to 3x as long" in text_of(pilot)
        await pilot.press("t")
        await until(pilot, lambda: getattr(app.screen, "painted", False) and "Cancel" in text_of(pilot))
        assert "Cost          a step takes up to 3x as long" in text_of(pilot)
        await pilot.press("enter")  # Cancel has the focus
        assert asked(client, "trace") == []
        await pilot.press("t")
        await until(pilot, lambda: getattr(app.screen, "painted", False) and "Cancel" in text_of(pilot))
        await pilot.press("right", "enter")
        await until(pilot, lambda: "✓ tracing is on, a step may take 3x as long" in text_of(pilot))
        assert asked(client, "trace") == [TraceRequest(on=True)]
        client._answers["leaks"] = replace(off, tracing=Tracing(on=False, device="cpu", cost_share=0.9))
        await pilot.press("r")
        await until(pilot, lambda: "tracing is off; on, it cost 90 % of a step here" in text_of(pilot))


@pytest.mark.parametrize(
    ("kept", "returned", "colour", "sign"),
    [(True, 2 * GIB, "proof", "✓"), (False, MIB, "error", "!"), (None, None, "wait", "")],
)
async def test_one_colour_says_kept_and_one_says_not_kept(
    console: Build, kept: bool | None, returned: int | None, colour: str, sign: str
) -> None:
    def remedied(request: RemedyRequest) -> Any:
        return replace(scene_leaks.remedied(request), kept=kept, returned_bytes=returned)

    client = engine(remedy=remedied)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press("f")
        await until(pilot, lambda: getattr(app.screen, "painted", False))
        await pilot.press("right", "enter")
        await until(pilot, lambda: isinstance(app.screen, ResultScreen))
        view = app.dashboard.view_now()
        result = app.screen.panel  # type: ignore[attr-defined]
        page = result.page(view, 80)[0]
        wanted = getattr(view.paint, colour)
        assert page.plain().startswith(sign) and [part.style for part in page.segments] == [wanted]
        assert result.title(view).startswith(f"{sign} " if sign else "Replace")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.panel.said != "" and app.screen.panel.report)  # type: ignore[attr-defined]
        rows = app.screen.panel._section(view, "verdict", 80, 20)  # type: ignore[attr-defined]
        assert [part.style for part in rows[0].segments] == [wanted]


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_a_console_that_only_looks_offers_no_key_that_acts(
    console: Build, size: tuple[int, int]
) -> None:
    client = engine()
    app = console(client, read_only=True)
    async with app.run_test(size=size) as pilot:
        text = await opened(pilot, client)
        shown = text[text.index("Leaks  1 leak") :]
        assert "r again" in shown and "esc back" in shown
        for words in ("f remedy", "f Remedy", "t trace", "m mark", "e export", "t tracing", "m marks"):
            assert words not in shown, words
        await pilot.press("question_mark")
        await until(pilot, lambda: "look again" in text_of(pilot) or "again" in text_of(pilot))
        for sentence in ("leaks_remedy", "leaks_trace", "leaks_mark", "leaks_export"):
            assert texts_of("en")[f"screen.{sentence}"] not in text_of(pilot)
        await pilot.press("escape", "enter")
        await until(pilot, lambda: isinstance(app.screen, VerdictScreen))
        page = text_of(pilot)
        assert "f remedy" not in page and "f Remedy" not in page and "Remedy End the worker" in page


async def test_a_cycle_is_told_in_the_persons_language(console: Build) -> None:
    report = scene_leaks.leak_report(NOW)
    holder = Holder(path=("a cycle of a.A, b.B, c.C, d.D",), kind="cycle")
    verdict = replace(report.verdicts[0], holder=holder)
    since = SinceMark(at=NOW, holders=(Grown(bytes=MIB, count=1, holder=holder),))
    client = engine(leaks=replace(report, verdicts=(verdict,), since=since))
    app = console(client, language="zh_CN")
    async with app.run_test(size=WIDE) as pilot:
        text = await opened(pilot, client)
        assert text.count("a.A, b.B, c.C, d.D 的循环引用") == 2 and "a cycle of" not in text


async def test_floors_of_jobs_and_of_switches_are_told_apart(console: Build) -> None:
    for size in (WIDE, SMALL):
        client = engine()
        async with console(client).run_test(size=size) as pilot:
            await opened(pilot, client)
            await pilot.press("right")
            text = text_of(pilot)
            assert text.count("device/job") == text.count("device/switch") == text.count("host/job") == 1
            assert "level over 18 jobs" in text and "3 switches: too few" in text


@pytest.mark.parametrize("key", ["f", "t", "m", "e"])
async def test_a_console_that_only_looks_does_nothing_here(console: Build, key: str) -> None:
    client = engine()
    app = console(client, read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, client)
        await pilot.press(key)
        await pilot.pause()
        assert isinstance(app.screen, LeaksScreen)
        assert texts_of("en")["why.read_only"][:40] in text_of(pilot)
        assert not {call[0] for call in client.asked} & {"remedy", "trace", "export_snapshot"}


async def test_without_a_leak_it_says_so_and_without_an_answer_why(console: Build) -> None:
    nothing = LeakReport(at=NOW, elapsed_s=0.1, verdicts=(), trends=(), tracing=Tracing(on=False))
    client = engine(leaks=nothing)
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        text = await opened(pilot, client)
        assert "Leaks  none" in text
        for words in ("too few alike jobs or switches", "no segments"):
            assert words in text
        await pilot.press("escape")
        client._answers["leaks"] = NotNow("the worker hangs; `turbotui cleanup` ends it")
        await pilot.press("l")
        await until(pilot, lambda: "the worker hangs" in text_of(pilot))
        await pilot.press("f", "t", "e", "enter", "y", "right")
        assert isinstance(app.screen, LeaksScreen)


async def test_where_there_is_nothing_it_is_said_once_and_no_key_is_offered_for_it(console: Build) -> None:
    nothing = LeakReport(at=NOW, elapsed_s=0.1, verdicts=(), trends=(), tracing=Tracing(on=False))
    client = scripted(scenes.first_run(NOW), leaks=nothing)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        text = await opened(pilot, client)
        assert text.count("no leak, and nothing else") == 1 and "t trace  m mark  r again" in text
        assert "f remedy" not in text and "↵ all" not in text and "Leaks  none " in text


async def test_a_worker_that_does_not_answer_is_not_said_to_have_no_leak(console: Build) -> None:
    silent = ("the worker: it has not told what it holds within 1.7 s",)
    report = LeakReport(
        at=NOW, elapsed_s=1.7, verdicts=(), trends=(), tracing=Tracing(on=False), unknown=silent
    )
    client = scripted(scenes.first_run(NOW), leaks=report)
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        assert "Leaks  none seen" in await opened(pilot, client)


async def test_hostile_names_are_shown_and_not_obeyed(console: Build) -> None:
    evil = "x\x1b]0;owned\x07\u202egpj"
    verdict = Verdict(
        kind="tensor", leak=True, title=evil, evidence=(evil,), bytes=GIB, site_reason=evil,
        holder=Holder(path=(evil, evil), kind="global", file=f"/{evil}.py", line=1),
    )  # fmt: skip
    client = engine(leaks=replace(scene_leaks.leak_report(NOW), verdicts=(verdict,)))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        text = await opened(pilot, client)
        assert not set(text) & set("\x1b\x07\u202e") and "owned" in text


async def test_the_unseen_of_the_memory_bar_leads_here_and_other_findings_to_the_check(
    console: Build,
) -> None:
    client = engine(last_check=scene_plans.found(NOW))
    app = console(client, keys={"leaks": "Z"})
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await until(pilot, lambda: "Z finds it" in panel_text(app, "memory"))
        await pilot.press("Z")
        await until(pilot, lambda: isinstance(app.screen, LeaksScreen))


# --------------------------------------------------------------------------- its parts


def test_every_kind_and_every_remedy_has_its_words() -> None:
    for language in ("en", "zh_CN"):
        texts = texts_of(language)
        assert not [kind for kind in get_args(VerdictKind) if f"leaks.kind_{kind}" not in texts]
        assert not [action for action in get_args(RemedyAction) if f"leaks.action_{action}" not in texts]


def test_what_is_free_beside_something_live_cannot_be_given_back() -> None:
    torn = Segment(bytes=30, blocks=(("live", 10), ("free", 15), ("awaiting", 5)))
    whole = Segment(bytes=40, blocks=(("free", 40),))
    assert list(block_states(torn)) == [("live", 10), ("fragmented", 15), ("awaiting", 5)]
    assert sums((torn, whole)) == {"live": 10, "awaiting": 5, "fragmented": 15, "cache": 40}


@pytest.mark.parametrize("width", [20, 52, 76])
@pytest.mark.parametrize("height", [3, 6, 20])
async def test_the_map_has_all_bytes_in_the_cells_that_it_has(
    console: Build, width: int, height: int
) -> None:
    from turbotui.widgets.segment_map import map_rows

    segments = scene_leaks.segments()
    client = engine()
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        rows = map_rows(app.dashboard.view_now(), segments, width, height)
    assert len(rows) <= max(3, height) and all(row.cells <= width for row in rows)
    glyphs = {GLYPHS["live"], GLYPHS["fragmented"], GLYPHS["cache"], AWAITING, BETWEEN}
    cells = [cell for row in rows for cell in row.plain() if cell in glyphs]
    if height == 20:
        # Of each state so many cells as it has of all bytes, to within what the lines take.
        held, total = sums(segments), sum(segment.bytes for segment in segments)
        drawn = [row.plain() for row in rows[1:] if set(row.plain()) <= glyphs]
        count = sum(map(len, drawn))
        for state, glyph in (("live", "▓"), ("cache", "▒"), ("fragmented", "%")):
            share = sum(row.count(glyph) for row in drawn) / count
            assert abs(share - held[state] / total) < 0.06, state  # type: ignore[index]
    assert cells


async def test_a_trend_without_a_slope_and_with_none_of_its_floors(console: Build) -> None:
    trends = (
        Trend(what="pinned", over="switches", count=1, bytes_each=None),
        Trend(what="host", over="switches", count=9, bytes_each=MIB * 1.0, low=MIB * 0.5, high=MIB * 2.0,
              grows=True, floors=tuple(range(0, 9 * MIB, MIB)), stage="denoise dit.high"),
        Trend(what="device", over="jobs", count=9, bytes_each=MIB * 3.0, low=MIB * 3.0, high=MIB * 3.0,
              grows=True, floors=tuple(range(0, 9 * MIB, MIB)), stage="denoise dit.low", component="dit.low"),
    )  # fmt: skip
    client = engine(leaks=replace(scene_leaks.leak_report(NOW), trends=trends))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        text = await opened(pilot, client)
        assert "1 switch: too few" in text and "+1.00 MiB a switch" in text
        assert "9 switches, 95 %: 512 KiB to 2.00 MiB" in text
        assert "denoise (dit.low)" in text and "dit.high" not in text and "(-)" not in text


async def test_it_is_all_in_chinese_too(console: Build) -> None:
    client = engine()
    app = console(client, language="zh_CN")
    async with app.run_test(size=WIDE) as pilot:
        text = await opened(pilot, client)
        for words in (
            "泄漏  1 处，2.10 GiB",
            "每个任务 +118 MiB",
            "被占于",
            "追踪已开启",
            "空隙",
            "检查没有在",
        ):
            assert words in text
        await pilot.press("colon")
        await pilot.press(*"泄漏")
        await until(pilot, lambda: True)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_without_a_leak_it_tells_who_holds_what_now(
    console: Build, size: tuple[int, int], language: str
) -> None:
    nothing = LeakReport(at=NOW, elapsed_s=0.1, verdicts=(), trends=(), tracing=Tracing(on=False))
    client = scripted(replace(scenes.busy(NOW), jobs=()), leaks=nothing)
    app = console(client, language=language)
    async with app.run_test(size=size) as pilot:
        text = await opened(pilot, client)
        text = text[text.index(texts_of(language)["leaks.title_none"]) :]
        told = text[text.index(texts_of(language)["leaks.who_holds"]) :]
        for words in ("wan2.2-a14b/dit.low", "13.7", "90112 python", "14.0", "101.7"):
            assert words in told
        assert told.index("14.0") < told.index("13.7") < told.index("90112"), "the most first"
        app.link._take(MemorySampled(device=scenes.gpu(NOW, scenes.gpu_balance(NOW, weights=2.6))))
        app.screen.refresh_panel()  # type: ignore[attr-defined]
        await pilot.pause()
        text = text_of(pilot)
        told = text[text.index(texts_of(language)["leaks.who_holds"]) :]
        assert "13.7" not in told and "112.8" in told


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_that_tracing_is_off_is_said_once_below_the_sites(console: Build, language: str) -> None:
    nothing = LeakReport(at=NOW, elapsed_s=0.1, verdicts=(), trends=(), tracing=Tracing(on=False))
    for size, keys in ((WIDE, ()), (SMALL, ("right", "right", "right"))):
        client = engine(leaks=nothing)
        app = console(client, language=language)
        async with app.run_test(size=size) as pilot:
            await opened(pilot, client)
            await pilot.press(*keys)
            assert text_of(pilot).count(f"t {texts_of(language)['leaks.tracing_off']}") == 1
