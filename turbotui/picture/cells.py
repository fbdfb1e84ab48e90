"""Owns how a picture becomes cells: half-blocks in the terminal's colours, or characters by brightness.

A half-block shows two pixels, one above the other: its foreground and its background. So a cell's
two pixels are nearly square. Where there are only 256 or 16 colours a fixed pattern of small steps
is added first, so that even areas keep their shade (ordered dithering, the 4x4 matrix of Bayer 1973).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

from rich.segment import Segment
from rich.style import Style

from turbotui.picture.raster import Picture, scaled

Colours: TypeAlias = Literal["true", "256", "16", "none"]
"""What the terminal has; `none`: characters by brightness."""
Pixel: TypeAlias = tuple[int, int, int]
Cell: TypeAlias = tuple[Pixel, Pixel]
"""The upper and the lower pixel."""

UPPER_HALF = "▀"
RAMP = " .:-=+*#%@"
"""From nothing to full, by how much of a cell each character fills."""
BAYER = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))
CUBE = (0, 95, 135, 175, 215, 255)
"""The levels of the 256 colours' cube, as xterm has them."""
SIXTEEN: tuple[Pixel, ...] = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205)),
    *((229, 229, 229), (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255)),
    *((255, 0, 255), (0, 255, 255), (255, 255, 255)),
)
"""What xterm takes for the 16 colours; a terminal's own are near."""
STEP = {"256": 28, "16": 96}
"""How far dithering moves a channel at most, from end to end."""


def cells_of(picture: Picture, columns: int, rows: int) -> list[list[Cell]]:
    """`picture` in `rows` rows of `columns` cells, whatever its shape."""
    small = scaled(picture, columns, rows * 2)
    pixels = small.rgb
    wide = columns * 3
    lines = [
        [tuple(pixels[place : place + 3]) for place in range(y * wide, (y + 1) * wide, 3)]
        for y in range(rows * 2)
    ]
    return [list(zip(lines[y], lines[y + 1], strict=True)) for y in range(0, rows * 2, 2)]  # type: ignore[arg-type]


def kept_where_alike(new: list[list[Cell]], old: list[list[Cell]], least: int) -> list[list[Cell]]:
    """`new`, but for cells that differ from `old` by less than `least` in every channel: those stay."""
    if len(new) != len(old) or (new and len(new[0]) != len(old[0])):
        return new
    return [
        [before if _alike(before, after, least) else after for before, after in zip(*rows, strict=True)]
        for rows in zip(old, new, strict=True)
    ]


def _alike(a: Cell, b: Cell, least: int) -> bool:
    return a == b or all(
        abs(x - y) < least for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def segments_of(cells: list[Cell], y: int, colours: Colours, plain: Style, *, dark: bool) -> list[Segment]:
    """One row, number `y` of its picture; neighbours of one look are one segment.

    `plain` is the style of characters by brightness, on a `dark` background or a light one.
    """
    if colours == "none":
        return [Segment("".join(_letter(cell, dark=dark) for cell in cells), plain)]
    found: list[Segment] = []
    last: Style | None = None
    text = ""
    for x, cell in enumerate(cells):
        style = _style(*_ink(cell, x, y, colours))
        if style is not last:
            if last is not None:
                found.append(Segment(text, last))
            last, text = style, ""
        text += UPPER_HALF
    if last is not None:
        found.append(Segment(text, last))
    return found


def _ink(cell: Cell, x: int, y: int, colours: Colours) -> tuple[str, str]:
    upper, lower = cell
    if colours == "true":
        return f"#{bytes(upper).hex()}", f"#{bytes(lower).hex()}"
    return _indexed(upper, x % 4, y * 2 % 4, colours), _indexed(lower, x % 4, (y * 2 + 1) % 4, colours)


@lru_cache(8192)
def _indexed(pixel: Pixel, x: int, y: int, colours: Colours) -> str:
    """The number of the colour for a pixel at this place of the pattern."""
    moved = (BAYER[y][x] - 7.5) / 16 * STEP[colours]
    red, green, blue = (max(0.0, min(255.0, channel + moved)) for channel in pixel)
    if colours == "16":
        number = min(
            range(16),
            key=lambda index: _distance((red, green, blue), SIXTEEN[index]),
        )
        return f"color({number})"
    # The cube's colour, or one of the 24 greys between black and white.
    places = [min(range(6), key=lambda place: abs(CUBE[place] - value)) for value in (red, green, blue)]
    cube = tuple(CUBE[place] for place in places)
    shade = max(0, min(23, round(((red + green + blue) / 3 - 8) / 10)))
    grey = (8 + 10 * shade,) * 3
    if _distance((red, green, blue), grey) < _distance((red, green, blue), cube):
        return f"color({232 + shade})"
    return f"color({16 + 36 * places[0] + 6 * places[1] + places[2]})"


def _distance(a: tuple[float, ...], b: tuple[int, ...]) -> float:
    """Squared, by how much the eye minds each channel."""
    return 3 * (a[0] - b[0]) ** 2 + 4 * (a[1] - b[1]) ** 2 + 2 * (a[2] - b[2]) ** 2


def luminance(pixel: Pixel) -> float:
    """0 to 1, by the weights of Rec. 709."""
    return (0.2126 * pixel[0] + 0.7152 * pixel[1] + 0.0722 * pixel[2]) / 255


def _letter(cell: Cell, *, dark: bool) -> str:
    light = (luminance(cell[0]) + luminance(cell[1])) / 2
    filled = light if dark else 1 - light
    return RAMP[min(len(RAMP) - 1, int(filled * len(RAMP)))]


@lru_cache(16384)
def _style(upper: str, lower: str) -> Style:
    return Style(color=upper, bgcolor=lower)


def price(segments: list[Segment], colours: Colours) -> int:
    """About how many bytes a terminal is sent for `segments`."""
    each = {"true": 41, "256": 26, "16": 18, "none": 30}[colours]
    return sum(each + 3 * len(segment.text) for segment in segments)
