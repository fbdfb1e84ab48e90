"""Owns moments as people write and read them: `22:00`, `yesterday 22:00`, `-8h`, ISO; and their dates."""

from __future__ import annotations

import re
import time
from datetime import date, datetime, timedelta

from engine.errors import InvalidRequest
from turbotui.text import language

_AGO = re.compile(r"-?(\d{1,6}(?:\.\d{1,3})?)(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLOCK = re.compile(r"(?:(today|yesterday)\s+)?(\d{1,2}):(\d{2})(?::(\d{2}))?")
HOW = "write it as 22:00, yesterday 22:00, 2026-11-28 22:00, or -8h"


def parse_moment(text: str, *, now: float, after: float | None = None) -> float:
    """The moment that `text` names in this host's time zone, seconds since the epoch.

    A time of day without a day is the last one before `now`, or with `after` the first one after that.

    Raises:
        InvalidRequest: it names none.
    """
    told = " ".join(text.strip().lower().split())
    if told == "now":
        return now
    if match := _AGO.fullmatch(told):
        return now - float(match.group(1)) * _UNIT_S[match.group(2)]
    if match := _CLOCK.fullmatch(told):
        day, hour, minute, second = match.groups()
        clock = (int(hour), int(minute), int(second or 0))
        if clock[0] > 23 or clock[1] > 59 or clock[2] > 59:
            raise InvalidRequest(f"{text!r} is no time of day; {HOW}")
        return _time_of_day(day, clock, now=now, after=after)
    if told in ("today", "yesterday"):
        return _at(_day(now) - timedelta(days=told == "yesterday"), (0, 0, 0))
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidRequest(f"{text!r} is no moment; {HOW}") from error


def parse_stretch(
    since: str | None, until: str | None, *, now: float, default_s: float
) -> tuple[float, float]:
    """The stretch between two moments as options give them; without any, the last `default_s`.

    Raises:
        InvalidRequest: one is no moment, or they are the wrong way round.
    """
    if since is None:
        end = now if until is None else min(now, parse_moment(until, now=now))
        return end - default_s, end
    begin = parse_moment(since, now=now)
    end = now if until is None else min(now, parse_moment(until, now=now, after=begin))
    if end <= begin:
        raise InvalidRequest(
            f"from {since} until {until or 'now'} there is no time; give --since before --until"
        )
    return begin, end


def dated(at: float, *, now: float) -> str:
    """`02:41:10`, with its date if that is not the day of `now`: `Nov 28 02:41:10`, `11-28` in Chinese."""
    if _day(at) == _day(now):
        return time.strftime("%H:%M:%S", time.localtime(at))
    day = "%m-%d" if language() == "zh_CN" else "%b %d"
    return time.strftime(f"{day} %H:%M:%S", time.localtime(at))


def _time_of_day(day: str | None, clock: tuple[int, int, int], *, now: float, after: float | None) -> float:
    if day is not None:
        return _at(_day(now) - timedelta(days=day == "yesterday"), clock)
    if after is not None:
        first = _at(_day(after), clock)
        return first if first > after else _at(_day(after) + timedelta(days=1), clock)
    last = _at(_day(now), clock)
    return last if last <= now else _at(_day(now) - timedelta(days=1), clock)


def _day(at: float) -> date:
    return datetime.fromtimestamp(at).date()


def _at(day: date, clock: tuple[int, int, int]) -> float:
    # Through a local date, since a day on which clocks change has not 24 hours.
    return datetime(day.year, day.month, day.day, *clock).timestamp()
