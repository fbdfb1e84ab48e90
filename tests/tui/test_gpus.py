"""Several GPUs: the strip, which one is looked at, and what then is told of which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.color import Color

from engine.wire import CardStatus, DeviceStatus, MemorySampled, Snapshot
from turbotui.app import TurboApp
from turbotui.client import scene_gpus, scenes
from turbotui.gpus import figures_of, holders, short_name, trouble
from turbotui.seen import Seen, save_seen
from turbotui.state import ConsoleState, DeviceChosen, reduce
from turbotui.theme import Paint, read_palette, theme_files, theme_folders
from turbotui.widgets.lines import View
from turbotui.widgets.strip import GpuStrip

from .conftest import NOW, SMALL, WIDE, live, panel_text, screen_text, scripted

Build = Callable[..., TurboApp]
PAINT = Paint(read_palette(theme_files(theme_folders())["dark"]))


def with_devices(snapshot: Snapshot, *devices: DeviceStatus) -> Snapshot:
    return replace(snapshot, status=replace(snapshot.status, devices=devices))


def strip_of(devices: tuple[DeviceStatus, ...], width: int, chosen: str | None = None) -> str:
    state = reduce(ConsoleState(), with_devices(scenes.busy(NOW), *devices), wall=NOW)
    if chosen is not None:
        state = reduce(state, DeviceChosen(device_id=chosen))
    view = View(state=state, history=None, paint=PAINT, wall=NOW, monotonic=0.0, look="live")
    strip = GpuStrip(id="strip", on_choose=lambda _id: None, key_of=lambda name: "[]"[name == "gpu_next"])
    return strip.rows(view, width, 1)[0].plain()


# ------------------------------------------------------------------ the row


def test_eight_gpus_fit_at_120_and_at_80_columns() -> None:
    devices = scene_gpus.gpus(NOW, 8)
    assert strip_of(devices, 120) == (
        " 0 █131 liwei   1 ▁ <1 free   [2]▃ 39 me+1?   3 ▁ <1 free "
        "   4 ▇118 chen    5 ▇117 chen    6 ▁ 14 ?       7 ▁ <1 free   "
    )
    assert strip_of(devices, 80) == (
        " 0█131 li  1▁ <1    [2]▃ 39 me 3▁ <1     4▇118 ch  5▇117 ch  6▁ 14 ?   7▁ <1    "
    )


def test_two_gpus_tell_what_they_are_and_do() -> None:
    text = strip_of(scene_gpus.gpus(NOW, 2), 120)
    for told in ("[1]▃ 39/140 GiB me", "H200 61°C 412W  97%", " 0 █131/140 GiB liwei", "H200 66°C 640W 100%"):
        assert told in text
    wide = strip_of(scene_gpus.gpus(NOW, 2), 200)
    assert "me 17.9  ? 14.0  liwei 6.2" in wide and wide.endswith("[ ] ")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16])
def test_the_one_looked_at_is_always_in_sight_and_whole(width: int, count: int) -> None:
    eight = scene_gpus.gpus(NOW, 8)
    devices = tuple(
        replace(eight[place % 8], id=f"GPU-{place}", index=place, in_use=place == 2) for place in range(count)
    )
    for device in devices:
        text = strip_of(devices, width, device.id)
        used = figures_of(device).used
        after = text.partition(f"[{device.index:>{len(str(count - 1))}}]")[2]
        assert after[1:4].strip() == used, text
        assert len(text) <= width


def test_while_another_is_looked_at_the_engines_own_is_marked() -> None:
    devices = scene_gpus.gpus(NOW, 8)
    text = strip_of(devices, 120, devices[5].id)
    assert "[5]▇117" in text and "●2 ▃ 39" in text
    assert "●" not in strip_of(devices, 120)


def test_what_is_wrong_goes_before_who_holds_it_and_what_is_unknown_is_no_zero() -> None:
    devices = list(scene_gpus.gpus(NOW, 8))
    devices[4] = replace(devices[4], card=CardStatus(recovery_action="reset the GPU"))
    devices[5] = replace(devices[5], processes=(), processes_fault="no answer")
    devices[7] = replace(devices[7], balance=None, utilisation_percent=None)
    text = strip_of(tuple(devices), 200)
    groups = [text[place : place + 25] for place in range(0, 200, 25)]
    assert "! reset it" in groups[4] and "chen" not in groups[4]
    assert groups[5].split() == ["5", "▇117", "-", "100%"]
    assert groups[7].split() == ["7", "-", "-"]


def test_who_holds_a_gpu_is_told_by_user_with_most_first() -> None:
    assert [holder.name for holder in holders(scenes.gpu(NOW)) or ()] == ["me", "?", "liwei"]
    assert holders(scene_gpus.other_gpu(NOW, 1)) == ()
    one = scene_gpus.other_gpu(NOW, 5)
    nameless = replace(one.processes[1], user=None, name="python", bytes=None)
    found = holders(replace(one, processes=(one.processes[0], nameless, nameless))) or ()
    assert [(holder.name, holder.bytes) for holder in found] == [
        ("chen", one.processes[0].bytes), ("python", None),
    ]  # fmt: skip


def test_trouble_is_what_the_maker_did_not_mean() -> None:
    device = scenes.gpu(NOW)
    for limits, told in (
        (("power cap",), ""),
        (("power cap", "thermal, by software"), "too hot"),
        (("something newer",), "something newer"),
    ):
        assert trouble(replace(device, card=CardStatus(clock_limits=limits))) == told
    assert trouble(replace(device, card=CardStatus(recovery_action="none"))) == ""
    assert trouble(replace(device, fault="lost")) == "not read"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "Tesla T4"),
    ],
)
def test_a_name_is_told_without_maker_and_size(name: str, short: str) -> None:
    assert short_name(name) == short


# ------------------------------------------------------------------ looking


@pytest.mark.parametrize("size", [SMALL, WIDE, (200, 50)])
async def test_one_gpu_has_no_strip_and_nothing_to_go_to(console: Build, size: tuple[int, int]) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        assert not app.dashboard.query_one("#strip").display
        assert "GPU 2 H200" in screen_text(app).splitlines()[0]
        await pilot.press("]")
        assert "no other GPU" in screen_text(app)


async def test_a_key_looks_at_the_next_gpu_and_says_where_the_engine_works(console: Build) -> None:
    client = scripted(scene_gpus.shared(NOW, 8))
    app = console(client)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "GPU 2/8 H200" in screen_text(app) and "engine on" not in screen_text(app)
        assert "81223 me" in panel_text(app, "card") and "▶" in panel_text(app, "history")
        asked = list(client.asked)
        await pilot.press("]", "]")
        lines = screen_text(app).splitlines()
        assert "GPU 4/8 H200" in lines[0] and "engine on GPU 2" in lines[0]
        assert "[4]▇118 chen" in lines[1]
        assert "Memory of GPU 4  117.5 of 140.4 GiB used  ·  engine on GPU 2" in lines[2]
        assert "torchrun" in panel_text(app, "card") and "81223" not in panel_text(app, "card")
        # What the engine did is told of its own device alone; what is loaded is its own's as before.
        assert "▶" not in panel_text(app, "history") and "History of GPU 4" in panel_text(app, "history")
        assert "● gpu" in panel_text(app, "models")
        client.push(MemorySampled(device=scene_gpus.other_gpu(NOW, 4, tick=10)))
        await pilot.press("［", "【")
        assert "GPU 2/8 H200" in screen_text(app) and "engine on" not in screen_text(app)
        await pilot.press("[", "[", "[")
        assert "GPU 7/8" in screen_text(app)
        assert client.asked == asked  # the engine is not told


@pytest.mark.parametrize(("size", "at"), [(SMALL, 45), (WIDE, 63)])
async def test_a_click_looks_at_the_gpu_under_it(console: Build, size: tuple[int, int], at: int) -> None:
    app = console(scripted(scene_gpus.shared(NOW, 8)))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.click("#strip", offset=(at, 0))
        assert "GPU 4/8" in screen_text(app)


async def test_a_paused_picture_can_be_of_another_gpu(console: Build) -> None:
    app = console(scripted(scene_gpus.shared(NOW, 8)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("p", "]")
        assert "Memory of GPU 3" in screen_text(app) and "PAUSED" in screen_text(app)


def test_a_gpu_that_is_gone_gives_the_view_back_to_the_engines_own() -> None:
    state = reduce(ConsoleState(), scene_gpus.shared(NOW, 8), wall=NOW)
    state = reduce(state, DeviceChosen(device_id=scene_gpus.uuid_of(5)))
    assert state.device is not None and state.device.index == 5
    assert state.elsewhere is not None and state.elsewhere.index == 2
    # Another snapshot, as after coming back, changes nothing of the person's choice.
    state = reduce(state, scene_gpus.shared(NOW, 8), wall=NOW)
    assert state.device is not None and state.device.index == 5
    state = reduce(state, scene_gpus.shared(NOW, 2), wall=NOW)
    assert state.device is state.own_device and state.elsewhere is None


async def test_the_axis_follows_the_gpu_that_is_looked_at(console: Build) -> None:
    app = console(scripted(scene_gpus.shared(NOW, 8)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "140┤" not in panel_text(app, "history")
        await pilot.press("]", "]")
        assert "to 120 GiB of 140 GiB" in panel_text(app, "history")
        await pilot.press("[")
        assert "to 24 GiB of 140 GiB" in panel_text(app, "history")


# ------------------------------------------------------------------ header and receipt


async def test_what_slows_a_gpu_down_is_told_in_the_header(console: Build) -> None:
    hot = replace(scenes.gpu(NOW), card=CardStatus(clock_limits=("thermal, by hardware",)))
    app = console(scripted(with_devices(scenes.busy(NOW), hot)))
    for size in (SMALL, WIDE):
        async with app.run_test(size=size) as pilot:
            await live(pilot)
            assert "! very hot" in screen_text(app).splitlines()[0]
            header = app.dashboard.query_one("#header")
            styles = [segment.style for segment in header.render_line(0) if "very hot" in segment.text]
            assert [style and style.color for style in styles] == [app.paint.alarm.color]
        app = console(scripted(with_devices(scenes.busy(NOW), hot)))


async def test_what_a_gpu_does_not_tell_is_left_out(console: Build) -> None:
    silent = replace(scenes.gpu(NOW), temperature_c=None, power_w=None, utilisation_percent=None)
    app = console(scripted(with_devices(scenes.busy(NOW), silent)))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "GPU 2 H200  ● live" in screen_text(app).splitlines()[0]


@pytest.mark.parametrize("width", [60, 70, 80, 99, 100, 120, 140, 200])
@pytest.mark.parametrize("settings", [{}, {"language": "zh_CN"}, {"read_only": True}])
async def test_nothing_in_the_header_is_cut(
    console: Build, tmp_path: Path, width: int, settings: dict[str, Any]
) -> None:
    seen = tmp_path / "console.json"
    save_seen(seen, Seen(left_at=NOW - 16 * 3600))
    app = console(scripted(scene_gpus.shared(NOW, 8)), seen_path=seen, **settings)
    async with app.run_test(size=(width, 36)) as pilot:
        await live(pilot)
        await pilot.press("]", "]")
        first = screen_text(app).splitlines()[0]
        assert "…" not in first and "gpubox01" in first and "GPU 4/8" in first
        assert "[w]" in first or width < 100
        assert "14:13" in first


async def test_what_cannot_be_counted_whole_is_told_as_more(console: Build, tmp_path: Path) -> None:
    seen = tmp_path / "console.json"
    save_seen(seen, Seen(left_at=NOW - 16 * 3600))
    snapshot = scenes.busy(NOW)
    done = tuple(replace(snapshot.jobs[0], id=100 + place, finished_at=NOW - place) for place in range(50))
    app = console(scripted(replace(snapshot, jobs=done)), seen_path=seen)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "away 16h: 50+ done [w]" in screen_text(app).splitlines()[0]


@pytest.mark.parametrize(
    ("size", "told"), [(SMALL, "24 ms"), (WIDE, "24 ms    undo: m ↵ loads it again in 0.11 s")]
)
async def test_an_unload_says_how_the_model_comes_back(
    console: Build, size: tuple[int, int], told: str
) -> None:
    app = console(scripted(scenes.busy(NOW)))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        assert panel_text(app, "receipt").rstrip().endswith(told)


async def test_nothing_is_undone_where_m_would_load_another_model(console: Build) -> None:
    snapshot = scenes.busy(NOW)
    newer = tuple(
        replace(model, last_used_at=NOW - 1) if model.name == "wan2.1-14b" else model
        for model in snapshot.status.models
    )
    other = replace(snapshot, status=replace(snapshot.status, models=newer))
    for source, settings in ((other, {}), (snapshot, {"read_only": True})):
        app = console(scripted(source), **settings)
        async with app.run_test(size=WIDE) as pilot:
            await live(pilot)
            assert "undo" not in panel_text(app, "receipt")


@pytest.mark.parametrize("name", ["dark", "light", "high-contrast"])
def test_a_neighbours_name_can_be_read_upon_the_background(name: str) -> None:
    paint = Paint(read_palette(theme_files(theme_folders())[name]))
    background = Color.parse(paint.background)
    assert paint.others.color is not None
    assert _contrast(Color.parse(paint.others.color.name), background) >= 3.0
    assert paint.off.color is not None and paint.muted.color is not None
    off, muted = (Color.parse(style.color.name) for style in (paint.off, paint.muted) if style.color)
    # So can the keys that do nothing now, which still are told from those that do something.
    assert 2.5 <= _contrast(off, background) <= 0.75 * _contrast(muted, background)


def _contrast(one: Color, other: Color) -> float:
    """By WCAG: relative luminances, brighter over darker."""

    def luminance(colour: Color) -> float:
        parts = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in colour.normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
