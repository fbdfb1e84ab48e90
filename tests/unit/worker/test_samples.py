"""Several samples of one job: one draw, each through the nets alone, side by side in one file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.errors import JobCancelled
from engine.wire import Manifest
from engine.worker import pipeline
from engine.worker.autoencoder import Frames
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.pipeline import run_job
from engine.worker.side_by_side import decode_side_by_side, each_sample
from engine.worker.store import ComponentStore

from .conftest import I2V, SMALL, STAGE_BYTES, Seen

MakeJob = Callable[..., RunJob]
Run = Callable[[RunJob], Manifest]


@pytest.fixture
def run(store: ComponentStore, backend: CpuBackend, seen: Seen) -> Run:
    def run(job: RunJob) -> Manifest:
        return run_job(job, store, backend, report=seen.progress.append, cancelled=lambda: False)[0]

    return run


def test_each_sample_goes_alone_and_only_the_last_may_let_its_weights_go() -> None:
    seen: list[tuple[tuple[int, ...], int, bool]] = []
    checks: list[int] = []

    def velocity(x: Tensor, step: int, last: bool) -> Tensor:
        seen.append((tuple(x.shape), step, last))
        return x * (step + 1)

    x = torch.randn(3, 16, 2, 4, 4)
    assert torch.equal(each_sample(velocity, lambda: checks.append(len(seen)), x, 1), x * 2)
    assert seen == [((1, 16, 2, 4, 4), 1, False)] * 2 + [((1, 16, 2, 4, 4), 1, True)]
    assert checks == [1, 2]


def test_videos_lie_from_left_to_right_frame_by_frame() -> None:
    latents = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 16, 2, 1, 1)
    checks: list[tuple[int, int]] = []

    def decode(latents_BCTHW: Tensor, check: Callable[[int], None]) -> Iterator[Frames]:
        for latent_frame in range(latents_BCTHW.shape[2]):
            check(latent_frame)
            value = int(latents_BCTHW[0, 0, latent_frame, 0, 0]) * 10 + latent_frame
            yield np.full((4 if latent_frame else 1, 2, 5, 3), value, dtype=np.uint8)

    def check(sample: int, latent_frame: int) -> None:
        checks.append((sample, latent_frame))

    first, second = decode_side_by_side(decode, latents, check)
    assert (first.shape, second.shape) == ((1, 2, 15, 3), (4, 2, 15, 3))
    assert second[3, 1, ::5, 0].tolist() == [1, 11, 21]
    assert checks == [(sample, frame) for sample in range(3) for frame in range(2)]


def test_a_job_of_two_samples_is_one_wide_video(
    run: Run, job: MakeJob, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, ...]] = []
    real = torch.randn

    def randn(*shape: object, **options: object) -> Tensor:
        made = real(*shape, **options)  # type: ignore[call-overload]
        drawn.append(tuple(made.shape))
        return made  # type: ignore[no-any-return]

    monkeypatch.setattr(torch, "randn", randn)
    manifest = run(job(SMALL, samples=2))
    # One draw of both at the start, and one in each step, the last among them.
    assert [shape for shape in drawn if len(shape) == 5] == [(2, 16, 2, 4, 4)] * 3
    assert (manifest.width, manifest.height, manifest.spec.samples) == (64, 32, 2)
    assert imageio_ffmpeg.count_frames_and_secs(manifest.output)[0] == 5
    left, right = np.split(_frames(manifest), 2, axis=2)
    assert np.abs(left.astype(int) - right).mean() > 1
    fractions = [item.fraction for item in seen.progress]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert run(job(SMALL, samples=2)).frames_sha256 == manifest.frames_sha256


def test_samples_change_with_neither_the_budget_nor_a_swap_of_experts(
    run: Run,
    job: MakeJob,
    store: ComponentStore,
    files: Callable[[str], ModelFiles],
    seen: Seen,
    tmp_path: Path,
) -> None:
    picture = tmp_path / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(picture)
    roomy = run(job(I2V, image=str(picture), steps=4, samples=3))
    store.unload()
    seen.receipts.clear()
    model = store.open(files(I2V))
    budget = max(component.bytes for component in model.components.values()) + STAGE_BYTES
    tight = run(job(I2V, image=str(picture), steps=4, samples=3, budget_bytes=budget))
    assert [receipt.target for receipt in seen.receipts if receipt.action == "swap"] == [f"{I2V}/dit.low"]
    assert tight.frames_sha256 == roomy.frames_sha256


def test_a_cancel_is_seen_between_two_samples(
    store: ComponentStore, backend: CpuBackend, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    real = pipeline.net_velocity

    def counted(*given: object) -> Tensor:
        passes.append(1)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "net_velocity", counted)
    with pytest.raises(JobCancelled):
        run_job(
            job(SMALL, samples=4, steps=1),
            store,
            backend,
            report=lambda progress: None,
            cancelled=lambda: len(passes) >= 2,
        )
    assert len(passes) == 2


def _frames(manifest: Manifest) -> np.ndarray:
    """uint8 [T, H, W, 3] as a player sees them."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", manifest.output]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, manifest.height, manifest.width, 3)
