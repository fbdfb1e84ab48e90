"""The Wan2.1 VAE over a released file's tensors: the whole clip at once, causally padded, in their dtype.

No chunks and no caches: that walking by latent frame gives the same is what this is there to tell.
"""

# Shapes: B videos, C channels, T frames, H/W rows/columns; pixels in [-1, 1].

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

MULTIPLES = (1, 2, 4, 4)
"""Of the base channels, by level; each but the last one halves rows and columns."""
TIME_HALVED = (False, True, True)
LATENT_CHANNELS = 16
ENCODER_BLOCKS = 2
DECODER_BLOCKS = 3
MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


class Vae:
    """Over `tensors`, by the names of Wan2.1_VAE.pth."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [B, 16, T, h, w] to pixels [B, 3, 4T - 3, 8h, 8w], not clamped."""
        mean, inverse = _constants(latents.dtype)
        x = self._conv("conv2", latents / inverse + mean)
        x = self._middle("decoder", self._conv("decoder.conv1", x))
        number = 0
        for level in reversed(range(len(MULTIPLES))):
            for _ in range(DECODER_BLOCKS):
                x = self._residual(f"decoder.upsamples.{number}", x)
                number += 1
            if level > 0:
                x = self._enlarge(f"decoder.upsamples.{number}", x, in_time=TIME_HALVED[level - 1])
                number += 1
        return self._head("decoder", x)

    def encode(self, clip: Tensor) -> Tensor:
        """Pixels [B, 3, 4n + 1, H, W] to the normalised mean of their latents [B, 16, n + 1, H/8, W/8]."""
        x = self._conv("encoder.conv1", clip)
        number = 0
        for level in range(len(MULTIPLES)):
            for _ in range(ENCODER_BLOCKS):
                x = self._residual(f"encoder.downsamples.{number}", x)
                number += 1
            if level < len(TIME_HALVED):
                x = self._shrink(f"encoder.downsamples.{number}", x, in_time=TIME_HALVED[level])
                number += 1
        x = self._head("encoder", self._middle("encoder", x))
        mean, inverse = _constants(clip.dtype)
        return (self._conv("conv1", x).chunk(2, dim=1)[0] - mean) * inverse

    def _residual(self, name: str, x: Tensor) -> Tensor:
        y = self._conv(f"{name}.residual.2", F.silu(self._norm(f"{name}.residual.0", x)))
        y = self._conv(f"{name}.residual.6", F.silu(self._norm(f"{name}.residual.3", y)))
        return y + (self._conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.tensors else x)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        x = self._residual(f"{half}.middle.0", x)
        x = x + self._attention(f"{half}.middle.1", x)
        return self._residual(f"{half}.middle.2", x)

    def _attention(self, name: str, x: Tensor) -> Tensor:
        """One head over the pixels of each frame."""
        y = self._norm(f"{name}.norm", x)
        q, k, v = self._pointwise(f"{name}.to_qkv", y).chunk(3, dim=1)
        frames = []
        for frame in range(x.shape[2]):
            rows = [part[:, :, frame].flatten(2).transpose(1, 2) for part in (q, k, v)]
            scores = rows[0] @ rows[1].transpose(1, 2) / x.shape[1] ** 0.5
            out = scores.softmax(-1) @ rows[2]
            frames.append(out.transpose(1, 2).unflatten(2, x.shape[3:]))
        return self._pointwise(f"{name}.proj", torch.stack(frames, dim=2))

    def _head(self, half: str, x: Tensor) -> Tensor:
        return self._conv(f"{half}.head.2", F.silu(self._norm(f"{half}.head.0", x)))

    def _enlarge(self, name: str, x: Tensor, *, in_time: bool) -> Tensor:
        """Twice the rows and columns by the nearest; of frames the first stays one, others become two."""
        if in_time:
            pairs = self._conv(f"{name}.time_conv", x[:, :, 1:])
            pairs = torch.stack(pairs.chunk(2, dim=1), dim=3).flatten(2, 3)
            x = torch.cat((x[:, :, :1], pairs), dim=2)
        x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        return self._plane(f"{name}.resample.1", F.pad(x, (1, 1, 1, 1)), stride=1)

    def _shrink(self, name: str, x: Tensor, *, in_time: bool) -> Tensor:
        """Half the rows and columns; of frames the first stays, then each two become one."""
        x = self._plane(f"{name}.resample.1", F.pad(x, (0, 1, 0, 1)), stride=2)
        if in_time:
            weight, bias = self._tensors(f"{name}.time_conv")
            rest = F.conv3d(x, weight, bias, stride=(2, 1, 1)) if x.shape[2] > 1 else x[:, :, :0]
            x = torch.cat((x[:, :, :1], rest), dim=2)
        return x

    def _conv(self, name: str, x: Tensor) -> Tensor:
        """Frames see themselves and earlier ones; before the first there is nothing but zeros."""
        weight, bias = self._tensors(name)
        frames, rows, columns = weight.shape[2:]
        side, top = columns // 2, rows // 2
        return F.conv3d(F.pad(x, (side, side, top, top, frames - 1, 0)), weight, bias)

    def _plane(self, name: str, x: Tensor, stride: int) -> Tensor:
        weight, bias = self._tensors(name)
        return F.conv3d(x, weight[:, :, None], bias, stride=(1, stride, stride))

    def _pointwise(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._tensors(name)
        return torch.einsum("oc,bcthw->bothw", weight.flatten(1), x) + bias[:, None, None, None]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Of each place by the root of its channels' mean square."""
        gamma = self.tensors[f"{name}.gamma"].view(-1, 1, 1, 1)
        return x / x.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12) * x.shape[1] ** 0.5 * gamma

    def _tensors(self, name: str) -> tuple[Tensor, Tensor]:
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]


def wan_vae(dim: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Random fp32 tensors of a VAE with `dim` base channels, large enough that each changes the output."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        fan = inputs * torch.Size(kernel).numel()
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, *kernel, generator=generator) / fan**0.5
        tensors[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    def norm(name: str, channels: int, *ones: int) -> None:
        tensors[f"{name}.gamma"] = 1 + 0.2 * torch.randn(channels, *ones, generator=generator)

    def residual(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.residual.0", inputs, 1, 1, 1)
        conv(f"{name}.residual.2", inputs, outputs, 3, 3, 3)
        norm(f"{name}.residual.3", outputs, 1, 1, 1)
        conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3)
        if inputs != outputs:
            conv(f"{name}.shortcut", inputs, outputs, 1, 1, 1)

    def middle_and_head(half: str, channels: int, last: int, outputs: int) -> None:
        residual(f"{half}.middle.0", channels, channels)
        norm(f"{half}.middle.1.norm", channels, 1, 1)
        conv(f"{half}.middle.1.to_qkv", channels, 3 * channels, 1, 1)
        conv(f"{half}.middle.1.proj", channels, channels, 1, 1)
        residual(f"{half}.middle.2", channels, channels)
        norm(f"{half}.head.0", last, 1, 1, 1)
        conv(f"{half}.head.2", last, outputs, 3, 3, 3)

    widths = [dim * multiple for multiple in MULTIPLES]
    conv("encoder.conv1", 3, dim, 3, 3, 3)
    number, inputs = 0, dim
    for level, outputs in enumerate(widths):
        for _ in range(ENCODER_BLOCKS):
            residual(f"encoder.downsamples.{number}", inputs, outputs)
            number, inputs = number + 1, outputs
        if level < len(TIME_HALVED):
            conv(f"encoder.downsamples.{number}.resample.1", outputs, outputs, 3, 3)
            if TIME_HALVED[level]:
                conv(f"encoder.downsamples.{number}.time_conv", outputs, outputs, 3, 1, 1)
            number += 1
    middle_and_head("encoder", widths[-1], widths[-1], 2 * LATENT_CHANNELS)
    conv("conv1", 2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1, 1, 1)
    conv("conv2", LATENT_CHANNELS, LATENT_CHANNELS, 1, 1, 1)
    conv("decoder.conv1", LATENT_CHANNELS, widths[-1], 3, 3, 3)
    number, inputs = 0, widths[-1]
    for level in reversed(range(len(MULTIPLES))):
        outputs = widths[level]
        for _ in range(DECODER_BLOCKS):
            residual(f"decoder.upsamples.{number}", inputs, outputs)
            number, inputs = number + 1, outputs
        if level > 0:
            conv(f"decoder.upsamples.{number}.resample.1", outputs, outputs // 2, 3, 3)
            if TIME_HALVED[level - 1]:
                conv(f"decoder.upsamples.{number}.time_conv", outputs, 2 * outputs, 3, 1, 1)
            number, inputs = number + 1, outputs // 2
    middle_and_head("decoder", widths[-1], widths[0], 3)
    return tensors


def _constants(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The latents' mean and 1/std, rounded as the VAE is."""
    mean, std = (torch.tensor(values).to(dtype).view(1, -1, 1, 1, 1) for values in (MEAN, STD))
    return mean, 1.0 / std
