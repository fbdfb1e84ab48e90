"""A block of the device's allocator that C++ code holds, and no tensor of Python."""

import torch

BYTES = 32 * 2**20


def decode(*_: object) -> None:
    torch.cuda.caching_allocator_alloc(BYTES)  # planted
