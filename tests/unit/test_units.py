"""Sizes as people write them."""

from __future__ import annotations

import pytest

from engine.units import counted, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("8 GiB", 8 * 2**30),
        ("8GiB", 8 * 2**30),
        (" 8  gib ", 8 * 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("0.1 KiB", 102),
        ("500 MB", 500 * 10**6),
        ("1 TiB", 2**40),
        ("64 kB", 64_000),
        ("12 B", 12),
        ("8589934592", 8 * 2**30),
        ("0", 0),
        ("-1 GiB", -(2**30)),
    ],
)
def test_a_size_is_its_bytes(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize(
    "text",
    ["", "8 G", "GiB", "1e9", "1,5 GiB", "inf", "nan", "0x10", "８ GiB", "1.5"],
)
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no size") as error:
        parse_size(text)
    assert repr(text) in str(error.value)


def test_a_size_is_exact_whatever_its_digits() -> None:
    assert parse_size("9007199254740993") == 2**53 + 1
    assert parse_size("8796093022208.000000001 KiB") == 2**53


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(512, "512 B"), (73_666, "71.9 KiB"), (1_000_000, "976.6 KiB"), (-2048, "-2.0 KiB"), (2**20, "1.0 MiB")],
)
def test_a_size_is_told_in_the_units_that_the_commands_use(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


def test_one_of_a_thing_is_not_told_as_several() -> None:
    assert counted(1, "video") == "1 video" and counted(0, "video") == "0 videos"
    assert counted(2, "job waits", "jobs wait") == "2 jobs wait"
