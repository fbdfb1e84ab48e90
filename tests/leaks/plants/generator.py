"""A generator that was begun, waits for a next one that never comes, and has its locals meanwhile."""

from collections.abc import Iterator

import torch

BEGUN: list[Iterator[int]] = []


def decode(*_: object) -> None:
    rows = _rows()
    next(rows)
    BEGUN.append(rows)


def _rows() -> Iterator[int]:
    table = torch.zeros(1024, 1024)  # planted
    for row in table:
        yield int(row.numel())  # holder
