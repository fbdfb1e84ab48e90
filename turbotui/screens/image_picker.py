"""Owns choosing an image file: folders and images to walk and to filter by typing, and what each shows."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from turbotui.format import bytes_text, clip_middle
from turbotui.picture.folder import Entry, Listing, list_folder
from turbotui.picture.raster import cells_for
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.log import when
from turbotui.widgets.panels import Key, ListPanel
from turbotui.widgets.picture import PictureView

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Click
    from textual.events import Key as KeyEvent
    from textual.timer import Timer

    from turbotui.picture.files import ImageFile

ABOVE = ".."
SIZE_CELLS = 9
AGE_CELLS = 12
FACT_ROWS = 2
LOOK_AFTER_S = 0.08
"""A cursor that runs over files decodes none of them."""
KEPT_IMAGES = 12
PIXELS = (320, 320)


class FilesPanel(ListPanel):
    """The folder's rows at the left; the right side is a picture's."""

    DEFAULT_CSS = """
    FilesPanel { overflow: hidden hidden; }
    """

    def __init__(self, *, remote: str | None) -> None:
        super().__init__(id="files")
        self._remote = remote
        self.listing: Listing | None = None
        self.error = ""
        """Why a folder could not be read."""
        self.wanted = ""
        self.image: ImageFile | None = None
        """Of the row that the cursor is on."""
        self.said = ""
        """Instead of an image."""
        self.walked = True
        self._shown: dict[Key, Entry] = {}

    def compose(self) -> ComposeResult:
        yield PictureView()

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.listing, self.wanted, self.error, self.image, self.said)

    # ------------------------------------------------------------------ frame

    def title(self, view: View) -> str:
        return t("picker.title")

    def remark(self, view: View, width: int) -> Row | None:
        row = Row(width)
        if self.wanted:
            return row.add(self.wanted, view.paint.wait).add("▏", view.paint.key)
        return row.add(t("picker.type"), view.paint.muted)

    def below(self, view: View) -> str:
        return t("picker.keys")

    # ------------------------------------------------------------------ rows

    def list_cells(self, width: int) -> int:
        """How wide the list is; the rest is the picture's, where there is enough of it."""
        return width if width < 56 else width * 56 // 100

    def body(self, view: View, width: int, height: int) -> list[Row]:
        cells = self.list_cells(width)
        rows = super().body(view, cells, height)
        if not self._keys:
            rows = [*self.heading(view, cells), *rows]
        if cells == width:
            return rows
        rows += [Row(cells) for _ in range(height - len(rows))]
        rows = [Row(width).extend(row).to(cells + 2, view.paint.text) for row in rows]
        facts = self._facts(view, width - cells - 2)
        below = self.picture_cells(width, height)[1]
        for row, fact in zip(rows[below:], facts, strict=False):
            row.extend(fact)
        return rows

    def _facts(self, view: View, width: int) -> list[Row]:
        """What the picture is, below it."""
        entry = self.entry
        if entry is None or entry.is_folder:
            return []
        rows = [Row(width).add(clip_middle(entry.name, width), view.paint.bold)]
        image = self.image
        if image is not None:
            text = f"{image.width}x{image.height}  {bytes_text(image.bytes)}"
            rows.append(Row(width).add(text, view.paint.muted))
        return rows

    def picture_cells(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of the picture, beside a list in so much room; (0, 0) where there is none."""
        cells = self.list_cells(width)
        if cells == width or self.entry is None or self.entry.is_folder:
            return 0, 0
        columns, rows = width - cells - 2, max(1, height - FACT_ROWS)
        if self.image is None:
            return columns, min(rows, columns // 4)
        return cells_for(self.image.width, self.image.height, columns, rows)

    @property
    def entry(self) -> Entry | None:
        """What the cursor is on."""
        return self._shown.get(self.chosen)

    def keys(self, view: View) -> list[Key]:
        listing = self.listing
        if listing is None:
            return []
        wanted = self.wanted.casefold()
        entries = [entry for entry in listing.entries if wanted in entry.name.casefold()]
        self._shown = {entry.name: entry for entry in entries}
        above = [ABOVE] if not wanted and listing.folder != listing.folder.parent else []
        return [*above, *self._shown]

    def place_cursor(self) -> None:
        if self.chosen not in self._walkable:  # a fresh folder: what was made last is likeliest
            images = (key for key, entry in self._shown.items() if not entry.is_folder)
            self.chosen = next(images, next(iter(self._shown), None))
        super().place_cursor()

    def nothing(self, view: View, width: int) -> list[Row]:
        row = Row(width)
        if self.listing is None:
            return [row.add(t("picker.reading"), view.paint.muted)]
        if self.wanted.startswith(("/", "~")):
            return [row.add("↵", view.paint.key).add(t("picker.path", path=self.wanted), view.paint.text)]
        text = t("choices.none", text=self.wanted) if self.wanted else t("picker.empty")
        return [row.add(text, view.paint.muted)]

    def heading(self, view: View, width: int) -> list[Row]:
        paint, listing = view.paint, self.listing
        rows = [
            Row(width).add(line, paint.error) for line in (wrapped(self.error, width) if self.error else ())
        ]
        if listing is None:
            return rows
        rows.append(Row(width).add(clip_middle(str(listing.folder), width), paint.focus_title))
        if self._remote is not None:
            told = t("picker.remote", host=self._remote)
            rows += [Row(width).add(line, paint.wait) for line in wrapped(told, width)]
        images = sum(not entry.is_folder for entry in listing.entries)
        text = t("picker.count", count=images)
        if listing.others:
            text += t("picker.others", others=listing.others)
        if listing.cut:
            text += "  " + t("picker.cut")
        rows.append(Row(width).add(text, paint.muted))
        return rows

    def row(self, view: View, key: Key, width: int) -> Row:
        paint = view.paint
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        entry = self._shown.get(key)
        if entry is None:
            return row.add(f"{ABOVE}/", paint.muted)
        aged = width >= 44
        cells = width - 2 - SIZE_CELLS - (AGE_CELLS if aged else 0)
        name = f"{entry.name}/" if entry.is_folder else entry.name
        row.field(clip_middle(name, cells), cells, paint.focus if entry.is_folder else paint.text)
        row.field("" if entry.bytes is None else bytes_text(entry.bytes), SIZE_CELLS, paint.muted, right=True)
        if aged:
            row.field(when(entry.changed_at, view.wall), AGE_CELLS, paint.muted, right=True)
        return row

    def on_click(self, event: Click) -> None:
        # Before the list's own, which puts the cursor there; what comes of it is seen after that.
        screen = self.screen
        if isinstance(screen, ImagePickerScreen):
            self.call_later(screen.clicked, self.chosen, again=event.chain > 1)


class ImagePickerScreen(WindowScreen[Path | None]):
    """Dismissed with the chosen file, or None.

    Args:
        folder: Where to begin, at the row called `at` if there is one.
        remote: The machine that jobs run on, where it is another one than this.
    """

    panel: FilesPanel
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("↑ ↓ tab", "screen.choose"),
        ("a b c", "screen.narrow"),
        ("ctrl+u", "screen.empty"),
        ("← →", "screen.folders"),
        ("↵", "screen.take"),
    )

    def __init__(self, folder: Path, *, at: str | None = None, remote: str | None = None) -> None:
        super().__init__(FilesPanel(remote=remote))
        self._start = folder
        self._coming_from = at
        self._opening = 0
        """How many folders were asked for."""
        self._timer: Timer | None = None
        self._looked_at: Path | None = None
        self._known: OrderedDict[tuple[Path, float], ImageFile] = OrderedDict()

    def on_mount(self) -> None:
        self._open(self._start)

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        return min(130, width - 4), min(34, height - 2)

    def refresh_panel(self) -> None:
        super().refresh_panel()
        self._show_picture()

    # ------------------------------------------------------------------ folders

    def _open(self, folder: Path) -> None:
        self._opening += 1
        number, coming_from, self._coming_from = self._opening, self._coming_from, None

        def read() -> Listing | str:
            try:
                return list_folder(folder)
            except OSError as error:
                return t("picker.unreadable", folder=str(folder), why=spoken(error.strerror or str(error)))

        def told(found: Listing | str) -> None:
            # A slower disk's answer comes after that of the folder one has gone on to.
            if self.is_attached and number == self._opening:
                self._opened(found, coming_from)

        self.turbo.run_apart(t("picker.reading"), read, then=told, quiet=True)

    def _opened(self, found: Listing | str, coming_from: str | None) -> None:
        panel = self.panel
        if isinstance(found, str):
            panel.error = found
        else:
            panel.listing, panel.error, panel.wanted = found, "", ""
            panel.chosen = coming_from
        self.refresh_panel()
        self.moved()

    def _leave(self) -> None:
        """Into the folder above."""
        listing = self.panel.listing
        if listing is not None and listing.folder != listing.folder.parent:
            self._coming_from = listing.folder.name
            self._open(listing.folder.parent)

    def take(self) -> None:
        """Go into the folder under the cursor, or choose the image."""
        panel = self.panel
        if panel.wanted.startswith(("/", "~")):
            self._take_path(Path(os.path.expanduser(panel.wanted)))
        elif panel.chosen == ABOVE:
            self._leave()
        elif (entry := panel.entry) is not None:
            if entry.is_folder:
                self._open(entry.path)
            elif not panel.said:  # what is no image stays, with its reason beside it
                self.dismiss(entry.path)

    def _take_path(self, path: Path) -> None:
        """A path that was typed whole."""
        self._opening += 1
        number = self._opening

        def told(is_file: bool) -> None:
            if not self.is_attached or number != self._opening:
                return
            if is_file:
                self.dismiss(path)
            else:
                self._open(path)

        # In a thread: its disk may hang.
        self.turbo.run_apart(t("picker.reading"), lambda: os.path.isfile(path), then=told, quiet=True)

    def clicked(self, before: Key | None, *, again: bool) -> None:
        """A row was clicked; the second click on it takes it."""
        if again and before == self.panel.chosen:
            self.take()
        else:
            self.moved()

    # ------------------------------------------------------------------ the picture

    def moved(self) -> None:
        """The cursor may be on another row: look at it once it rests."""
        entry = self.panel.entry
        path = None if entry is None or entry.is_folder else entry.path
        if path == self._looked_at:
            return
        self._looked_at = path
        self.panel.image, self.panel.said = None, ""
        if self._timer is not None:
            self._timer.stop()
        if entry is not None and path is not None:
            known = self._known.get((path, entry.changed_at))
            if known is not None:
                self.panel.image = known
            else:
                self._timer = self.set_timer(LOOK_AFTER_S, self._look)
        self.refresh_panel()

    def _look(self) -> None:
        entry = self.panel.entry
        if entry is None or entry.is_folder:
            return

        def read() -> ImageFile:
            from turbotui.picture.files import read_image

            return read_image(entry.path, PIXELS)

        def got(image: ImageFile) -> None:
            self._known[entry.path, entry.changed_at] = image
            while len(self._known) > KEPT_IMAGES:
                self._known.popitem(last=False)
            self._seen(entry.path, image, "")

        self.turbo.run_apart(
            "image", read, then=got, failed=lambda why: self._seen(entry.path, None, why), quiet=True
        )

    def _seen(self, path: Path, image: ImageFile | None, said: str) -> None:
        if self.is_attached and path == self._looked_at:
            self.panel.image, self.panel.said = image, said
            self.refresh_panel()

    def _show_picture(self) -> None:
        panel = self.panel
        view = panel.query_one(PictureView)
        width, height = self.wanted_size(*self.app.size)
        columns, rows = panel.picture_cells(width - 4, height - 2)
        view.display = columns > 0
        if not columns:
            return
        view.styles.width, view.styles.height = columns, rows
        view.styles.offset = (2 + panel.list_cells(width - 4) + 2, 1)
        picture = None if panel.image is None else panel.image.picture
        view.show(self.view().paint, picture, panel.said)

    # ------------------------------------------------------------------ keys

    def on_key(self, event: KeyEvent) -> None:
        panel = self.panel
        if event.key == "escape":
            return
        event.stop()
        event.prevent_default()
        if event.character in ("?", "？") and not panel.wanted:
            self.action_help()
            return
        if event.key == "enter":
            # Letters typed ahead narrow the list; choosing from it takes having seen it.
            if self.painted and panel.listing is not None:
                self.take()
            return
        if event.key in ("down", "ctrl+n", "tab"):
            panel.move(1)
        elif event.key in ("up", "ctrl+p", "shift+tab"):
            panel.move(-1)
        elif event.key in ("pagedown", "ctrl+d"):
            panel.page(1)
        elif event.key in ("pageup",):
            panel.page(-1)
        elif event.key in ("home", "end"):
            panel.move_to_end(last=event.key == "end")
        elif event.key == "left" or (event.key in ("backspace", "ctrl+h") and not panel.wanted):
            self._leave()
        elif event.key == "right":
            if (entry := panel.entry) is not None and entry.is_folder:
                self._open(entry.path)
        elif event.key in ("backspace", "ctrl+h"):
            panel.wanted = panel.wanted[:-1]
        elif event.key == "ctrl+u":
            panel.wanted = ""
        elif event.is_printable and event.character:
            panel.wanted += event.character
        panel.redraw()
        self.moved()
