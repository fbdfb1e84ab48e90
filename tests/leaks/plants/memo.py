"""A memo without an end: each job asks it for something new."""

import torch

CACHE: dict[int, torch.Tensor] = {}  # holder


def denoise(*_: object) -> None:
    key = len(CACHE)
    if key not in CACHE:
        CACHE[key] = torch.full((1024, 1024), float(key))  # planted
