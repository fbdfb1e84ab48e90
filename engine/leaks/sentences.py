"""A trend in one sentence."""

from __future__ import annotations

from engine.units import size_text
from engine.wire import Trend

ONE = {"jobs": "job", "switches": "switch"}


def trend_text(trend: Trend, least: int) -> str:
    """`device floor +0 B a job over 40 jobs`; `least` floors tell a slope."""
    what, count, one = trend.what, trend.count, ONE[trend.over]
    noun = one if count == 1 else trend.over
    if trend.bytes_each is None:
        return f"{what} floor of {count} {noun}; {least} tell a slope"
    each = signed(trend.bytes_each)
    low, high = signed(trend.low or 0.0), signed(trend.high or 0.0)
    stage = (trend.stage or "").partition(" ")[0]
    component = None if trend.component == stage else trend.component
    if not trend.grows or not stage:
        if low == high:
            return f"{what} floor {each} a {one} over {count} {noun}"
        return f"{what} floor {each} a {one} ({low} to {high}) over {count} {noun}"
    if component is None:
        return f"{what} floor {each} a {one} ({low} to {high}) over {count} {noun}, in {stage}"
    return f"{what} floor {each} a {one} ({low} to {high}) over {count} {noun}, in {stage} of {component}"


def signed(num_bytes: float) -> str:
    """`+1.0 KiB`, `+0 B`, `-12 B`."""
    whole = round(num_bytes)
    return f"{'+' if whole >= 0 else ''}{size_text(whole)}"
