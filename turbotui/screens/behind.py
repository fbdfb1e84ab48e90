"""Owns what a screen does while another one is above it: what changes of it is drawn, and only that.

Textual draws through to a screen behind a dialog. When a part of that one changes it marks the same part of
the screen itself, which marks it once more the next time: what was once drawn whole, as at the dialog's
opening, would be sent whole with every message after (18 kB/s measured, 44 with a picture above). And the
next time it takes the screen itself for all that is to be drawn, so that a header or a clock that changed
meanwhile stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from textual.geometry import Region
    from textual.screen import Screen


class DrawnBehind:
    """Comes before a Screen among the bases."""

    @property
    def is_behind(self) -> bool:
        """Whether another screen is above it."""
        screen = cast("Screen[object]", self)
        return screen.app.screen is not screen

    def _set_dirty(self, *regions: Region) -> None:
        # The screen above is told by Textual itself; coming back to the top draws all.
        if not regions or not self.is_behind:
            super()._set_dirty(*regions)  # type: ignore[misc]

    def _compositor_refresh(self) -> None:
        super()._compositor_refresh()  # type: ignore[misc]
        if self.is_behind:
            # The screen above has been told of all that there was.
            cast("Screen[object]", self)._repaint_required = False
