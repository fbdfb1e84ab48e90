"""Every screen in Chinese, and with Chinese in every column of it: pinned as SVG, and measured in cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.wire import CheckReport, Event, FindingsChanged
from turbotui.app import TurboApp
from turbotui.client import scene_plans, scenes
from turbotui.format import cell_width

from .conftest import NOW, SMALL, WIDE, live, scripted
from .test_snapshots import look as look

LARGE = (200, 50)
SIZES = {"80x24": SMALL, "120x36": WIDE, "200x50": LARGE}
SCREENS = {
    "dashboard": (), "help": ("question_mark",), "switch": ("m",), "unload": ("u",), "warm": ("W",),
    "new-job": ("a",),
    "findings": ("b",), "sheet": ("exclamation_mark",), "reset": ("R",), "full-cleanup": ("X",),
    "cleanup": ("C",), "restart": ("E",), "job": ("4", "enter"), "process": ("5", "j", "enter"),
    "receipt": ("full_stop",), "palette": ("colon",),
}  # fmt: skip
"""The keys that lead to each screen."""
LONG = "万相模型-图生视频-超长名称用来看宽度"
PROMPT = "一只小熊猫在木制阳台上喝茶，身后的群山静静地下着雪，镜头缓慢推进" * 3
COMMAND = f"python 训练.py --数据 {PROMPT}"


@pytest.mark.parametrize("name", sorted(set(SCREENS) - {"palette"}))
@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
def test_a_screen_in_chinese(look: Callable[..., None], name: str, size: tuple[int, int]) -> None:
    look("gpu", size, *SCREENS[name], language="zh_CN", restart_engine=lambda: None)


def all_chinese() -> list[Event]:
    """The busy scene with every name, prompt, user and command in Chinese."""
    snapshot = scenes.busy(NOW)
    status = snapshot.status
    models = tuple(replace(model, name=f"{LONG}{at}") for at, model in enumerate(status.models))
    devices = tuple(
        replace(
            device,
            processes=tuple(
                replace(
                    process,
                    user="张三丰的用户",
                    command=f"python 训练.py --数据 {PROMPT}",
                    container="容器-甲乙丙丁",
                )
                for process in device.processes
            ),
        )
        for device in status.devices
    )
    jobs = tuple(
        replace(job, spec=replace(job.spec, model=models[0].name, prompt=PROMPT), error=job.error and PROMPT)
        for job in snapshot.jobs
    )
    lines = tuple(replace(line, text=PROMPT) for line in snapshot.log)
    found: CheckReport = scene_plans.found(NOW)
    findings = tuple(replace(one, title=PROMPT, evidence=(PROMPT,), remedy=PROMPT) for one in found.findings)
    return [
        replace(snapshot, status=replace(status, models=models, devices=devices), jobs=jobs, log=lines),
        FindingsChanged(report=replace(found, findings=findings)),
    ]


@pytest.mark.parametrize("size", list(SIZES.values()), ids=list(SIZES))
async def test_no_row_of_any_screen_is_wider_than_the_terminal(
    console: Callable[..., TurboApp], size: tuple[int, int]
) -> None:
    client = scripted(
        *all_chinese(),
        explain_switch=scenes.switch_plan,
        reset_plan=scene_plans.reset_plan,
        full_cleanup_plan=lambda: scene_plans.full_cleanup_plan(NOW),
    )
    app = console(client, language="zh_CN", restart_engine=lambda: None)
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        for name, keys in SCREENS.items():
            for key in keys:
                await pilot.press(key)
            await pilot.pause(0.05)
            assert name == "dashboard" or len(app.screen_stack) > 1, name
            rows = [strip_text(app, y) for y in range(size[1])]
            assert [row for row in rows if cell_width(row) != size[0]] == [], name
            borders_close(rows, name)
            while len(app.screen_stack) > 1 and keys:
                await pilot.press("escape")
                await pilot.pause(0.02)


def strip_text(app: TurboApp, y: int) -> str:
    """One row of what is on the screen."""
    width = app.size.width
    line = app.screen._compositor.render_strips()[y]
    assert line.cell_length == width
    return line.text


def borders_close(rows: list[str], name: str) -> None:
    """A right edge stands below the one above it: nothing that is two cells wide has shifted it.

    But for those that the upper edge of a window in the row below covers.
    """
    for above, below in pairwise(rows):
        edges = cells_of(below, "│") | cells_of(below, "╯") | cells_of(below, "┤")
        windows = list(zip(sorted(cells_of(below, "╭")), sorted(cells_of(below, "╮")), strict=False))
        seen = {at for at in cells_of(above, "╮") if not any(left < at < right for left, right in windows)}
        assert seen <= edges, (name, above, below)


def cells_of(row: str, mark: str) -> set[int]:
    found, cells = set(), 0
    for character in row:
        if character == mark:
            found.add(cells)
        cells += cell_width(character)
    return found
