"""Owns the times in foreign logs: the forms they are written in, and the day where a form has none."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

HEAD = 64
"""Characters of a line in which its time is looked for."""
DAY_S = 86400.0
BACKWARDS_S = 120.0
"""How far a line's time may lie before the one above it: threads write when they come to it."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = r"(?P<h>\d{1,2}):(?P<mi>\d{2}):(?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?"
_ZONE = r"(?:\s?(?P<z>Z|UTC|[+-]\d{2}:?\d{2})(?![\d:]))?"
_START = (
    r"^[\s\[(<|]*(?:(?:debug|info|notice|warn(?:ing)?|error|critical|fatal|[diwecf]|信息|警告|错误)"
    r"[\])]?[\s:|-]+[\[(]?)?"
)
"""Before a time that has no year: brackets, and a level."""
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?<!\d)(?P<y>(?:19|20)\d{2})[-/.年]\s?(?P<mo>\d{1,2})[-/.月]\s?(?P<d>\d{1,2})日?[T\s,]\s*"
        + _CLOCK
        + _ZONE,
        r"(?<!\d)(?P<mo>\d{2})/(?P<d>\d{2})/(?P<y>(?:20)?\d{2})\s+" + _CLOCK,
        _START
        + r"(?P<mon>"
        + "|".join(_MONTHS)
        + r")\s+(?P<d>\d{1,2})\s+"
        + _CLOCK
        + r"(?:\s+(?P<y>20\d{2}))?",
        _START + r"(?P<mo>\d{2})[-/](?P<d>\d{2})\s+" + _CLOCK,
        r"^[IWEFD](?P<mo>\d{2})(?P<d>\d{2})\s+" + _CLOCK,
        r"^[\s\[(]*(?P<epoch>1\d{9}(?:\.\d+)?)(?![\d.])",
        _START + _CLOCK + r"(?![\d:])",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """A time as it stands in a line."""

    at: float | None = None
    """Wall clock; None where the line says no day."""
    of_day: float = 0.0
    """Seconds since midnight here, where it says none."""
    body: int = 0
    """Where the line goes on after it; 0 where words stand before it."""


def find_stamp(text: str, now: float) -> Stamp | None:
    """The time that a line begins with; `now` gives the year where it has none."""
    head = text[:HEAD]
    if not any(character.isdigit() for character in head):
        return None
    for form in _FORMS:
        found = form.search(head)
        if found is None:
            continue
        stamp = _read(found, now, _body(text, found))
        if stamp is not None:
            return stamp
    return None


def _body(text: str, found: re.Match[str]) -> int:
    digits = re.search(r"\d", found.group())
    before = text[: found.start() + (digits.start() if digits else 0)]
    if re.search(r"\w", before.lower().removesuffix(found.groupdict().get("mon") or "")):
        # A level or a name comes first and belongs to what is said; a glog line's letter does not.
        if not re.fullmatch(r"[IWEFD]", before) and "mon" not in found.groupdict():
            return 0
    end = found.end()
    while end < len(text) and text[end] in " ])>|,:\t-":
        end += 1
    return end


def _read(found: re.Match[str], now: float, body: int) -> Stamp | None:
    part = found.groupdict()
    if (epoch := part.get("epoch")) is not None:
        return Stamp(at=float(epoch), body=body)
    hour, minute, second = int(part["h"]), int(part["mi"]), int(part["s"])
    if hour > 23 or minute > 59 or second > 60:
        return None
    fraction = float(f"0.{part['f']}") if part.get("f") else 0.0
    if part.get("d") is None:
        return Stamp(of_day=hour * 3600 + minute * 60 + second + fraction, body=body)
    month = _MONTHS.index(part["mon"].lower()) + 1 if part.get("mon") else int(part["mo"])
    year = int(part["y"]) if part.get("y") else time.localtime(now).tm_year
    if year < 100:
        year += 2000
    try:
        moment = datetime(
            year, month, int(part["d"]), hour, minute, min(second, 59), tzinfo=_zone(part.get("z"))
        )
        at = moment.timestamp() + fraction
        if not part.get("y") and at > now + DAY_S:
            at = moment.replace(year=year - 1).timestamp() + fraction  # December's, read in January
    except (ValueError, OverflowError, OSError):
        return None
    return Stamp(at=at, body=body)


def _zone(text: str | None) -> timezone | None:
    """None is this host's own."""
    if text is None:
        return None
    if text.upper() in ("Z", "UTC"):
        return UTC
    sign = -1 if text[0] == "-" else 1
    hours, minutes = int(text[1:3]), int(text[-2:])
    return timezone(sign * timedelta(hours=hours, minutes=minutes))


def dated(stamps: Sequence[Stamp | None], latest: float) -> list[float | None]:
    """Wall-clock times of a batch of lines, of which the last was written by `latest`.

    A time without a day is the last such time of day that does not lie after the line below it.
    """
    times: list[float | None] = []
    below = latest
    for stamp in reversed(stamps):
        at = None
        if stamp is not None:
            at = stamp.at if stamp.at is not None else _last_before(stamp.of_day, below + BACKWARDS_S)
            below = min(below, at)
        times.append(at)
    return times[::-1]


def _last_before(of_day: float, limit: float) -> float:
    day = datetime.fromtimestamp(limit).replace(hour=0, minute=0, second=0, microsecond=0)
    at = (day + timedelta(seconds=of_day)).timestamp()
    return at if at <= limit else (day - timedelta(days=1) + timedelta(seconds=of_day)).timestamp()
