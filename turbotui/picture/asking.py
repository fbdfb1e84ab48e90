"""Owns what a terminal says of its pictures: the questions, and its answers among what a person types.

Asked when the first picture is to be shown, never before, and not in tmux or screen, which answer for
themselves. What does not answer within the time keeps half-blocks.

Source: the kitty graphics protocol's query action; XTVERSION and DA1 as xterm's ctlseqs has them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

Graphics: TypeAlias = Literal["none", "kitty", "sixel"]

QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[>q\x1b[16t\x1b[c"
"""Does it take kitty's pictures, what is it, how large are its cells in pixels, and its attributes; every
terminal answers the last."""
WAIT_S = 0.3
"""Within it, the beginning of an answer is kept from the keys."""
LATE_S = 10.0
"""Answers over a slow link are still taken out until then."""

_ANSWERS = re.compile(
    r"\x1b_G(?P<kitty>[^\x1b]*)\x1b\\"
    r"|\x1bP>\|(?P<version>[^\x1b]*)\x1b\\"
    r"|\x1b\[6;(?P<height>\d+);(?P<width>\d+)t"
    r"|\x1b\[\?(?P<attributes>[\d;]*)c"
)
_BEGUN = re.compile(
    r"\x1b(?:_(?:G[^\x1b]{0,200}\x1b?)?|P(?:>(?:\|[^\x1b]{0,200}\x1b?)?)?|\[(?:\?[\d;]*|6(?:;[\d;]*)?)?)?\Z"
)
_PLACEHOLDERS = re.compile(r"kitty\b|ghostty\b", re.IGNORECASE)
"""Terminals that draw a picture where cells name it, so that it moves and goes with them."""


def may_ask(environ: Mapping[str, str]) -> bool:
    """Whether questions reach the terminal, and are no garbage on it."""
    term = environ.get("TERM", "")
    multiplexed = "TMUX" in environ or "STY" in environ or term.startswith(("tmux", "screen"))
    return not multiplexed and term not in ("", "dumb", "linux") and not term.startswith("vt")


class Replies:
    """One terminal's. `asked` and `graphics` belong to the loop, `keys_of` to the thread that reads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at: float | None = None
        self._held = ""
        self._takes_kitty = False
        self._version = ""
        self._settled = False
        self.graphics: Graphics = "none"
        self.cell_pixels: tuple[int, int] | None = None
        """Width and height of a cell."""

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    def ask(self) -> str:
        """What to write to the terminal."""
        self._asked_at = self._clock()
        return QUESTION

    def keys_of(self, text: str) -> str:
        """`text` without answers; called with nothing now and then, for what was held back too long."""
        if self._asked_at is None:
            return text
        waited = self._clock() - self._asked_at
        if waited > LATE_S:
            held, self._held = self._held, ""
            return held + text
        text = _ANSWERS.sub(self._take, self._held + text)
        self._held = ""
        if not self._settled and waited < WAIT_S and (begun := _BEGUN.search(text)):
            self._held = text[begun.start() :]
            text = text[: begun.start()]
        return text

    def _take(self, answer: re.Match[str]) -> str:
        if (kitty := answer["kitty"]) is not None:
            self._takes_kitty = kitty.startswith("i=31") and kitty.endswith(";OK")
        elif (version := answer["version"]) is not None:
            self._version = version
        elif answer["width"] is not None:
            width, height = int(answer["width"]), int(answer["height"])
            self.cell_pixels = (width, height) if 2 <= width <= 200 and 2 <= height <= 200 else None
        elif (attributes := answer["attributes"]) is not None:
            # The last question's: all that there is has been said.
            self._settled = True
            if self._takes_kitty and _PLACEHOLDERS.match(self._version):
                self.graphics = "kitty"
            elif "4" in attributes.split(";")[1:] and self.cell_pixels is not None:
                self.graphics = "sixel"
        return ""
