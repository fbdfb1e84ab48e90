"""Owns how much was used over a log, in so few points that those of any log fit, each with its most."""

from __future__ import annotations

from dataclasses import dataclass

MOST_POINTS = 1024


@dataclass(kw_only=True, slots=True)
class Point:
    """A stretch of the log; of what it does not tell, None."""

    line: int
    at: float | None
    """Of its first reading."""
    used: int | None = None
    """Of the device, the most."""
    allocated: int | None = None
    """By PyTorch, the most."""
    reserved: int | None = None
    """By PyTorch, with its cache, the most."""
    loaded: int | None = None
    """By the models that are loaded, as their lines say."""
    gone: bool = False
    """Something was unloaded: what was allocated before is no longer so."""
    oom: bool = False

    @property
    def tells(self) -> bool:
        """Whether it has anything to draw."""
        figures = (self.used, self.allocated, self.reserved, self.loaded)
        return self.gone or self.oom or any(figure is not None for figure in figures)

    def take(self, other: Point) -> None:
        """Reach over `other`, which follows."""
        for name in ("used", "allocated", "reserved", "loaded"):
            figures = [one for one in (getattr(self, name), getattr(other, name)) if one is not None]
            setattr(self, name, max(figures, default=None))
        self.gone = self.gone or other.gone
        self.oom = self.oom or other.oom


class Course:
    """Takes readings in order; when there are too many, two neighbours become one."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.total_bytes: int | None = None
        self._each = 1
        """Readings in a whole point."""
        self._in_last = 0

    def take(self, point: Point) -> None:
        if self._in_last and self._in_last < self._each:
            self.points[-1].take(point)
            self._in_last += 1
            return
        if len(self.points) >= MOST_POINTS:
            for first, second in zip(self.points[::2], self.points[1::2], strict=True):
                first.take(second)
            self.points = self.points[::2]
            self._each *= 2
        self.points.append(point)
        self._in_last = 1
