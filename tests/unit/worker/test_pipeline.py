"""A whole job on the demo models: what it makes, and what it leaves behind when it fails."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
import torch
from PIL import Image

from engine.errors import (
    DeviceFault,
    DoesNotFit,
    InvalidRequest,
    JobCancelled,
    ModelUnusable,
    OutOfMemory,
    StorageUnusable,
    WorkFailed,
)
from engine.wire import Manifest
from engine.worker import pipeline
from engine.worker.channel import JobStaged, ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.pipeline import run_job
from engine.worker.region import Region
from engine.worker.store import ComponentStore
from engine.worker.watch import JobWatch

from .conftest import I2V, LARGE, SMALL, STAGE_BYTES, Seen

MakeJob = Callable[..., RunJob]


@pytest.fixture
def run(store: ComponentStore, backend: CpuBackend, seen: Seen) -> Callable[..., tuple[Manifest, Path]]:
    def run(job: RunJob, cancelled: Callable[[], bool] = lambda: False) -> tuple[Manifest, Path]:
        return run_job(job, store, backend, report=seen.progress.append, cancelled=cancelled)

    return run


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(path)
    return str(path)


def _big_tensors() -> int:
    """Live tensors beyond small constants and views into arenas, of which a test of its own knows."""
    gc.collect()
    # Not isinstance, which asks every lazy module in memory for its __class__.
    live = gc.get_objects()
    arenas = {
        view.untyped_storage().data_ptr() for item in live if type(item) is Region for view in item.views[:1]
    }
    return sum(
        1
        for item in live
        if type(item) is torch.Tensor
        and item.numel() > 4096
        and item.untyped_storage().data_ptr() not in arenas
    )


def test_a_job_ends_with_a_video_and_its_manifest(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, seen: Seen
) -> None:
    manifest, path = run(job(SMALL))
    assert json.loads(path.read_text("utf-8"))["frames_sha256"] == manifest.frames_sha256
    assert imageio_ffmpeg.count_frames_and_secs(manifest.output)[0] == 5
    assert Path(manifest.output).stat().st_size == manifest.output_bytes
    assert [record.stage for record in manifest.stages] == ["text", "denoise", "decode", "write"]
    assert all(record.peak_bytes >= record.before_bytes > 0 for record in manifest.stages)
    assert set(manifest.weights) == {"text", "dit", "vae"}
    assert manifest.timesteps[-1] == 0.0
    assert (manifest.device, manifest.kind, manifest.fps) == ("cpu", "t2v", 16)
    assert seen.leased() == set()


def test_progress_rises_to_the_end_through_every_stage(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, seen: Seen, picture: str
) -> None:
    run(job(I2V, image=picture, steps=4))
    fractions = [item.fraction for item in seen.progress]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    order = list(dict.fromkeys(item.stage for item in seen.progress))
    assert order == ["start", "load", "text", "image", "denoise", "decode", "write"]
    steps = [item.step for item in seen.progress if item.stage == "denoise"]
    assert steps == sorted(steps)
    assert max(steps) == 4
    assert seen.progress[-1].eta_s == 0.0


def test_the_same_seed_gives_the_same_frames_and_another_seed_others(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, store: ComponentStore
) -> None:
    first = run(job(SMALL, seed=1))[0]
    store.unload()
    again = run(job(SMALL, seed=1))[0]
    other = run(job(SMALL, seed=2))[0]
    assert first.frames_sha256 == again.frames_sha256 != other.frames_sha256


def test_an_image_job_uses_its_image_and_both_experts(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, tmp_path: Path, picture: str
) -> None:
    manifest = run(job(I2V, image=picture, steps=4))[0]
    stages = [record.stage for record in manifest.stages]
    assert stages == ["text", "image", "denoise dit.high", "denoise dit.low", "decode", "write"]
    assert manifest.weights["dit.high"] != manifest.weights["dit.low"]
    Image.new("RGB", (64, 64), "green").save(tmp_path / "green.png")
    other = run(job(I2V, image=str(tmp_path / "green.png"), steps=4))[0]
    assert other.frames_sha256 != manifest.frames_sha256
    short = run(job(I2V, image=picture, steps=2))[0]
    assert "dit.low" not in short.weights
    ode = run(job(I2V, image=picture, steps=4, ode=True))[0]
    assert ode.frames_sha256 != manifest.frames_sha256


def test_a_tight_budget_swaps_components_and_makes_the_same_frames(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    store: ComponentStore,
    files: Callable[[str], ModelFiles],
    seen: Seen,
    picture: str,
) -> None:
    roomy = run(job(I2V, image=picture, steps=4))[0]
    store.unload()
    seen.receipts.clear()
    model = store.open(files(I2V))
    budget = max(component.bytes for component in model.components.values()) + STAGE_BYTES
    tight = run(job(I2V, image=picture, steps=4, budget_bytes=budget))[0]
    assert tight.frames_sha256 == roomy.frames_sha256
    moves = [(receipt.action, receipt.target) for receipt in seen.receipts]
    assert ("swap", f"{I2V}/dit.low") in moves
    assert ("unload", f"{I2V}/dit.high") not in moves
    assert all(receipt.job_id == 3 for receipt in seen.receipts)


def test_a_budget_that_is_too_small_for_a_stage_is_refused_with_figures(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, seen: Seen
) -> None:
    with pytest.raises(DoesNotFit, match=r"text needs .* the budget is 1\.0 MiB"):
        run(job(LARGE, budget_bytes=2**20))
    assert seen.leased() == set()


@pytest.mark.parametrize("stage", ["load", "text", "image", "denoise", "decode", "write"])
def test_a_cancel_in_any_stage_leaves_no_file_lease_or_tensor(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    seen: Seen,
    store: ComponentStore,
    files: Callable[[str], ModelFiles],
    tmp_path: Path,
    picture: str,
    stage: str,
) -> None:
    store.open(files(I2V))
    before = _big_tensors()
    with pytest.raises(JobCancelled, match="job 3 was cancelled"):
        run(
            job(I2V, image=picture, steps=4),
            cancelled=lambda: bool(seen.progress) and seen.progress[-1].stage == stage,
        )
    assert seen.leased() == set()
    assert os.listdir(tmp_path) == ["picture.png"]
    assert _big_tensors() <= before


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), OutOfMemory),
        (RuntimeError("shapes disagree\nlong story"), WorkFailed),
        (OSError(28, "No space left on device", "/x/clip.mp4"), StorageUnusable),
    ],
)
def test_an_error_in_a_stage_becomes_one_sentence_that_holds_no_tensor(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    seen: Seen,
    store: ComponentStore,
    files: Callable[[str], ModelFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    becomes: type[Exception],
) -> None:
    def broken(net: Any, x_BCTHW: torch.Tensor, *rest: Any) -> torch.Tensor:
        held = torch.zeros(1000, 1000)
        assert held.numel()
        raise raised

    monkeypatch.setattr(pipeline, "net_velocity", broken)
    store.open(files(SMALL))
    before = _big_tensors()
    with pytest.raises(becomes) as caught:
        run(job(SMALL))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert _big_tensors() <= before
    assert seen.leased() == set()
    assert os.listdir(tmp_path) == []


def test_a_broken_device_context_is_told_apart(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    backend: CpuBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(pipeline, "net_velocity", broken)
    monkeypatch.setattr(backend, "is_fatal", lambda error: "CUDA error" in str(error))
    with pytest.raises(DeviceFault, match=r"illegal memory access.*worker is replaced") as caught:
        run(job(SMALL))
    assert "net_velocity" in caught.value.__notes__[0] or "broken" in caught.value.__notes__[0]


def test_a_finished_job_leaves_no_tensor_behind(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    store: ComponentStore,
    files: Callable[[str], ModelFiles],
    picture: str,
) -> None:
    store.open(files(I2V))
    before = _big_tensors()
    run(job(I2V, image=picture, steps=4))
    assert _big_tensors() <= before


def test_values_that_are_not_finite_name_the_expert(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    picture: str,
) -> None:
    real = pipeline.net_velocity

    def late(net: Any, x_BCTHW: torch.Tensor, t: float, *rest: Any) -> torch.Tensor:
        return real(net, x_BCTHW, t, *rest) * (float("inf") if t < 0.7 else 1.0)

    monkeypatch.setattr(pipeline, "net_velocity", late)
    with pytest.raises(WorkFailed, match=r"dit\.low returned values that are not finite in step 4 of 4"):
        run(job(I2V, image=picture, steps=4))


def test_bad_input_that_only_the_worker_can_find_is_refused_and_the_next_job_runs(
    run: Callable[..., tuple[Manifest, Path]],
    job: MakeJob,
    seen: Seen,
    tmp_path: Path,
    copy_of: Callable[[str], ModelFiles],
) -> None:
    with pytest.raises(InvalidRequest, match="needs an image"):
        run(job(I2V))
    with pytest.raises(InvalidRequest, match="does not exist"):
        run(job(I2V, image=str(tmp_path / "none.png")))
    broken = copy_of(SMALL)
    weights = Path(broken.path) / "transformer" / "diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(ModelUnusable, match="truncated"):
        run(job(broken))
    assert seen.leased() == set()
    assert run(job(SMALL))[0].output_bytes > 0


def test_a_folder_that_vanished_is_said_before_the_weights_are_used_up(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, tmp_path: Path
) -> None:
    made = job(SMALL)
    gone = RunJob(
        **{**{name: getattr(made, name) for name in made.__struct_fields__}, "output": "/gone/x.mp4"}
    )
    with pytest.raises(StorageUnusable, match=r"/gone/x\.mp4 cannot be written"):
        run(gone)


def test_a_job_whose_name_was_taken_meanwhile_reports_the_real_one(
    run: Callable[..., tuple[Manifest, Path]], job: MakeJob, tmp_path: Path
) -> None:
    first, _ = run(job(SMALL, seed=1))
    second, path = run(job(SMALL, seed=2))
    assert second.output == str(tmp_path / "clip-2.mp4")
    assert path == tmp_path / "clip-2.json"
    assert Path(second.output).stat().st_size == second.output_bytes
    assert json.loads((tmp_path / "clip.json").read_text("utf-8"))["frames_sha256"] == first.frames_sha256


@pytest.mark.parametrize("how", ["fails", "cancelled"])
def test_the_stage_in_which_a_job_is_ended_is_told_as_cut_off(
    backend: CpuBackend, store: ComponentStore, job: MakeJob, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    told: list[JobStaged] = []
    denoising: list[bool] = []

    def step(*_: Any) -> torch.Tensor:
        denoising.append(True)
        raise RuntimeError("broken") if how == "fails" else JobCancelled("asked for")

    monkeypatch.setattr(pipeline, "net_velocity", step)
    message = job(SMALL)
    watch = JobWatch(message, backend, tell=told.append, preview=False)  # type: ignore[arg-type]
    with pytest.raises(WorkFailed):
        run_job(message, store, backend, report=lambda told: None, cancelled=lambda: False, watch=watch)
    assert denoising and [record.stage for record in told[-1].ended] == ["text"]
    cut = told[-1].cut_off
    assert cut is not None and cut.stage.startswith("denoise") and told[-1].current is None
    assert cut.elapsed_s > 0 and cut.peak_bytes >= cut.before_bytes > 0
    assert all(message.cut_off is None for message in told[:-1])
