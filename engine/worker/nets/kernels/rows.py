"""Norms with what follows them, one token to a program: each reads and writes every number once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDE = 4096
"""Numbers of a token from which on a program has eight warps."""


def modulated_norm(x_LD: Tensor, shift_D: Tensor, scale_D: Tensor, eps: float) -> Tensor:
    """As `elementwise.modulated_norm`; a row is contiguous, and rows may lie apart."""
    length, width = x_LD.shape
    out_LD = torch.empty((length, width), dtype=x_LD.dtype, device=x_LD.device)
    _modulated_norm[(length,)](
        x_LD, shift_D, scale_D, out_LD, x_LD.stride(0), out_LD.stride(0), width, eps,
        BLOCK=triton.next_power_of_2(width), num_warps=_warps(width), enable_fp_fusion=False,
    )  # fmt: skip
    return out_LD


def affine_norm(x_LD: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float) -> Tensor:
    """As `elementwise.affine_norm`."""
    length, width = x_LD.shape
    out_LD = torch.empty((length, width), dtype=x_LD.dtype, device=x_LD.device)
    _affine_norm[(length,)](
        x_LD, weight_D, bias_D, out_LD, x_LD.stride(0), out_LD.stride(0), width, eps,
        BLOCK=triton.next_power_of_2(width), num_warps=_warps(width), enable_fp_fusion=False,
    )  # fmt: skip
    return out_LD


def rms_norm(x_LD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """As `elementwise.rms_norm`."""
    length, width = x_LD.shape
    out_LD = torch.empty((length, width), dtype=x_LD.dtype, device=x_LD.device)
    _rms_norm[(length,)](
        x_LD, weight_D, out_LD, x_LD.stride(0), out_LD.stride(0), width, eps,
        BLOCK=triton.next_power_of_2(width), num_warps=_warps(width), enable_fp_fusion=False,
    )  # fmt: skip
    return out_LD


def rotated_rms_norm(
    x_LD: Tensor, weight_D: Tensor, eps: float, cos_Ld: Tensor, sin_Ld: Tensor, out_LD: Tensor
) -> None:
    """As `elementwise.rotated_rms_norm`; `cos_Ld` and `sin_Ld` [L, d/2] are contiguous."""
    length, width = x_LD.shape
    _rotated_rms_norm[(length,)](
        x_LD, weight_D, cos_Ld, sin_Ld, out_LD, x_LD.stride(0), out_LD.stride(0), width, cos_Ld.shape[1], eps,
        BLOCK=triton.next_power_of_2(width), num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def add_gated(x_LD: Tensor, y_LD: Tensor, gate_D: Tensor) -> None:
    """As `elementwise.add_gated` with a gate: into `x_LD`."""
    length, width = x_LD.shape
    _add_gated[(length,)](
        x_LD, y_LD, gate_D, x_LD.stride(0), y_LD.stride(0), width,
        BLOCK=triton.next_power_of_2(width), num_warps=_warps(width), enable_fp_fusion=False,
    )  # fmt: skip


def _warps(width: int) -> int:
    return 8 if width >= WIDE else 4


@triton.jit
def _normed(x, inside, width, eps):
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    return centred / tl.sqrt_rn(variance + eps)


@triton.jit
def _modulated_norm(
    x_ptr, shift_ptr, scale_ptr, out_ptr, x_stride, out_stride, width, eps, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    stored = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0)
    normed = _normed(stored.to(tl.float32), inside, width, eps).to(stored.dtype).to(tl.float32)
    scale = tl.load(scale_ptr + at, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + at, mask=inside, other=0.0)
    out = (normed * (1.0 + scale) + shift).to(stored.dtype)
    tl.store(out_ptr + row * out_stride + at, out, mask=inside)


@triton.jit
def _affine_norm(x_ptr, weight_ptr, bias_ptr, out_ptr, x_stride, out_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    stored = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0)
    normed = _normed(stored.to(tl.float32), inside, width, eps)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * out_stride + at, (normed * weight + bias).to(stored.dtype), mask=inside)


@triton.jit
def _rms_norm(x_ptr, weight_ptr, out_ptr, x_stride, out_stride, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    stored = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0)
    x = stored.to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    normed = x * (1.0 / tl.sqrt_rn(tl.sum(x * x, axis=0) / width + eps)) * weight
    tl.store(out_ptr + row * out_stride + at, normed.to(stored.dtype), mask=inside)


@triton.jit
def _rotated_rms_norm(
    x_ptr, weight_ptr, cos_ptr, sin_ptr, out_ptr, x_stride, out_stride, width, pairs, eps, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    stored = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0)
    x = stored.to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt_rn(tl.sum(x * x, axis=0) / width + eps)
    # Read side by side and parted here: loads of every second number take twice the time.
    first, second = tl.split((x * inverse * weight).to(stored.dtype).to(tl.float32).reshape(BLOCK // 2, 2))
    pair = tl.arange(0, BLOCK // 2) % pairs
    cos = tl.load(cos_ptr + row * pairs + pair)
    sin = tl.load(sin_ptr + row * pairs + pair)
    turned = tl.join(first * cos - second * sin, first * sin + second * cos).reshape(BLOCK)
    tl.store(out_ptr + row * out_stride + at, turned.to(stored.dtype), mask=inside)


@triton.jit
def _add_gated(x_ptr, y_ptr, gate_ptr, x_stride, y_stride, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    x = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0)
    y = tl.load(y_ptr + row * y_stride + at, mask=inside, other=0.0)
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(x.dtype)
    # Each operation rounds: a product and a sum in one would round once.
    gated = (y.to(tl.float32) * gate.to(tl.float32)).to(x.dtype)
    tl.store(x_ptr + row * x_stride + at, (x.to(tl.float32) + gated.to(tl.float32)).to(x.dtype), mask=inside)
