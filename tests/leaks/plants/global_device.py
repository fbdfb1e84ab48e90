"""The same with a tensor where the net computes."""

import torch

KEPT: list[torch.Tensor] = []  # holder


def denoise(_net: object, x_BCTHW: torch.Tensor, *_: object) -> None:
    KEPT.append(torch.zeros(4 * 1024, 1024, device=x_BCTHW.device))  # planted
