"""Small tensors that are kept between large ones that are not: their segments are cut up."""

import torch

PAIRS = 64
KEPT: list[torch.Tensor] = []


def after() -> None:
    between = []
    for _ in range(PAIRS):
        KEPT.append(torch.zeros(1024, dtype=torch.uint8, device="cuda"))
        between.append(torch.zeros(1000 * 1024, dtype=torch.uint8, device="cuda"))
