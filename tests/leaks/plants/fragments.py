"""Small tensors that are kept between large ones that are not: the segments of both are cut up."""

import torch

KIB = 1024
SMALL, LARGE = 4 * KIB, 1020 * KIB
"""Two pairs fill one of the allocator's segments for small blocks, of 2 MiB."""
PAIRS = 64
FILLERS = 2048
KEPT: list[torch.Tensor] = []


def after() -> None:
    # Holes of the job's own are filled meanwhile: the smallest that serves is taken first.
    meanwhile = [_block(SMALL) for _ in range(FILLERS)]
    for _ in range(PAIRS):
        KEPT.append(_block(SMALL))
        meanwhile.append(_block(LARGE))


def _block(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device="cuda")
