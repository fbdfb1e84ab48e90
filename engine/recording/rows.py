"""What a device's memory did in a span: smallest and largest figure of each thing that was read.

A row of no width is one reading. In a block the rows of a device lie as columns of differences,
which are mostly 0 and so cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import msgspec

from engine.wire import DeviceStatus

Key: TypeAlias = tuple[str, str, str, int | None]
"""Kind, owner, label and pid of a balance's part; or one of the kinds below."""

TOTAL: Key = ("#total", "", "", None)
UNEXPLAINED: Key = ("#unexplained", "", "", None)
MOVING: Key = ("#moving", "", "", None)
"""1 where the reading was not coherent."""
UTILISATION: Key = ("#utilisation", "", "", None)
TEMPERATURE: Key = ("#temperature", "", "", None)
POWER_W: Key = ("#power", "", "", None)
PROCESS = "#process"
"""Kind of what a process holds by the list of processes, whichever part that belongs to."""

MANY = frozenset({"weights", "process"})
"""Kinds of which a device has several parts."""
SUM = "#sum"
"""Of all parts of the kind that is its label: their largest figures need not fall together."""

Range: TypeAlias = tuple[int, int]
"""Smallest and largest."""


@dataclass(frozen=True, slots=True)
class Row:
    """One span of one device."""

    device_id: str
    at_ms: int
    """Its start, milliseconds since the epoch."""
    width_ms: int
    """0 for a single reading."""
    samples: int
    values: dict[Key, Range | None]
    """Bytes, but percent, degrees Celsius and watts; None for what was not known at all."""


class Columns(msgspec.Struct, array_like=True, frozen=True):
    """Rows of one device with the same keys; every list but `at_ms[0]` holds differences."""

    keys: tuple[Key, ...]
    width_ms: int
    at_ms: list[int]
    samples: list[int]
    low: list[list[int | None]]
    """By key, then by row."""
    spread: list[list[int]]
    """Largest less smallest; an empty list where they are the same throughout."""


def row_of(status: DeviceStatus) -> Row | None:
    """The reading in `status`; None where it has none."""
    balance = status.balance
    if balance is None:
        return None
    values: dict[Key, Range | None] = {
        TOTAL: (balance.total_bytes, balance.total_bytes),
        UNEXPLAINED: (balance.unexplained_bytes, balance.unexplained_bytes),
        MOVING: (0, 0) if balance.coherent else (1, 1),
    }
    sums: dict[str, int] = {}
    for part in balance.parts:
        if part.kind in MANY and part.bytes is not None:
            sums[part.kind] = sums.get(part.kind, 0) + part.bytes
        values[part.kind, part.owner, part.label, part.pid] = _point(part.bytes)
    for kind, figure in sums.items():
        values[SUM, "", kind, None] = (figure, figure)
    for process in status.processes:
        values[PROCESS, process.ours or "", process.name, process.pid] = _point(process.bytes)
    for key, gauge in (
        (UTILISATION, status.utilisation_percent),
        (TEMPERATURE, status.temperature_c),
        (POWER_W, None if status.power_w is None else round(status.power_w)),
    ):
        if gauge is not None:
            values[key] = (gauge, gauge)
    return Row(status.id, int(balance.taken_at * 1000), 0, 1, values)


def joined(rows: Sequence[Row], *, at_ms: int, width_ms: int) -> Row:
    """`rows` of one device as one: the smallest and largest of everything that any of them knows."""
    values: dict[Key, Range | None] = dict(rows[0].values)
    for row in rows[1:]:
        for key, value in row.values.items():
            old = values.get(key)
            if value is None:
                values.setdefault(key, None)
            elif old is None:
                values[key] = value
            elif old != value:
                values[key] = (min(old[0], value[0]), max(old[1], value[1]))
    return Row(rows[0].device_id, at_ms, width_ms, sum(row.samples for row in rows), values)


def pack_rows(rows: Iterable[Row]) -> bytes:
    """Rows of any devices, each device's in order of time, as one payload."""
    devices: dict[str, list[list[Row]]] = {}
    for row in rows:
        groups = devices.setdefault(row.device_id, [])
        last = groups[-1][-1] if groups else None
        if last is None or last.width_ms != row.width_ms or list(last.values) != list(row.values):
            groups.append([])
        groups[-1].append(row)
    return msgspec.msgpack.encode(
        {device_id: [_columns(group) for group in groups] for device_id, groups in devices.items()}
    )


def unpack_rows(payload: bytes, device_id: str | None = None) -> list[Row]:
    """The rows of a payload, or those of one device.

    Raises:
        ValueError: it is no payload of rows.
    """
    found: list[Row] = []
    for name, raw in _by_device.decode(payload).items():
        if device_id is None or name == device_id:
            for columns in _groups.decode(raw):
                found += _rows(name, columns)
    return found


_by_device = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_groups = msgspec.msgpack.Decoder(list[Columns])


def _columns(rows: list[Row]) -> Columns:
    keys = tuple(rows[0].values)
    low: list[list[int | None]] = []
    spread: list[list[int]] = []
    for key in keys:
        column = [row.values[key] for row in rows]
        low.append(_differences([None if value is None else value[0] for value in column]))
        wide = [0 if value is None else value[1] - value[0] for value in column]
        spread.append(wide if any(wide) else [])
    at = [row.at_ms for row in rows]
    return Columns(
        keys=keys,
        width_ms=rows[0].width_ms,
        at_ms=[at[0], *(later - earlier for earlier, later in pairwise(at))],
        samples=[row.samples for row in rows],
        low=low,
        spread=spread,
    )


def _rows(device_id: str, columns: Columns) -> list[Row]:
    count = len(columns.at_ms)
    if len(columns.samples) != count or not len(columns.keys) == len(columns.low) == len(columns.spread):
        raise ValueError("a block's columns are not of one length")
    lows = [_sums(column) for column in columns.low]
    at = 0
    found = []
    for number in range(count):
        at += columns.at_ms[number]
        values: dict[Key, Range | None] = {}
        for key, low, spread in zip(columns.keys, lows, columns.spread, strict=True):
            if len(low) != count or (spread and len(spread) != count):
                raise ValueError("a block's columns are not of one length")
            figure = low[number]
            values[key] = None if figure is None else (figure, figure + (spread[number] if spread else 0))
        found.append(Row(device_id, at, columns.width_ms, columns.samples[number], values))
    return found


def _differences(figures: list[int | None]) -> list[int | None]:
    before, found = 0, list[int | None]()
    for figure in figures:
        found.append(None if figure is None else figure - before)
        before = before if figure is None else figure
    return found


def _sums(differences: list[int | None]) -> list[int | None]:
    before, found = 0, list[int | None]()
    for step in differences:
        before += step or 0
        found.append(None if step is None else before)
    return found


def _point(figure: int | None) -> Range | None:
    return None if figure is None else (figure, figure)
