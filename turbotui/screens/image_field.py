"""Owns what a form has beside its field `#image`: the way to the picker, and the image where there is room.

The field is an Input of that id on the same screen; neither needs to know more of the form.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual.css.query import NoMatches
from textual.widgets import Input

from turbotui.text import t
from turbotui.widgets.picture import PictureView

if TYPE_CHECKING:
    from textual.screen import Screen

    from turbotui.app import TurboApp
    from turbotui.picture.files import ImageFile

LOOK_S = 0.5
FEWEST_ROWS = 34
"""Of a terminal whose form has room for the image."""
ROWS = 8
PIXELS = (240, 240)


def image_field(screen: Screen[Any]) -> Input | None:
    """The field, while it is shown."""
    try:
        field = screen.query_one("#image", Input)
    except NoMatches:
        return None
    return field if all(place.display for place in (field, *field.ancestors_with_self)) else None


def pick_image(screen: Screen[Any]) -> None:
    """Let the person choose the image of `screen`'s form."""
    from turbotui.picture.folder import nearest_folder
    from turbotui.screens.image_picker import ImagePickerScreen

    field = image_field(screen)
    if field is None:
        return

    def chosen(path: Path | None) -> None:
        if path is not None:
            field.value = str(path)
            field.cursor_position = len(field.value)
        field.focus()

    # An engine on another machine: see where the app was given one.
    box = getattr(screen.app, "box", None)
    remote = None if box is None else str(box.name)
    folder, at = nearest_folder(field.value, Path.cwd()), Path(field.value.strip()).name
    screen.app.push_screen(ImagePickerScreen(folder, at=at, remote=remote), chosen)


class ImageThumb(PictureView):
    """The chosen image, small; no row at all where there is none or no room."""

    DEFAULT_CSS = """
    ImageThumb { width: 100%; height: 8; margin: 0 0 0 13; display: none; }
    """

    in_the_middle = False

    def __init__(self) -> None:
        super().__init__(id="thumb")
        self._path = ""
        self._image: ImageFile | None = None
        self._said = ""

    def on_mount(self) -> None:
        self.screen.query_one("#image", Input).placeholder = t("picker.placeholder")
        self.set_interval(LOOK_S, self.look)

    def look(self) -> None:
        """Follow the field."""
        field = image_field(self.screen)
        path = "" if field is None else field.value.strip()
        if path != self._path:
            self._path, self._image, self._said = path, None, ""
            if path:
                self._read(path)
        self.display = bool(path) and self.app.size.height >= FEWEST_ROWS and self._has_something
        if self.display:
            picture = None if self._image is None else self._image.picture
            self.show(cast("TurboApp", self.app).paint, picture, self._said)

    @property
    def _has_something(self) -> bool:
        return self._image is not None or bool(self._said)

    def _read(self, path: str) -> None:
        def read() -> ImageFile:
            from turbotui.picture.files import read_image

            return read_image(Path(os.path.expanduser(path)), PIXELS)

        def got(image: ImageFile) -> None:
            if path == self._path:
                self._image = image
                self.look()

        def failed(why: str) -> None:
            if path == self._path:
                self._said = why
                self.look()

        cast("TurboApp", self.app).run_apart("image", read, then=got, failed=failed, quiet=True)
