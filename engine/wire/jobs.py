"""Jobs: what is asked for, how it goes, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.choices import Residency
from engine.wire.base import Wire
from engine.wire.models import ModelKind

Quant: TypeAlias = Literal["auto", "bf16", "int8"]

QUANTS: tuple[Quant, ...] = ("auto", "bf16", "int8")
"""Which of a model and its int8 sibling a job runs: the one that it names, unless that does not fit the
device and the sibling does; the one whose weights are not quantised; the sibling."""


AttentionKind: TypeAlias = Literal["dense", "sla", "sagesla"]
"""How a DiT's self-attention is computed: over all keys; over those that matter and linearly over all
(sparse-linear attention); that with 8-bit products."""

Attention: TypeAlias = Literal["auto", "dense", "sla", "sagesla"]

ATTENTIONS: tuple[Attention, ...] = ("auto", "dense", "sla", "sagesla")
"""What a job may ask for; `auto` is the kind that the model was trained for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec(Wire):
    """What a person asks for. Checked whole when it is submitted."""

    model: str
    prompt: str
    image: str | None = None
    """Absolute path of the first frame; image-to-video models only, and needed there."""
    resolution: str | None = None
    """A name in the model's table; None takes its default."""
    aspect_ratio: str | None = None
    frames: int | None = None
    """4n + 1; None takes the model's default."""
    steps: int | None = None
    """1 to 4."""
    seed: int = 0
    sigma_max: float | None = None
    """Where the noise starts; None takes 80 for t2v and 200 for i2v."""
    ode: bool = False
    """Deterministic steps without fresh noise; image-to-video models only."""
    samples: int = 1
    """1 to 8 videos from one draw of noise, side by side in one file."""
    adaptive: bool = False
    """The image's own shape, at about as many pixels as the table's; image-to-video models only."""
    output_dir: str | None = None
    """Absolute folder for the video; None takes the engine's."""
    priority: int = 0
    """Higher runs first; equal ones in the order of the queue."""
    residency: Residency | None = None
    """None takes the engine's setting."""
    attention: Attention = "auto"
    sla_topk: float | None = None
    """Share of the key blocks that each query block attends to with `sla` and `sagesla`, above 0 and at
    most 1; None takes 0.1. More is finer and slower: 0.15 is what the reference advises for quality."""
    quant: Quant = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRuns(Wire):
    """What runs in the place of the model that a job names: its int8 sibling, or the one beside that."""

    model: str
    quant: Quant
    """`bf16`, also where its weights are fp16 or fp32, or `int8`."""
    reason: str | None = None
    """Why, in figures; None where the job's `quant` asks for it."""


JobState: TypeAlias = Literal[
    "queued",
    "waiting_memory",  # would fit on the empty device, does not fit beside the others now
    "running",
    "done",
    "failed",
    "cancelled",
    "interrupted",  # worker or engine died under it; requeued once by itself
]

TERMINAL_STATES: frozenset[JobState] = frozenset({"done", "failed", "cancelled", "interrupted"})
"""A job in one of these will not run again by itself."""

Stage: TypeAlias = Literal["start", "load", "text", "image", "denoise", "decode", "write"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobProgress(Wire):
    """Where a running job stands."""

    stage: Stage
    step: int = 0
    """Finished steps of the denoising loop, or decoded latent frames, in this stage."""
    steps: int = 0
    fraction: float = 0.0
    """0 to 1 over the whole job."""
    eta_s: float | None = None
    """An estimate; None until there is one: a first job has none before its longest stage has a rate."""
    peak_bytes: int | None = None
    """Highest device memory seen so far in this job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Wire):
    """A request and what became of it."""

    id: int
    spec: JobSpec
    status: JobState
    held: bool = False
    """Kept from starting until released."""
    position: int | None = None
    """Place in the queue from 1, while it waits."""
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    """How often it was started."""
    progress: JobProgress | None = None
    error: str | None = None
    """One sentence; for an interrupted job that waits again, the cause of the interruption."""
    error_code: str | None = None
    waits_for: str | None = None
    """What a `waiting_memory` job waits for, in bytes and names."""
    output: str | None = None
    """Absolute path of the finished video."""
    manifest: str | None = None
    expected_peak_bytes: int | None = None
    duplicate_of: int | None = None
    doubt: str | None = None
    """One sentence: what will run and is still not what the model was made for."""
    runs: JobRuns | None = None
    """What runs in the place of `spec.model`; None where that does itself."""

    @property
    def model(self) -> str:
        """The model whose weights it uses."""
        return self.spec.model if self.runs is None else self.runs.model


@dataclass(frozen=True, kw_only=True, slots=True)
class JobMove(Wire):
    """Where a waiting job should go: exactly one of the two is given."""

    position: int | None = None
    """The place from 1 among those waiting."""
    priority: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobForecast(Wire):
    """What a request would cost if it were submitted now."""

    width: int
    height: int
    frames: int
    steps: int
    weights_bytes: int
    peak_bytes: int
    """Weights that must be resident together plus the largest stage, as planned."""
    fits_now: bool
    fits_empty: bool
    reason: str | None = None
    """For whom or what it would wait, when it does not fit now."""
    expected_s: float | None = None
    """From its start to its video, by jobs of this model that are done; None before any was."""
    expected_exact: bool = False
    """Whether those jobs had this very size, length and number of steps; else theirs was scaled by work."""
    attention: AttentionKind | None = None
    """What `auto` comes to, or what was asked for. None of an engine that does not say."""
    doubt: str | None = None
    """As `Job.doubt`."""
    runs: JobRuns | None = None
    """As a job's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord(Wire):
    """One line of a job's memory ledger."""

    stage: str
    elapsed_s: float
    before_bytes: int
    peak_bytes: int
    after_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionRun(Wire):
    """How a job's self-attention was computed."""

    kind: AttentionKind
    """What ran, which may be another than what was asked for."""
    topk: float | None = None
    """None of `dense`."""
    by: str
    """What computed it: `torch`, `triton`, or a library's name."""
    note: str | None = None
    """Why it was not computed as asked for, or not by the fastest means."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Wire):
    """Lies beside the video as JSON: everything needed to make it again, and what it cost."""

    manifest: int = 1
    job_id: int
    spec: JobSpec
    """As run: every default filled in."""
    kind: ModelKind
    width: int
    height: int
    fps: int
    timesteps: tuple[float, ...]
    device: str
    """`cpu` or `cuda`."""
    device_name: str
    output: str
    output_bytes: int
    frames_sha256: str
    """Of the uint8 RGB frames before encoding: same seed and device, same digest."""
    elapsed_s: float
    stages: tuple[StageRecord, ...]
    weights: dict[str, str]
    """Component to the identity of its weight file."""
    versions: dict[str, str]
    created_at: float
    attempt: int = 1
    first_step_at: float | None = None
    """When the device began the first block of the first denoising step, wall clock."""
    step_s: tuple[float, ...] = ()
    """Seconds of each denoising step."""
    attention: AttentionRun | None = None
    """None in a manifest of an engine that did not say."""
    runs: JobRuns | None = None
    """Why `spec.model` is another than the one that was asked for; None where it is not."""
