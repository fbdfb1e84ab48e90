"""What terminals answer about pictures, and what is sent to those that take them."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from rich.style import Style

from turbotui.picture.asking import LATE_S, WAIT_S, Replies, may_ask
from turbotui.picture.graphics import (
    CHUNK,
    MARKS,
    MOST_SIXEL_PIXELS,
    PLACEHOLDER,
    kitty_cells,
    kitty_picture,
    sixel_picture,
    sixel_room,
)
from turbotui.picture.raster import Picture

KITTY = "\x1b_Gi=31;OK\x1b\\\x1bP>|kitty(0.38.1)\x1b\\\x1b[6;20;10t\x1b[?62;c"
FOOT = "\x1bP>|foot(1.20.2)\x1b\\\x1b[6;18;9t\x1b[?62;4;22c"
WEZTERM = "\x1b_Gi=31;OK\x1b\\\x1bP>|WezTerm 20240203\x1b\\\x1b[6;16;8t\x1b[?65;4;6;18;22c"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked() -> tuple[Replies, Clock]:
    clock = Clock()
    replies = Replies(clock=clock)
    assert replies.ask().endswith("\x1b[c")
    return replies, clock


@pytest.mark.parametrize(
    ("answer", "graphics", "cell"),
    [
        (KITTY, "kitty", (10, 20)),
        (FOOT, "sixel", (9, 18)),
        (WEZTERM, "sixel", (8, 16)),  # its kitty pictures know no placeholders
        ("\x1b[?1;2c", "none", None),
        ("\x1b[?62;4c", "none", None),  # sixels, and no word of how large a cell is
        ("\x1b_Gi=31;ENOTSUPPORTED:no\x1b\\\x1bP>|kitty(0.1)\x1b\\\x1b[?62c", "none", None),
        ("\x1b[6;0;9999t\x1b[?62;4c", "none", None),
        ("\x1b[?64;44;14c", "none", None),
    ],
)
def test_a_terminal_is_taken_at_its_word(answer: str, graphics: str, cell: tuple[int, int] | None) -> None:
    replies, _clock = asked()
    assert replies.keys_of(answer) == ""
    assert (replies.graphics, replies.cell_pixels) == (graphics, cell)


def test_answers_in_pieces_among_keys_leave_the_keys_in_their_order() -> None:
    replies, _clock = asked()
    typed = "".join(
        replies.keys_of(piece) for piece in ("a\x1b_Gi=3", "1;OK\x1b", "\\b", KITTY[12:], "c\x1b[A")
    )
    assert typed == "abc\x1b[A"
    assert replies.graphics == "kitty"


def test_escape_alone_is_a_key_after_the_wait_and_at_once_without_a_question() -> None:
    assert Replies().keys_of("\x1b") == "\x1b"
    replies, clock = asked()
    assert replies.keys_of("\x1b") == ""
    clock.now = WAIT_S / 2
    assert replies.keys_of("") == ""
    clock.now = WAIT_S + 0.01
    assert replies.keys_of("") == "\x1b"
    assert replies.keys_of("\x1b[") == "\x1b["


def test_an_answer_over_a_slow_link_is_still_no_key_and_later_nothing_is_touched() -> None:
    replies, clock = asked()
    clock.now = 2.0
    assert replies.keys_of("x" + FOOT + "y") == "xy"
    assert replies.graphics == "sixel"
    clock.now = LATE_S + 1
    assert replies.keys_of(FOOT) == FOOT


@pytest.mark.parametrize(
    ("environ", "asks"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x"}, False),
        ({"TERM": "xterm-256color", "TMUX": "/tmp/x"}, False),
        ({"TERM": "screen-256color"}, False),
        ({"TERM": "xterm-256color", "STY": "1.tty"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "vt220"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_only_a_terminal_itself_is_asked(environ: dict[str, str], asks: bool) -> None:
    assert may_ask(environ) is asks


def noise(width: int, height: int) -> Picture:
    image = Image.effect_noise((width, height), 90).convert("RGB")
    return Picture(width=width, height=height, rgb=image.tobytes())


def test_a_picture_for_kitty_comes_in_chunks_that_are_one_png() -> None:
    sent = kitty_picture(noise(400, 200), 77, 40, 10)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert "".join(f"\x1b_G{head};{data}\x1b\\" for head, data in pieces) == sent
    assert pieces[0][0].startswith("a=T,U=1,q=2,f=100,i=77,c=40,r=10,m=1")
    assert [head[-3:] for head, _data in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    assert all(len(data) <= CHUNK for _head, data in pieces)
    image = Image.open(io.BytesIO(base64.b64decode("".join(data for _head, data in pieces))))
    assert (image.format, image.size) == ("PNG", (160, 80))


def test_cells_for_kitty_name_the_picture_and_the_row() -> None:
    (segment,) = kitty_cells(0x0102FF, 5, 3, Style(bgcolor="#101010"))
    assert segment.text == PLACEHOLDER + chr(MARKS[3]) + chr(MARKS[0]) + PLACEHOLDER * 4
    assert segment.style is not None and segment.style.color is not None
    assert segment.style.color.name == "#0102ff"
    assert segment.cell_length == 5
    assert len(set(MARKS)) == len(MARKS) == 62


def decoded(sixels: str, width: int, height: int) -> list[list[int]]:
    """What a terminal would paint: the colour's number of each pixel."""
    body = sixels[sixels.index('"') :].removesuffix("\x1b\\")
    grid = [[-1] * width for _ in range(height)]
    x = top = colour = 0
    for token in re.findall(r'"[\d;]*|#\d+;2;\d+;\d+;\d+|#\d+|!\d+[?-~]|[?-~]|[$-]', body):
        if token[0] == "#":
            colour = int(token[1:].split(";")[0])
        elif token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        elif token[0] != '"':
            count = int(token[1:-1]) if token[0] == "!" else 1
            bits = ord(token[-1]) - 63
            for _ in range(count):
                for row in range(6):
                    if bits >> row & 1:
                        grid[top + row][x] = colour
                x += 1
    return grid


def test_sixels_paint_every_pixel_once_in_its_colour() -> None:
    rgb = b"".join(bytes((255, 0, 0)) if x < 5 else bytes((0, 0, 255)) for y in range(8) for x in range(10))
    sixels = sixel_picture(Picture(width=10, height=8, rgb=rgb), 10, 8)
    assert sixels.startswith('\x1bP0;1q"1;1;10;8#')
    grid = decoded(sixels, 10, 8)
    red, blue = grid[0][0], grid[0][9]
    assert red != blue
    assert grid == [[red] * 5 + [blue] * 5] * 8
    assert f"#{red};2;100;0;0" in sixels and f"#{blue};2;0;0;100" in sixels
    assert "!5" in sixels


def test_too_many_pixels_for_sixels_are_none() -> None:
    assert sixel_picture(noise(10, 10), MOST_SIXEL_PIXELS, 2) == ""


@pytest.mark.parametrize(
    ("columns", "rows", "cell"), [(78, 25, (10, 20)), (200, 2, (20, 40)), (8, 4, (10, 20))]
)
def test_a_large_picture_keeps_its_shape_in_fewer_pixels(
    columns: int, rows: int, cell: tuple[int, int]
) -> None:
    fewer = sixel_room(columns, rows, cell)
    assert fewer[0] * cell[0] * fewer[1] * cell[1] <= MOST_SIXEL_PIXELS
    assert 0 < fewer[0] <= columns and 0 < fewer[1] <= rows
    assert (fewer == (columns, rows)) is (columns == 8)
    assert sixel_picture(noise(20, 10), fewer[0] * cell[0], fewer[1] * cell[1])
