"""Owns the way to the terminal: pictures in few bytes, and none while it does not read.

Textual sends what changed from the left edge of its widget, each run of text with all of its
colours and a reset. Here a span is sent from where it begins, and of a style only what differs
from the text before it; a third of the bytes are left.

Its writer waits when the terminal does not read, and after thirty pieces everything waits for the
writer, keys too. Here a picture is dropped while one still waits to be written, and the whole is
drawn again when the terminal reads on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

from turbotui.symbols import Symbols

if TYPE_CHECKING:
    from rich.console import Console
    from textual.driver import Driver
    from textual.strip import Strip

BEHIND = 2
"""Pieces that wait to be written while a terminal keeps up: a picture is three of them."""
RESET = "\x1b[0m"
UNICODE = Symbols()


class LeanUpdate(CompositorUpdate):
    """One of the compositor's updates, written in fewer bytes."""

    def __init__(
        self, update: ChopsUpdate | LayoutUpdate, symbols: Symbols = UNICODE, *, colours: bool = True
    ) -> None:
        """Without `colours` all is in the terminal's own, and what else tells styles apart is left."""
        self._update = update
        self._symbols = symbols
        self._colours = colours

    def render_segments(self, console: Console) -> str:
        system = console._color_system or ColorSystem.TRUECOLOR
        written: list[str] = []
        before = PLAIN
        place = (-1, -1)
        symbols, plain = self._symbols, self._symbols.as_they_are
        for x, y, strip in pieces(self._update):
            if (x, y) != place:
                written.append(f"\x1b[{y + 1};{x + 1}H")
            column = x
            for text, style, _control in strip:
                if not text:
                    continue
                if not plain:
                    cells = cell_len(text)
                    text, column = symbols.written(text, column), column + cells
                if style is not None and not self._colours:
                    style = style.without_color
                if style is not None and style._link:
                    # A link is opened and closed by the style itself, which also resets.
                    written += (RESET, style.render(text, color_system=system))
                    before = PLAIN
                    continue
                codes = PLAIN if style is None else codes_of(style, system)
                if codes is not before and codes != before:
                    written.append(between(before, codes))
                    before = codes
                written.append(text)
            place = (x + strip.cell_length, y)
        if before != PLAIN:
            written.append(RESET)
        return "".join(written)


def pieces(update: ChopsUpdate | LayoutUpdate) -> Iterator[tuple[int, int, Strip]]:
    """Column, line and content of everything that is to be written."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in line:
                yield x, y, strip
                x += strip.cell_length
        return
    for y, first, last in update.spans:
        for end, (x, piece) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if piece is None or x >= last or end <= first:
                continue
            left, right = max(first, x) - x, min(end, last) - x
            # What changed may end in the middle of a character of a dialog above it.
            left -= splits(piece, left)
            cropped = piece.crop(left, right + splits(piece, right))
            if cropped.cell_length:
                yield x + left, y, cropped


def splits(strip: Strip, column: int) -> bool:
    """Whether a character of two cells lies on both sides of `column`; half of one cannot be written."""
    place = 0
    for text, _style, _control in strip:
        if place >= column:
            return False
        end = place + cell_len(text)
        if end > column and not text.isascii():
            for character in text:
                place += cell_len(character)
                if place >= column:
                    return place > column
        place = end
    return False


Codes = tuple[frozenset[str], str, str]
"""Attributes, foreground and background as SGR parameters."""
PLAIN: Codes = (frozenset(), "", "")


@lru_cache(4096)
def codes_of(style: Style, system: ColorSystem) -> Codes:
    """What a terminal is told to write in `style`."""
    attributes = Style(
        bold=style.bold, dim=style.dim, italic=style.italic, underline=style.underline, blink=style.blink,
        reverse=style.reverse, conceal=style.conceal, strike=style.strike,
    )._make_ansi_codes(system)  # fmt: skip
    colours = []
    for colour, foreground in ((style.color, True), (style.bgcolor, False)):
        codes = () if colour is None else colour.downgrade(system).get_ansi_codes(foreground=foreground)
        colours.append(";".join(codes))
    return frozenset(attributes.split(";")) - {""}, colours[0], colours[1]


@lru_cache(4096)
def between(before: Codes, after: Codes) -> str:
    """The sequence that turns one style into another."""
    if after == PLAIN:
        return RESET
    gone = before[0] - after[0] or (before[1] and not after[1]) or (before[2] and not after[2])
    parameters: Iterable[str]
    if gone:
        parameters = ("0", *sorted(after[0]), after[1], after[2])
    else:
        parameters = (
            *sorted(after[0] - before[0]),
            after[1] if after[1] != before[1] else "",
            after[2] if after[2] != before[2] else "",
        )
    return f"\x1b[{';'.join(part for part in parameters if part)}m"


def is_behind(driver: Driver | None) -> bool:
    """Whether the terminal has not yet taken what was written before."""
    writer = getattr(driver, "_writer_thread", None)
    return writer is not None and writer._queue.qsize() > BEHIND
