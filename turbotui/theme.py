"""Owns the colours: `themes/*.toml` as Textual themes and as the styles that panels draw with.

A theme names what a colour is for, never where it is used. The hue says whose memory it is
(ours blue, orange and sky, neighbours purple, vermilion only for unseen and out of memory), and
each part has a pattern of its own beside it, so that nothing rests on colour alone.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Any

from rich.style import Style

from engine.errors import InvalidRequest

if TYPE_CHECKING:
    from textual.theme import Theme

COLOURS = (
    "background", "raised", "selected", "text", "muted", "faint", "focus", "key", "wait", "error", "proof",
)  # fmt: skip
PARTS = ("weights", "live", "cache", "fragmented", "context", "others", "driver", "unseen")
GLYPHS = {
    "weights": "█",
    "live": "▓",
    "cache": "▒",
    "fragmented": "%",
    "context": "x",
    "others": "o",
    "driver": "-",
    "unseen": "?",
    "free": "·",
}
"""The pattern of each part: read without colour, and the same in the bar, the graph and the legend."""

OFF = 0.7
"""How much of muted text is left in what does nothing now."""

DEFAULT = "dark"


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """One theme file, checked."""

    name: str
    dark: bool
    ansi: bool
    colours: dict[str, str]
    parts: dict[str, str]
    inks: dict[str, str]


class Paint:
    """The styles of one palette; each holds both colours, so a cell never depends on its surroundings."""

    def __init__(self, palette: Palette, *, whole_cells: bool = False, colourless: bool = False) -> None:
        colour = {name: _rich(value) for name, value in palette.colours.items()}
        self.palette = palette
        self.whole_cells = whole_cells or colourless
        """Nothing ends within a cell: there is no symbol for it, or no colour for what goes on above."""
        self.colourless = colourless
        """No colour reaches the terminal: bold, dim, reverse and the patterns tell things apart."""
        self.background = colour["background"]
        base = Style(color=colour["text"], bgcolor=self.background)
        # Where a theme leaves both to the terminal, dim is all that tells muted text from text.
        same = colourless or palette.colours["muted"] == palette.colours["text"]
        self.text = base
        self.bold = base + Style(bold=True)
        self.muted = Style(color=colour["muted"], bgcolor=self.background, dim=same or None)
        self.faint = Style(color=colour["faint"], bgcolor=self.background, dim=colourless or None)
        # What does nothing now: between the two, so that it can still be read.
        muted, back = palette.colours["muted"], palette.colours["background"]
        if not colourless and muted[0] == back[0] == "#":
            self.off = Style(color=_blend(muted, back, OFF), bgcolor=self.background)
        else:
            self.off = self.faint
        self.focus = Style(color=colour["focus"], bgcolor=self.background, bold=colourless or None)
        self.focus_title = self.focus + Style(bold=True)
        self.key = Style(color=colour["key"], bgcolor=self.background, bold=True)
        self.wait = Style(color=colour["wait"], bgcolor=self.background)
        self.proof = Style(color=colour["proof"], bgcolor=self.background, bold=True)
        self.error = Style(color=colour["error"], bgcolor=self.background, bold=True)
        self.alarm = Style(color=_rich(palette.parts["unseen"]), bgcolor=self.background, bold=True)
        self.ours = Style(color=_rich(palette.parts["weights"]), bgcolor=self.background, bold=True)
        self.bar = Style(color=_rich(palette.parts["weights"]), bgcolor=self.background)
        self.chosen_tab = Style(color=colour["background"], bgcolor=colour["focus"], bold=True)
        if palette.ansi or colourless:
            self.chosen_tab = base + Style(reverse=True, bold=True)
        self.selected = colour["selected"]
        self.fill = {part: _rich(value) for part, value in palette.parts.items()}
        """Of each part where it ends within a cell, which leaves no room for its pattern."""
        self.part = {
            part: Style(color=_rich(palette.inks[part]), bgcolor=_rich(value))
            for part, value in palette.parts.items()
        }
        # These patterns are blocks themselves: the part's colour is their foreground.
        for block in ("weights", "live", "cache"):
            self.part[block] = Style(color=_rich(palette.parts[block]), bgcolor=_rich(palette.inks[block]))
        self.part["free"] = self.faint
        # A neighbour's name: in the part's colour or its ink, whichever stands out more.
        named = _farther(palette.colours["background"], palette.parts["others"], palette.inks["others"])
        self.others = Style(color=_rich(named), bgcolor=self.background)

    def upon_selection(self, style: Style) -> Style:
        """`style` as it looks in the selected row."""
        if self.palette.ansi:
            # None of the terminal's colours lies well under all others; its own two do, upside down.
            return _upside_down(style, self.text)
        return _reversed(style) if self.colourless else _upon(style, self.selected)

    def upon_cursor(self, style: Style) -> Style:
        """`style` as it looks in the column that the cursor is on."""
        return _upon_cursor(style, self.text)

    def edge(self, lower: str, upper: str | None) -> Style:
        """For a cell whose lower eighths are one part and whose rest is another, or nothing."""
        return _edge(self.fill[lower], self.background if upper is None else self.fill[upper])


@lru_cache(512)
def _upon(style: Style, background: str) -> Style:
    return style + Style(bgcolor=background)


@lru_cache(512)
def _reversed(style: Style) -> Style:
    return style + Style(reverse=True)


@lru_cache(512)
def _upside_down(style: Style, text: Style) -> Style:
    return text + Style(reverse=True, bold=style.bold)


@lru_cache(512)
def _upon_cursor(style: Style, line: Style) -> Style:
    return style + Style(color=line.color, bold=True)


@lru_cache(512)
def _edge(lower: str, upper: str) -> Style:
    return Style(color=lower, bgcolor=upper)


def greyed(palette: Palette) -> Palette:
    """The palette for a picture that may be old: everything but what waits or fails steps back."""
    back = palette.colours["background"]
    kept = ("background", "selected", "wait", "error", "focus")

    def step_back(colour: str) -> str:
        if colour[0] == back[0] == "#":
            return _blend(colour, back, 0.45)
        return "ansi_bright_black" if colour != "ansi_black" else colour

    return Palette(
        name=palette.name,
        dark=palette.dark,
        ansi=palette.ansi,
        colours={k: v if k in kept else step_back(v) for k, v in palette.colours.items()},
        parts={name: step_back(value) for name, value in palette.parts.items()},
        inks={name: step_back(value) for name, value in palette.inks.items()},
    )


def _blend(upper: str, lower: str, share: float) -> str:
    """`share` of one `#rrggbb` over another."""
    mixed = (
        round(int(upper[place : place + 2], 16) * share + int(lower[place : place + 2], 16) * (1 - share))
        for place in (1, 3, 5)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _farther(background: str, one: str, other: str) -> str:
    """Of two colours the one whose brightness differs more; the first where the terminal decides."""

    def brightness(colour: str) -> int:
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        return 299 * red + 587 * green + 114 * blue

    if not background[0] == one[0] == other[0] == "#":
        return one
    return max(one, other, key=lambda colour: abs(brightness(colour) - brightness(background)))


def _rich(colour: str) -> str:
    """A colour of a theme file in Rich's words."""
    return colour.removeprefix("ansi_")


def read_palette(path: Path) -> Palette:
    """The palette in `path`.

    Raises:
        InvalidRequest: the file cannot be read, or a colour is missing, unknown or malformed.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"theme {path} cannot be read: {error}") from error
    sections = {
        "colours": _section(path, table, "colours", COLOURS),
        "parts": _section(path, table, "parts", PARTS),
        "inks": _section(path, table, "inks", PARTS),
    }
    name = table.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f'theme {path} has no usable name; write name = "{path.stem}"')
    return Palette(
        name=name, dark=bool(table.get("dark", True)), ansi=bool(table.get("ansi", False)), **sections
    )


def _section(path: Path, table: dict[str, Any], section: str, known: tuple[str, ...]) -> dict[str, str]:
    given = table.get(section)
    if not isinstance(given, dict):
        raise InvalidRequest(f"theme {path} has no section [{section}]")
    if wrong := sorted(set(given) ^ set(known)):
        problem = "sets unknown" if wrong[0] in given else "lacks"
        raise InvalidRequest(f"theme {path} {problem} {section}.{wrong[0]}; it takes {', '.join(known)}")
    for key, value in given.items():
        if not isinstance(value, str) or not _is_colour(value):
            raise InvalidRequest(
                f'theme {path} sets {section}.{key} to {value!r}; write "#rrggbb" or "ansi_blue" and the like'
            )
    return given


_ANSI_NAMES = frozenset(
    f"ansi_{bright}{name}"
    for bright in ("", "bright_")
    for name in ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
) | {"ansi_default"}


def _is_colour(value: str) -> bool:
    if value in _ANSI_NAMES:
        return True
    return len(value) == 7 and value[0] == "#" and all(digit in hexdigits for digit in value[1:])


def theme_folders(config: Path | None = None) -> tuple[Path, ...]:
    """Where theme files lie; a later folder's theme replaces an earlier one of the same name."""
    package = Path(__file__).parent
    shipped = package / "themes"
    if not shipped.is_dir():
        # A checkout keeps them at its top, where people look for them.
        shipped = package.parent / "themes"
    return (shipped,) if config is None else (shipped, config / "themes")


def theme_files(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Theme name (the file's stem) to its file."""
    found: dict[str, Path] = {}
    for folder in folders:
        found |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return found


def textual_theme(palette: Palette, *, colourless: bool = False) -> Theme:
    """The palette for Textual's own widgets: inputs, the palette of commands, dialogs.

    `colourless` where no colour reaches the terminal.
    """
    from textual.theme import Theme

    colours, parts = palette.colours, palette.parts
    variables = {
        "faint": colours["faint"],
        "muted": colours["muted"],
        "selected": colours["selected"],
        "input-cursor-background": colours["text"],
        "input-cursor-foreground": colours["background"],
        "input-selection-background": colours["selected"],
    }
    if palette.ansi:
        # What Textual asks of a theme that leaves colours to the terminal.
        variables |= {
            "ansi-background": "ansi_black",
            "ansi-foreground": "ansi_white",
            "border-blurred": "ansi_bright_black",
            "block-cursor-foreground": "ansi_black",
            "block-cursor-background": "ansi_white",
            "input-cursor-background": "ansi_white",
            "input-cursor-foreground": "ansi_black",
            "input-cursor-text-style": "none",
            "input-selection-foreground": "ansi_black",
            "screen-selection-background": colours["selected"],
            "screen-selection-foreground": "ansi_black",
        }
    if colourless:
        variables |= {"input-cursor-text-style": "reverse", "block-cursor-text-style": "reverse"}
    return Theme(
        name=palette.name,
        primary=colours["focus"],
        secondary=parts["weights"],
        accent=colours["key"],
        warning=colours["wait"],
        error=parts["unseen"],
        success=colours["proof"],
        foreground=colours["text"],
        background=colours["background"],
        surface=colours["background"],
        panel=colours["raised"],
        boost="ansi_default" if palette.ansi else None,
        dark=palette.dark,
        ansi=palette.ansi,
        variables=variables,
    )
