"""Owns what a line of this engine's own file tells of memory: a JSON record, whose text has the figures."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec

from engine.wire import LogLine
from turbotui.foreign.events import ForeignEvent, ForeignModel, size

_SIZE = r"(\d+(?:\.\d+)?) ([KMGT]iB|B)\b"
_GIVES_BACK = ("unload", "park", "cleanup", "full_cleanup", "free", "collect")
_USED_OF = re.compile(rf": {_SIZE} of {_SIZE} \((\d+(?:\.\d+)?) % used\)")
_MODEL = re.compile(r"([^();]+) \(([^()]*)\)")
_PART = re.compile(rf"(\S+) (loaded|loading|unloaded)(?: {_SIZE})?")
_HOLDS = re.compile(rf"this worker holds {_SIZE} of {_SIZE}")
_LACKS = re.compile(rf"needs {_SIZE} of the budget of {_SIZE} and lacks {_SIZE}")


def read_record(text: str) -> ForeignEvent | None:
    """What the record tells; None where it is none of ours, or tells nothing of memory."""
    try:
        line = msgspec.json.decode(text, type=LogLine)
    except msgspec.DecodeError:
        return None
    event = _event(line)
    return None if event is None else replace(event, at=line.at)


def _event(line: LogLine) -> ForeignEvent | None:
    if (short := _LACKS.search(line.text)) is not None:
        asked, whole, lacks = (_bytes(short, place) for place in (1, 3, 5))
        return ForeignEvent(
            kind="oom", asked_bytes=asked, total_bytes=whole, free_bytes=max(0, asked - lacks)
        )
    if "had no memory left while" in line.text:
        holds = _HOLDS.search(line.text)
        if holds is None:
            return ForeignEvent(kind="oom")
        return ForeignEvent(kind="oom", process_bytes=_bytes(holds, 1), total_bytes=_bytes(holds, 3))
    match line.event:
        case "background":
            return _background(line.text)
        case "engine" if re.match(r"engine \S+ starts, pid", line.text):
            return ForeignEvent(kind="started")
        case "job" if line.text.startswith("done: "):
            return ForeignEvent(kind="job")
        case "load" | "switch" if line.level == "info":
            return ForeignEvent(
                kind="loaded",
                model=line.text.partition(",")[0],
                used_bytes=_after(rf"{_SIZE} in\b", line.text),
            )
        case name if name in _GIVES_BACK and line.level == "info":
            return ForeignEvent(
                kind="cleared" if name in ("free", "collect") else "unloaded",
                model=line.text.partition(",")[0],
                expected_bytes=_after(rf"expected back {_SIZE}", line.text),
                returned_bytes=_after(rf", back {_SIZE}", line.text),
                residue_bytes=_after(rf"residue {_SIZE}", line.text),
            )
    return None


def _background(text: str) -> ForeignEvent | None:
    if (used := _USED_OF.search(text)) is not None:
        return ForeignEvent(
            kind="memory",
            used_bytes=_bytes(used, 1),
            total_bytes=_bytes(used, 3),
            share=float(used[5]) / 100,
        )
    head, _, rest = text.partition(": ")
    if head == "Active models":
        models = tuple(
            ForeignModel(
                name=name.strip(),
                parts=tuple((part, state != "unloaded") for part, state, *_size in _PART.findall(inside)),
            )
            for name, inside in _MODEL.findall(rest)
        )
        return ForeignEvent(kind="models", models=models)
    if head == "Cache status":
        return ForeignEvent(kind="cache", used_bytes=_after(rf"^{_SIZE} on the device", rest))
    return None


def _bytes(found: re.Match[str], place: int) -> int:
    number, unit = found[place], found[place + 1]
    return round(float(number)) if unit == "B" else size(number, unit)


def _after(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return None if found is None else _bytes(found, 1)
