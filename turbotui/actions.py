"""Owns the list of everything a person can do: id, keys, where it applies and how careful it must be.

Bindings, the key line, the help screen and the palette are made from this one list, so that they
cannot disagree. The id is also the name under `[console.keys]` in config.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from textual.keys import _character_to_key

from engine.errors import InvalidRequest

Place = Literal["everywhere", "lists", "models", "queue", "history", "log"]
Tier = Literal["look", "routine", "dangerous"]

PLACES: tuple[Place, ...] = ("everywhere", "lists", "models", "queue", "history", "log")

FULL_WIDTH = {":": "：", "?": "？", "/": "／", "!": "！", ".": "。", "+": "＋", "-": "－", "'": "＇"}
"""What a Chinese or Japanese input method types for the same key."""


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
    Action(id="findings", keys=("l",)),
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
    Action(id="next_panel", keys=("tab",), in_palette=False),
    Action(id="previous_panel", keys=("shift+tab",), in_palette=False),
    Action(id="back", keys=("escape",), in_palette=False),
    Action(id="quit", keys=("q",)),
    Action(id="leave", keys=("ctrl+c", "ctrl+q"), in_palette=False),
    Action(id="down", keys=("j", "down"), place="lists", in_palette=False),
    Action(id="up", keys=("k", "up"), place="lists", in_palette=False),
    Action(id="first", keys=("g", "home"), place="lists", in_palette=False),
    Action(id="last", keys=("G", "end"), place="lists", in_palette=False),
    Action(id="half_down", keys=("ctrl+d", "pagedown"), place="lists", in_palette=False),
    Action(id="half_up", keys=("ctrl+u", "pageup"), place="lists", in_palette=False),
    Action(id="open", keys=("enter",), place="lists", in_palette=False),
    Action(id="warm", keys=("W",), place="models", tier="routine"),
    Action(id="retry", keys=("r",), place="queue", tier="routine"),
    Action(id="duplicate", keys=("d",), place="queue", tier="routine"),
    Action(id="hold", keys=("h",), place="queue", tier="routine"),
    Action(id="sooner", keys=("+",), place="queue", tier="routine"),
    Action(id="later", keys=("-",), place="queue", tier="routine"),
    Action(id="video", keys=("v",), place="queue"),
    Action(id="axis", keys=("z",), place="history"),
    Action(id="filter", keys=("/",), place="log"),
    Action(id="all_lines", keys=("A",), place="log"),
    Action(id="follow", keys=("F",), place="log"),
    Action(id="next_match", keys=("n",), place="log", in_palette=False),
    Action(id="previous_match", keys=("N",), place="log", in_palette=False),
    Action(id="log_file", keys=("L",), place="log"),
)

BY_ID: Mapping[str, Action] = {action.id: action for action in ACTIONS}

KEY_LINE_HEAD = ("switch", "previous", "add", "unload", "free", "cancel")
KEY_LINE_TAIL = ("findings", "palette", "help", "quit")
KEY_LINE_HERE: Mapping[str, tuple[str, ...]] = {
    "memory": ("sheet", "hard_cleanup", "park", "pause"),
    "history": ("axis", "pause"),
    "models": ("warm", "open", "copy"),
    "queue": ("open", "video", "retry", "duplicate", "hold", "sooner", "later", "copy"),
    "card": ("open", "kill", "sheet", "hard_cleanup", "park", "pause"),
    "log": ("filter", "all_lines", "follow", "log_file", "open", "copy"),
}
"""What the key line offers between head and tail, by the panel that has the focus; the last ones
go first where there is no room."""


def bound_keys(action: Action) -> str:
    """Its keys in Textual's notation, with their full-width twins."""
    keys = list(action.keys)
    keys += [FULL_WIDTH[key] for key in action.keys if key in FULL_WIDTH]
    return ",".join(_spelled(key) for key in keys)


def _spelled(key: str) -> str:
    # A lone character is a key to Textual too, but for the comma that separates keys.
    return {",": "comma"}.get(key, key)


ALWAYS_LEAVE = ("ctrl+c", "ctrl+q")
"""These leave from everywhere, whatever the person's keys are."""


def keymap(overrides: Mapping[str, str]) -> dict[str, str]:
    """The person's keys by binding id, in Textual's names.

    Raises:
        InvalidRequest: an id is no action, or a key is another action's in the same place too.
    """
    unknown = [name for name in overrides if name not in BY_ID]
    if unknown:
        known = ", ".join(sorted(BY_ID))
        raise InvalidRequest(f"[console.keys] names {', '.join(unknown)}, which is no action; known: {known}")
    own = {name: ",".join(map(_named, keys.split(","))) for name, keys in overrides.items()}
    keys_of = {
        action.id: set((own[action.id] if action.id in own else _default_keys(action)).split(","))
        for action in ACTIONS
    }
    keys_of["leave"].update(ALWAYS_LEAVE)
    for one, other in combinations(ACTIONS, 2):
        both = keys_of[one.id] & keys_of[other.id] - {""}
        if both and (one.id in own or other.id in own) and _meet(one.place, other.place):
            raise InvalidRequest(
                f"[console.keys] gives {', '.join(sorted(both))} to {one.id} and to {other.id}; "
                "give one of them another key"
            )
    return own


def _named(key: str) -> str:
    key = key.strip()
    return _character_to_key(key) if len(key) == 1 else key


def _default_keys(action: Action) -> str:
    return ",".join(map(_named, action.keys))


def _meet(one: Place, other: Place) -> bool:
    """Whether keys of both places do something at once: each panel is a list but has keys of its own."""
    return one == other or "everywhere" in (one, other) or "lists" in (one, other)
