"""Figures read the same everywhere, and text keeps its width in cells."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turbotui.format import bytes_text, cell_width, clip, clock, gib, pad, percent, seconds, wrapped

GIB = 2**30
texts = st.text(alphabet=st.sampled_from("ab 一只猫é\u0301\u200b❤…x"), max_size=40)


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    for show in (gib, bytes_text, seconds, clock, percent):
        assert show(None) == "-"
        assert show(0) != "-"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0"),
        (int(38.7 * GIB), "38.7"),
        (140 * GIB, "140.0"),
        (2**20, "<0.1"),
        (-GIB // 2, "-0.5"),
        (-1, ">-0.1"),
    ],
)
def test_gib_has_one_decimal_and_never_calls_something_nothing(count: int, text: str) -> None:
    assert gib(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (24 * 2**20, "24.0 MiB"),
        (2**20 - 1, "1.00 MiB"),
        (int(13.5 * GIB), "13.5 GiB"),
        (131 * GIB, "131 GiB"),
        (1023 * GIB, "1023 GiB"),
        (3 * 2**40, "3.00 TiB"),
        (-(2**20), "-1.00 MiB"),
        (2**70, "1048576 PiB"),
    ],
)
def test_bytes_have_three_digits_and_a_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text


@given(st.integers(min_value=0, max_value=2**55))
def test_bytes_as_text_are_within_half_a_percent_and_short(count: int) -> None:
    figure, unit = bytes_text(count).split()
    assert len(figure) <= 4
    size = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert float(figure) * size == pytest.approx(count, rel=0.006)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0.0, "0 ms"),
        (0.0244, "24 ms"),
        (0.0996, "0.10 s"),
        (0.31, "0.31 s"),
        (0.999, "1.0 s"),
        (6.24, "6.2 s"),
        (9.96, "10 s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (3599.7, "1h00m"),
        (7500, "2h05m"),
        (3 * 86400 + 4 * 3600, "3d04h"),
        (-0.5, "-0.50 s"),
    ],
)
def test_seconds_are_shown_in_the_units_that_matter(duration: float, text: str) -> None:
    assert seconds(duration) == text


def test_the_clock_shows_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert clock(0.0) == "08:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_chinese_character_takes_two_cells() -> None:
    assert cell_width("一只猫.mp4") == 10
    assert clip("一只猫在雪地里跑", 7) == "一只猫…"
    assert clip("一只猫在雪地里跑", 6) == "一只…"
    assert pad("猫", 4) == "猫  "
    assert pad("猫", 4, "right") == "  猫"


@given(texts, st.integers(min_value=0, max_value=45))
@example("\u200b\u200b\u200bab", 1)
@example("猫猫", 3)
def test_clipped_and_padded_text_keeps_to_its_cells(text: str, cells: int) -> None:
    clipped = clip(text, cells)
    assert cell_width(clipped) <= cells
    assert clipped == text or (cell_width(text) > cells and text.startswith(clipped.removesuffix("…")))
    assert cell_width(pad(text, cells)) == cells
    assert cell_width(pad(text, cells, "right")) == cells


def test_lines_break_at_spaces_and_beside_chinese_but_not_at_its_marks() -> None:
    assert wrapped("毫秒内由 NVML 证实收回多少", 20) == ["毫秒内由 NVML 证实收", "回多少"]
    assert wrapped("CUDA_ALLOC_CONF、--no-half-vae", 20) == ["CUDA_ALLOC_CONF、", "--no-half-vae"]
    assert wrapped("一二三四。五", 8) == ["一二三", "四。五"]
    assert wrapped("一二三（四五", 8) == ["一二三", "（四五"]
    assert wrapped("a word and then one more", 12) == ["a word and", "then one", "more"]
    assert wrapped("/a/path/without/any/space", 10) == ["/a/path/wi", "thout/any/", "space"]


def test_a_line_ends_between_things_rather_than_within_one() -> None:
    assert wrapped("128x80 (80p 16:10)  81 frames", 25) == ["128x80 (80p 16:10)", "81 frames"]
    assert wrapped("asked 05:55:52  started 05:55:52  took 29 s", 25) == [
        "asked 05:55:52",
        "started 05:55:52",
        "took 29 s",
    ]
    assert wrapped("4 步  种子 0  sigma_max 200", 24) == ["4 步  种子 0", "sigma_max 200"]
