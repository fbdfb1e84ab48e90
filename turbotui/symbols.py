"""Owns the symbols: which of them this terminal can show in one cell, and what stands for the others.

Everything drawn uses Unicode's; where a terminal cannot show them they are replaced on their way
out, one cell by one cell, so that no layout changes. What a person or a program wrote stays, as far as
the terminal takes it.

Many of them (● ▶ → │ ─ █) take two cells in some terminals of East Asian locales, which would
tear every frame: the terminal is asked at the start, by its cursor, and the first picture does not
wait for the answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from rich.cells import cell_len

Choice = Literal["auto", "unicode", "ascii"]

TABLE: Mapping[str, str] = MappingProxyType(
    {
        # The parts of memory: each must stay another one.
        "█": "#", "▓": "&", "▒": "=", "·": ".", "░": ".",
        # Where a part ends within a cell, and how full a bar's last cell is.
        "▁": "_", "▂": "_", "▃": "_", "▄": ":", "▅": ":", "▆": ":", "▇": ":",
        "▉": "+", "▊": "+", "▋": "+", "▌": "+", "▍": "-", "▎": "-", "▏": "|", "▐": "|", "▀": "'", "▔": "'",
        # Frames and axes.
        "─": "-", "━": "-", "═": "=", "│": "|", "┃": "|", "║": "|", "╭": "+", "╮": "+", "╯": "+", "╰": "+",
        "┌": "+", "┐": "+", "┘": "+", "└": "+", "├": "+", "┤": "+", "┬": "+", "┴": "+", "┼": "+",
        "┏": "+", "┓": "+", "┛": "+", "┗": "+", "╌": "-", "╎": "|", "┄": "-", "┆": "|",
        # States and what happened.
        "●": "*", "◌": "o", "○": "o", "◐": "o", "◉": "*", "✓": "+", "✔": "+", "✗": "x", "✕": "x", "✖": "x",
        "▶": ">", "▷": ">", "▸": ">", "▹": ">", "◀": "<", "◂": "<", "▲": "^", "△": "^", "▴": "^", "▼": "v",
        "▽": "v", "▾": "v", "■": "#", "□": "o", "▪": "#", "◆": "*", "◇": "o", "★": "*", "•": "*", "⇄": "%",
        "↻": "@", "⟳": "@", "‖": "=", "⏸": "=", "⚠": "!", "↯": "!",
        # Keys and directions.
        "←": "<", "↑": "^", "→": ">", "↓": "v", "↔": "%", "↕": "%", "↵": "/", "⏎": "/", "⇒": ">", "‹": "<",
        "›": ">", "«": "<", "»": ">", "⇧": "^", "⌃": "^", "␣": "_",
        # Punctuation and units.
        "…": "~", "°": " ", "±": "~", "×": "x", "÷": "/", "µ": "u", "μ": "u", "≤": "<", "≥": ">", "≈": "~",
        "≠": "!", "Δ": "d", "∞": "8", "–": "-", "—": "-", "−": "-", "‐": "-", "“": '"', "”": '"', "„": '"',
        "‘": "'", "’": "'", "§": "S", "¶": "P", "\u00a0": " ", "�": "?",
    }
)  # fmt: skip
"""Each takes one cell where it is drawn, and so does what stands for it."""

KEYS: Mapping[str, str] = MappingProxyType(
    {"↵": "Enter", "↑": "up", "↓": "down", "←": "left", "→": "right", "␣": "Space"}
)
"""Keys whose name is better than one character."""

SAMPLE = "●▶→│─█"
"""What the terminal is asked about."""
ASK = f"\x1b[1;1H{SAMPLE}\x1b[6n\x1b[1;1H\x1b[K"
"""Writes the sample, asks where that has put the cursor and wipes it, in one go."""
ANSWER_S = 5.0
"""An answer after that is none: some terminals say the like for a function key."""
FEW_GLYPHS = frozenset({"linux", "vt100", "vt102", "vt220", "ansi", "cons25"})
"""TERM of terminals whose fonts hold too few of them, whatever their cells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbols:
    """What this terminal can be given."""

    ascii: bool = False
    """Ours are replaced."""
    wide: bool = False
    """Ambiguous characters take two cells, so that what follows one has to be put in its place."""
    letters: bool = True
    """What people wrote can be shown beyond ASCII."""

    @property
    def as_they_are(self) -> bool:
        """Whether nothing has to be done to any text."""
        return not self.ascii and not self.wide and self.letters

    def key(self, shown: str) -> str:
        """A key's name as it can be shown."""
        return KEYS.get(shown, shown) if self.ascii else shown

    def written(self, text: str, x: int) -> str:
        """`text`, which begins in column `x` from 0, as it goes to the terminal."""
        if text.isascii() or self.as_they_are:
            return text
        if self.ascii:
            text = _replaced(text, self.letters)
        return _placed(text, x) if self.wide and not text.isascii() else text


@lru_cache(4096)
def _replaced(text: str, letters: bool) -> str:
    return text if text.isascii() else "".join(_one(character, letters) for character in text)


def _one(character: str, letters: bool) -> str:
    if character < "\x7f":
        return character
    if (known := TABLE.get(character)) is not None:
        return known
    cells = cell_len(character)
    if 0x2800 <= ord(character) <= 0x28FF:
        return " ..:::###"[(ord(character) - 0x2800).bit_count()]
    # A symbol that is in no table, and may be of any width here, unlike letters of any script.
    foreign = unicodedata.category(character)[0] in "SP" and cells == 1
    return "?" * cells if foreign or not letters else character


@lru_cache(4096)
def _placed(text: str, x: int) -> str:
    """`text` with the cursor put right after every character that may have taken a cell too many."""
    found = []
    for character in text:
        found.append(character)
        x += cell_len(character)
        if unicodedata.east_asian_width(character) == "A":
            found.append(f"\x1b[{x + 1}G")
    return "".join(found)


def guess(choice: Choice, environ: Mapping[str, str]) -> Symbols:
    """What to draw with until the terminal has answered, and where it never does."""
    if choice != "auto":
        return Symbols(ascii=choice == "ascii", letters=choice == "unicode" or speaks_utf8(environ))
    utf8 = speaks_utf8(environ)
    return Symbols(ascii=not utf8 or environ.get("TERM", "").partition("-")[0] in FEW_GLYPHS, letters=utf8)


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale says that the terminal takes UTF-8."""
    named = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    return "utf8" in named.lower().replace("-", "")


def measured(cells: int, choice: Choice, environ: Mapping[str, str]) -> Symbols:
    """After the terminal has said how many cells the sample took; its word stands above the locale's."""
    before = guess(choice, environ)
    if cells <= 0:
        return before  # it answers the same to everything
    narrow, wide = cells == len(SAMPLE), len(SAMPLE) < cells <= 2 * len(SAMPLE)
    letters = narrow or wide  # else it has shown the bytes, each for itself
    few = environ.get("TERM", "").partition("-")[0] in FEW_GLYPHS
    ascii_only = choice == "ascii" or (choice == "auto" and (not narrow or few))
    return Symbols(ascii=ascii_only, wide=wide, letters=letters)
