"""Owns handing the terminal to the person's editor and taking it back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from engine.errors import InvalidRequest
from turbotui.editor import Edited, edit, find_editor
from turbotui.text import t

if TYPE_CHECKING:
    from turbotui.app import TurboApp


def edit_outside(app: TurboApp, text: str) -> Edited:
    """`text` as it comes back from the editor; the console draws and reads nothing meanwhile.

    The loop stands still for so long: what writes to the terminal must not run beside an editor.
    """
    try:
        command = find_editor(os.environ)
        with app.set_aside():
            return edit(text, command)
    except InvalidRequest as problem:
        return Edited(text=None, word=str(problem))
    except SuspendNotSupported:
        return Edited(text=None, word=t("editor.no_terminal"))
