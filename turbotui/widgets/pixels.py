"""Owns what a picture in pixels needs beside its cells: to be sent, to be put over them, to be forgotten."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from rich.style import Style

from turbotui.picture.graphics import (
    MARKS,
    kitty_cells,
    kitty_forget,
    kitty_picture,
    sixel_picture,
    sixel_room,
)

if TYPE_CHECKING:
    from textual.app import App
    from textual.geometry import Region
    from textual.timer import Timer
    from textual.widget import Widget

    from turbotui.asking import AskingApp
    from turbotui.picture.asking import Graphics
    from turbotui.picture.raster import Picture

SETTLE_S = 0.05
"""Sixels are put over cells once those were painted."""
_numbers = itertools.count(os.getpid() % 4096 * 4096 + 1)
"""Of pictures; other programs in the terminal have their own."""


def graphics_of(app: App[object]) -> Graphics:
    """What the terminal has said that it takes; asks it when nobody has, and says `none` until then."""
    from turbotui.picture.driver import AskingDriver

    driver = app._driver
    if not isinstance(driver, AskingDriver):
        return "none"
    driver.ask()
    return driver.replies.graphics


class Pixels:
    """One widget's picture in pixels."""

    def __init__(self) -> None:
        self._number: int | None = None
        """Of the picture that kitty holds."""
        self._sixels = ""
        self._asked: object = None
        """Stands for the sixels that are being made."""
        self._left = 0
        self._top = 0
        self._timer: Timer | None = None

    def draw(
        self, widget: Widget, graphics: Graphics, picture: Picture, place: Region, plain: Style
    ) -> list[list[Segment]] | None:
        """The cells under the picture, row by row; None where half-blocks are to be drawn.

        `place` is where in the widget it is, `plain` the style of what is around it.
        """
        self.forget(widget)
        self._left, self._top = place.x, place.y
        background = Style(bgcolor=plain.bgcolor.name if plain.bgcolor is not None else None)
        if graphics == "kitty" and place.height <= len(MARKS):
            number = self._number = next(_numbers) % 0xFFFFFF + 1
            _send(widget, kitty_picture(picture, number, place.width, place.height))
            return [kitty_cells(number, place.width, y, background) for y in range(place.height)]
        cell = _cell_pixels(widget) if graphics == "sixel" else None
        if cell is not None:
            self._encode(widget, picture, place, cell)
            return [[Segment(" " * place.width, background)] for _ in range(place.height)]
        return None

    def _encode(self, widget: Widget, picture: Picture, place: Region, cell: tuple[int, int]) -> None:
        """Make the sixels beside the loop; until then their place is blank."""
        columns, rows = sixel_room(place.width, place.height, cell)
        self._left += (place.width - columns) // 2
        self._top += (place.height - rows) // 2
        asked = self._asked = object()

        def made(sixels: str) -> None:
            if self._asked is asked:
                self._sixels = sixels
                self.repainted(widget)

        cast("AskingApp", widget.app).run_apart(
            "picture",
            lambda: sixel_picture(picture, columns * cell[0], rows * cell[1]),
            then=made,
            failed=lambda _why: None,
            quiet=True,
        )

    def repainted(self, widget: Widget) -> None:
        """Cells were painted again, maybe over the picture."""
        if self._sixels and self._timer is None:
            self._timer = widget.set_timer(SETTLE_S, lambda: self._put(widget))

    def _put(self, widget: Widget) -> None:
        self._timer = None
        if not self._sixels or not widget.display or widget.screen is not widget.app.screen:
            return
        region = widget.region
        x, y = region.x + self._left, region.y + self._top
        _send(widget, f"\x1b7\x1b[{y + 1};{x + 1}H{self._sixels}\x1b8")

    def forget(self, widget: Widget) -> None:
        """The picture is not to be seen any more."""
        if self._number is not None:
            _send(widget, kitty_forget(self._number))
        self._number, self._sixels, self._asked = None, "", None


def _send(widget: Widget, text: str) -> None:
    driver = widget.app._driver
    if driver is not None and not widget.app.is_headless:
        driver.write(text)


def _cell_pixels(widget: Widget) -> tuple[int, int] | None:
    from turbotui.picture.driver import AskingDriver

    driver = widget.app._driver
    return driver.replies.cell_pixels if isinstance(driver, AskingDriver) else None
