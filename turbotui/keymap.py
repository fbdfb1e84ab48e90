"""Owns the person's keys: which action each is of, and what of them cannot be meant.

A mistake costs the key that it is made with, and no other: it is named and left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from textual.keys import KEY_NAME_REPLACEMENTS, KEY_TO_UNICODE_NAME, Keys, _character_to_key

from turbotui.actions import ACTIONS, BY_ID, Place, twins_of
from turbotui.text import t

ALWAYS_LEAVE = ("ctrl+c", "ctrl+q")
"""These leave from everywhere, whatever the person's keys are."""
_MODIFIERS = ("ctrl+", "shift+", "alt+", "super+", "hyper+", "meta+")
_NAMED = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values()) | set(KEY_TO_UNICODE_NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keymap:
    """What holds of the person's keys."""

    own: dict[str, str]
    """Action id to its keys, as they were written."""
    bound: dict[str, str]
    """The same in Textual's names, with their full-width twins."""
    problems: tuple[str, ...]
    """What was left out and why, a sentence each."""


def keymap(overrides: Mapping[str, str]) -> Keymap:
    """The person's keys by action id."""
    problems, own = [], dict(overrides)
    for name, keys in overrides.items():
        if name not in BY_ID:
            problems.append(t("keys.no_action", name=name))
        elif wrong := [key.strip() for key in keys.split(",") if not is_key(key.strip())]:
            problems.append(t("keys.no_key", name=name, sign=wrong[0]))
        else:
            continue
        del own[name]
    while (clash := _clash(own)) is not None:
        # The one that was written last gives way; what it gets back instead is looked at again.
        key, one, other = clash
        givers = [name for name in (one, other) if key in map(_named, own.get(name, "").split(","))]
        loser = max(givers, key=list(own).index)
        winner = other if loser == one else one
        problems.append(t("keys.taken", sign=key, name=loser, other=winner))
        del own[loser]
    bound = {name: ",".join(_with_twins(keys)) for name, keys in own.items()}
    return Keymap(own=own, bound=bound, problems=tuple(problems))


def is_key(name: str) -> bool:
    """Whether a terminal could send such a key."""
    while (modifier := next((one for one in _MODIFIERS if name.startswith(one)), None)) is not None:
        name = name.removeprefix(modifier)
    if len(name) == 1:
        return name.isprintable() and not name.isspace()
    if name.lower() in _NAMED:
        return True
    try:
        return bool(name) and bool(unicodedata.lookup(name.replace("_", " ").upper()))
    except KeyError:
        return False


def _clash(own: Mapping[str, str]) -> tuple[str, str, str] | None:
    """A key that two actions would have in one place, where one of them is the person's."""
    keys_of = {
        action.id: set(map(_named, own[action.id].split(",") if action.id in own else action.keys))
        for action in ACTIONS
    }
    keys_of["leave"].update(ALWAYS_LEAVE)
    for one, other in combinations(ACTIONS, 2):
        both = keys_of[one.id] & keys_of[other.id]
        if both and (one.id in own or other.id in own) and _meet(one.place, other.place):
            return min(both), one.id, other.id
    return None


def _with_twins(keys: str) -> list[str]:
    plain = [key.strip() for key in keys.split(",")]
    return [_named(key) for key in [*plain, *(twin for key in plain for twin in twins_of(key))]]


def _named(key: str) -> str:
    key = key.strip()
    return _character_to_key(key) if len(key) == 1 else key


def _meet(one: Place, other: Place) -> bool:
    """Whether keys of both places do something at once: each panel is a list but has keys of its own."""
    return one == other or "everywhere" in (one, other) or "lists" in (one, other)
