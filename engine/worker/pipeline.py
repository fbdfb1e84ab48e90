"""Runs one job from its prompt to its video, leasing components stage by stage.

text -> (image) -> denoise -> decode, with each pixel frame going to the encoder as it comes.
Weights travel while others compute: a stage begins when its first blocks are there, and what the
next one needs is loaded ahead where it fits. Whatever happens, the leases close, no half-written
file stays, and nothing that lives on after the job holds one of its tensors.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import DeviceFault, EngineError, InvalidRequest, JobCancelled
from engine.models.folders import DIT, TEXT, VAE
from engine.planning.residency import REST
from engine.planning.residency import Stage as PlannedStage
from engine.planning.shapes import (
    DEFAULT_SIGMA_MAX,
    FPS,
    latent_frames,
    latent_shape,
    rcm_timesteps,
)
from engine.wire import Manifest, ModelKind, Residency, Stage
from engine.worker.attending import Attending, Attention
from engine.worker.autoencoder import decode_frames
from engine.worker.backend import Backend
from engine.worker.channel import JobProgressed, RunJob
from engine.worker.components import Component, Model
from engine.worker.conditioning import fit_image, image_condition, read_image
from engine.worker.denoise import DenoiseState, denoise, net_velocity, start, times_bytes
from engine.worker.embedding_cache import NO_EMBEDDINGS, Embeddings
from engine.worker.experts import NetByStep
from engine.worker.faults import as_engine_error, forget
from engine.worker.finite_guard import FiniteGuard
from engine.worker.job_stages import nets_of, planned_stages
from engine.worker.progress import TYPICAL, ProgressMeter, Shares, stages_of
from engine.worker.side_by_side import decode_side_by_side, each_sample
from engine.worker.stage_ledger import StageLedger
from engine.worker.step_clock import StepClock
from engine.worker.store import ComponentStore
from engine.worker.text import encode_prompt
from engine.worker.versions import versions
from engine.worker.video import VideoWriter
from engine.worker.watch import JobWatch


def run_job(
    job: RunJob,
    store: ComponentStore,
    backend: Backend,
    *,
    report: Callable[[JobProgressed], None],
    cancelled: Callable[[], bool],
    embeddings: Embeddings = NO_EMBEDDINGS,
    warn: Callable[[str, str], None] = lambda event, text: None,
    clock: Callable[[], float] = time.monotonic,
    shares: Shares | None = None,
    watch: JobWatch | None = None,
    attention: Attention | None = None,
    nan_guard: bool = True,
    saw: Callable[[BaseException], None] = lambda error: None,
) -> tuple[Manifest, Path]:
    """Make the job's video; its manifest and where that lies.

    `embeddings` are those of earlier prompts; `warn` hears what is not in order but ends nothing. `shares`
    is what each stage took of the last such job; None where there was none. `watch` sees its stages and
    latents, and changes neither. `attention` chooses what computes its self-attention; `nan_guard` ends it
    where its latents are not finite. `saw` is told what ends the job before it is let go of.

    Whatever is raised is a new error made of text, holding no frame and no tensor.

    Raises:
        JobCancelled: `cancelled()` was true between two steps, frames or chunks of weights.
        DeviceFault: the device context broke; this process cannot go on.
        EngineError: any other, naming what failed and the way out.
    """
    failure: EngineError | None = None
    try:
        with torch.inference_mode():
            run = _Run(job, store, backend, report, cancelled, embeddings, warn, clock, shares, watch)
            run.attending = Attending(
                attention or Attention(backend), job.spec, warn=partial(warn, "attention")
            )
            run.nan_guard = nan_guard
            return run.run()
    except Exception as error:  # the job's edge: it becomes text, and its frames go
        saw(error)
        failure = as_engine_error(error, backend, f"running job {job.job_id}")
        forget(error)
    # Outside the except block, whose exception would ride along as the new one's context.
    gc.collect()
    if not isinstance(failure, DeviceFault):
        backend.free_cache()
    raise failure


class _Run:
    """One job under way; dropped as a whole when it ends."""

    attending: Attending
    nan_guard: bool

    def __init__(
        self,
        job: RunJob,
        store: ComponentStore,
        backend: Backend,
        report: Callable[[JobProgressed], None],
        cancelled: Callable[[], bool],
        embeddings: Embeddings,
        warn: Callable[[str, str], None],
        clock: Callable[[], float],
        shares: Shares | None,
        watch: JobWatch | None,
    ) -> None:
        self._job = job
        self._store = store
        self._backend = backend
        self._cancelled = cancelled
        self._embeddings = embeddings
        self._warn = warn
        self._clock = clock
        self._watch = watch
        self._began = clock()
        self._kind: ModelKind = "i2v" if job.model.kind == "i2v" else "t2v"
        stages, on_line = stages_of(self._kind), watch.line if watch else None
        self._meter = ProgressMeter(
            job.job_id,
            stages,
            clock=clock,
            report=report,
            shares=TYPICAL[backend.kind] if shares is None else shares,
            typical=shares is None,
        )
        self._ledger = StageLedger(
            backend,
            clock=clock,
            on_peak=self._meter.saw_peak,
            on_line=on_line,
            memory=store.ledger,
            job_id=job.job_id,
            model=job.model.name,
            shape=shape_of(job),
        )
        self._kept = self._ledger.kept
        spec = job.spec
        if spec.frames is None or spec.steps is None:
            raise InvalidRequest(f"job {job.job_id} reached the worker without its frames and steps")
        self._frames = spec.frames
        self._steps = spec.steps
        sigma_max = DEFAULT_SIGMA_MAX[self._kind] if spec.sigma_max is None else spec.sigma_max
        self._timesteps = rcm_timesteps(spec.steps, sigma_max)
        self._shape = latent_shape(job.width, job.height, spec.frames, spec.samples)
        self._mode: Residency = spec.residency or "auto"
        self._stages: tuple[PlannedStage, ...] = ()
        self._step_clock = StepClock(backend, clock)

    def run(self) -> tuple[Manifest, Path]:
        self._meter.started()
        model = self._store.open(self._job.model)
        nets = nets_of(self._kind, self._timesteps)
        text_BLD = self._embeddings.find(model, self._job.spec.prompt, self._backend)
        self._stages = planned_stages(
            model, self._kind, nets, self._job.stage_bytes, with_text=text_BLD is None
        )
        image = self._read_image()
        self._kept.put("image", image)
        if text_BLD is None:
            text_BLD = self._encode_text(model, nets)
            if reason := self._embeddings.keep(model, self._job.spec.prompt, text_BLD):
                self._warn("cache", reason)
        else:
            self._kept.put("text", text_BLD)
        condition = None if image is None else self._encode_image(model, image, nets)
        del image
        self._kept.drop("image")
        latents = [self._denoise(model, nets, text_BLD, condition)]
        del text_BLD, condition
        self._kept.drop("text", "condition")
        return self._decode(model, latents.pop(), nets)  # nothing here holds them while they are decoded

    # ----------------------------------------------------------------- stages

    def _read_image(self) -> Tensor | None:
        path = self._job.spec.image
        if self._kind == "t2v":
            return None
        if path is None:
            raise InvalidRequest(f"{self._job.model.name} needs an image; give one with --image")
        return fit_image(read_image(Path(path)), self._job.width, self._job.height)

    def _encode_text(self, model: Model, nets: Sequence[str]) -> Tensor:
        with self._stage(model, "text", (TEXT,)) as modules:
            self._load_ahead(model, "text", TEXT, (nets[0], VAE) if self._kind == "i2v" else (nets[0],))
            self._meter.at("text", 0, 1)
            text_BLD = encode_prompt(
                modules[TEXT], model.tokenizer, self._job.spec.prompt, self._backend.device
            )
            self._kept.put("text", text_BLD)
            return text_BLD

    def _encode_image(self, model: Model, image_CHW: Tensor, nets: Sequence[str]) -> Tensor:
        count = latent_frames(self._frames)

        def check(latent_frame: int) -> None:
            self._check()
            self._meter.at("image", latent_frame, count)

        with self._stage(model, "image", (VAE,)) as modules:
            self._load_ahead(model, "image", VAE, nets)
            condition = image_condition(modules[VAE], image_CHW, count, check)
            self._kept.put("condition", condition)
            return condition

    def _denoise(
        self, model: Model, nets: Sequence[str], text_BLD: Tensor, condition: Tensor | None
    ) -> Tensor:
        state = start(self._shape, self._timesteps, self._backend.generator(self._job.spec.seed))
        clock = self._step_clock
        guard = FiniteGuard(self._backend, nets) if self.nan_guard else None

        def keep(passing: Tensor | None) -> None:
            """What the loop holds beside a net's pass, or between two: `passing` is what a net returned."""
            self._kept.put(
                "denoise",
                state.x_BCTHW,
                state.generator_state,
                passing,
                None if guard is None else guard.sums,
                more=times_bytes(self._timesteps),
            )

        def before_step(step: int) -> None:
            clock.wait_for_last_block()
            self._check()
            self._meter.at("denoise", step, self._steps)
            clock.begin()

        def after_step(stepped: DenoiseState) -> None:
            nonlocal state
            state = stepped
            keep(None)
            self._kept.put("preview", None if self._watch is None else self._watch.colours)
            clock.end()
            self._meter.saw_peak(self._backend.peak_bytes())

        def lease(name: str) -> AbstractContextManager[Any]:
            line = "denoise" if name == DIT else f"denoise {name}"
            return self._stage(model, "denoise", (name,), line=line)

        with NetByStep(self._store, model, nets, lease, job_id=self._job.job_id) as net_by_step:

            def velocity(x_BCTHW: Tensor, step: int, last: bool) -> Tensor:
                def forward(net: Any) -> Tensor:
                    clock.follow(net)
                    self.attending.give(net)
                    ahead = nets if step == 0 else ()
                    if step == self._steps - 1:
                        ahead = (*ahead, VAE)
                    self._load_ahead(model, "denoise", nets[step], ahead)
                    v_BCTHW = net_velocity(net, x_BCTHW, self._timesteps[step], text_BLD, condition)
                    keep(v_BCTHW)
                    return v_BCTHW

                return net_by_step.run(step, forward, last=last)

            latents_BCTHW = denoise(
                state,
                partial(each_sample, velocity, self._check),
                timesteps=self._timesteps,
                ode=self._job.spec.ode,
                before_step=before_step,
                after_step=after_step,
                saw=None if self._watch is None else self._watch.saw(model.components[VAE].content),
                guard=guard,
            )
            clock.finish()
            self._kept.put(
                "denoise", state.x_BCTHW, state.generator_state, None if guard is None else guard.sums
            )
            self._kept.put("latents", latents_BCTHW)
            self._meter.at("denoise", self._steps, self._steps)
        self._kept.drop("denoise")
        return latents_BCTHW

    def _decode(self, model: Model, latents_BCTHW: Tensor, nets: Sequence[str]) -> tuple[Manifest, Path]:
        job = self._job
        samples, count = latents_BCTHW.shape[0], latents_BCTHW.shape[2]

        def check(sample: int, latent_frame: int) -> None:
            self._check()
            self._meter.saw_peak(self._backend.peak_bytes())
            self._meter.at("decode", sample * count + latent_frame, samples * count)

        with VideoWriter(Path(job.output), job.width * samples, job.height) as writer:
            with self._stage(model, "decode", (VAE,)) as modules:
                self._write_frames(model, modules[VAE], latents_BCTHW, writer, check)
            del latents_BCTHW
            self._kept.drop("latents")
            self._bring_back(model, nets)
            self._meter.at("write", 0, 1)
            self._check()  # the last chance: from here on the video appears
            with self._ledger.measured("write"):
                digest = writer.finish()
            manifest, path = writer.publish(self._manifest(model, nets, writer.num_bytes, digest))
        self._meter.at("write", 1, 1)
        return manifest, path

    def _write_frames(
        self,
        model: Model,
        vae: Any,
        latents_BCTHW: Tensor,
        writer: VideoWriter,
        check: Callable[[int, int], None],
    ) -> None:
        sums = None if self._watch is None else self._watch.decoding(latents_BCTHW)
        decode = partial(decode_frames, vae)
        for number, frames_THWC in enumerate(decode_side_by_side(decode, latents_BCTHW, check)):
            writer.append(frames_THWC)
            if sums is not None:
                sums.add(number, frames_THWC[:, :, : self._job.width])
        if self._watch is not None and sums is not None:
            self._watch.decoded(model.components[VAE].content, sums)

    def _manifest(self, model: Model, nets: Sequence[str], output_bytes: int, digest: str) -> Manifest:
        job = self._job
        return Manifest(
            job_id=job.job_id,
            spec=job.spec,
            kind=self._kind,
            width=job.width * job.spec.samples,
            height=job.height,
            fps=FPS,
            timesteps=self._timesteps,
            device=self._backend.kind,
            device_name=self._backend.device_name,
            output=job.output,
            output_bytes=output_bytes,
            frames_sha256=digest,
            elapsed_s=self._clock() - self._began,
            stages=self._ledger.records,
            weights={
                name: model.components[name].index.identity for name in dict.fromkeys((TEXT, *nets, VAE))
            },
            versions=versions(),
            created_at=time.time(),
            attempt=job.attempt,
            first_step_at=self._step_clock.first_step_at,
            step_s=self._step_clock.step_s,
            attention=self.attending.run,
            runs=job.runs,
        )

    # ----------------------------------------------------------------- shared by the stages

    @contextmanager
    def _stage(
        self, model: Model, stage: Stage, names: Sequence[str], *, line: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Lease `names` for `stage`, and write its line of the ledger."""
        self._check()
        with self._lease(model, stage, names) as modules, self._ledger.measured(line or stage):
            yield modules

    @contextmanager
    def _lease(self, model: Model, stage: Stage, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        def moved(component: Component, done: int, total: int) -> None:
            self._meter.loading(stage, done, total)
            self._check()

        with self._store.lease(
            model,
            names,
            stage=stage,
            stage_bytes=self._job.stage_bytes.get(stage, 0),
            budget_bytes=self._job.budget_bytes,
            later=self._after(stage, names[0]),
            mode=self._mode,
            under_compute=True,
            job_id=self._job.job_id,
            moved=moved,
        ) as modules:
            yield modules

    def _load_ahead(self, model: Model, stage: Stage, component: str, names: Collection[str]) -> None:
        """Let what later stages need travel under `stage`, which uses `component`, where it fits."""
        if not names:
            return
        number = self._number(stage, component)
        self._store.load_ahead(
            model,
            names,
            now=self._stages[number],
            later=self._stages[number + 1 :],
            budget_bytes=self._job.budget_bytes,
            mode=self._mode,
            job_id=self._job.job_id,
        )

    def _bring_back(self, model: Model, nets: Sequence[str]) -> None:
        """A DiT that went for the decoder returns, so that the next job like this one finds it."""
        if DIT in nets:
            self._store.load_ahead(
                model,
                (DIT,),
                now=PlannedStage(name=REST, needed=(), working_bytes=0),
                later=[stage for stage in self._stages if stage.name == "denoise"],
                budget_bytes=self._job.budget_bytes,
                mode=self._mode,
                job_id=self._job.job_id,
            )

    def _after(self, stage: Stage, component: str) -> tuple[PlannedStage, ...]:
        return self._stages[self._number(stage, component) + 1 :]

    def _number(self, stage: Stage, component: str) -> int:
        return next(
            number
            for number, planned in enumerate(self._stages)
            if planned.name == stage and planned.needed[0].component == component
        )

    def _check(self) -> None:
        if self._cancelled():
            raise JobCancelled(f"job {self._job.job_id} was cancelled")


def shape_of(job: RunJob) -> str:
    """What makes two jobs of a model alike: `832x480x81x4`, its width, height, frames and steps."""
    return f"{job.width}x{job.height}x{job.spec.frames}x{job.spec.steps}"
