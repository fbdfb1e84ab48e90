"""A pinned buffer that stays in a global when its copy is done."""

import torch

BUFFERS: list[torch.Tensor] = []  # holder


def decode(*_: object) -> None:
    BUFFERS.append(torch.empty(8 * 1024, 1024, pin_memory=True))  # planted
