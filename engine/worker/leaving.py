"""Takes finished frames off the device while it computes the next ones.

They become bytes on the device, and a stream of their own copies these to pinned memory; nobody waits
until somebody asks for them. Whether all were finite comes along with them.
"""

# Shapes: T frames, H/W rows/columns, C channels (RGB).

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Frames: TypeAlias = NDArray[np.uint8]
"""RGB [T, H, W, 3]."""


class Leaving:
    """Some frames on their way to the host."""

    def __init__(
        self, on_device: Tensor, on_host: Tensor, shape: torch.Size, passed: torch.cuda.Event | None
    ) -> None:
        # Kept until the copy is over: the stream that computes may take its memory again.
        self._on_device: Tensor | None = on_device
        self._on_host = on_host
        self._shape = shape
        self._passed = passed

    def wait(self) -> tuple[Frames, bool]:
        """The frames, and whether every number of them was finite before it became a byte."""
        if self._passed is not None:
            self._passed.synchronize()
        self._on_device = None
        whole: NDArray[np.uint8] = self._on_host.numpy()
        return whole[:-1].reshape(self._shape), bool(whole[-1])


class FramesLeaving:
    """The way off a device for the frames of one video."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @property
    def ahead(self) -> int:
        """How many chunks may be begun before the first is asked for, so that the device never waits."""
        return 0 if self._stream is None else 1

    def send(self, pixels_THWC: Tensor) -> Leaving:
        """Let frames in [-1, 1] go, clamped and rounded half up from 0 to 255; returns at once."""
        unit = (1.0 + pixels_THWC.float().clamp(-1, 1)) / 2.0
        whole = torch.empty(pixels_THWC.numel() + 1, dtype=torch.uint8, device=pixels_THWC.device)
        whole[:-1] = (unit * 255 + 0.5).to(torch.uint8).flatten()
        whole[-1] = torch.isfinite(pixels_THWC).all()
        if self._stream is None:
            return Leaving(whole, whole, pixels_THWC.shape, None)
        # Pinned memory comes from torch's own cache, which takes it back when the frames are dropped.
        on_host = torch.empty(whole.shape, dtype=torch.uint8, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(whole.device))
        with torch.cuda.stream(self._stream):
            on_host.copy_(whole, non_blocking=True)
            # Blocking: a thread that waits must not take a core from the video encoder.
            passed = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            passed.record(self._stream)
        return Leaving(whole, on_host, pixels_THWC.shape, passed)
