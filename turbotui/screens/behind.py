"""Owns what a screen does while another one is above it: it is drawn when it changes, and only then.

Textual draws through to a screen behind a dialog. When a part of that one changes it marks the same part of
the screen itself, which marks it once more the next time: what was once drawn whole, as at the dialog's
opening, would be sent whole with every message after (18 kB/s measured, 44 with a picture above).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.screen import Screen


class StillBehind:
    """Comes before a Screen among the bases."""

    def _set_dirty(self, *regions: Region) -> None:
        screen = cast("Screen[object]", self)
        # The screen above is told by Textual itself; coming back to the top draws all.
        if not regions or screen.app.screen is screen:
            super()._set_dirty(*regions)  # type: ignore[misc]
