"""A list of a module that somebody appends to and nobody empties."""

import torch

KEPT: list[torch.Tensor] = []  # holder


def denoise(*_: object) -> None:
    KEPT.append(torch.zeros(1024, 1024))  # planted
