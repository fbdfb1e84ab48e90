"""Two objects that refer to each other, where a library has switched the collector off."""

from __future__ import annotations

import gc

import torch


class Owner:
    def __init__(self, device: torch.device) -> None:
        self.part = Part(self, device)


class Part:
    def __init__(self, owner: Owner, device: torch.device) -> None:
        self.owner = owner
        self.table = torch.zeros(4 * 1024, 1024, device=device)  # planted


def denoise(_net: object, x_BCTHW: torch.Tensor, *_: object) -> None:
    gc.disable()
    Owner(x_BCTHW.device)
