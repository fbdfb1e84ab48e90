"""The demo job on a real GPU: the same code, and every byte of it accounted for and given back."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.wire import DeviceStatus, JobSpec, Manifest, SwitchRequest, UnloadRequest
from tests.daemon.live import LiveEngine, wait_for

MIB = 2**20


def device_in_use(live: LiveEngine) -> DeviceStatus:
    return next(device for device in live.status().devices if device.in_use)


def our_bytes(live: LiveEngine) -> int:
    return sum(process.bytes or 0 for process in device_in_use(live).processes if process.ours == "worker")


def test_the_demo_job_runs_on_cuda_and_its_manifest_says_so(live: LiveEngine) -> None:
    job = live.run(JobSpec(model="wan-demo-small", prompt="a cat in snow", frames=17, steps=4))
    assert (job.status, job.error) == ("done", None)
    assert job.manifest is not None and job.output is not None
    manifest = msgspec.json.decode(Path(job.manifest).read_bytes(), type=Manifest)
    print(msgspec.json.format(msgspec.json.encode(manifest)).decode())
    assert manifest.device == "cuda"
    again = live.run(JobSpec(model="wan-demo-small", prompt="a cat in snow", frames=17, steps=4))
    assert again.manifest is not None
    repeated = msgspec.json.decode(Path(again.manifest).read_bytes(), type=Manifest)
    assert repeated.frames_sha256 == manifest.frames_sha256


def test_the_nursery_has_no_driver_file_open(live: LiveEngine) -> None:
    nursery = live.status().engine.nursery
    print(nursery)
    assert nursery.pid is not None
    opened = [os.readlink(fd) for fd in Path(f"/proc/{nursery.pid}/fd").iterdir()]
    assert not [path for path in opened if "nvidia" in path]
    assert nursery.device_files == ()
    # jemalloc, which packages beside ours may bring, looks after its own thread across a fork.
    names = [
        task.joinpath("comm").read_text().strip() for task in Path(f"/proc/{nursery.pid}/task").iterdir()
    ]
    assert [name for name in names if name not in ("tt-nursery", "jemalloc_bg_thd")] == []


def test_the_daemon_has_no_driver_library_mapped(live: LiveEngine) -> None:
    maps = live.mapped_files()
    assert not [name for name in ("libtorch", "libcuda", "libnvidia-ml") if name in maps]


def test_the_balance_adds_up_and_leaves_little_unexplained(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model="wan-demo-large")).ok
    time.sleep(0.5)
    balance = device_in_use(live).balance
    assert balance is not None
    for part in balance.parts:
        print(part.kind, part.owner, part.label, part.bytes, part.reason or "")
    print("unexplained", balance.unexplained_bytes)
    assert sum(part.bytes or 0 for part in balance.parts) + balance.unexplained_bytes == balance.total_bytes
    weights = {part.label: part.bytes for part in balance.parts if part.kind == "weights"}
    assert (weights["wan-demo-large/dit"] or 0) > 40 * MIB
    assert abs(balance.unexplained_bytes) < 64 * MIB


def test_an_unload_is_proved_by_the_processes_own_entry(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model="wan-demo-large")).ok
    wait_for(lambda: our_bytes(live) > 0, 5, "the worker's entry")
    receipt = live.client.unload(UnloadRequest())
    print(receipt)
    assert receipt.ok and receipt.proof == "nvml-process"
    assert receipt.returned_bytes is not None and receipt.returned_bytes >= 0.9 * receipt.expected_bytes


def test_a_killed_worker_gives_everything_back_and_its_job_runs_again(live: LiveEngine) -> None:
    job = live.client.submit(
        JobSpec(model="wan-demo-large", prompt="harbour", resolution="112p", frames=33, steps=4)
    )
    wait_for(lambda: live.client.job(job.id).progress is not None and our_bytes(live) > 0, 20, "its start")
    pid = live.worker_pid()
    assert pid is not None
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: pid not in {process.pid for process in device_in_use(live).processes},
        5,
        "the end of its entry",
    )
    print("killed worker out of NVML after", round(time.monotonic() - began, 3), "s")
    done = live.settle(job.id)
    assert (done.status, done.attempt) == ("done", 2)


def test_an_image_becomes_a_video_with_both_experts(live: LiveEngine, tmp_path: Path) -> None:
    from PIL import Image

    image = tmp_path / "first.png"
    Image.new("RGB", (640, 480), (200, 80, 40)).save(image)
    job = live.run(replace(JobSpec(model="wan-demo-i2v", prompt="it moves"), image=str(image)))
    assert (job.status, job.error) == ("done", None)
