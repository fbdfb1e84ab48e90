"""Owns what each key of a screen is said to do: `?` on any screen shows that screen's own keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.binding import Binding

from turbotui.actions import KEY_SIGNS
from turbotui.screens.reader import PagePanel
from turbotui.text import key_names, t
from turbotui.widgets.lines import Row, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.screen import Screen

    from turbotui.app import TurboApp

KEY_CELLS = 20
NAMES = {
    **KEY_SIGNS,
    **{"question_mark": "?", "exclamation_mark": "!", "slash": "/", "shift+tab": "shift+tab"},
    **{"space": "space", "left": "←", "right": "→", "plus": "+", "minus": "-", "full_stop": ".", "f1": "F1"},
}
SAID: Mapping[str, str] = {
    "close": "back",
    "scroll(1)": "help.down",
    "scroll(-1)": "help.up",
    "scroll(100000)": "help.last",
    "scroll(-100000)": "help.first",
    "walk(1)": "help.down",
    "walk(-1)": "help.up",
    "walk(100000)": "help.last",
    "walk(-100000)": "help.first",
    "page(1)": "help.half_down",
    "page(-1)": "help.half_up",
    "detail(1)": "screen.detail_down",
    "detail(-1)": "screen.detail_up",
    "copy": "help.copy",
    "copy_command": "screen.copy_command",
    "copy_admin": "screen.copy_admin",
    "look_again": "screen.look_again",
    "next_stretch": "screen.next_stretch",
    "read": "screen.read",
    "filter": "help.filter",
    "open": "help.open",
    "begin": "screen.begin",
    "trail": "help.audit",
    "video": "help.video",
    "guide": "help.guide",
    "suspend": "help.suspend",
    "on_job('cancel')": "help.cancel",
    "on_job('retry')": "help.retry",
    "on_job('duplicate')": "help.duplicate",
    "on_job('hold')": "help.hold",
    "on_job('edit_again')": "help.edit_again",
    "fetch": "help.fetch",
    "help": "screen.help",
}
"""A binding's action to the sentence about it; `close` is said apart."""


def show_keys(screen: Screen[Any], app: TurboApp) -> None:
    """What the keys of `screen` do, above it."""
    from turbotui.screens.help import ScreenKeysScreen

    looks = app.read_only or app.dashboard.past_at is not None
    app.push_screen(ScreenKeysScreen(ScreenKeysPanel(keys_of(screen, app.own_keys, looks=looks))))


def keys_of(screen: Screen[Any], own: Mapping[str, str], *, looks: bool = False) -> list[tuple[str, str]]:
    """Keys and what they do, those of the screen itself before what it has in common with others.

    A screen's `key_help` names keys that no binding does, each with the text that says what they do;
    its `acting` are the actions that are not told where one only `looks`.
    """
    left_out = getattr(screen, "acting", ()) if looks else ()
    told: dict[str, list[str]] = {}
    for keys, text in getattr(screen, "key_help", ()):
        told.setdefault(t(text), []).append(keys)
    taken: set[str] = set()
    for kind in type(screen).__mro__:
        for binding in kind.__dict__.get("BINDINGS", ()):
            if not isinstance(binding, Binding) or binding.action in left_out:
                continue
            keys = binding.key if binding.id not in own else own[binding.id or ""]
            fresh = [key for key in keys.split(",") if key not in taken]
            taken.update(fresh)
            text = SAID.get(binding.action, binding.description)
            if not fresh or (text not in _SENTENCES and not text.startswith(("help.", "screen."))):
                continue
            sentence = t(_SENTENCES.get(text, text))
            shown = [key for key in fresh if key.isascii()][:3]
            told.setdefault(sentence, []).extend(NAMES.get(key, key) for key in shown)
    return [(" ".join(keys), sentence) for sentence, keys in told.items()]


_SENTENCES = {"back": "screen.close"}


class ScreenKeysPanel(PagePanel):
    """One screen's keys."""

    def __init__(self, rows: list[tuple[str, str]]) -> None:
        super().__init__(id="screen_keys")
        self._told = rows

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.top,)

    def title(self, view: View) -> str:
        return t("screen.title")

    def page(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        return [
            Row(width).field(f"  {key_names(keys)}", KEY_CELLS, paint.key).add(sentence, paint.text)
            for keys, sentence in self._told
        ]
