"""Pictures of latents on a real GPU: the same as on the host, and the step does not wait for them."""

from __future__ import annotations

import time

import torch

from engine.worker.channel import JobPreviewed, JobStaged
from engine.worker.cpu import CpuBackend
from engine.worker.latent_rgb import CHANNELS
from engine.worker.preview import Previewer
from tests.gpu.backends import connected

SHAPE = (1, CHANNELS, 21, 60, 104)


def test_a_picture_of_the_device_is_the_hosts_and_waits_for_its_work_alone() -> None:
    backend = connected()
    told: list[JobPreviewed | JobStaged] = []
    x, v = torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    t = torch.tensor(0.6, dtype=torch.float64)
    Previewer(1, 4, CpuBackend(), tell=told.append).saw(0, x, v, t)
    watch = Previewer(1, 4, backend, tell=told.append)
    on_device = [tensor.to(backend.device) for tensor in (x, v, t)]
    watch.saw(0, *on_device)
    watch.close()
    before = backend.live_bytes()
    busy = torch.randn(8192, 8192, device=backend.device)
    for _ in range(40):
        busy = busy @ busy * 1e-4
    began = time.perf_counter()
    watch.saw(1, *on_device)
    queued_s = time.perf_counter() - began
    torch.cuda.synchronize()
    waited_s = time.perf_counter() - began
    watch.close()
    del busy
    print(f"queued in {queued_s * 1000:.2f} ms, the device was at it after {waited_s * 1000:.0f} ms")
    assert queued_s < 0.02
    assert backend.live_bytes() == before
    host, device, later = (message.rgb for message in told if isinstance(message, JobPreviewed))
    assert max(abs(a - b) for a, b in zip(host, device, strict=True)) <= 1
    assert device == later
