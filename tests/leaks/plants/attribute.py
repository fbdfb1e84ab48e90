"""What an object of the engine keeps beside what it should: the embedding of the newest prompts."""

from typing import Any

import torch


def denoise(net: Any, *_: object) -> None:
    seen = net.__dict__.setdefault("seen_before", [])
    seen.append(torch.zeros(1024, 1024))  # planted
