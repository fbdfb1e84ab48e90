"""Owns what is known at each place of a log: what is loaded, what the last readings were, and since when."""

from __future__ import annotations

from dataclasses import dataclass, field

from turbotui.foreign.events import ForeignEvent
from turbotui.leaklog.scan import LogFact, Program


@dataclass(kw_only=True, slots=True)
class Reading:
    """A figure, and where it stands."""

    bytes: int
    line: int
    at: float | None


@dataclass(kw_only=True, slots=True)
class Story:
    """The state of the program as its log has told it so far. The detectors read it, and never write."""

    program: Program = "pytorch"
    total_bytes: int | None = None
    loaded: dict[str, int] = field(default_factory=dict)
    """Model to the line that said so; the newest last. A model without a name is `""`."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of those that said them, or by which the card's use rose when they came."""
    parts: tuple[str, ...] = ()
    """`model/part` of what the newest status line says is loaded."""
    used: Reading | None = None
    allocated: Reading | None = None
    reserved: Reading | None = None
    cache: Reading | None = None
    cleared: int | None = None
    """The line in which the cache was emptied last, in this run."""
    jobs: int = 0
    """Ended in this run."""
    runs: int = 0
    """How often the program began anew, the first time left out."""
    empty_bytes: int | None = None
    """What the card held before anything was loaded in this run."""
    left_bytes: int | None = None
    """What it holds beyond that now that nothing is loaded any more."""
    coming: str | None = None
    """What is being loaded."""
    before_coming: int | None = None
    """What the card held as its loading began."""
    _loaded_once: bool = False

    @property
    def loaded_bytes(self) -> int | None:
        """Of all that is loaded; None where one of them did not say."""
        sizes = [self.sizes.get(name) for name in self.loaded]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def take(self, fact: LogFact) -> None:
        """Go on by one fact."""
        event = fact.event
        if event.total_bytes is not None:
            self.total_bytes = event.total_bytes
        match event.kind:
            case "memory":
                if event.used_bytes is not None:
                    self.used = Reading(bytes=event.used_bytes, line=fact.line, at=fact.at)
                    self._size_up(event.used_bytes)
                    self._weigh_empty(event.used_bytes)
                elif self.loaded:
                    self._begin()  # what ComfyUI says of the card as it starts
            case "allocated":
                self._allocated(fact, event)
            case "cache":
                if event.used_bytes is not None:
                    self.cache = Reading(bytes=event.used_bytes, line=fact.line, at=fact.at)
            case "models":
                self.parts = tuple(
                    f"{model.name}/{part}" for model in event.models for part, state in model.parts if state
                )
            case "loading":
                self.coming = event.model or self.coming or ""
                self.before_coming = None if self.used is None else self.used.bytes
                self._loaded_once = True
            case "loaded":
                name = event.model or self.coming or ""
                self.loaded.pop(name, None)
                self.loaded[name] = fact.line
                self._loaded_once = True
                if event.used_bytes is not None:
                    self.sizes[name] = event.used_bytes
                    self._evict()
            case "unloading" | "unloaded" | "parts_out":
                self._gone(event)
            case "cleared":
                self.cleared = fact.line
                self.cache = None
            case "job":
                self.jobs += 1
            case "started":
                self._begin()

    def _allocated(self, fact: LogFact, event: ForeignEvent) -> None:
        if event.allocated_bytes is not None:
            self.allocated = Reading(bytes=event.allocated_bytes, line=fact.line, at=fact.at)
        if event.reserved_bytes is not None:
            self.reserved = Reading(bytes=event.reserved_bytes, line=fact.line, at=fact.at)

    def _size_up(self, used: int) -> None:
        """The card's use after a load tells what has come."""
        if self.coming is not None and self.coming in self.loaded:
            if self.before_coming is not None and self.coming not in self.sizes and used > self.before_coming:
                self.sizes[self.coming] = used - self.before_coming
            self.coming = None

    def _weigh_empty(self, used: int) -> None:
        if self.loaded or self.coming is not None:
            return
        if not self._loaded_once:
            self.empty_bytes = used if self.empty_bytes is None else min(self.empty_bytes, used)
        elif self.empty_bytes is not None:
            self.left_bytes = max(0, used - self.empty_bytes)

    def _evict(self) -> None:
        """What a card cannot hold together has gone without a word, the oldest first, as ComfyUI does it."""
        while len(self.loaded) > 1 and self.total_bytes is not None:
            if (self.loaded_bytes or 0) <= self.total_bytes:
                return
            del self.loaded[next(iter(self.loaded))]

    def _gone(self, event: ForeignEvent) -> None:
        if event.kind == "unloading":
            return
        if event.model in self.loaded:
            del self.loaded[event.model]
        else:
            self.loaded.clear()

    def _begin(self) -> None:
        self.loaded, self.sizes, self.parts = {}, {}, ()
        self.used = self.allocated = self.reserved = self.cache = self.cleared = self.coming = None
        self.empty_bytes = self.left_bytes = None
        self._loaded_once = False
        self.jobs = 0
        self.runs += 1
