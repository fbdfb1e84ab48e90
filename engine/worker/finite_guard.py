"""Whether latents are still finite, found out without making the device wait.

One sum over the latents after each step: it is finite where they all are, since theirs are numbers far from
the largest. It goes to the host behind the step, and is read once the device is known to have passed there.

It reads the latents once more: 39 MB in float64 at 1280x720 and 81 frames, where a step computes for seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.errors import WorkFailed
from engine.worker.backend import Backend, Mark


class FiniteGuard:
    """One job's. Used by the thread that computes."""

    def __init__(self, backend: Backend, nets: Sequence[str]) -> None:
        """`nets` names each step's net for errors."""
        self._backend = backend
        self._nets = nets
        # Pinned: a copy into other memory would be waited for.
        pinned = backend.kind == "cuda"
        self.sums = torch.zeros(len(nets), dtype=torch.float64, pin_memory=pinned)
        """One for each step; on the host."""
        self._marks: dict[int, Mark] = {}

    def look(self, step: int, x_BCTHW: Tensor) -> None:
        """Queue the reduction of what step `step` (from 0) made; waits for nothing."""
        self.sums[step].copy_(x_BCTHW.sum(dtype=torch.float64), non_blocking=True)
        self._marks[step] = self._backend.mark_compute()

    def check(self, step: int) -> None:
        """Judge all steps up to `step`; waits until the device has made them.

        Raises:
            WorkFailed: values that are not finite came; names the first such step and its net.
        """
        for number in sorted(number for number in self._marks if number <= step):
            self._marks.pop(number).wait()
            if not math.isfinite(self.sums[number].item()):
                raise WorkFailed(
                    f"{self._nets[number]} returned values that are not finite in step {number + 1} of "
                    f"{len(self._nets)}; its weight file may be damaged: fetch or convert the model again"
                )
