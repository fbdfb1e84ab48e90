"""Owns when garbage is looked for: not while modules load, and never in what they leave, since that stays.

To look through it over and over took 12 of the 161 ms of a command, and 35 of the 250 ms of processor time
to the console's first picture.
"""

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


def hold() -> None:
    """Look for none until `go_on`: much is about to be imported."""
    gc.disable()


def go_on() -> None:
    """What there is now stays; look at what comes after it."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
