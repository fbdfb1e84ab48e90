"""Owns pictures in pixels: kitty's, drawn where cells name them, and sixels, drawn over cells.

Source: the kitty graphics protocol (transmission, unicode placeholders and their row marks); DEC's
sixels as xterm takes them (bands of six rows, a colour at a time, runs as `!count`).
"""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style

from turbotui.picture.raster import Picture, scaled

if TYPE_CHECKING:
    from PIL.Image import Image

PLACEHOLDER = "\U0010eeee"
MARKS = (
    *(0x305, 0x30D, 0x30E, 0x310, 0x312, 0x33D, 0x33E, 0x33F, 0x346, 0x34A, 0x34B, 0x34C, 0x350, 0x351),
    *(0x352, 0x357, 0x35B, *range(0x363, 0x370), *range(0x483, 0x488), 0x592, 0x593, 0x594, 0x595, 0x597),
    *(0x598, 0x599, *range(0x59C, 0x5A2), 0x5A8, 0x5A9, 0x5AB, 0x5AC, 0x5AF, 0x5C4, *range(0x610, 0x618)),
)
"""Combining marks that stand for 0, 1, 2, ... in the protocol's order; as many rows can be drawn."""
PIXELS = (4, 8)
"""Of a cell in what kitty is sent: finer than half-blocks by four, and small over SSH."""
CHUNK = 4096
SIXEL_COLOURS = 64
MOST_SIXEL_PIXELS = 200_000
"""About 400 kB of a picture that is all noise, and a quarter of a second to make them."""


def kitty_picture(picture: Picture, number: int, columns: int, rows: int) -> str:
    """What makes picture `number` (1 to 2**24 - 1) known to the terminal, for placeholders in such a room."""
    width = max(1, min(picture.width, columns * PIXELS[0]))
    height = max(1, min(picture.height, rows * PIXELS[1]))
    packed = io.BytesIO()
    _image(scaled(picture, width, height)).save(packed, "PNG")
    data = base64.b64encode(packed.getvalue()).decode()
    pieces = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    found = []
    for place, piece in enumerate(pieces):
        head = f"a=T,U=1,q=2,f=100,i={number},c={columns},r={rows}," if place == 0 else "q=2,"
        found.append(f"\x1b_G{head}m={int(place < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(found)


def kitty_forget(number: int) -> str:
    """What takes picture `number` out of the terminal's memory."""
    return f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\"


def kitty_cells(number: int, columns: int, y: int, background: Style) -> list[Segment]:
    """Row `y` of the cells that stand for picture `number`: its number is their colour."""
    style = background + Style(color=f"#{number:06x}")
    # Those after the first count on from it.
    return [Segment(PLACEHOLDER + chr(MARKS[y]) + chr(MARKS[0]) + PLACEHOLDER * (columns - 1), style)]


def sixel_room(columns: int, rows: int, cell: tuple[int, int]) -> tuple[int, int]:
    """The most columns and rows of the same shape, at most those given, in which sixels are not too many."""
    share = (MOST_SIXEL_PIXELS / (columns * cell[0] * rows * cell[1])) ** 0.5
    return (columns, rows) if share >= 1 else (max(1, int(columns * share)), max(1, int(rows * share)))


def sixel_picture(picture: Picture, width: int, height: int) -> str:
    """The picture in exactly `width` x `height` pixels of the screen; empty where that is too many."""
    if width * height > MOST_SIXEL_PIXELS:
        return ""
    few = _image(scaled(picture, width, height)).quantize(SIXEL_COLOURS)
    palette = few.getpalette() or []
    pixels = few.tobytes()
    used = sorted(set(pixels))
    colours = "".join(
        f"#{index};2;{';'.join(str(round(value / 2.55)) for value in palette[index * 3 : index * 3 + 3])}"
        for index in used
    )
    bands = [_band(pixels, width, y, min(6, height - y)) for y in range(0, height, 6)]
    return f'\x1bP0;1q"1;1;{width};{height}{colours}{"-".join(bands)}\x1b\\'


def _band(pixels: bytes, width: int, top: int, rows: int) -> str:
    """Up to six rows: for each colour in them a line of sixels, over one another."""
    lines = [pixels[(top + row) * width : (top + row + 1) * width] for row in range(rows)]
    found = []
    for index in sorted(set(b"".join(lines))):
        bits = 0
        for row, line in enumerate(lines):
            table = bytearray(256)
            table[index] = 1 << row
            bits |= int.from_bytes(line.translate(bytes(table)), "big")
        text = bytes(value + 63 for value in bits.to_bytes(width, "big")).decode()
        found.append(f"#{index}{_RUNS.sub(_run, text)}")
    return "$".join(found)


_RUNS = re.compile(r"(.)\1{3,}")


def _run(found: re.Match[str]) -> str:
    return f"!{len(found[0])}{found[1]}"


def _image(picture: Picture) -> Image:
    from PIL import Image

    return Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
