"""Jobs from request to video, on a real worker with the demo models."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import msgspec
import pytest

from engine.errors import EngineError, InvalidRequest, NotNow
from engine.wire import JobMove, JobSpec, Manifest, SwitchRequest, UnloadRequest
from tests.daemon.live import LiveEngine, wait_for


def read_manifest(path: str | None) -> Manifest:
    assert path is not None
    return msgspec.json.decode(Path(path).read_bytes(), type=Manifest)


def count_frames(path: str, width: int, height: int) -> int:
    """Frames that ffmpeg decodes from the file; imageio's own reader leaves its pipes open."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo"]
    raw = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    assert len(raw) % (width * height * 3) == 0
    return len(raw) // (width * height * 3)


def test_a_prompt_becomes_a_playable_video_with_a_manifest_beside_it(
    live: LiveEngine, short: JobSpec
) -> None:
    short = replace(short, prompt="一座灯塔, a prompt that no test before has had encoded")
    job = live.run(short)
    assert (job.status, job.error) == ("done", None)
    assert job.output is not None
    manifest = read_manifest(job.manifest)
    assert count_frames(job.output, manifest.width, manifest.height) == 5
    assert manifest.job_id == job.id
    assert manifest.device == "cpu"
    assert manifest.spec.prompt == short.prompt
    assert manifest.output == job.output
    assert Path(job.output).stat().st_size == manifest.output_bytes
    assert {record.stage for record in manifest.stages} >= {"text", "denoise", "decode", "write"}
    assert manifest.versions["torch"]
    assert not [name for name in os.listdir(Path(job.output).parent) if "tmp" in name or name.startswith(".")]


def test_the_same_seed_gives_the_same_frames_and_another_seed_others(
    live: LiveEngine, short: JobSpec
) -> None:
    first, again = (read_manifest(live.run(short).manifest).frames_sha256 for _ in range(2))
    other = read_manifest(live.run(replace(short, seed=8)).manifest).frames_sha256
    assert first == again
    assert other != first
    assert len(first) == len(hashlib.sha256().hexdigest())


def test_an_image_becomes_a_video_with_both_experts(live: LiveEngine, image: Path) -> None:
    spec = JobSpec(model="wan-demo-i2v", prompt="it moves", image=str(image), frames=5, steps=4)
    job = live.run(spec)
    assert (job.status, job.error) == ("done", None)
    assert {"dit.high", "dit.low"} <= set(read_manifest(job.manifest).weights)


def test_a_running_job_is_cancelled_between_two_steps(
    live: LiveEngine, long: JobSpec, short: JobSpec
) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    live.client.cancel(job.id)
    assert live.settle(job.id, 30).status == "cancelled"
    assert not list(live.paths.output.glob(f"{job.id:06d}*"))
    assert live.run(short).status == "done"


def test_a_waiting_job_is_cancelled_held_moved_and_duplicated(
    live: LiveEngine, long: JobSpec, short: JobSpec
) -> None:
    running = live.client.submit(long)
    first, second = (live.client.submit(short).id for _ in range(2))
    assert live.client.move(second, JobMove(position=1)).position == 1
    assert live.client.hold(first, held=True).held
    copy = live.client.duplicate(second)
    assert copy.duplicate_of == second
    live.client.cancel(copy.id)
    live.client.cancel(running.id)
    assert live.settle(second).status == "done"
    assert live.client.job(first).status == "queued"
    live.client.hold(first, held=False)
    assert live.settle(first).status == "done"


def test_what_has_ended_cannot_be_cancelled(live: LiveEngine, short: JobSpec) -> None:
    job = live.run(short)
    with pytest.raises(NotNow, match=f"job {job.id} is done"):
        live.client.cancel(job.id)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 6}, "6"),
        ({"steps": 5}, "5"),
        ({"resolution": "4k"}, "4k"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 100_000}, "100,000"),
        ({"prompt": "a\x1b]52;c;aGk=\x07b"}, "U+001B"),
        ({"image": "/no/such.png"}, "image"),
        ({"output_dir": "/proc"}, "/proc"),
    ],
)
def test_a_request_that_cannot_work_is_refused_when_it_is_submitted(
    live: LiveEngine, short: JobSpec, change: dict[str, object], words: str
) -> None:
    with pytest.raises(EngineError, match=words.replace("+", r"\+")):
        live.client.submit(replace(short, **change))  # type: ignore[arg-type]


def test_a_broken_image_is_refused_and_the_queue_goes_on(
    live: LiveEngine, short: JobSpec, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    with pytest.raises(InvalidRequest, match=r"broken\.png"):
        live.client.submit(JobSpec(model="wan-demo-i2v", prompt="x", image=str(broken), frames=5))
    assert live.run(short).status == "done"


def test_an_unload_gives_the_components_bytes_back_within_five_percent(
    live: LiveEngine, short: JobSpec
) -> None:
    assert live.run(replace(short, model="wan-demo-large")).status == "done"
    receipt = live.client.unload(UnloadRequest())
    assert receipt.ok and receipt.expected_bytes > 50 * 2**20
    assert receipt.proof == "process-rss"
    assert receipt.returned_bytes is not None
    assert receipt.returned_bytes >= 0.95 * receipt.expected_bytes
    states = [c.state for model in live.client.models() for c in model.components]
    assert set(states) == {"absent"}


def test_a_switch_loads_what_the_models_do_not_share_and_unloads_the_other(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model="wan-demo-small")).ok
    receipt = live.client.switch(SwitchRequest(model="wan-demo-large"))
    assert receipt.ok, receipt.error
    sizes = {m.name: {c.name: c.bytes for c in m.components} for m in live.client.models()}
    assert receipt.loaded_bytes == sizes["wan-demo-large"]["dit"]
    assert receipt.expected_bytes == sizes["wan-demo-small"]["dit"]
    names = [step.name for step in receipt.steps]
    kept = [f"keep wan-demo-large/{name}, the same weights" for name in ("text", "vae")]
    assert names[:3] == [*kept, "fits"]
    states = {m.name: {c.state for c in m.components} for m in live.client.models()}
    assert states["wan-demo-large"] == {"resident"}
    assert states["wan-demo-small"] == {"absent"}


def test_an_unload_right_after_a_switch_tells_the_truth(live: LiveEngine) -> None:
    for _ in range(3):
        assert live.client.switch(SwitchRequest(model="wan-demo-large")).ok
        receipt = live.client.unload(UnloadRequest())
        assert receipt.ok and receipt.returned_bytes is not None
        assert receipt.returned_bytes >= 0.95 * receipt.expected_bytes
        assert receipt.residue_bytes == 0


def test_a_job_that_does_not_fit_now_says_for_whom_it_waits(spare: LiveEngine, short: JobSpec) -> None:
    spare.environ["TURBOTUI_ENGINE_KEEP_FREE_BYTES"] = str(2**50)
    spare.start()
    wait_for(lambda: spare.status().devices, 10, "the first reading")
    forecast = spare.client.forecast(short)
    assert not forecast.fits_now and forecast.reason
    job = spare.client.submit(short)
    waiting = wait_for(
        lambda: (found := spare.client.job(job.id)).status == "waiting_memory" and found, 10, "waiting"
    )
    assert waiting.waits_for is not None and "others on this host hold" in waiting.waits_for
    assert spare.client.cancel(job.id).status == "cancelled"
