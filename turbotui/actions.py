"""Owns the list of everything a person can do: id, keys, where it applies and how careful it must be.

Bindings, the key line, the help screen and the palette are made from this one list, so that they
cannot disagree. The id is also the name under `[console.keys]` in config.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Place = Literal["everywhere", "lists", "models", "queue", "history", "log"]
Tier = Literal["look", "routine", "dangerous"]

PLACES: tuple[Place, ...] = ("everywhere", "lists", "models", "queue", "history", "log")

FULL_WIDTH = {
    "!": "！", '"': "＂“”", "#": "＃", "$": "＄￥", "%": "％", "&": "＆", "'": "＇‘’", "(": "（", ")": "）",
    "*": "＊", "+": "＋", ",": "，", "-": "－", ".": "。．", "/": "／、", ":": "：", ";": "；", "<": "＜《",
    "=": "＝", ">": "＞》", "?": "？", "@": "＠", "[": "［【", "\\": "＼", "]": "］】", "^": "＾", "_": "＿",
    "`": "｀·", "{": "｛", "|": "｜", "}": "｝", "~": "～", "0": "０",
}  # fmt: skip
"""What Chinese and Japanese input methods type for the same key; some type more than one thing."""


def twins_of(key: str) -> tuple[str, ...]:
    """What an input method may send in a key's place."""
    return tuple(FULL_WIDTH.get(key, ""))


def half_width(character: str | None) -> str | None:
    """The key that a character stands for."""
    return next((key for key, twins in FULL_WIDTH.items() if character and character in twins), character)


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One thing to do. Its label and help are `action.<id>` and `help.<id>` in the catalogue."""

    id: str
    keys: tuple[str, ...]
    place: Place = "everywhere"
    tier: Tier = "look"
    """`look` changes nothing; `routine` acts at once; `dangerous` asks first."""
    in_palette: bool = True
    without_engine: bool = False
    """Whether it is there to help when no engine answers."""

    @property
    def shown_key(self) -> str:
        return KEY_SIGNS.get(self.keys[0], self.keys[0])


KEY_SIGNS = {
    "enter": "↵",
    "escape": "esc",
    "down": "↓",
    "up": "↑",
    "home": "Home",
    "end": "End",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "left": "←",
    "right": "→",
}


ACTIONS: tuple[Action, ...] = (
    Action(id="switch", keys=("m",), tier="routine"),
    Action(id="previous", keys=("'",), tier="routine"),
    Action(id="add", keys=("a",), tier="routine"),
    Action(id="unload", keys=("u",), tier="routine"),
    Action(id="free", keys=("f",), tier="routine"),
    Action(id="park", keys=("P",), tier="routine"),
    Action(id="cancel", keys=("x",), tier="routine"),
    Action(id="cancel_switch", keys=("ctrl+x",), tier="routine"),
    Action(id="resume_queue", keys=("o",), tier="routine"),
    Action(id="demo", keys=("D",), tier="routine"),
    Action(id="hard_cleanup", keys=("C",), tier="dangerous"),
    Action(id="kill", keys=("K",), tier="dangerous"),
    Action(id="reset", keys=("R",), tier="dangerous"),
    Action(id="restart", keys=("E",), tier="dangerous", without_engine=True),
    Action(id="full_cleanup", keys=("X",), tier="dangerous"),
    Action(id="sheet", keys=("!",)),
    Action(id="audit", keys=("t",)),
    Action(id="leaks", keys=("l",)),
    Action(id="findings", keys=("c",)),
    Action(id="found", keys=("i",)),
    Action(id="report", keys=("w",)),
    Action(id="last_receipt", keys=(".",)),
    Action(id="copy", keys=("y",)),
    Action(id="pause", keys=("p",)),
    Action(id="palette", keys=(":", "ctrl+p"), in_palette=False),
    Action(id="help", keys=("?",)),
    Action(id="panel_1", keys=("1",), in_palette=False),
    Action(id="panel_2", keys=("2",), in_palette=False),
    Action(id="panel_3", keys=("3",), in_palette=False),
    Action(id="panel_4", keys=("4",), in_palette=False),
    Action(id="panel_5", keys=("5",), in_palette=False),
    Action(id="panel_6", keys=("6",), in_palette=False),
    Action(id="gpu_previous", keys=("[",)),
    Action(id="gpu_next", keys=("]",)),
    Action(id="next_panel", keys=("tab",), in_palette=False),
    Action(id="previous_panel", keys=("shift+tab",), in_palette=False),
    Action(id="back", keys=("escape",), in_palette=False),
    Action(id="quit", keys=("q",)),
    Action(id="leave", keys=("ctrl+c", "ctrl+q"), in_palette=False),
    Action(id="suspend", keys=("ctrl+z",), in_palette=False),
    Action(id="mouse", keys=("M",)),
    Action(id="guide", keys=("H",)),
    Action(id="down", keys=("j", "down"), place="lists", in_palette=False),
    Action(id="up", keys=("k", "up"), place="lists", in_palette=False),
    Action(id="first", keys=("g", "home"), place="lists", in_palette=False),
    Action(id="last", keys=("G", "end"), place="lists", in_palette=False),
    Action(id="half_down", keys=("ctrl+d", "pagedown"), place="lists", in_palette=False),
    Action(id="half_up", keys=("ctrl+u", "pageup"), place="lists", in_palette=False),
    Action(id="open", keys=("enter",), place="lists", in_palette=False),
    Action(id="warm", keys=("W",), place="models", tier="routine"),
    Action(id="quantize", keys=("8",), place="models", tier="routine"),
    Action(id="retry", keys=("r",), place="queue", tier="routine"),
    Action(id="duplicate", keys=("d",), place="queue", tier="routine"),
    Action(id="edit_again", keys=("e",), place="queue", tier="routine"),
    Action(id="hold", keys=("h",), place="queue", tier="routine"),
    Action(id="sooner", keys=("+",), place="queue", tier="routine"),
    Action(id="later", keys=("-",), place="queue", tier="routine"),
    Action(id="video", keys=("v",), place="queue"),
    Action(id="fetch", keys=("V",), place="queue"),
    Action(id="axis", keys=("z",), place="history"),
    Action(id="past_earlier", keys=("left",), place="history", in_palette=False),
    Action(id="past_later", keys=("right",), place="history", in_palette=False),
    Action(id="past_event", keys=("<",), place="history", in_palette=False),
    Action(id="next_event", keys=(">",), place="history", in_palette=False),
    Action(id="now", keys=("0",), place="history", in_palette=False),
    Action(id="zoom_out", keys=("(",), place="history"),
    Action(id="zoom_in", keys=(")",), place="history"),
    Action(id="filter", keys=("/",), place="log"),
    Action(id="all_lines", keys=("A",), place="log"),
    Action(id="follow", keys=("F",), place="log"),
    Action(id="next_match", keys=("n",), place="log", in_palette=False),
    Action(id="previous_match", keys=("N",), place="log", in_palette=False),
    Action(id="log_file", keys=("L",), place="log"),
)

BY_ID: Mapping[str, Action] = {action.id: action for action in ACTIONS}

KEY_LINE_HEAD = ("switch", "previous", "add", "unload", "free", "cancel")
KEY_LINE_PAST = ("past_earlier", "past_later", "past_event", "next_event", "now", "zoom_out", "zoom_in")
"""What it begins with while the picture is of a moment that is over."""
KEY_LINE_TAIL = ("leaks", "palette", "help", "quit")
KEY_LINE_HERE: Mapping[str, tuple[str, ...]] = {
    "memory": ("free", "findings", "sheet", "hard_cleanup", "park", "pause"),
    "history": ("past_earlier", "past_event", "zoom_out", "axis", "pause"),
    "models": ("unload", "warm", "open", "copy", "found"),
    "queue": (
        "open",
        "video",
        "cancel",
        "retry",
        "duplicate",
        "edit_again",
        "hold",
        "sooner",
        "later",
        "copy",
    ),
    "card": ("open", "kill", "findings", "sheet", "hard_cleanup", "park", "pause"),
    "log": ("filter", "all_lines", "follow", "log_file", "open", "copy"),
}
"""What the key line offers between head and tail, by the panel that has the focus; what the head has
already stands there."""
FRAME_SAYS = frozenset({"history", "log"})
"""Panels that say their own keys in their frames."""
KEY_LINE_FIRST = 3
"""So many of another panel's own keys stay where there is no room for all."""


def key_line(place: str, *, past: bool) -> tuple[tuple[str, int], ...]:
    """Ids of the actions below panel `place`, left to right, each with its rank: the lowest go last."""
    here = KEY_LINE_HERE.get(place, ())
    names: tuple[str, ...]
    first = () if place in FRAME_SAYS else here[:KEY_LINE_FIRST]
    if past:
        here, first, names = (), (), (*KEY_LINE_PAST, *KEY_LINE_HEAD, *KEY_LINE_TAIL)
    else:
        names = (*KEY_LINE_HEAD, *(name for name in here if name not in KEY_LINE_HEAD), *KEY_LINE_TAIL)
    ranks = dict.fromkeys(here, 3) | dict.fromkeys(KEY_LINE_HEAD, 2)
    ranks |= dict.fromkeys((*first, *(KEY_LINE_PAST if past else ())), 1) | dict.fromkeys(KEY_LINE_TAIL, 0)
    return tuple((name, ranks[name]) for name in names)


def bound_keys(action: Action) -> str:
    """Its keys in Textual's notation, with their full-width twins."""
    keys = list(action.keys)
    keys += [twin for key in action.keys for twin in twins_of(key)]
    return ",".join(_spelled(key) for key in keys)


def _spelled(key: str) -> str:
    # A lone character is a key to Textual too, but for the comma that separates keys.
    return {",": "comma"}.get(key, key)
