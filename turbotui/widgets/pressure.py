"""Owns the banner that says that memory runs short: how short, who grew, what can go and by which key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.style import Style

from turbotui.format import bytes_text, percent, seconds
from turbotui.text import t
from turbotui.widgets.lines import LinePanel, Row, View, width_of

if TYPE_CHECKING:
    from engine.wire import Pressure, PressureOffer
    from turbotui.theme import Paint

LEVELS = ("none", "warn", "act")
GAP = "  "
_BOLD = Style(bold=True)


def pressing(view: View) -> Pressure | None:
    """What to tell of: the worst of the pressures, the device's before the host's; None where all is well.

    An engine that does not answer says nothing of now.
    """
    if view.look not in ("live", "stale"):
        return None
    worst = max(view.state.pressure, key=lambda one: _rank(one), default=None)
    return worst if worst is not None and _rank(worst) else None


def _rank(pressure: Pressure) -> int:
    return LEVELS.index(pressure.level) if pressure.level in LEVELS else 1  # a newer engine's level


class PressureBanner(LinePanel):
    """One row, there only while something presses.

    Args:
        key_of: The person's key of an action, by its id.
    """

    def __init__(self, *, id: str, key_of: Callable[[str], str]) -> None:
        super().__init__(id=id)
        self._key_of = key_of

    def inputs(self, view: View) -> tuple[object, ...]:
        return (view.state.pressure, self._key_of("free"), self._key_of("unload"), self._key_of("warm"))

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        pressure = pressing(view)
        row = Row(width).add(" ", view.paint.text)
        if pressure is None:
            return [row]
        paint = view.paint
        loud = paint.wait + _BOLD if pressure.level == "act" else paint.wait
        row.add(_head(pressure), loud)
        offers = pressure.offers
        for offer in offers[:1]:
            self._offer(row, offer, paint)
        if not offers:
            _fit(row, [(t("pressure.nothing"), paint.muted)], paint)
        for growth in pressure.grew[:1]:
            style = paint.alarm if growth.owner == "unseen" else paint.text
            grew = f"{growth.who} +{bytes_text(growth.bytes)}"
            if not _fit(row, [(f"{grew} / {seconds(growth.over_s)}", style)], paint):
                _fit(row, [(grew, style)], paint)
        for offer in offers[1:]:
            if not self._offer(row, offer, paint):
                break
        return [row]

    def _offer(self, row: Row, offer: PressureOffer, paint: Paint) -> bool:
        name = {"free": t("pressure.free"), "warm": t("pressure.warm")}.get(offer.what, offer.target)
        size = bytes_text(offer.bytes)
        return _fit(row, [(self._key_of(offer.action), paint.key), (f" {name} {size}", paint.text)], paint)


def _head(pressure: Pressure) -> str:
    key = "pressure.host" if pressure.device_id in ("host", "cpu") else "pressure.used"
    text = t(key, share=percent(pressure.used_share), total=bytes_text(pressure.total_bytes))
    predicted = pressure.predicted_share
    if predicted is not None and predicted > pressure.used_share:
        text += t("pressure.predicted", id=pressure.predicted_job, share=percent(predicted))
    return text


def _fit(row: Row, pieces: list[tuple[str, Style]], paint: Paint) -> bool:
    """Append the pieces whole, or not at all: half a figure would be another one."""
    if row.left < len(GAP) + sum(width_of(text) for text, _ in pieces):
        return False
    row.add(GAP, paint.text)
    for text, style in pieces:
        row.add(text, style)
    return True
