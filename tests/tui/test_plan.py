"""Where everything stands, over all sizes of a terminal that matter."""

from __future__ import annotations

import itertools

import pytest

from turbotui.screens.plan import LEAST, Place, is_wide, plan

LEAST_ROWS = {"history": 9, "models": 9, "queue": 6, "card": 6, "log": 6}
LEAST_COLUMNS = {"models": 44, "card": 44, "history": 56, "queue": 56, "log": 56}
FIXED = {"header", "clock", "memory", "receipt", "keys"}


def holes(places: dict[str, Place], width: int, height: int) -> list[tuple[int, int]]:
    """Cells that no place covers, and those that several do, by the corners of all places."""
    columns = sorted({0, width, *(edge for one in places.values() for edge in (one.x, one.x + one.width))})
    rows = sorted({0, height, *(edge for one in places.values() for edge in (one.y, one.y + one.height))})
    found = []
    for x, y in itertools.product(columns[:-1], rows[:-1]):
        covering = sum(
            one.x <= x < one.x + one.width and one.y <= y < one.y + one.height for one in places.values()
        )
        if covering != 1:
            found.append((x, y))
    return found


@pytest.mark.parametrize("strip", [False, True], ids=["one-gpu", "several"])
@pytest.mark.parametrize("banner", [False, True], ids=["calm", "pressed"])
@pytest.mark.parametrize("read_only", [False, True], ids=["acting", "read-only"])
def test_places_cover_every_cell_once_at_every_size(strip: bool, banner: bool, read_only: bool) -> None:
    # Every height, and of the widths those on both sides of each change besides a spread of others.
    widths = sorted({*range(60, 301, 23), 60, 80, 99, 100, 120, 159, 160, 200, 300})
    for width, height in itertools.product(widths, range(LEAST[1], 101)):
        for tab in ("history", "log") if not is_wide(width, height) else ("history",):
            places = plan(width, height, tab, banner=banner, strip=strip, read_only=read_only)
            at = (width, height, tab)
            assert not holes(places, width, height), at
            for one in places.values():
                assert one.width > 0 and one.height > 0 and one.x >= 0 and one.y >= 0, at
                assert one.x + one.width <= width and one.y + one.height <= height, at
            assert set(places) >= FIXED, at
            assert ("strip" in places, "pressure" in places) == (strip, banner), at
            if is_wide(width, height):
                assert set(places) >= set(LEAST_ROWS), at
                for name, rows in LEAST_ROWS.items():
                    assert places[name].height >= rows, (at, name)
                    assert places[name].width >= LEAST_COLUMNS[name], (at, name)
            else:
                assert {"tabs", "running", tab} <= set(places), at
                assert places[tab].height >= 9 and places[tab].width == width, at
                # A head without a line below it says nothing.
                assert "tail" not in places or places["tail"].height >= 2, at


def test_the_strip_stands_below_the_header_and_the_rest_makes_room() -> None:
    for size in ((60, 18), (80, 24), (120, 36), (200, 50)):
        without, with_it = plan(*size, "queue"), plan(*size, "queue", strip=True)
        assert with_it["strip"] == Place(0, 1, size[0], 1)
        assert with_it["memory"] == without["memory"]._replace(y=2)
        for name in ("header", "clock", "receipt", "keys"):
            assert with_it[name] == without[name]


def test_a_large_terminal_is_no_stretched_small_one() -> None:
    small, large = plan(120, 36, "queue"), plan(200, 50, "queue")
    assert small["log"].width == 120 and large["log"].width < 200
    assert large["models"].height > large["history"].height
    for name in ("models", "card", "queue", "log"):
        assert large[name].height > small[name].height, name
    assert large["history"].width > 120 and large["queue"].width > 120
