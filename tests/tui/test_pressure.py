"""The banner of short memory, and how a terminal is told of a job's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from engine.wire import Growth, JobChanged, Pressure, PressureChanged, PressureOffer
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.notices import BELL, Notices, choose_mode, sequence, through_multiplexer
from turbotui.screens.plan import plan
from turbotui.state import ConsoleState, reduce
from turbotui.text import use_language
from turbotui.widgets.pressure import PressureBanner

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, screen_text, scripted, until

GIB = 2**30
(ACT,) = scenes.pressed(NOW).status.pressure
CALM = replace(ACT, level="none", used_share=0.3, grew=(), offers=())
HOST = replace(
    ACT,
    device_id="host",
    grew=(),
    offers=(
        PressureOffer(
            what="warm",
            target="warm weight files",
            bytes=57 * GIB,
            command="turbotui drop-warm",
            action="warm",
        ),
    ),
)


def under(*pressure: Pressure) -> Any:
    snapshot = scenes.busy(NOW)
    return replace(snapshot, status=replace(snapshot.status, pressure=pressure))


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_the_banner_names_what_can_go_and_hides_nothing_that_must_stay(
    console: Callable[..., TurboApp], size: tuple[int, int]
) -> None:
    app = console([under(ACT)])
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        rows = screen_text(app).split("\n")
        banner = rows[-3]
        assert "96 %" in banner and "f frees 11.0 GiB" in banner
        assert "liwei 90112 +6.20 GiB / 40 s" in banner
        assert ("u wan2.1-1.3b/text 10.6 GiB" in banner) == (size == WIDE)
        assert "unload wan2.1-1.3b" in rows[-2] and "help" in rows[-1]
        whole = "\n".join(rows)
        assert "weights" in whole and "denoise 3/4" in whole  # the bar and the running job
        assert "dit.low 13.5 GiB in 0.31 s" in whole  # the log's newest line


async def test_it_comes_and_goes_with_the_pressure_and_not_with_a_lost_engine(
    console: Callable[..., TurboApp],
) -> None:
    client = scripted(under(CALM))
    app = console(client)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        before = screen_text(app)
        assert "short" not in before
        client.push(PressureChanged(pressure=(ACT,)))
        await until(pilot, lambda: "memory short" in screen_text(app))
        client.push(PressureChanged(pressure=(CALM,)))
        await until(pilot, lambda: "memory short" not in screen_text(app))
        assert screen_text(app).split("\n")[:4] == before.split("\n")[:4]
        assert len(screen_text(app).split("\n")) == 24
        client.push(PressureChanged(pressure=(replace(ACT, level="warn"),)))
        await until(pilot, lambda: "memory short" in screen_text(app))
        client.end()
        await until(pilot, lambda: app.link.state.link == "lost")
        app.dashboard.tick()
        await pilot.pause()
        assert "memory short" not in screen_text(app)


async def test_the_worst_is_told_with_the_persons_own_key_and_in_their_language(
    console: Callable[..., TurboApp],
) -> None:
    app = console([under(replace(CALM), HOST)], keys={"warm": "ctrl+w"})
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "host memory short: 96 %" in panel_text(app, "pressure")
        assert "ctrl+w lets go of warm files 57.0 GiB" in panel_text(app, "pressure")
        app.speak("zh_CN")
        await pilot.pause()
        assert "主机内存紧张" in panel_text(app, "pressure")
        assert cell_len(panel_text(app, "pressure")) == WIDE[0]
    use_language("en")


async def test_its_colours_are_those_of_what_waits_and_vermilion_only_for_what_nobody_can_name(
    console: Callable[..., TurboApp],
) -> None:
    unseen = Growth(who="unseen", owner="unseen", bytes=14 * GIB, over_s=3.0)
    for pressure, alarmed in ((ACT, False), (replace(ACT, grew=(unseen,)), True)):
        app = console([under(pressure)])
        async with app.run_test(size=WIDE) as pilot:
            await live(pilot)
            banner = app.dashboard.query_one("#pressure", PressureBanner)
            colours = {
                segment.style.color
                for segment in banner.render_line(0)
                if segment.style and segment.text.strip()
            }
            assert app.paint.wait.color in colours
            assert (app.paint.alarm.color in colours) == alarmed
            assert app.paint.error.color not in colours - {app.paint.alarm.color}


def test_a_predicted_peak_names_its_job_and_nothing_to_give_is_said(console: Any) -> None:
    state = reduce(
        ConsoleState(),
        under(replace(ACT, predicted_share=1.2, predicted_job=43, offers=(), grew=())),
        wall=NOW,
    )
    assert state.pressure[0].predicted_job == 43
    banner = PressureBanner(id="pressure", key_of=lambda name: name[0])
    app = console([])
    from turbotui.widgets.lines import View

    view = View(state=state, history=None, paint=app.paint, wall=NOW, monotonic=0.0, look="live")
    text = "".join(segment.text for segment in banner.rows(view, 120, 1)[0].segments)
    assert "job 43 needs 120 %" in text and "nothing of ours can go" in text


@pytest.mark.parametrize("size", [(60, 18), SMALL, (99, 30), WIDE, (200, 50)])
def test_the_banner_takes_its_row_from_the_panels_alone(size: tuple[int, int]) -> None:
    without, with_it = plan(*size, "queue"), plan(*size, "queue", banner=True)
    # The log's tail goes where only its head would be left.
    assert {*with_it, "tail"} == {*without, "pressure", "tail"}
    for name in ("header", "clock", "memory", "receipt", "keys"):
        assert with_it[name] == without[name]
    assert sum(place.width * place.height for place in with_it.values()) == size[0] * size[1]


# ------------------------------------------------------------------ the terminal


class Told:
    def __init__(self, mode: Any = "osc9", when: Any = "blurred") -> None:
        self.clock = Clock()
        self.written: list[str] = []
        self.notices = Notices(
            mode, when, environ={}, write=self.written.append, monotonic=self.clock.monotonic
        )
        self.state = reduce(ConsoleState(), scenes.busy(NOW), wall=NOW)
        self.look()

    def look(self, *, attentive: bool = False) -> None:
        self.notices.look(self.state, attentive=attentive)

    def end(self, job_id: int, status: Any, *, attentive: bool = False, **more: Any) -> None:
        job = self.state.job(job_id)
        assert job is not None
        ended = replace(job, status=status, finished_at=NOW, **more)
        self.state = reduce(self.state, JobChanged(job=ended), wall=NOW)
        self.look(attentive=attentive)


def test_a_job_that_ends_while_nobody_looks_is_told_and_old_news_is_not() -> None:
    told = Told()
    assert told.written == []
    told.end(41, "done")
    told.look()
    assert told.written == ["\x1b]9;job 41 done: wan2.2-a14b\a"]


def test_it_is_quiet_while_somebody_looks_unless_it_is_always_wanted_or_off() -> None:
    for mode, when, expected in (("bell", "blurred", []), ("bell", "always", [BELL]), ("off", "always", [])):
        told = Told(mode, when)
        told.end(41, "done", attentive=True)
        assert told.written == expected


def test_many_ends_are_told_together_and_a_cancel_is_not_told() -> None:
    told = Told()
    told.end(42, "cancelled")
    assert told.written == []
    told.end(41, "done")
    told.end(43, "failed", error="disk full", error_code="storage")
    told.end(44, "failed", error="asked", error_code="out_of_memory")
    assert len(told.written) == 1
    told.clock.passed += 5
    told.look()
    assert told.written[1:] == ["\x1b]9;job 44 ran out of memory: wan2.1-14b (and 1 more)\a"]


def test_nothing_in_a_name_or_an_error_can_leave_its_sequence() -> None:
    nasty = "a\x07b\x1b\\c;d\x9c\x9de\n" + "很" * 300
    for mode, head, fields in (("osc9", "\x1b]9;", 1), ("osc777", "\x1b]777;notify;turbotui;", 3)):
        text = sequence(mode, nasty, {})  # type: ignore[arg-type]
        assert text.startswith(head) and text.endswith("\a")
        inside = text[2:-1]
        assert not set(inside) & set("\x07\x1b\x9c\x9d\n") and inside.count(";") == fields
        assert cell_len(inside) < 200


def test_a_sequence_passes_through_tmux_and_screen() -> None:
    assert through_multiplexer("\x1b]9;x\a", {"TMUX": "/tmp/t,1,0"}) == "\x1bPtmux;\x1b\x1b]9;x\a\x1b\\"
    assert through_multiplexer("\x1b]9;x\a", {"STY": "1.pts"}) == "\x1bP\x1b]9;x\a\x1b\\"
    assert sequence("bell", "x", {"TMUX": "1"}) == BELL
    assert sequence("osc777", "x", {"TMUX": "1"}).startswith("\x1bPtmux;\x1b\x1b]777;notify;turbotui;x\a")


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({"TERM": "xterm-256color"}, "bell"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "tmux"}, "bell"),
        ({"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2"}, "osc9"),
        ({"TERM": "xterm-kitty"}, "osc777"),
        ({"TERM": "foot-extra"}, "osc777"),
        ({"TERM_PROGRAM": "WezTerm"}, "osc777"),
        ({}, "bell"),
    ],
)
def test_auto_is_a_notice_where_the_terminal_shows_it_and_else_a_bell(
    environ: dict[str, str], mode: str
) -> None:
    assert choose_mode("auto", environ) == mode
    assert choose_mode("osc9", environ) == "osc9"


async def test_the_console_writes_it_through_its_driver_when_the_terminal_is_left(
    console: Callable[..., TurboApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client, notify="osc9")
    written: list[str] = []
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        assert app._driver is not None
        monkeypatch.setattr(type(app), "is_headless", property(lambda self: False))
        monkeypatch.setattr(app._driver, "write", written.append)
        app.dashboard.set_attentive(False)
        done = replace(scenes.running_job(NOW), status="done", finished_at=NOW)
        client.push(JobChanged(job=done))
        await until(pilot, lambda: bool(written))
        assert written == ["\x1b]9;job 41 done: wan2.2-a14b\a"]
        monkeypatch.undo()
