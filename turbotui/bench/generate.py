"""What a video costs, stage by stage, through the API of an engine of the benchmark's own.

For each model, size and attention: one job that keeps nothing beside what a stage uses, for the least
peak, from nothing loaded; the same again, to warm up and to compare frames; then the jobs that count,
each with a new prompt. Beside them, in a process of its own, plain diffusers.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import EngineError, InvalidRequest, WorkFailed
from engine.wire import JobSpec, Manifest, ModelStatus, SamplingRequest, StageRecord
from turbotui.bench.ballast import ballast
from turbotui.bench.drift import device_in_use, unloaded
from turbotui.bench.generate_rows import TITLES, Case, Figure, Setup, figure, targets
from turbotui.bench.plain_child import plain_command, run_plain
from turbotui.bench.roles import PROMPT, write_image
from turbotui.bench.session import BenchEngine
from turbotui.bench.watch import Watch

DEMO_MODELS = ("wan-demo-small", "wan-demo-i2v")
MODELS = ("wan2.1-t2v-1.3b-random", "wan2.1-t2v-14b-random")
RANDOM = "-random"
PEAK_HZ, PEAK_S = 50.0, 900.0
"""How memory is read under the job whose least peak counts, and for how long at most."""
TEMPORAL, SPATIAL_PATCH, TOKEN_BYTES = 4, 16, 2
"""Frames to a latent one, pixels to a token's side, bytes of a bf16 number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """One call of the command."""

    models: Path | None
    """Where the models lie; None: the demo models, made in the benchmark's own folder."""
    names: tuple[str, ...]
    resolutions: tuple[str | None, ...] = (None,)
    """None: the model's own default."""
    attentions: tuple[str | None, ...] = (None,)
    sla_topk: float | None = None
    quant: str | None = None
    aspect_ratio: str | None = None
    frames: int | None = None
    steps: int | None = None
    runs: int = 3
    baseline: bool = False
    demo: bool = False
    room_bytes: int | None = None
    """So much of the GPU is left to the engine; None: what is free."""


@dataclass(kw_only=True, slots=True)
class _Run:
    """What the cases share."""

    engine: BenchEngine
    options: Options
    say: Callable[[str], None]
    image: Path
    device_id: str
    device_name: str
    on_gpu: bool
    prompts: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    plain: dict[tuple[object, ...], dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """What plain diffusers said, by what it was asked."""


def measure_generate(options: Options, *, say: Callable[[str], None]) -> Iterator[Case]:
    """Measure case by case; each comes as soon as it is known. `say` gets what is being done.

    Raises:
        InvalidRequest: room is asked for without a GPU.
        WorkFailed: a model could not be made, or no ballast be taken.
        EngineUnavailable: no engine could be started.
    """
    if options.models is not None:
        _make_missing(options, say)
    with BenchEngine(options.models) as engine, ExitStack() as held:
        if options.demo:
            say("making the demo models")
            engine.client.make_demo_models()
        device = device_in_use(engine.client)
        image = engine.home / "first frame.png"
        write_image(image)
        run = _Run(
            engine=engine,
            options=options,
            say=say,
            image=image,
            device_id=device.id,
            device_name=device.name,
            on_gpu=device.kind == "cuda",
        )
        engine.pin(device.id)
        say(f"{device.name}, build {engine.client.hello().build}")
        if options.room_bytes is not None:
            if not run.on_gpu:
                raise InvalidRequest("--room is for a GPU, and the engine works on none; leave it out")
            engine.client.park()  # lest our own context lie outside the room
            free = held.enter_context(ballast(device.id, options.room_bytes))
            say(f"ballast leaves {free / 2**20:.0f} MiB")
        for name, resolution, attention in itertools.product(
            options.names, options.resolutions, options.attentions
        ):
            yield _case(run, name, resolution, attention)


def _make_missing(options: Options, say: Callable[[str], None]) -> None:
    """Make those of the random models that are not there."""
    folder = options.models
    assert folder is not None
    for name in options.names:
        if RANDOM not in name or (folder / name).is_dir():
            continue
        size, _, dtype = name.partition(RANDOM)
        say(f"making {name}")
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "engine.models.random_models", str(folder), size]
        made = subprocess.run(
            [*command, "--dtype", dtype.removeprefix("-") or "bf16"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            words = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
            raise WorkFailed(f"{name} could not be made: {words[-1]}")


# --------------------------------------------------------------------------- one case


@dataclass(kw_only=True, slots=True)
class _Seen:
    """The runs of one case as they come."""

    manifests: list[Manifest] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)


def _case(run: _Run, name: str, resolution: str | None, attention: str | None) -> Case:
    """Measure one, whatever it meets: what failed is told, and the next one goes on."""
    options = run.options
    case = Case(
        model=name,
        attention=attention or "",
        quant=options.quant or "",
        resolution=resolution or "",
        width=0,
        height=0,
        frames=options.frames or 0,
        steps=options.steps or 0,
        runs=options.runs,
        device=run.device_name,
        versions={},
        figures=(),
    )
    run.say(" ".join(filter(None, (name, resolution, attention))))
    try:
        run.engine.ensure()
        model = run.engine.model(name)
        seen = _jobs(run, _spec(run, model, resolution, attention))
        return _told(run, case, model, seen)
    except (EngineError, OSError, ValueError, LookupError) as error:
        return replace(case, problem=f"{type(error).__name__}: {error}")


def _spec(run: _Run, model: ModelStatus, resolution: str | None, attention: str | None) -> JobSpec:
    options = run.options
    topk = None if attention == "dense" else options.sla_topk  # which has no blocks to choose from
    extra = {"attention": attention, "sla_topk": topk, "quant": options.quant}
    given: dict[str, Any] = {name: value for name, value in extra.items() if value is not None}
    return JobSpec(
        model=model.name,
        prompt=PROMPT,
        image=str(run.image) if model.kind == "i2v" else None,
        resolution=resolution,
        aspect_ratio=options.aspect_ratio,
        frames=options.frames,
        steps=options.steps,
        seed=1,
        **given,
    )


def _jobs(run: _Run, spec: JobSpec) -> _Seen:
    """All jobs of a case. A prompt that was seen would need no text encoder: each has a new one."""
    seen, client = _Seen(), run.engine.client

    def prompted() -> JobSpec:
        return replace(spec, prompt=f"{PROMPT}, take {next(run.prompts)}")

    first = prompted()
    unloaded(run.engine)
    with Watch(client) as watch:
        client.sample(SamplingRequest(hz=PEAK_HZ, seconds=PEAK_S))
        run.say("one job that keeps nothing beside what a stage uses")
        began, ended, least = run.engine.run_timed(replace(first, residency="dit_only"))
        client.sample(SamplingRequest(hz=PEAK_HZ, seconds=0))
        seen.least += _peak(watch, began, ended)
        run.say("one job to warm up")
        warm = run.engine.run(first)[1]
        seen.changed.append(float(warm.frames_sha256 != least.frames_sha256))
        for number in range(run.options.runs):
            run.say(f"job {number + 1} of {run.options.runs}")
            began, ended, manifest = run.engine.run_timed(prompted())
            seen.manifests.append(manifest)
            seen.end_to_end.append(ended - began)
            seen.peaks += _peak(watch, began, ended)
    return seen


def _peak(watch: Watch, began: float, ended: float) -> list[float]:
    """The most that our worker held, context and all: by the driver, or by counters if it does not tell."""
    held = [
        seen.worker_bytes if seen.worker_bytes is not None else seen.ours_bytes
        for seen in watch.between(began, ended)
    ]
    return [float(max(held))] if held else []


def _told(run: _Run, case: Case, model: ModelStatus, seen: _Seen) -> Case:
    """The case with its figures."""
    last = seen.manifests[-1]
    if last.spec.model != model.name:  # its sibling with other weights
        model = run.engine.model(last.spec.model)
    net = _net(model)
    # What ran: with `auto`, or on an old GPU, another than was asked for.
    attention = "dense" if last.attention is None else last.attention.kind
    int8 = net.get("quantization_config") is not None
    heads, head = net.get("num_attention_heads"), net.get("attention_head_dim", 128)
    width = None if heads is None else heads * head
    setup = Setup(
        width=width,
        layers=net.get("num_layers"),
        kind=model.kind,
        int8=int8,
        resolution=last.spec.resolution or "",
        aspect_ratio=last.spec.aspect_ratio or "",
        attention=attention,
        frames=last.spec.frames or 0,
        steps=last.spec.steps or 0,
        on_gpu=run.on_gpu,
    )
    case = replace(
        case,
        model=model.name,
        attention=setup.attention,
        quant="int8" if int8 else "bf16",
        resolution=setup.resolution,
        width=last.width,
        height=last.height,
        frames=setup.frames,
        steps=setup.steps,
        versions={name: last.versions[name] for name in ("torch", "diffusers") if name in last.versions},
    )
    plain, note = _plain(run, case, model) if run.options.baseline else ({}, "")
    return replace(case, figures=tuple(_figures(case, setup, seen, plain)), baseline_note=note)


def _figures(
    case: Case, setup: Setup, seen: _Seen, plain: dict[str, list[dict[str, Any]]]
) -> Iterator[Figure]:
    limits = targets(setup)
    runs = [manifest.stages for manifest in seen.manifests]

    def stage(name: str) -> list[float]:
        return [sum(line.elapsed_s for line in found) for stages in runs if (found := _lines(stages, name))]

    def work(name: str) -> list[float]:
        """What a stage takes beside the weights that lie there before and after."""
        return [
            float(max(line.peak_bytes - max(line.before_bytes, line.after_bytes) for line in found))
            for stages in runs
            if setup.on_gpu and (found := _lines(stages, name))
        ]

    unit = None if setup.width is None else _tokens(case) * setup.width * TOKEN_BYTES
    values = {
        "text": stage("text"),
        "image": stage("image"),
        "step": [step for manifest in seen.manifests for step in manifest.step_s],
        "dit": [sum(manifest.step_s) for manifest in seen.manifests],
        "decode": stage("decode"),
        "video": stage("write"),
        "end_to_end": seen.end_to_end,
        "peak": seen.peaks,
        "peak_least": seen.least,
        "units": [] if unit is None else [size / unit for size in work("denoise")],
        "decode_bytes": work("decode"),
        "frames_changed": seen.changed,
    }
    beside = _beside(case, plain, unit)
    for name in TITLES:
        if name == "image" and setup.kind == "t2v":
            continue
        note = "" if values[name] else _why_not(name, on_gpu=setup.on_gpu)
        yield figure(name, values[name], limits, on_gpu=setup.on_gpu, baseline=beside.get(name), note=note)


def _why_not(name: str, *, on_gpu: bool) -> str:
    if name in ("units", "decode_bytes") and not on_gpu:
        return "there is no GPU whose memory would tell it"
    if name == "units":
        return "the files do not say how wide the DiT is"
    return (
        "memory was not read meanwhile" if name.startswith("peak") else "the jobs' manifests do not tell it"
    )


def _lines(stages: tuple[StageRecord, ...], name: str) -> list[StageRecord]:
    """The lines of a stage: two experts have two."""
    return [line for line in stages if line.stage.split(" ")[0] == name]


def _tokens(case: Case) -> int:
    latent_frames = 1 + (case.frames - 1) // TEMPORAL
    return latent_frames * (case.width // SPATIAL_PATCH) * (case.height // SPATIAL_PATCH)


def _net(model: ModelStatus) -> dict[str, Any]:
    """The settings of its DiT; none where its folder has no such file."""
    try:
        found = json.loads((Path(model.path) / "transformer" / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# --------------------------------------------------------------------------- plain diffusers


def _plain(run: _Run, case: Case, model: ModelStatus) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """What plain diffusers says of the same sizes, once for all cases that have them, and what that is."""
    folder, which = Path(model.path), model.name
    if case.quant == "int8":
        which = model.name.removesuffix("-int8")
        folder = folder.parent / which
        if which == model.name or not folder.is_dir():
            return {}, f"plain diffusers reads no int8 blocks, and there is no bf16 twin of {model.name}"
    asked = (folder, case.width, case.height, case.frames)
    if asked not in run.plain:
        run.say(f"plain diffusers with {which}")
        unloaded(run.engine)
        found: dict[str, list[dict[str, Any]]] = {}
        sizes = (case.width, case.height, case.frames, run.options.runs)
        command = plain_command("engine.models.plain_generation", str(folder), *map(str, sizes))
        try:
            run_plain(command, run.device_id, lambda told: found.setdefault(told["name"], []).append(told))
        except (WorkFailed, OSError, ValueError) as error:
            run.say(str(error))
            return found, str(error)
        run.plain[asked] = found
    return run.plain[asked], (
        f"plain diffusers: bf16 and dense with {which}, each net alone and warm"
        + ("; memory by torch's counters, without the context" if run.on_gpu else "")
    )


def _beside(case: Case, plain: dict[str, list[dict[str, Any]]], unit: int | None) -> dict[str, float]:
    """Name of a figure to plain diffusers' median."""
    found: dict[str, float] = {}
    for name, told in plain.items():
        found[name] = statistics.median(one["seconds"] for one in told)
        if name == "step":
            found["dit"] = found[name] * case.steps
        work = [one["peak"] - one["held"] for one in told if one["peak"] is not None]
        if work and name == "decode":
            found["decode_bytes"] = float(max(work))
        if work and name == "step" and unit:
            found["units"] = max(work) / unit
    peaks = [one["peak"] for told in plain.values() for one in told if one["peak"] is not None]
    if peaks:
        found["peak_least"] = float(max(peaks))
    return found
