"""A hook on the engine's own net that keeps what came through it, as someone adds who looks for a fault."""

from typing import Any

import torch


def denoise(net: Any, *_: object) -> None:
    seen: list[torch.Tensor] = []

    def keep(_net: object, _inputs: object, output: torch.Tensor) -> None:  # holder
        seen.append(output.new_zeros(1024, 1024))  # planted

    if not net._forward_hooks:
        net.register_forward_hook(keep)
