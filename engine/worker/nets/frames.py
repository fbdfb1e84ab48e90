"""The parts of the Wan VAE between its convolutions, over frames whose channels lie together.

On a GPU `kernels.frames` does each in one pass; a convolution's bias comes along there, since cuDNN
would add it in a pass of its own. The order of rounding is diffusers' on a GPU: the convolution, its
bias, then normalised in fp32, times sqrt(C), times gamma, SiLU, each rounded to the frames' dtype.

Source: diffusers autoencoder_kl_wan (WanRMS_norm, WanResidualBlock, WanResample).
"""

# Shapes: T frames, H/W rows/columns, C channels.

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.worker.nets import kernels

HISTORY = 2
"""Earlier frames that a causal convolution of three sees."""


def rms_norm(x_THWC: Tensor, gamma_C: Tensor) -> Tensor:
    """Each place divided by the root of its channels' mean square, times gamma."""
    if kernels.usable(x_THWC.device):
        out = torch.empty_like(x_THWC)
        kernels.frame_kernels().rms_norm(x_THWC, gamma_C, out)
        return out
    normed: Tensor = F.normalize(x_THWC.float(), dim=-1).to(x_THWC.dtype)
    root: float = len(gamma_C) ** 0.5
    return normed * root * gamma_C


def norm_silu_after(
    history_KHWC: Tensor, x_THWC: Tensor, bias_C: Tensor | None, gamma_C: Tensor, into: Tensor
) -> None:
    """To `into` [2 + T, H, W, C]: the history, then SiLU of the norm of x + bias.

    Its end is the next history. Where `into` has a row and a column more, those become zeros.
    """
    if kernels.usable(x_THWC.device):
        kernels.frame_kernels().norm_silu_after(history_KHWC, x_THWC, bias_C, gamma_C, into)
        return
    if bias_C is not None:
        x_THWC = x_THWC + bias_C
    _, height, width, _ = x_THWC.shape
    into[:, height:], into[:, :, width:] = 0, 0
    inner = into[:, :height, :width]
    inner[:HISTORY] = history_KHWC
    inner[HISTORY:] = F.silu(rms_norm(x_THWC, gamma_C))
    history_KHWC.copy_(inner[-HISTORY:])


def copy_after(history_KHWC: Tensor, x_THWC: Tensor) -> Tensor:
    """The history and then x, in one tensor; its end is the next history."""
    whole = torch.cat((history_KHWC, x_THWC))
    history_KHWC.copy_(whole[-len(history_KHWC) :])
    return whole


def add_residual(y_THWC: Tensor, bias_C: Tensor | None, x_THWC: Tensor) -> None:
    """Into `y_THWC`: (y + bias) + x, both sums rounded."""
    if kernels.usable(y_THWC.device):
        kernels.frame_kernels().add_residual(y_THWC, bias_C, x_THWC)
        return
    if bias_C is not None:
        y_THWC.add_(bias_C)
    y_THWC.add_(x_THWC)


def enlarged(x_THWC: Tensor, times: int) -> Tensor:
    """Twice the rows and columns by the nearest, of `times` frames that lie in the channels of each."""
    frames, height, width, channels = x_THWC.shape
    channels //= times
    out = x_THWC.new_empty((frames, times, height, 2, width, 2, channels))
    split = x_THWC.view(frames, height, width, times, channels).permute(0, 3, 1, 2, 4)
    out.copy_(split[:, :, :, None, :, None])
    return out.view(frames * times, 2 * height, 2 * width, channels)


def first_calls(device: torch.device) -> Iterator[None]:
    """Compile or load what the first decode in bf16 would as it goes, a kernel at a step."""
    if not kernels.usable(device):
        return
    for channels in (384, 192, 96):
        x = torch.zeros((4, 8, 16, channels), dtype=torch.bfloat16, device=device)
        bias, weight = x[0, 0, 0], x.new_zeros((channels, channels, 3, 3, 3))
        by_kernel = kernels.conv_kernels().suits(x, weight)
        edge = int(by_kernel)
        whole = x.new_zeros((HISTORY + 4, 8 + edge, 16 + edge, channels))
        rms_norm(x, bias)
        if not by_kernel:
            weight = weight.contiguous(memory_format=torch.channels_last_3d)
            F.conv3d(whole[None].permute(0, 4, 1, 2, 3), weight, padding=(0, 1, 1))
        for added in (None, bias):
            norm_silu_after(torch.zeros_like(x[:HISTORY]), x, added, bias, whole)
            yield
            if by_kernel:
                residual = None if added is None else x
                kernels.conv_kernels().causal_conv(whole, weight, bias, residual)
            elif added is not None:
                add_residual(torch.zeros_like(x), added, x)
            yield
