"""Owns when the console looks for garbage: not through everything, while somebody types."""

from __future__ import annotations

import gc

SETTLED_S = 3.0
"""By then the dashboard is drawn and what the first keys need is imported."""


def leave_what_stays() -> None:
    """Take what there is by now for lasting.

    Every few seconds Python looked through all of it again, widgets, styles and modules, for 17 to 44 ms in
    which no key was answered: 60 ms from key to screen at the 99th percentile.
    """
    gc.collect()
    gc.freeze()
