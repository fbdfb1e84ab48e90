"""What happened: the engine's own events as the wire has them, and what only a recording tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeAlias

import msgspec

from engine.recording.format import LAST_MS
from engine.wire import EVENT_TYPES, DeviceProcess, Event, JobProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStarted:
    """A recording goes on under a new engine."""

    instance: str
    build: str
    pid: int
    host: str
    user: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStopped:
    """An engine ended on purpose; one that died leaves no such entry."""

    instance: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Nothing was read, or nothing could be kept, from `since` until this entry."""

    since: float
    reason: str
    device_id: str | None = None
    """None: of all of them, and of what happened too."""


NOT_RUN = "no engine ran"
"""The reason of the gap before an engine's first reading, from the last one of the engine before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessCame:
    """A process was seen on a device for the first time since this engine began."""

    device_id: str
    process: DeviceProcess
    already: bool = False
    """It was there when the engine began to look, or at a place from which a reader may begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessWent:
    """A process is on the device no more."""

    device_id: str
    process: DeviceProcess
    """As it was last seen."""
    came_at: float
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSeen:
    """A device was read for the first time, or is another than it was."""

    id: str
    kind: str
    index: int | None
    name: str
    total_bytes: int
    in_use: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class JobProgressed:
    """A running job came further; all else about it is as it was told last."""

    job_id: int
    progress: JobProgress


Own: TypeAlias = EngineStarted | EngineStopped | Gap | ProcessCame | ProcessWent | DeviceSeen | JobProgressed
Happening: TypeAlias = Own | Event

NAMES: dict[str, Any] = {
    "started": EngineStarted,
    "stopped": EngineStopped,
    "gap": Gap,
    "came": ProcessCame,
    "went": ProcessWent,
    "device": DeviceSeen,
    "progress": JobProgressed,
    **{
        name: EVENT_TYPES[name] for name in ("snapshot", "engine", "models", "job", "order", "receipt", "log")
    },
}
"""In the file; never given to another kind."""
_NAME_OF: dict[type, str] = {model: name for name, model in NAMES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, and when by the wall clock."""

    at: float
    what: Happening


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    at: float
    name: str
    data: msgspec.Raw


def name_of(what: Happening) -> str:
    """What an entry is called in the file."""
    return _NAME_OF[type(what)]


def is_kept(event: Event) -> bool:
    """Whether an event of the wire has a place in a recording."""
    return type(event) in _NAME_OF


def pack_entries(entries: Iterable[Entry]) -> bytes:
    return msgspec.msgpack.encode(
        [
            _Packed(entry.at, name_of(entry.what), msgspec.Raw(msgspec.msgpack.encode(entry.what)))
            for entry in entries
        ]
    )


def unpack_entries(payload: bytes, names: frozenset[str] | None = None) -> tuple[list[Entry], int]:
    """The entries of a payload, and how many of them another build wrote in a way we do not read.

    With `names`, only those called so in the file: what is not wanted is not unpacked.

    Raises:
        ValueError: it is no payload of entries.
    """
    found: list[Entry] = []
    unread = 0
    for packed in _packed.decode(payload):
        if names is not None and packed.name not in names:
            continue
        model = NAMES.get(packed.name)
        try:
            if model is None or not is_moment(packed.at) or not _is_sane(msgspec.msgpack.decode(packed.data)):
                raise ValueError(packed.name)
            found.append(Entry(packed.at, msgspec.msgpack.decode(packed.data, type=model)))
        except ValueError:  # msgspec's errors are ValueErrors
            unread += 1
    return found, unread


def is_moment(at: float) -> bool:
    return 0 <= at * 1000 < LAST_MS


def _is_sane(value: Any, key: str = "") -> bool:
    """Whether every figure can be shown: a copied file comes from anybody, and NaN is no time of day."""
    if isinstance(value, dict):
        return all(_is_sane(item, name) for name, item in value.items() if isinstance(name, str))
    if isinstance(value, list):
        return all(_is_sane(item) for item in value)
    if isinstance(value, (int, float)) and (key in ("at", "since") or key.endswith("_at")):
        return is_moment(value)
    return not isinstance(value, float) or isfinite(value)


_packed = msgspec.msgpack.Decoder(list[_Packed])
