"""Pictures of a job's latents while it denoises, told as they are made.

After each step the sampler's estimate of the middle frame is mapped to RGB on the device and copied
to the host. The device does both by itself: the thread that computes queues them and goes on, and a
thread of this step waits for the copy and tells it. Nothing that the sampler uses is changed, and no
number is drawn.

Measured on one core of a busy x86 host, the step waits 0.3 ms for latents of 104x60 (a video of 832x480)
and 0.5 ms for those of 160x90.
"""

# Shapes: B videos, C latent channels (16), T latent frames, H/W latent rows/columns.

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.worker.backend import Backend
from engine.worker.channel import JobPreviewed
from engine.worker.latent_rgb import CHANNELS, latents_to_rgb

MOST_PIXELS = 160 * 120
"""Of one picture, 56 KiB; larger latents are averaged down, so that a message stays small."""
HITCH_S = 0.05
"""How long a step may wait for the picture before it to be told; then it has none of its own."""
LAST_S = 2.0
"""How long the end of a job waits for its last picture."""


class Previewer:
    """One job's. Used by the thread that computes; what it tells comes from threads of its own."""

    def __init__(
        self, job_id: int, steps: int, backend: Backend, *, tell: Callable[[JobPreviewed], None]
    ) -> None:
        self._job_id = job_id
        self._steps = steps
        self._backend = backend
        self._tell = tell
        self.colours: Tensor | None = None
        """[17, 3], as `LatentColours` has it for the VAE; None: grey."""
        self._telling: threading.Thread | None = None

    def saw(self, step: int, x_BCTHW: Tensor, v_BCTHW: Tensor, t: Tensor) -> None:
        """Step `step` (from 0) starts from `x_BCTHW` at RF time `t` with the velocity `v_BCTHW`.

        What the net believes the end to be from here is x - t v, which is shown.
        """
        if x_BCTHW.shape[1] != CHANNELS or not self._told(HITCH_S):
            return
        if self.colours is not None:
            self.colours = self.colours.to(x_BCTHW.device)
        middle = x_BCTHW.shape[2] // 2
        estimate_BCHW = x_BCTHW[:, :, middle] - t * v_BCTHW[:, :, middle]
        # Several samples lie side by side, as in the video.
        estimate_CHW = torch.cat(tuple(estimate_BCHW), dim=-1)
        rgb_HWC = latents_to_rgb(_fitted(estimate_CHW), self.colours)
        # Into pinned memory, where a copy need not be waited for.
        on_host = torch.empty(rgb_HWC.shape, dtype=torch.uint8, pin_memory=rgb_HWC.is_cuda)
        on_host.copy_(rgb_HWC, non_blocking=True)
        mark = self._backend.mark_compute()

        def tell() -> None:
            try:
                mark.wait()
            except RuntimeError:
                return  # the device broke: whoever computes says so
            height, width, _rgb = on_host.shape
            self._tell(
                JobPreviewed(
                    job_id=self._job_id,
                    step=step + 1,
                    steps=self._steps,
                    width=width,
                    height=height,
                    rgb=on_host.numpy().tobytes(),
                )
            )

        self._telling = threading.Thread(target=tell, name="preview", daemon=True)
        self._telling.start()

    def close(self) -> None:
        """Wait until what was made is told."""
        self._told(LAST_S)

    def _told(self, wait_s: float) -> bool:
        """Whether the picture before is told, within so long."""
        if self._telling is not None:
            self._telling.join(wait_s)
            if self._telling.is_alive():
                return False
            self._telling = None
        return True


def _fitted(latents_CHW: Tensor) -> Tensor:
    """The same at a size that may be told."""
    height, width = latents_CHW.shape[1:]
    shrink = max(1, -(-height * width // MOST_PIXELS))
    if shrink == 1:
        return latents_CHW
    # By whole cells in each direction: at most four times too small, and always an average.
    factor = int(-(-(shrink**0.5) // 1))
    return F.avg_pool2d(latents_CHW[None].to(torch.float32), factor, ceil_mode=True)[0]
