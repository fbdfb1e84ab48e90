"""What holds memory that should have gone: verdicts with their evidence, owners, sites and remedies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.receipts import Receipt

VerdictKind: TypeAlias = Literal[
    "cache",  # the allocator's, releasable at once
    "fragmented",  # cache that shares a segment with something live
    "awaiting_free",  # freed, but another stream may still use it
    "component",  # resident weights that nothing uses
    "tensor",  # a live tensor that Python holds
    "unowned_tensor",  # a live block that no Python object holds
    "library",  # a workspace that a library keeps
    "context",  # the driver's context and loaded code
    "process",  # another process on the card
    "orphan",  # a worker without its engine
    "unseen",  # counted by the driver, attributable to nobody we can see
    "ghost",  # the same where nobody can hide from us
    "pinned",  # host memory that the driver holds in place
    "host_heap",  # host memory that grows with jobs or switches
]

RemedyAction: TypeAlias = Literal[
    "free",  # empty the device's cache
    "collect",  # look for cycles, then empty the cache
    "unload",  # a component, named by `target`
    "free_pinned",  # empty the host allocator's cache
    "trim",  # give the host's heap back to the kernel
    "cleanup",  # end the worker and start a fresh one
    "park",  # end it and start none
    "kill",  # the process, by pid and start time
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Site(Wire):
    """Where something was allocated: the innermost frame that is no library's."""

    file: str
    line: int
    function: str
    bytes: int = 0
    blocks: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder(Wire):
    """How a live tensor is reached, from a root that lasts to the tensor."""

    path: tuple[str, ...]
    """`module plants`, `KEPT`, `[3]`; or `hook of WanBlock`, `closure cell x of f`, ..."""
    kind: Literal[
        "global", "attribute", "closure", "hook", "traceback", "generator", "cycle", "cache", "none"
    ]
    file: str | None = None
    line: int | None = None
    """Where the holder is written: a function's first line, a module's assignment where that is found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy(Wire):
    """The cheapest action that gives it back."""

    action: RemedyAction
    text: str
    """One sentence."""
    command: str | None = None
    target: str | None = None
    """A component `model/name`; or None."""
    pid: int | None = None
    start_time: float | None = None
    predicted_bytes: int | None = None
    """What it will return; None where that cannot be known before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict(Wire):
    """One answer to: is it a leak or a cache, who holds it, and what gives it back?"""

    kind: VerdictKind
    leak: bool
    """It grows, or stays though nothing needs it; else it is a cache or in use."""
    title: str
    evidence: tuple[str, ...]
    bytes: int | None
    device_id: str | None = None
    component: str | None = None
    stage: str | None = None
    """In which it grows."""
    site: Site | None = None
    site_reason: str | None = None
    """Why there is none: it was allocated while nothing was traced, or by no Python code."""
    holder: Holder | None = None
    remedy: Remedy | None = None
    admin_line: str | None = None
    number: int = 0
    """By which a person names it; the same thing keeps its number from one look to the next. 0 where none
    was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend(Wire):
    """How a floor moves over jobs, or over switches, with its uncertainty."""

    what: Literal["device", "host", "pinned"]
    over: Literal["jobs", "switches"]
    count: int
    bytes_each: float | None
    """The slope: median of all pairs' slopes. None with too few."""
    low: float | None = None
    high: float | None = None
    """Of 95 %."""
    grows: bool = False
    """The whole interval is above what noise makes."""
    component: str | None = None
    stage: str | None = None
    floors: tuple[int, ...] = ()
    """The newest last."""
    text: str = ""
    """One sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracing(Wire):
    """The trace mode of the worker."""

    on: bool
    since: float | None = None
    entries: int = 0
    limit: int = 0
    cost_share: float | None = None
    """Of a denoise step, as measured, by this worker or the one before; None before one ran both ways."""
    device: Literal["cuda", "cpu"] | None = None
    """What it depends on what tracing costs: a GPU's allocator notes its blocks itself, on cpu each
    operation is looked at. None where an older engine does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment(Wire):
    """One stretch that the allocator took from the driver."""

    bytes: int
    stream: str = ""
    pool: Literal["small", "large", "expandable"] = "large"
    blocks: tuple[tuple[Literal["live", "awaiting", "free"], int], ...] = ()
    """State and bytes of each block in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemedyRequest(Wire):
    """Run a verdict's remedy, as the report told it."""

    remedy: Remedy
    other_user: bool = False
    """Of a kill: also if the process is another user's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemedyResult(Wire):
    """What a remedy promised, and what it gave back."""

    remedy: Remedy
    predicted_bytes: int | None
    returned_bytes: int | None
    """Where the memory was, less what was loaded again; None where nobody could see it."""
    kept: bool | None
    """Whether so much came back as was promised; None where either is not known."""
    receipt: Receipt
    """Of the action, with its proof."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceRequest(Wire):
    """Note in the worker where memory is allocated, or no more."""

    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest(Wire):
    """Write the allocator's snapshot to a file on the engine's machine."""

    path: str
    """Absolute; its folder exists."""
    format: Literal["pickle", "json"] = "json"
    """`pickle` is torch's own, which pytorch.org/memory_viz reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedSnapshot(Wire):
    """The file that was written."""

    path: str
    bytes: int
    format: Literal["pickle", "json"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grown(Wire):
    """What one site or one holder has more since the mark."""

    bytes: int
    """Negative where it has shrunk."""
    count: int
    """Blocks or storages more."""
    site: Site | None = None
    holder: Holder | None = None
    """As the later look tells it, or the earlier one where nothing is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SinceMark(Wire):
    """What is live now compared with what was live at the mark; the largest growth first."""

    at: float
    """When it was marked."""
    sites: tuple[Grown, ...] = ()
    """Of what was traced, by where it was allocated."""
    holders: tuple[Grown, ...] = ()
    """Of what Python holds, traced or not."""
    lost: str | None = None
    """Why nothing can be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkRequest(Wire):
    """Remember what is live now, to be compared with later; or forget it."""

    on: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark(Wire):
    """What later reports are compared with."""

    at: float | None
    """None where nothing is marked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakReport(Wire):
    """One look, whole."""

    at: float
    elapsed_s: float
    verdicts: tuple[Verdict, ...]
    """Leaks first, the largest first."""
    trends: tuple[Trend, ...]
    tracing: Tracing
    sites: tuple[Site, ...] = ()
    """What is live and was traced, by where it was allocated; the largest first."""
    segments: tuple[Segment, ...] = ()
    objects: int = 0
    """Python objects that were looked at."""
    since: SinceMark | None = None
    """None where nothing is marked."""
    unknown: tuple[str, ...] = ()
    """What could not be looked at, each with its reason."""
