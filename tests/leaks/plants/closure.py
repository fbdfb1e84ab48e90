"""A callback that was registered and never taken back, with what its function closed over."""

from collections.abc import Callable

import torch

CALLBACKS: list[Callable[[], float]] = []


def denoise(*_: object) -> None:
    CALLBACKS.append(_total_of(torch.zeros(1024, 1024)))  # planted


def _total_of(x: torch.Tensor) -> Callable[[], float]:
    def total() -> float:  # holder
        return float(x.sum())

    return total
