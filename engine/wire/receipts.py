"""What moves weights: the plan that is told before, and the receipt after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.wire.base import Wire
from engine.wire.jobs import JobRuns

PlanAction: TypeAlias = Literal[
    "evict",
    "load",
    "ahead",  # loaded while the stage computes, for a later one
    "swap",  # takes another expert's bytes under its last step
    "adopt",  # takes over another model's component with the same weights: nothing moves
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanStep(Wire):
    """One move of weights in the plan of a job or a switch."""

    stage: str
    action: PlanAction
    model: str
    component: str
    bytes: int
    reason: str
    held_bytes: int
    """All weights on the device after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation(Wire):
    """What would happen if a request were made now, and why."""

    target: str
    fits: bool
    reason: str | None = None
    """Why it does not fit, or None."""
    budget_bytes: int
    """What the engine may hold on the device, weights and work together."""
    tenants: str
    """Who holds the rest, in words."""
    peak_bytes: int
    """The most that weights and work take together."""
    steps: tuple[PlanStep, ...]
    note: str | None = None
    """What the plan rests on and nobody sees in its steps, or what of it cannot be known."""
    runs: JobRuns | None = None
    """What a job would run in the place of the model that it names."""


Proof: TypeAlias = Literal[
    "nvml-process",
    "device-delta",
    "allocator",
    "process-rss",
    "page-cache",
    "process-exit",  # the process has ended and nobody measured what it had
]

ReceiptAction: TypeAlias = Literal[
    "load",
    "unload",
    "switch",
    "free",
    "collect",  # Python looked for cycles, and the cache was emptied
    "free_pinned",  # the host allocator's cache of pinned blocks was emptied
    "trim",  # free pages of the host's heap went back to the kernel
    "swap",  # one expert took the place of the other
    "park",  # everything out, the worker and its context too
    "cleanup",  # the worker was ended and replaced
    "warm",  # weight files were registered in host memory
    "drop_warm",  # and let go of
    "kill",  # a process that a person picked was ended
    "reset",  # the driver reset a whole GPU
    "full_cleanup",  # everything of ours was ended, and what the person picked besides
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiptStep(Wire):
    """One step of an action, as it ended; told while it is under way, it has `total_bytes`."""

    name: str
    bytes: int | None = None
    elapsed_s: float
    total_bytes: int | None = None
    """Of a step under way, whose `bytes` are those so far; a receipt holds ended steps only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt(Wire):
    """What an action that changes memory promised, and what it did."""

    action: ReceiptAction
    target: str
    ok: bool
    error: str | None = None
    error_code: str | None = None
    """Of `error`, as in `engine.errors`; that of a refusal only where nothing was changed."""
    expected_bytes: int = 0
    """Bytes that it said it would return."""
    returned_bytes: int | None = None
    residue_bytes: int | None = None
    """Expected less returned, where positive and more than `within_bytes` can be."""
    within_bytes: int = 0
    """So much less came back than was expected, and it is no residue: the count is no more certain."""
    residue: tuple[str, ...] = ()
    """What the residue is, by name."""
    loaded_bytes: int = 0
    elapsed_s: float
    proof: Proof
    proof_reason: str | None = None
    """Why the proof is weaker than `nvml-process`."""
    steps: tuple[ReceiptStep, ...] = ()
    notes: tuple[str, ...] = ()
    """What else was found, a sentence each: a program's own words, what is still held and by whom."""
    at: float = 0.0
    job_id: int | None = None
