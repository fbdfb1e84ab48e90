"""Owns reading: a text too long for a row, or a page of rows, in a window that scrolls."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding

from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.panels import Panel

if TYPE_CHECKING:
    from textual.binding import BindingType


class PagePanel(Panel):
    """Rows in a frame, of which a part is in sight."""

    def __init__(self, *, id: str = "page") -> None:
        super().__init__(id=id)
        self.top = 0
        self._count = 0
        self._room = 1

    def page(self, view: View, width: int) -> list[Row]:
        """All rows."""
        raise NotImplementedError

    def below(self, view: View) -> str:
        more = self._count - self.top - self._room
        return (t("list.more", count=more) + "  " if more > 0 else "") + self.keys_text(view)

    def keys_text(self, view: View) -> str:
        """The keys that the frame names."""
        return t("reader.keys")

    def body(self, view: View, width: int, height: int) -> list[Row]:
        rows = self.page(view, width)
        self._count, self._room = len(rows), height
        self.top = max(0, min(self.top, len(rows) - height))
        return rows[self.top : self.top + height]

    def scroll(self, by: int) -> None:
        self.top += by
        self.redraw()

    def scroll_page(self, by: int) -> None:
        self.scroll(by * max(1, self._room - 1))

    def on_mouse_scroll_down(self) -> None:
        self.scroll(1)

    def on_mouse_scroll_up(self) -> None:
        self.scroll(-1)


class PageScreen(WindowScreen[None]):
    """A window around a page; esc or q goes back."""

    panel: PagePanel
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "close", show=False),
        Binding("q", "close", show=False, id="quit"),
        Binding("j,down", "scroll(1)", show=False, id="down"),
        Binding("k,up", "scroll(-1)", show=False, id="up"),
        Binding("ctrl+d,pagedown,space", "page(1)", show=False, id="half_down"),
        Binding("ctrl+u,pageup", "page(-1)", show=False, id="half_up"),
        Binding("g,home", "scroll(-100000)", show=False, id="first"),
        Binding("G,end", "scroll(100000)", show=False, id="last"),
    ]

    most: ClassVar[int] = 100
    """Columns of the window at most."""

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        columns = min(self.most, width - 4)
        rows = len(self.panel.page(self.view(), columns - 4))
        return columns, min(rows + 2, height - 2)

    def action_scroll(self, by: int) -> None:
        self.panel.scroll(by)

    def action_page(self, by: int) -> None:
        self.panel.scroll_page(by)


class TextPanel(PagePanel):
    """One text, wrapped."""

    def __init__(self, heading: str, text: str) -> None:
        super().__init__()
        self._heading = heading
        self._text = text

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        return self._heading

    def page(self, view: View, width: int) -> list[Row]:
        return [Row(width).add(line, view.paint.text) for line in wrapped(self._text, width)]


class ReaderScreen(PageScreen):
    """A text in full."""

    def __init__(self, heading: str, text: str) -> None:
        super().__init__(TextPanel(heading, text))
