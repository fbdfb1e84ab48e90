"""Owns what of a paste reaches the parser: text, never keys.

A terminal puts a paste between two sequences, and some pass on whatever was copied in between. An escape
in it, as a coloured line of a log holds one, would end the paste for Textual and press what follows.
"""

from __future__ import annotations

import re

BEGIN = "\x1b[200~"
END = "\x1b[201~"
_UNREADABLE = "\ufffd"
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""All but tab and what ends a line: a terminal sends that as a carriage return."""


class Pastes:
    """One terminal's, fed with what it sends in pieces of any size."""

    def __init__(self) -> None:
        self._inside = False
        self._before = ""
        """The last of what was passed on: a paste's beginning may come in pieces."""
        self._held = ""
        """What may be the beginning of a paste's end."""

    def waited(self) -> None:
        """Nothing came for so long that an escape before was the key of that name."""
        self._before = ""

    def keys_of(self, text: str) -> str:
        """`text` without the controls of pastes, and without what no key can mean outside of them.

        A paste goes on to the last end in `text`: what was copied may hold one too.
        """
        found = []
        while text:
            if self._inside:
                text, self._held = self._held + text, ""
                end = text.rfind(END)
                if end < 0:
                    self._held = _begun(text)
                    found.append(_CONTROLS.sub("", text.removesuffix(self._held)))
                    break
                found += (_CONTROLS.sub("", text[:end]), END)
                text = text[end + len(END) :]
                self._inside, self._before = False, ""
                continue
            # Nothing is held back here, or the key escape would wait for another one.
            joined = self._before + text
            begin = joined.find(BEGIN)
            if begin < 0:
                found.append(text.replace(_UNREADABLE, ""))
                self._before = joined[1 - len(BEGIN) :]
                break
            rest = begin + len(BEGIN) - len(self._before)
            found.append(text[:rest].replace(_UNREADABLE, ""))
            text = text[rest:]
            self._inside, self._before = True, ""
        return "".join(found)


def _begun(text: str) -> str:
    """The longest end of `text` that a paste's end could begin with."""
    lengths = range(min(len(text), len(END) - 1), 0, -1)
    return next((END[:length] for length in lengths if text.endswith(END[:length])), "")
