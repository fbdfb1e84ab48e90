"""The figures of `turbotui bench switch`: what each must reach, and how runs become one row."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from engine.errors import InvalidRequest, StorageUnusable

MIB = 2**20

Unit: TypeAlias = Literal["s", "GB/s", "B", ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a figure must reach."""

    title: str
    unit: Unit
    limit: float | None
    """None where a figure is told and not judged."""
    more_is_better: bool = False
    everywhere: bool = False
    """Whether it binds on any device and with toy models; speeds bind with real sizes on a GPU only."""


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "unload": Target(title="soft unload of the large DiT, proved", unit="s", limit=0.035),
        "load_registered": Target(
            title="warm load of the large DiT, registered", unit="GB/s", limit=50, more_is_better=True
        ),
        "load_page_cache": Target(
            title="its first load, page cache only", unit="GB/s", limit=40, more_is_better=True
        ),
        "load_cold": Target(
            title="its load from the disk, nothing cached", unit="GB/s", limit=None, more_is_better=True
        ),
        "switch_small_large": Target(title="switch small -> large", unit="s", limit=0.70),
        "switch_large_small": Target(title="switch large -> small", unit="s", limit=0.70),
        "switch_large_two": Target(title="switch large -> both experts", unit="s", limit=1.3),
        "first_step_cached": Target(
            title="request to first step computing, prompt seen before", unit="s", limit=0.15
        ),
        "first_step_new": Target(title="request to first step computing, new prompt", unit="s", limit=0.45),
        "cleanup": Target(title="cleanup: fresh worker with the large model loaded", unit="s", limit=1.5),
        "expert_swap": Target(
            title="expert swap: extra time of the two steps around it", unit="s", limit=0.05
        ),
        "growth_first_jobs": Target(
            title="VRAM over the floor after the first job of each kind", unit="B", limit=16 * MIB
        ),
        "switch_peak": Target(
            title="peak VRAM of a switch over the larger of its two models", unit="B", limit=256 * MIB
        ),
        "failures": Target(title="switches that failed", unit="", limit=0, everywhere=True),
        "drift_vram": Target(title="drift of the worker's VRAM over them", unit="B", limit=2 * MIB),
        "drift_rss": Target(
            title="drift of the worker's own host memory", unit="B", limit=64 * MIB, everywhere=True
        ),
        "weights_left": Target(title="weights after unload of all", unit="B", limit=0, everywhere=True),
        "outputs_changed": Target(
            title="models whose frames changed over the cycles", unit="", limit=0, everywhere=True
        ),
        "outputs_alike": Target(
            title="models whose frames are those of another", unit="", limit=0, everywhere=True
        ),
    }
)
"""By row name, in the order in which the rows are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure beside what it must reach and what the usual way takes."""

    name: str
    title: str
    value: float | None
    """The median of its runs; None when it was not measured, with why in `note`."""
    worst: float | None
    unit: Unit
    target: float | None
    """None where it does not bind, such as for speeds of toy models."""
    ok: bool | None
    """None where there is no target; a figure that could not be measured for an error is not ok."""
    baseline: float | None = None
    """The usual way's median, in the same unit and run."""
    baseline_note: str = ""
    """What that way is."""
    runs: int = 0
    receipt: float | None = None
    """The median by the engine's own receipts, where `value` is from request to receipt."""
    drift_bytes: int | None = None
    """What the worker holds more after the runs than before them, everything unloaded both times:
    on the GPU, or without one its own host memory."""
    cached_share: float | None = None
    """Of the files' bytes, before the runs: in the page cache."""
    registered_share: float | None = None
    """The same, registered with the driver."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Residency:
    """Where the weight files were before the runs, as shares of their bytes; None: not known."""

    cached_share: float | None = None
    registered_share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """The usual way's figure."""

    value: float
    way: str


def measured(
    name: str,
    values: Sequence[float],
    *,
    judged: bool,
    receipts: Sequence[float] = (),
    plain: Plain | None = None,
    drift_bytes: int | None = None,
    residency: Residency | None = None,
    note: str = "",
) -> Row:
    """The row called `name` from its runs; `judged` says whether targets of speed bind.

    Raises:
        ValueError: there are no values.
    """
    target = TARGETS[name]
    if not values:
        raise ValueError(f"the row {name} has no runs")
    limit = target.limit if judged or target.everywhere else None
    value = statistics.median(values)
    known = residency or Residency()
    return Row(
        name=name,
        title=target.title,
        value=value,
        worst=min(values) if target.more_is_better else max(values),
        unit=target.unit,
        target=limit,
        ok=None if limit is None else reaches(value, limit, more_is_better=target.more_is_better),
        baseline=None if plain is None else plain.value,
        baseline_note="" if plain is None else plain.way,
        runs=len(values),
        receipt=statistics.median(receipts) if receipts else None,
        drift_bytes=drift_bytes,
        cached_share=known.cached_share,
        registered_share=known.registered_share,
        note=note,
    )


def unmeasured(name: str, why: str, *, failed: bool = False) -> Row:
    """A row without a figure; `failed` when that is an error and not this host's nature."""
    target = TARGETS[name]
    return Row(
        name=name,
        title=target.title,
        value=None,
        worst=None,
        unit=target.unit,
        target=None,
        ok=False if failed else None,
        note=why,
    )


def reaches(value: float, limit: float, *, more_is_better: bool) -> bool:
    return value >= limit if more_is_better else value <= limit


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """All rows by name in the table's order; a new one takes an old one's place."""
    found = {row.name: row for row in [*old, *new]}
    order = {name: number for number, name in enumerate(TARGETS)}
    return sorted(found.values(), key=lambda row: order.get(row.name, len(order)))


def read_rows(path: Path) -> list[Row]:
    """The rows of an earlier run; none where the file is not there yet.

    Raises:
        InvalidRequest: it holds something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Row])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{path} does not hold rows of an earlier `bench switch` ({error}); name another file"
        ) from error


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Put `rows` into `path`, whole or not at all.

    Raises:
        StorageUnusable: it cannot be written.
    """
    write_file(path, msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")


def write_file(path: Path, data: bytes) -> None:
    """Put `data` into `path`, whole or not at all.

    Raises:
        StorageUnusable: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        raise StorageUnusable(f"{path} cannot be written: {error.strerror}; choose another file") from error
