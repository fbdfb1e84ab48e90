"""Rows, spans, bars, columns and places: what the panels are drawn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from turbotui.client import scenes
from turbotui.format import cell_width, clip_middle
from turbotui.history import STACK, History, parts_of
from turbotui.screens.plan import LEAST, plan
from turbotui.theme import Paint, read_palette, theme_files, theme_folders
from turbotui.widgets.history import column_cells, row_label, row_step
from turbotui.widgets.history_rows import LABEL_CELLS
from turbotui.widgets.lines import Row, changed_spans, wrapped
from turbotui.widgets.memory import bar_cells
from turbotui.widgets.queue import progress_bar

from .conftest import NOW

A, B = Style(color="red"), Style(color="blue")
TEXTS = st.text(alphabet="ab 猫é●", max_size=12)


def cells_of(segments: list[Segment]) -> list[tuple[str, Style | None]]:
    """One entry for each cell; the second cell of a wide character is empty."""
    found: list[tuple[str, Style | None]] = []
    for segment in segments:
        for character in segment.text:
            found.append((character, segment.style))
            found += [("", segment.style)] * (cell_len(character) - 1)
    return found


@given(
    st.lists(st.tuples(TEXTS, st.sampled_from([A, B]))), st.lists(st.tuples(TEXTS, st.sampled_from([A, B])))
)
def test_outside_of_the_changed_spans_two_rows_are_the_same(
    old: list[tuple[str, Style]], new: list[tuple[str, Style]]
) -> None:
    rows = []
    for pieces in (old, new):
        row = Row(30)
        for text, style in pieces:
            row.add(text, style)
        rows.append(row.to(30, A).segments)
    spans = changed_spans(*rows)
    before, after = cells_of(rows[0]), cells_of(rows[1])
    for start, end in reversed(spans):
        before[start:end] = after[start:end]
        # A wide character is never sent by half.
        assert not after[start:end] or after[start][0] != ""
        assert end == 30 or after[end][0] != ""
    assert before == after
    if rows[0] == rows[1]:
        assert spans == []


def test_a_changed_figure_is_all_of_its_row_that_is_sent() -> None:
    old = [Segment("used 38.7 of 140.4", A), Segment("rest", B)]
    new = [Segment("used 38.9 of 140.4", A), Segment("rest", B)]
    assert changed_spans(old, new) == [(8, 9)]


def test_figures_far_apart_are_sent_apart() -> None:
    old = [Segment("live 3.1  weights 13.7  cache 0.4  free 101.7", A)]
    new = [Segment("live 3.2  weights 13.7  cache 0.4  free 101.6", A)]
    assert changed_spans(old, new) == [(7, 8), (44, 45)]


@given(st.text(max_size=40), st.integers(0, 20))
def test_a_row_never_grows_past_its_width_nor_shows_a_control(text: str, width: int) -> None:
    row = Row(width).add(text, A)
    assert cell_len(row.plain()) == row.cells <= width
    assert all(ord(character) >= 32 and character != "\x7f" for character in row.plain())


def test_a_field_of_chinese_takes_exactly_its_cells() -> None:
    for cells in range(1, 12):
        assert cell_width(Row(20).field("一只猫在雪地里跑", cells, A).plain()) == cells


def test_wrapping_keeps_every_word_and_no_line_is_too_wide() -> None:
    lines = wrapped("一只猫在雪地里跑 slow motion, film grain", 10)
    assert all(cell_width(line) <= 10 for line in lines)
    assert "".join(lines).replace(" ", "") == "一只猫在雪地里跑slowmotion,filmgrain"


@given(
    st.dictionaries(
        st.sampled_from(["weights", "live", "others", "unseen", "driver"]), st.integers(0, 10**11)
    ),
    st.integers(8, 200),
)
def test_the_bar_is_exactly_as_wide_as_its_place_and_hides_nothing(parts: dict[str, int], width: int) -> None:
    total = max(1, sum(parts.values())) * 2
    bar = bar_cells(dict(parts), total, width)
    assert sum(cells for _name, cells in bar) == width
    assert {name for name, count in parts.items() if count} <= {name for name, cells in bar if cells}


def test_a_full_device_leaves_no_free_cell() -> None:
    assert dict(bar_cells({"weights": 100, "live": 100}, 200, 10)) == {"weights": 5, "live": 5, "free": 0}


def test_an_unknown_part_is_none_and_not_nothing() -> None:
    balance = scenes.gpu_balance(NOW)
    unknown = [replace(part, bytes=None) if part.kind == "driver" else part for part in balance.parts]
    assert parts_of(replace(balance, parts=tuple(unknown)))["driver"] is None


@pytest.mark.parametrize("highest", [1, 84 * 2**20, 3 * 2**30, 38 * 2**30, 141 * 2**30])
@pytest.mark.parametrize("rows", [1, 5, 8, 30])
def test_the_axis_holds_the_highest_sample_in_round_steps(highest: int, rows: int) -> None:
    step = row_step(highest, rows, 1000 * 2**30)
    assert step * rows >= highest
    assert step % 2**20 == 0


@pytest.mark.parametrize("whole", [15 * 2**30 + 7, scenes.gib(140.4), 500 * 2**20])
@pytest.mark.parametrize("rows", [1, 5, 8, 30])
def test_the_axis_ends_with_the_device_and_not_above(whole: int, rows: int) -> None:
    step = row_step(whole, rows, whole)
    assert whole <= step * rows < whole + rows
    labels = [row_label(step * (number + 1), step, step * rows) for number in range(rows)]
    assert len(set(labels)) == rows and all(len(label) < LABEL_CELLS for label in labels)
    assert labels[-1] in ("15.0", "15", "140.4", "140", "500M", "500.0M")


def test_a_column_stacks_neighbours_below_ours_and_ends_in_eighths() -> None:
    paint = Paint(read_palette(theme_files(theme_folders())["dark"]))
    # Bottom up: one row of others, a row and a half of weights.
    stack = (0, 8, 0, 0, 12, 0, 0, 0)
    glyphs = [glyph for glyph, _style in column_cells(paint, stack, ("others", "weights"), 8, 4)]
    assert glyphs == ["o", "█", "▄", " "]


def test_without_colours_no_cell_is_of_two_parts() -> None:
    """An eighth block shows the part above it by a background colour, which NO_COLOR drops."""
    paint = Paint(read_palette(theme_files(theme_folders())["dark"]), colourless=True)
    # Bottom up: three quarters of a row of others, a row and a half of weights, a row of live tensors.
    stack = [0] * len(STACK)
    for name, eighths in (("others", 6), ("weights", 12), ("live", 8)):
        stack[STACK.index(name)] = eighths
    glyphs = [glyph for glyph, _style in column_cells(paint, tuple(stack), STACK, 8, 5)]
    assert glyphs == ["o", "█", "▓", " ", " "]


def test_a_spike_within_a_second_is_kept() -> None:
    history = History()
    for live in (1.0, 9.0, 1.0):
        history.add(scenes.gpu_balance(NOW, live=live), NOW + 0.3)
    (column,) = history.window(int(NOW), 1)
    assert column is not None and max(column.stack) == scenes.gib(14.0)
    highest = scenes.gpu_balance(NOW, live=9.0)
    assert column.total_bytes == highest.total_bytes - (parts_of(highest)["free"] or 0)


def test_silence_leaves_a_gap_and_a_breath_does_not() -> None:
    history = History()
    for second in (0, 2, 10):
        history.add(scenes.gpu_balance(NOW), NOW + second)
    known = [column is not None for column in history.window(int(NOW) + 11, 12)]
    assert known == [True] * 5 + [False] * 5 + [True] * 2


def test_history_is_bounded() -> None:
    history = History(columns=3)
    for second in range(10):
        history.add(scenes.gpu_balance(NOW), NOW + second)
    assert len(history._columns) == 3


@given(
    st.integers(LEAST[0], 260),
    st.integers(LEAST[1], 90),
    st.sampled_from(["history", "models", "queue", "log"]),
    st.booleans(),
)
def test_places_fill_the_terminal_without_overlap(width: int, height: int, tab: str, banner: bool) -> None:
    places = plan(width, height, tab, banner=banner)
    covered: set[tuple[int, int]] = set()
    for place in places.values():
        cells = {
            (x, y)
            for y in range(place.y, place.y + place.height)
            for x in (place.x, place.x + place.width - 1)
        }
        assert place.width > 0 and place.height > 0
        assert place.x >= 0 and place.y >= 0
        assert place.x + place.width <= width and place.y + place.height <= height
        assert not covered & cells
        covered |= cells
    assert sum(place.width * place.height for place in places.values()) == width * height


@pytest.mark.parametrize("size", [(59, 24), (80, 17)])
def test_below_the_least_size_nothing_but_the_sentence_is_placed(size: tuple[int, int]) -> None:
    assert set(plan(*size, "history")) == {"too_small"}


@given(st.floats(-0.5, 1.5), st.integers(1, 30))
def test_a_progress_bar_is_as_wide_as_asked(fraction: float, cells: int) -> None:
    done, open_ = progress_bar(fraction, cells)
    assert len(done) + len(open_) == cells


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        (24, "TurboWan2.1-T2V-14B-720P"),
        (17, "TurboWa…-14B-720P"),
        (14, "TurboW…4B-720P"),
        (2, "…P"),
        (1, "…"),
        (0, ""),
    ],
)
def test_a_long_name_is_cut_in_its_middle(cells: int, shown: str) -> None:
    assert clip_middle("TurboWan2.1-T2V-14B-720P", cells) == shown


def test_a_wide_name_cut_in_its_middle_fits() -> None:
    for cells in range(12):
        assert cell_width(clip_middle("一只猫在雪地里跑", cells)) <= cells
