"""Owns what a screen does while another one is above it: what changes of it is drawn, and only that.

Textual draws through to a screen behind a dialog. Its own way loses what changes, and sends what does not:
- It refreshes the screen above for each change, which then takes itself for all that is to be drawn: a key
  typed into the dialog at that moment is not shown until something else in it changes.
- It takes the one behind for all that is to be drawn the next time: a header or a clock stands still.
- It marks the changed part of the one behind once more each time: what was once drawn whole, as at the
  dialog's opening, would be sent whole with every message after (18 kB/s measured, 44 with a picture above).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from textual.screen import Screen


class DrawnBehind:
    """Comes before a Screen among the bases."""

    @property
    def is_behind(self) -> bool:
        """Whether another screen is above it."""
        screen = cast("Screen[object]", self)
        return screen.app.screen is not screen

    def _compositor_refresh(self) -> None:
        screen = cast("Screen[object]", self)
        if not self.is_behind:
            super()._compositor_refresh()  # type: ignore[misc]
            return
        above, changed = screen.app.screen, screen._compositor._dirty_regions
        if changed and screen in screen.app._background_screens:
            # Beside what is to be drawn of the one above itself.
            above._set_dirty(*changed)
            above._dirty_widgets.add(above)
            above.check_idle()
        changed.clear()
        screen._dirty_widgets.clear()
