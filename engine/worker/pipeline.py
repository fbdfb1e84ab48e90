"""Runs one job from its prompt to its video, leasing components stage by stage.

text -> (image) -> denoise -> decode, with each pixel frame going to the encoder as it comes.
Whatever happens, the leases close, no half-written file stays, and nothing that lives on after
the job holds one of its tensors.
"""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import DeviceFault, EngineError, InvalidRequest, JobCancelled
from engine.planning.shapes import (
    DEFAULT_SIGMA_MAX,
    FPS,
    experts_for,
    latent_frames,
    latent_shape,
    rcm_timesteps,
)
from engine.version import build_id
from engine.wire import Manifest, ModelKind, Stage, StageRecord
from engine.worker.autoencoder import decode_frames
from engine.worker.backend import Backend
from engine.worker.channel import JobProgressed, RunJob
from engine.worker.components import DIT, TEXT, VAE, Component, Model
from engine.worker.conditioning import fit_image, image_condition, read_image
from engine.worker.denoise import DenoiseState, denoise, net_timestep, start
from engine.worker.faults import as_engine_error, forget
from engine.worker.progress import TYPICAL, ProgressMeter, Shares
from engine.worker.store import ComponentStore
from engine.worker.text import encode_prompt
from engine.worker.video import VideoWriter

LIBRARIES = ("torch", "diffusers", "transformers")


def run_job(
    job: RunJob,
    store: ComponentStore,
    backend: Backend,
    *,
    report: Callable[[JobProgressed], None],
    cancelled: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    shares: Shares | None = None,
) -> tuple[Manifest, Path]:
    """Make the job's video; its manifest and where that lies.

    `shares` is what each stage took of the last such job; None where there was none.

    Whatever is raised is a new error made of text, holding no frame and no tensor.

    Raises:
        JobCancelled: `cancelled()` was true between two steps, frames or chunks of weights.
        DeviceFault: the device context broke; this process cannot go on.
        EngineError: any other, naming what failed and the way out.
    """
    failure: EngineError | None = None
    try:
        with torch.inference_mode():
            return _Run(job, store, backend, report, cancelled, clock, shares).run()
    except Exception as error:  # the job's edge: it becomes text, and its frames go
        failure = as_engine_error(error, backend, f"running job {job.job_id}")
        forget(error)
    # Outside the except block, whose exception would ride along as the new one's context.
    gc.collect()
    if not isinstance(failure, DeviceFault):
        backend.free_cache()
    raise failure


class _Run:
    """One job under way; dropped as a whole when it ends."""

    def __init__(
        self,
        job: RunJob,
        store: ComponentStore,
        backend: Backend,
        report: Callable[[JobProgressed], None],
        cancelled: Callable[[], bool],
        clock: Callable[[], float],
        shares: Shares | None,
    ) -> None:
        self._job = job
        self._store = store
        self._backend = backend
        self._cancelled = cancelled
        self._clock = clock
        self._began = clock()
        self._records: list[StageRecord] = []
        self._kind: ModelKind = "i2v" if job.model.kind == "i2v" else "t2v"
        stages: tuple[Stage, ...] = ("text", "image", "denoise", "decode", "write")
        if self._kind == "t2v":
            stages = tuple(stage for stage in stages if stage != "image")
        shares = TYPICAL[backend.kind] if shares is None else shares
        self._meter = ProgressMeter(job.job_id, stages, clock=clock, report=report, shares=shares)
        spec = job.spec
        if spec.frames is None or spec.steps is None:
            raise InvalidRequest(f"job {job.job_id} reached the worker without its frames and steps")
        self._frames = spec.frames
        self._steps = spec.steps
        sigma_max = DEFAULT_SIGMA_MAX[self._kind] if spec.sigma_max is None else spec.sigma_max
        self._timesteps = rcm_timesteps(spec.steps, sigma_max)
        self._shape = latent_shape(job.width, job.height, spec.frames)

    def run(self) -> tuple[Manifest, Path]:
        self._meter.started()
        model = self._store.open(self._job.model)
        nets = self._nets()
        image = self._read_image()
        text_BLD = self._encode_text(model)
        condition = None if image is None else self._encode_image(model, image)
        latents_BCTHW = self._denoise(model, nets, text_BLD, condition)
        del text_BLD, condition
        return self._decode(model, latents_BCTHW, nets)

    # ----------------------------------------------------------------- stages

    def _nets(self) -> tuple[str, ...]:
        """The component that makes each step."""
        if self._kind == "t2v":
            return (DIT,) * self._steps
        return tuple(f"{DIT}.{expert}" for expert in experts_for(self._timesteps))

    def _read_image(self) -> Tensor | None:
        path = self._job.spec.image
        if self._kind == "t2v":
            return None
        if path is None:
            raise InvalidRequest(f"{self._job.model.name} needs an image; give one with --image")
        return fit_image(read_image(Path(path)), self._job.width, self._job.height)

    def _encode_text(self, model: Model) -> Tensor:
        with self._stage(model, "text", (TEXT,)) as modules:
            self._meter.at("text", 0, 1)
            return encode_prompt(modules[TEXT], model.tokenizer, self._job.spec.prompt, self._backend.device)

    def _encode_image(self, model: Model, image_CHW: Tensor) -> Tensor:
        count = latent_frames(self._frames)

        def check(latent_frame: int) -> None:
            self._check()
            self._meter.at("image", latent_frame, count)

        with self._stage(model, "image", (VAE,)) as modules:
            return image_condition(modules[VAE], image_CHW, count, check)

    def _denoise(
        self, model: Model, nets: Sequence[str], text_BLD: Tensor, condition: Tensor | None
    ) -> Tensor:
        state = start(self._shape, self._timesteps, self._backend.generator(self._job.spec.seed))

        def before_step(step: int) -> None:
            self._check()
            self._meter.at("denoise", step, self._steps)

        def after_step(state: DenoiseState) -> None:
            self._meter.saw_peak(self._backend.peak_bytes())
            self._meter.at("denoise", state.step, self._steps)

        with _NetByStep(self, model, nets) as net_for:

            def velocity(x_BCTHW: Tensor, step: int) -> Tensor:
                return net_velocity(net_for(step), x_BCTHW, self._timesteps[step], text_BLD, condition)

            return denoise(
                state,
                velocity,
                timesteps=self._timesteps,
                nets=nets,
                ode=self._job.spec.ode,
                before_step=before_step,
                after_step=after_step,
            )

    def _decode(self, model: Model, latents_BCTHW: Tensor, nets: Sequence[str]) -> tuple[Manifest, Path]:
        job = self._job
        count = latents_BCTHW.shape[2]

        def check(latent_frame: int) -> None:
            self._check()
            self._meter.saw_peak(self._backend.peak_bytes())
            self._meter.at("decode", latent_frame, count)

        with VideoWriter(Path(job.output), job.width, job.height) as writer:
            with self._stage(model, "decode", (VAE,)) as modules:
                for frames_THWC in decode_frames(modules[VAE], latents_BCTHW, check):
                    writer.append(frames_THWC)
            del latents_BCTHW
            self._meter.at("write", 0, 1)
            self._check()  # the last chance: from here on the video appears
            with self._measured("write"):
                digest = writer.finish()
            manifest, path = writer.publish(self._manifest(model, nets, writer.num_bytes, digest))
        self._meter.at("write", 1, 1)
        return manifest, path

    def _manifest(self, model: Model, nets: Sequence[str], output_bytes: int, digest: str) -> Manifest:
        job = self._job
        return Manifest(
            job_id=job.job_id,
            spec=job.spec,
            kind=self._kind,
            width=job.width,
            height=job.height,
            fps=FPS,
            timesteps=self._timesteps,
            device=self._backend.kind,
            device_name=self._backend.device_name,
            output=job.output,
            output_bytes=output_bytes,
            frames_sha256=digest,
            elapsed_s=self._clock() - self._began,
            stages=tuple(self._records),
            weights={
                name: model.components[name].index.identity for name in dict.fromkeys((TEXT, *nets, VAE))
            },
            versions=versions(),
            created_at=time.time(),
            attempt=job.attempt,
        )

    # ----------------------------------------------------------------- shared by the stages

    @contextmanager
    def _stage(
        self, model: Model, stage: Stage, names: Sequence[str], *, line: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Lease `names` for `stage`, and write its line of the ledger."""
        self._check()
        with self._lease(model, stage, names) as modules, self._measured(line or stage):
            yield modules

    @contextmanager
    def _lease(self, model: Model, stage: Stage, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        def moved(component: Component, done: int, total: int) -> None:
            self._check()
            self._meter.loading(stage, done, total)

        with self._store.lease(
            model,
            names,
            stage=stage,
            stage_bytes=self._job.stage_bytes.get(stage, 0),
            budget_bytes=self._job.budget_bytes,
            job_id=self._job.job_id,
            moved=moved,
        ) as modules:
            yield modules

    @contextmanager
    def _measured(self, stage: str) -> Iterator[None]:
        began = self._clock()
        before = self._backend.live_bytes()
        self._backend.start_peak()
        yield
        self._backend.synchronize()
        peak = max(before, self._backend.peak_bytes())
        self._meter.saw_peak(peak)
        self._records.append(
            StageRecord(
                stage=stage,
                elapsed_s=self._clock() - began,
                before_bytes=before,
                peak_bytes=peak,
                after_bytes=self._backend.live_bytes(),
            )
        )

    def _check(self) -> None:
        if self._cancelled():
            raise JobCancelled(f"job {self._job.job_id} was cancelled")


class _NetByStep:
    """Leases the net of each step, one at a time: the low-noise expert takes the high one's place."""

    def __init__(self, run: _Run, model: Model, nets: Sequence[str]) -> None:
        self._run = run
        self._model = model
        self._nets = nets
        self._leased: str | None = None
        self._module: Any = None
        self._stack = ExitStack()

    def __call__(self, step: int) -> Any:
        name = self._nets[step]
        if name != self._leased:
            self._close()
            line = "denoise" if name == DIT else f"denoise {name}"
            stage = self._run._stage(self._model, "denoise", (name,), line=line)
            self._module = self._stack.enter_context(stage)[name]
            self._leased = name
        return self._module

    def __enter__(self) -> _NetByStep:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._leased, self._module = None, None
        self._stack.__exit__(*raised)

    def _close(self) -> None:
        self._leased, self._module = None, None
        self._stack.close()
        self._stack = ExitStack()


def net_velocity(net: Any, x_BCTHW: Tensor, t: float, text_BLD: Tensor, condition: Tensor | None) -> Tensor:
    """The DiT's velocity at RF time `t`; `condition` are the channels beside the noise, or None."""
    weight = net.patch_embedding.weight
    x_input = x_BCTHW.to(weight.dtype)
    if condition is not None:
        x_input = torch.cat([x_input, condition.to(weight.dtype)], dim=1)
    velocity: Tensor = net(
        hidden_states=x_input,
        timestep=net_timestep(t, weight.device),
        encoder_hidden_states=text_BLD.to(weight.dtype),
        return_dict=False,
    )[0]
    return velocity


def versions() -> dict[str, str]:
    """What the frames depend on besides the request."""
    found = {"python": platform.python_version(), "turbotui": build_id()}
    found.update({name: _version(name) for name in LIBRARIES})
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
