"""Owns the one way from untrusted text to text that a terminal may be given.

Prompts, file names, model metadata, log lines and other people's command lines may hold
anything: escape sequences that retitle the terminal or answer on its input, right-to-left
overrides that show another name than is there, characters of no width that hide a difference.
`clean` gives one line in which each of them is a visible glyph. `[` is left alone: a widget
must be given plain text, not markup.
"""

from __future__ import annotations

import re
import unicodedata

LIMIT = 2000
"""Characters kept of one text when the caller names no limit."""
ELLIPSIS = "…"
REPLACEMENT = "\ufffd"
"""Stands for what has no picture of its own. One cell wide, as every picture here."""
NEWLINE = "↵"

# Format characters (Cf) that are drawn: Arabic, Syriac and Kaithi number signs.
_DRAWN_FORMATS = frozenset({*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD})
# Invisible although Unicode calls them letters or marks: fillers and joiners.
_INVISIBLE = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x3164, 0xFFA0})
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _is_variation_selector(code: int) -> bool:
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or 0x180B <= code <= 0x180F


_EMOJI = "\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_JOINER = re.compile(f"(?<=[{_EMOJI}\ufe0f])\u200d(?=[\u2194-\u21aa{_EMOJI}])")
"""What makes one picture of two emoji, where the terminal can; between them it hides nothing."""


class _Glyphs(dict[int, str]):
    """Code point to what is shown for it; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        shown = self[code] = _shown(code)
        return shown


def _shown(code: int) -> str:
    if code == 0x0A:
        return NEWLINE
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if _is_variation_selector(code):
        # They only choose a presentation, and terminals disagree about the width of the result.
        return ""
    character = chr(code)
    hidden = unicodedata.category(character) in _HIDDEN_CATEGORIES and code not in _DRAWN_FORMATS
    return REPLACEMENT if hidden or code in _INVISIBLE else character


_GLYPHS = _Glyphs()


def clean(text: str, *, limit: int = LIMIT) -> str:
    """`text` as one line of at most `limit` characters that holds nothing a terminal acts on.

    Controls (C0, DEL, C1), bidirectional and zero-width characters, line and paragraph
    separators and lone surrogates become visible glyphs; variation selectors are dropped, and what joins
    two emoji, which are shown side by side: terminals disagree about the width of the result.
    What was cut off is marked by an ellipsis.
    """
    if limit < 1:
        return ""
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    shown = text.replace("\r\n", "\n") if len(text) <= limit else text[: limit + 1].replace("\r\n", "\n")
    if "\u200d" in shown:
        shown = _JOINER.sub("", shown)
    shown = shown.translate(_GLYPHS)
    if len(text) > limit or len(shown) > limit:
        shown = shown[: limit - 1] + ELLIPSIS
    return shown


_UNSAFE_IN_JSON = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def escape_json(document: str) -> str:
    """A JSON document that means the same and can be shown: `\\u009b` instead of the control itself.

    JSON encoders escape C0 but pass DEL, C1, bidirectional and zero-width characters through.
    Outside of strings a document holds none of them, so escaping each where it stands is exact.
    """
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", document)
