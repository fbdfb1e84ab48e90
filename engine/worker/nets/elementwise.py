"""The parts of a Wan block between its matrix products, in the reference's order of rounding.

Each walks over the tokens in chunks, so that its fp32 temporaries do not grow with the video: of 75,600
tokens of 5120 numbers one temporary of all of them is 1.5 GB. On a GPU the kernels of `kernels`
take their place.

Source: TurboDiffusion rcm/networks/wan2pt1.py; the order of rounding is that of its CUDA inference.
"""

# Shapes: B videos, L tokens, D width, H heads, d the head's dimension.

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_TOKENS = 4096


def modulated_norm(x_BLD: Tensor, shift_BD: Tensor, scale_BD: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights, rounded; then * (1 + scale) + shift in fp32, rounded again.

    Rounded is to the dtype of x; `shift_BD` and `scale_BD` are fp32.
    """
    out = torch.empty_like(x_BLD)
    scale, shift = 1 + scale_BD[:, None], shift_BD[:, None]
    for part in _chunks(x_BLD):
        normed = F.layer_norm(x_BLD[:, part].float(), x_BLD.shape[-1:], eps=eps).to(x_BLD.dtype)
        out[:, part] = normed.float().mul_(scale).add_(shift)
    return out


def affine_norm(x_BLD: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float) -> Tensor:
    """LayerNorm with weights in fp32, rounded once."""
    out = torch.empty_like(x_BLD)
    weight, bias = weight_D.float(), bias_D.float()
    for part in _chunks(x_BLD):
        out[:, part] = F.layer_norm(x_BLD[:, part].float(), x_BLD.shape[-1:], weight, bias, eps)
    return out


def add_gated(x_BLD: Tensor, y_BLD: Tensor, gate_BD: Tensor | None) -> Tensor:
    """x + y * gate, both products rounded to the dtype of x; overwrites x and y. No gate: x + y."""
    if gate_BD is not None:
        y_BLD = y_BLD.mul_(gate_BD[:, None].to(x_BLD.dtype))
    return x_BLD.add_(y_BLD)


def rms_norm(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMS norm over the whole width in fp32 with one rounding."""
    out = torch.empty_like(x_BLD)
    weight = weight_D.float()
    for part in _chunks(x_BLD):
        out[:, part] = _rms(x_BLD[:, part], weight, eps)
    return out


def rotated_rms_norm(x_BLD: Tensor, weight_D: Tensor, eps: float, cos_Ld: Tensor, sin_Ld: Tensor) -> Tensor:
    """RMS norm over the whole width, rounded, then the rotary embedding of each head in fp32, rounded.

    `cos_Ld` and `sin_Ld` are fp32 [L, d/2]: neighbours (0, 1), (2, 3), ... of a head turn together.
    """
    out = torch.empty_like(x_BLD)
    weight, pairs = weight_D.float(), cos_Ld.shape[-1]
    for part in _chunks(x_BLD):
        normed = _rms(x_BLD[:, part], weight, eps).to(x_BLD.dtype).float()
        first, second = normed.view(*normed.shape[:2], -1, pairs, 2).unbind(-1)
        cos, sin = cos_Ld[part, None], sin_Ld[part, None]
        turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
        out[:, part] = turned.flatten(2)
    return out


def _rms(x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    wide = x_BLD.float()
    return wide * (1 / torch.sqrt(wide.square().mean(-1, keepdim=True) + eps)) * weight_D


def _chunks(x_BLD: Tensor) -> list[slice]:
    return [slice(begin, begin + CHUNK_TOKENS) for begin in range(0, x_BLD.shape[1], CHUNK_TOKENS)]
