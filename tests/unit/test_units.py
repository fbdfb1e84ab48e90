"""Sizes as people write them."""

from __future__ import annotations

import pytest

from engine.units import parse_size


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
