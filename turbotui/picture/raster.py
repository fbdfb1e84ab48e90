"""Owns a picture as bytes: its size, its shape in cells, and how it is scaled."""

from __future__ import annotations

from dataclasses import dataclass

CELL_ASPECT = 2.0
"""A cell's height by its width, in nearly every terminal font."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """RGB, row by row."""

    width: int
    height: int
    rgb: bytes
    """width x height x 3."""

    def __post_init__(self) -> None:
        if len(self.rgb) != self.width * self.height * 3 or not self.rgb:
            raise ValueError(f"{len(self.rgb)} bytes are no picture of {self.width}x{self.height}")


def cells_for(width: int, height: int, columns: int, rows: int) -> tuple[int, int]:
    """The most (columns, rows) in which `width` x `height` square pixels keep their shape; at least 1x1."""
    if columns < 1 or rows < 1:
        return 1, 1
    by_width = columns * height / (width * CELL_ASPECT)
    if by_width <= rows:
        return columns, max(1, round(by_width))
    return max(1, min(columns, round(rows * width * CELL_ASPECT / height))), rows


def scaled(picture: Picture, width: int, height: int) -> Picture:
    """The same in `width` x `height` pixels, each the mean of what it covers, or between its neighbours."""
    if (width, height) == (picture.width, picture.height):
        return picture
    # Imported late: Pillow costs 10 ms and 2.5 MiB that a console without pictures keeps.
    from PIL import Image

    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    smaller = width <= picture.width and height <= picture.height
    way = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return Picture(width=width, height=height, rgb=image.resize((width, height), way).tobytes())
