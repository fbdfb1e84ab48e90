"""The recent history of each device's balance, at full rate, for as long as its ring goes back.

A picture has fewer columns than the ring has samples; each column keeps the smallest and the
largest value of every part, so that a spike between two frames still shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from engine.wire import Balance, PartKind

KINDS: tuple[PartKind, ...] = get_args(PartKind)
KEEP_S = 600.0
"""Ten minutes."""
KEEP_SAMPLES = 6600
"""Ten readings a second for KEEP_S and a little more: the bound on memory whatever the rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Smallest and largest bytes of one kind of part within a column."""

    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A span of time and what the parts did in it."""

    starts_at: float
    ends_at: float
    samples: int
    """How many readings fall into it; 0 is a gap, never a repeated value."""
    total_bytes: int | None
    parts: dict[PartKind, Range]
    """Parts of one kind together; a kind that was never known in the span is absent."""
    moving: int
    """How many of the readings were not coherent."""
    unexplained: Range | None


@dataclass(frozen=True, slots=True)
class _Sample:
    taken_at: float
    total_bytes: int
    coherent: bool
    unexplained_bytes: int
    sums: tuple[int | None, ...]
    """Bytes by kind, in the order of KINDS; None for a kind with no known part."""


class Recorder:
    """Keeps the balances of every device. One thread writes and reads."""

    def __init__(self, keep_s: float = KEEP_S, keep_samples: int = KEEP_SAMPLES) -> None:
        self._keep_s = keep_s
        self._keep_samples = keep_samples
        self._rings: dict[str, deque[_Sample]] = {}

    @property
    def device_ids(self) -> tuple[str, ...]:
        return tuple(self._rings)

    def record(self, balance: Balance) -> None:
        """Add the newest balance of its device; what is too old goes."""
        ring = self._rings.setdefault(balance.device_id, deque(maxlen=self._keep_samples))
        if ring and balance.taken_at < ring[-1].taken_at:
            # The wall clock was set back: older samples would lie in the future for ever.
            ring.clear()
        ring.append(_pack(balance))
        while ring[0].taken_at < balance.taken_at - self._keep_s:
            ring.popleft()

    def oldest_at(self, device_id: str) -> float | None:
        """When the oldest sample that is kept was taken; None without one."""
        ring = self._rings.get(device_id)
        return ring[0].taken_at if ring else None

    def history(self, device_id: str, seconds: float, columns: int) -> tuple[Column, ...]:
        """The last `seconds` up to the newest sample in `columns` equal spans, oldest first.

        Empty for a device that was never recorded.

        Raises:
            ValueError: `seconds` or `columns` is not positive.
        """
        if seconds <= 0 or columns < 1:
            raise ValueError(f"a history needs seconds > 0 and columns >= 1, got {seconds} and {columns}")
        ring = self._rings.get(device_id)
        if not ring:
            return ()
        end = ring[-1].taken_at
        width = seconds / columns
        start = end - seconds
        buckets: list[list[_Sample]] = [[] for _ in range(columns)]
        for sample in reversed(ring):
            # Spans are open at their start: the newest sample belongs to the last one.
            index = columns - 1 - int((end - sample.taken_at) / width)
            if index < 0:
                break
            buckets[index].append(sample)
        return tuple(
            _column(start + index * width, start + (index + 1) * width, bucket)
            for index, bucket in enumerate(buckets)
        )


def _pack(balance: Balance) -> _Sample:
    sums: dict[PartKind, int] = {}
    for part in balance.parts:
        if part.bytes is not None:
            sums[part.kind] = sums.get(part.kind, 0) + part.bytes
    return _Sample(
        balance.taken_at,
        balance.total_bytes,
        balance.coherent,
        balance.unexplained_bytes,
        tuple(sums.get(kind) for kind in KINDS),
    )


def _column(starts_at: float, ends_at: float, samples: Sequence[_Sample]) -> Column:
    parts: dict[PartKind, Range] = {}
    for number, kind in enumerate(KINDS):
        found = _range([value for sample in samples if (value := sample.sums[number]) is not None])
        if found is not None:
            parts[kind] = found
    return Column(
        starts_at=starts_at,
        ends_at=ends_at,
        samples=len(samples),
        total_bytes=max((sample.total_bytes for sample in samples), default=None),
        parts=parts,
        moving=sum(not sample.coherent for sample in samples),
        unexplained=_range([sample.unexplained_bytes for sample in samples]),
    )


def _range(values: Sequence[int]) -> Range | None:
    return Range(low_bytes=min(values), high_bytes=max(values)) if values else None
