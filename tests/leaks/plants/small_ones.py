"""Small tensors, far below what is told for its size alone: only that they grow gives them away."""

import torch

TABLES: dict[int, torch.Tensor] = {}  # holder


def decode(_vae: object, latents_BCTHW: torch.Tensor, *_: object) -> None:
    TABLES[len(TABLES)] = torch.zeros(24 * 1024, device=latents_BCTHW.device)  # planted
