"""Pictures as cells: known pixels in each kind of terminal, shapes, and what a frame costs."""

from __future__ import annotations

import pytest
from rich.style import Style

from turbotui.picture.cells import RAMP, cells_of, kept_where_alike, price, segments_of
from turbotui.picture.raster import Picture, cells_for, scaled

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
PLAIN = Style(color="white", bgcolor="black")


def picture(*rows: list[tuple[int, int, int]]) -> Picture:
    return Picture(
        width=len(rows[0]), height=len(rows), rgb=bytes(v for row in rows for pixel in row for v in pixel)
    )


def test_a_cell_shows_two_pixels_one_above_the_other() -> None:
    cells = cells_of(picture([RED, GREEN], [BLUE, WHITE]), 2, 1)
    assert cells == [[(RED, BLUE), (GREEN, WHITE)]]
    segments = segments_of(cells[0], 0, "true", PLAIN, dark=True)
    assert [segment.text for segment in segments] == ["▀", "▀"]
    first = segments[0].style
    assert first is not None and first.color is not None and first.bgcolor is not None
    assert (first.color.name, first.bgcolor.name) == ("#ff0000", "#0000ff")


def test_neighbours_of_one_look_are_one_run() -> None:
    cells = cells_of(picture([RED] * 5, [RED] * 5), 5, 1)
    segments = segments_of(cells[0], 0, "true", PLAIN, dark=True)
    assert [segment.text for segment in segments] == ["▀▀▀▀▀"]


def test_shrinking_takes_the_mean_of_what_is_covered() -> None:
    small = scaled(picture([WHITE, BLACK, BLACK, BLACK], [BLACK] * 4), 2, 1)
    assert small.rgb == bytes((64, 64, 64, 0, 0, 0))


def test_enlarging_runs_smoothly_between_pixels() -> None:
    large = scaled(picture([BLACK, WHITE]), 8, 1)
    values = list(large.rgb[::3])
    assert values == sorted(values) and values[0] == 0 and values[-1] == 255 and len(set(values)) > 3


@pytest.mark.parametrize(
    ("width", "height", "room", "expected"),
    [
        (832, 480, (52, 30), (52, 15)),
        (480, 832, (52, 20), (23, 20)),
        (640, 640, (40, 10), (20, 10)),
        (10000, 1, (40, 10), (40, 1)),
        (1, 10000, (40, 10), (1, 10)),
        (16, 9, (0, 0), (1, 1)),
    ],
)
def test_a_picture_keeps_its_shape_in_cells_twice_as_high_as_wide(
    width: int, height: int, room: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert cells_for(width, height, *room) == expected


@pytest.mark.parametrize(
    ("colours", "pixel", "names"),
    [
        ("256", RED, {"color(196)"}),
        ("256", WHITE, {"color(231)", "color(255)"}),
        ("256", (128, 128, 128), {"color(243)", "color(244)", "color(245)", "color(102)"}),
        ("16", (0, 205, 0), {"color(2)", "color(10)"}),
        ("16", BLACK, {"color(0)"}),
    ],
)
def test_few_colours_are_the_nearest_of_the_terminal(
    colours: str, pixel: tuple[int, int, int], names: set[str]
) -> None:
    cells = cells_of(picture([pixel] * 4, [pixel] * 4), 4, 1)
    segments = segments_of(cells[0], 0, colours, PLAIN, dark=True)  # type: ignore[arg-type]
    found = {name for s in segments if s.style for name in (s.style.color.name, s.style.bgcolor.name)}  # type: ignore[union-attr]
    assert found <= names


def test_a_shade_between_two_of_sixteen_is_mixed_from_both() -> None:
    shade = (66, 66, 66)
    cells = cells_of(picture(*([[shade] * 4] * 4)), 4, 2)
    rows = [segments_of(row, y, "16", PLAIN, dark=True) for y, row in enumerate(cells)]
    found = {s.style.color.name for row in rows for s in row if s.style and s.style.color}
    assert found == {"color(0)", "color(8)"}


def test_without_colours_brightness_chooses_the_character() -> None:
    cells = cells_of(picture([BLACK, (128, 128, 128), WHITE], [BLACK, (128, 128, 128), WHITE]), 3, 1)
    (dark,) = segments_of(cells[0], 0, "none", PLAIN, dark=True)
    (light,) = segments_of(cells[0], 0, "none", PLAIN, dark=False)
    assert dark.text == f"{RAMP[0]}{RAMP[5]}{RAMP[-1]}"
    assert light.text == f"{RAMP[-1]}{RAMP[4]}{RAMP[0]}"
    assert dark.style is PLAIN and dark.text.isascii()


def test_what_hardly_moves_between_two_frames_stays_as_it_was() -> None:
    old = cells_of(picture([(100, 100, 100), RED], [(100, 100, 100), RED]), 2, 1)
    new = cells_of(picture([(104, 99, 100), GREEN], [(100, 100, 100), RED]), 2, 1)
    assert kept_where_alike(new, old, 8) == [[old[0][0], new[0][1]]]
    assert kept_where_alike(new, [], 8) == new


def test_runs_cost_less_than_single_cells() -> None:
    one = segments_of(cells_of(picture([RED] * 9, [RED] * 9), 9, 1)[0], 0, "true", PLAIN, dark=True)
    many = segments_of([((n, 0, 0), (0, n, 0)) for n in range(9)], 0, "true", PLAIN, dark=True)
    assert price(one, "true") * 5 < price(many, "true")
    assert price(many, "256") < price(many, "true")


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="5 bytes are no picture of 2x1"):
        Picture(width=2, height=1, rgb=b"12345")
