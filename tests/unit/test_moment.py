"""Moments as people write them, in the host's time zone and across a change of its clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from engine.errors import InvalidRequest
from turbotui.moment import dated, parse_moment, parse_stretch
from turbotui.text import use_language


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


NOW = "2026-11-29 14:00"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("22:00", "2026-11-28 22:00"),
        ("07:00", "2026-11-29 07:00"),
        ("7:05:09", "2026-11-29 07:05:09"),
        ("14:00", "2026-11-29 14:00"),
        ("14:01", "2026-11-28 14:01"),
        ("yesterday 22:00", "2026-11-28 22:00"),
        ("Yesterday  07:00", "2026-11-28 07:00"),
        ("today 13:59", "2026-11-29 13:59"),
        ("yesterday", "2026-11-28 00:00"),
        ("-8h", "2026-11-29 06:00"),
        ("8h", "2026-11-29 06:00"),
        ("-1.5d", "2026-11-28 02:00"),
        ("-30m", "2026-11-29 13:30"),
        ("now", NOW),
        ("2026-11-27 03:04", "2026-11-27 03:04"),
        ("2026-11-27T03:04:05", "2026-11-27 03:04:05"),
        ("2026-11-27", "2026-11-27 00:00"),
        ("2026-11-27T02:04:05Z", "2026-11-27 03:04:05"),
    ],
)
def test_each_way_to_write_a_moment(text: str, moment: str) -> None:
    assert parse_moment(text, now=at(NOW)) == at(moment)


@pytest.mark.parametrize(
    "text", ["", "25:00", "12:60", "soon", "22", "-8", "2026-13-01", "tomorrow", "-8y", "9" * 400]
)
def test_what_is_no_moment_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidRequest, match="yesterday 22:00"):
        parse_moment(text, now=at(NOW))


def test_a_stretch_over_midnight_and_one_that_is_not_over() -> None:
    night = parse_stretch("22:00", "07:00", now=at(NOW), default_s=1)
    assert night == (at("2026-11-28 22:00"), at("2026-11-29 07:00"))
    early = parse_stretch("22:00", "07:00", now=at("2026-11-29 03:00"), default_s=1)
    assert early == (at("2026-11-28 22:00"), at("2026-11-29 03:00"))
    assert parse_stretch(None, None, now=5000.0, default_s=100) == (4900.0, 5000.0)
    assert parse_stretch(None, "-1h", now=5000.0, default_s=100) == (1300.0, 1400.0)
    with pytest.raises(InvalidRequest, match="no time"):
        parse_stretch("-1h", "-2h", now=5000.0, default_s=1)


def test_a_day_on_which_the_clocks_change_has_its_own_length() -> None:
    assert parse_moment("yesterday 12:00", now=at("2026-10-26 12:00")) == at("2026-10-25 12:00")
    assert at("2026-10-25 12:00") - parse_moment("yesterday 12:00", now=at("2026-10-25 12:00")) == 25 * 3600


def test_a_time_of_another_day_has_its_date() -> None:
    assert dated(at("2026-11-29 02:41:10"), now=at(NOW)) == "02:41:10"
    assert dated(at("2026-11-28 22:41:10"), now=at(NOW)) == "Nov 28 22:41:10"
    use_language("zh_CN")
    try:
        assert dated(at("2026-11-28 22:41:10"), now=at(NOW)) == "11-28 22:41:10"
    finally:
        use_language("en")
