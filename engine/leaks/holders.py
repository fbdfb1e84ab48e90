"""What people call a holder, and what one thing holds: the same name and place are one holder to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from msgspec import structs

from engine.wire import Holder
from engine.worker.leaks.facts import LiveTensors

Key: TypeAlias = tuple[object, ...]


def held_by(holder: Holder, *, running: bool = False) -> str:
    """The kind of a holder, in words; `running` where only a call that runs holds it."""
    if running:
        return "a call that has not ended"
    words = {
        "global": "a module's variable",
        "attribute": "an object's attribute",
        "closure": "a function's closure",
        "hook": "a module's hook",
        "traceback": "an exception's traceback",
        "generator": "a generator that was not ended",
        "cycle": "a cycle of objects",
        "cache": "a cache in Python",
        "none": "nothing in Python",
    }
    return words[holder.kind]


def named(holder: Holder) -> str:
    """What of its path a person looks for: `preview.STORE`, `hook of WanBlock`, `local scaled of _check`."""
    # A place in a list or a key of a table is no name.
    steps = [step for step in holder.path if not step.startswith("[") and step != "..."]
    if not steps:
        return held_by(holder)
    first, last = steps[0], steps[-1]
    if holder.kind == "cycle":
        return first.removeprefix("a cycle of ")
    if holder.kind in ("global", "cache") and first.startswith("module ") and len(steps) > 1:
        return f"{first.removeprefix('module ')}.{steps[1].removeprefix('.')}"
    if holder.kind == "hook":
        return next((step for step in steps if step.startswith("hook of ")), last)
    if len(steps) == 2 and first.startswith("class "):
        return f"{first.removeprefix('class ')}.{last}"
    return steps[-2] + last if last.startswith(".") and len(steps) > 1 else last


def holder_key(holder: Holder) -> Key:
    """What makes it the same holder, wherever in its lists and chains something lies."""
    return (holder.kind, named(holder), holder.file, holder.line)


def merged(items: Iterable[LiveTensors]) -> tuple[LiveTensors, ...]:
    """One for each holder: objects that each have a tensor of their own in one list would be told one by one.

    Of what nobody in Python holds only the line that made it tells one from another.
    """
    found: dict[Key, LiveTensors] = {}
    for item in items:
        site = item.site if item.holder.kind == "none" else None
        made = None if site is None else (site.file, site.line)
        key = (*holder_key(item.holder), item.place, item.pinned, item.running, made)
        before = found.get(key)
        if before is not None:
            known = before if before.site is not None else item
            item = structs.replace(
                max(before, item, key=lambda one: one.bytes),
                bytes=before.bytes + item.bytes,
                storages=before.storages + item.storages,
                site=known.site,
                site_reason=known.site_reason,
            )
        found[key] = item
    return tuple(found.values())
