"""The parts of a Wan block between its matrix products, in the reference's order of rounding.

All work on rows of tokens [L, D], as many as the caller takes at once: their fp32 temporaries are what
bounds them. On a GPU `kernels.rows` does the same in one pass each.

Source: TurboDiffusion rcm/networks/wan2pt1.py; the order of rounding is that of its CUDA inference.
"""

# Shapes: L tokens, D width, d the head's dimension.

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.worker.nets import kernels


def modulated_norm(x_LD: Tensor, shift_D: Tensor, scale_D: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights, rounded; then * (1 + scale) + shift in fp32, rounded again.

    Rounded is to the dtype of x; `shift_D` and `scale_D` are fp32.
    """
    if kernels.usable(x_LD.device):
        out: Tensor = kernels.row_kernels().modulated_norm(x_LD, shift_D, scale_D, eps)
        return out
    normed = F.layer_norm(x_LD.float(), x_LD.shape[-1:], eps=eps).to(x_LD.dtype)
    return (normed.float() * (1 + scale_D) + shift_D).to(x_LD.dtype)


def affine_norm(x_LD: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float) -> Tensor:
    """LayerNorm with weights in fp32, rounded once."""
    if kernels.usable(x_LD.device):
        out: Tensor = kernels.row_kernels().affine_norm(x_LD, weight_D, bias_D, eps)
        return out
    return F.layer_norm(x_LD.float(), x_LD.shape[-1:], weight_D.float(), bias_D.float(), eps).to(x_LD.dtype)


def rms_norm(x_LD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMS norm over the whole width in fp32 with one rounding."""
    if kernels.usable(x_LD.device):
        out: Tensor = kernels.row_kernels().rms_norm(x_LD, weight_D, eps)
        return out
    wide = x_LD.float()
    inverse = 1 / torch.sqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * inverse * weight_D.float()).to(x_LD.dtype)


def rotated_rms_norm(
    x_LD: Tensor, weight_D: Tensor, eps: float, cos_Ld: Tensor, sin_Ld: Tensor, out_LD: Tensor
) -> None:
    """To `out_LD`: RMS norm over the whole width, rounded, then each head turned in fp32, rounded.

    `cos_Ld` and `sin_Ld` are fp32 [L, d/2]: neighbours (0, 1), (2, 3), ... of a head turn together.
    """
    if kernels.usable(x_LD.device):
        kernels.row_kernels().rotated_rms_norm(x_LD, weight_D, eps, cos_Ld, sin_Ld, out_LD)
        return
    normed = rms_norm(x_LD, weight_D, eps).float()
    first, second = normed.view(len(normed), -1, cos_Ld.shape[-1], 2).unbind(-1)
    cos, sin = cos_Ld[:, None], sin_Ld[:, None]
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    out_LD.copy_(turned.flatten(1))


def add_gated(x_LD: Tensor, y_LD: Tensor, gate_D: Tensor | None) -> None:
    """Into `x_LD`: x + y * gate, both operations rounded to its dtype. Without a gate x + y."""
    if gate_D is None:
        x_LD.add_(y_LD)
    elif kernels.usable(x_LD.device):
        kernels.row_kernels().add_gated(x_LD, y_LD, gate_D)
    else:
        x_LD.add_(y_LD * gate_D.to(x_LD.dtype))
