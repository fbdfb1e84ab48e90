"""The Wan VAE as it runs: diffusers' modules, walked causally chunk by chunk, channels last throughout.

Frames lie as [T, H, W, C], which is where cuDNN is fastest and needs least memory. Each causal
convolution keeps the last two frames that it saw; the kernel that makes its input writes it behind
them, so that nothing is copied together. A chunk may have any number of latent frames but the first,
which has one: the values are the same.

Weights come as their owners have them and are laid out channels last for the time of a walk.

Source: diffusers autoencoder_kl_wan, whose values these are.
"""

# Shapes: B videos (1), C channels, T frames, H/W rows/columns.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanCausalConv3d,
    WanResample,
    WanResidualBlock,
)
from torch import Tensor, nn
from torch.nn import functional as F

from engine.planning.shapes import TEMPORAL_STRIDE
from engine.worker.nets import kernels
from engine.worker.nets.frames import (
    HISTORY,
    add_residual,
    copy_after,
    enlarged,
    norm_silu_after,
    rms_norm,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weights:
    """Of one layer, as the walk needs them."""

    weight: Tensor
    """Its input channels lie together."""
    bias: Tensor


class _Walk(ABC):
    """One way through a half of the VAE, from a clip's first chunk to its last."""

    def __init__(self) -> None:
        self._weights: dict[nn.Module, _Weights] = {}
        self._histories: dict[nn.Module, Tensor] = {}
        self._first = True

    def _part(self, part: Any, x_THWC: Tensor) -> Tensor:
        if isinstance(part, WanResidualBlock):
            return self._residual(part, x_THWC)
        if isinstance(part, WanAttentionBlock):
            return self._attention(part, x_THWC)
        if isinstance(part, WanResample):
            return self._resampled(part, x_THWC)
        if isinstance(part, WanCausalConv3d):
            return self._conv(part, x_THWC)
        raise ValueError(f"{type(part).__name__} is no part of a Wan2.1 VAE")

    @abstractmethod
    def _resampled(self, part: Any, x_THWC: Tensor) -> Tensor:
        """The frames in the next level's size."""

    @staticmethod
    def _middle(block: Any) -> Iterator[Any]:
        yield block.resnets[0]
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            yield attention
            yield resnet

    def _residual(self, block: Any, x_THWC: Tensor) -> Tensor:
        # No name for what a convolution is given: it would live on while the next one's is made.
        y_THWC, bias = self._convolved(block.conv1, self._normed(block.norm1, block.conv1, x_THWC, None))
        whole = self._normed(block.norm2, block.conv2, y_THWC, bias)
        del y_THWC
        if isinstance(block.conv_shortcut, WanCausalConv3d):
            x_THWC = self._pointwise(block.conv_shortcut, x_THWC)
        return self._convolved(block.conv2, whole, x_THWC)[0]

    def _attention(self, block: Any, x_THWC: Tensor) -> Tensor:
        """One head over the pixels of each frame."""
        frames, height, width, channels = x_THWC.shape
        y_THWC = rms_norm(x_THWC, self._gamma(block.norm))
        qkv = self._pointwise(block.to_qkv, y_THWC).view(frames, 1, height * width, 3 * channels)
        q, k, v = qkv.chunk(3, dim=-1)
        out = F.scaled_dot_product_attention(q, k, v)
        y_THWC = self._pointwise(block.proj, out.reshape(x_THWC.shape))
        return y_THWC.add_(x_THWC)

    def _head(self, half: Any, x_THWC: Tensor) -> Tensor:
        y_THWC, bias = self._convolved(
            half.conv_out, self._normed(half.norm_out, half.conv_out, x_THWC, None)
        )
        return y_THWC if bias is None else y_THWC.add_(bias)

    def _normed(self, norm: Any, conv: Any, x_THWC: Tensor, bias_C: Tensor | None) -> Tensor:
        """What `conv` is given: the frames before, then SiLU of the norm of x + bias."""
        frames, height, width, channels = x_THWC.shape
        edge = int(self._by_kernel(conv, x_THWC))
        whole = x_THWC.new_empty((HISTORY + frames, height + edge, width + edge, channels))
        norm_silu_after(self._history(conv, x_THWC), x_THWC, bias_C, self._gamma(norm), whole)
        return whole

    def _by_kernel(self, conv: Any, x_THWC: Tensor) -> bool:
        """Whether our kernel is to compute `conv`, which wants an edge of zeros."""
        weight = self._layer(conv).weight
        return kernels.usable(x_THWC.device) and kernels.conv_kernels().suits(x_THWC, weight)

    def _convolved(
        self, conv: Any, whole_THWC: Tensor, add_THWO: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The convolution of what `_normed` gave, plus `add_THWO` if that is given.

        Beside it the convolution's own bias, if the caller still has to add it; never after an addition.
        """
        layer, bias = self._layer(conv), None
        if self._by_kernel(conv, whole_THWC):
            fused: Tensor = kernels.conv_kernels().causal_conv(whole_THWC, layer.weight, layer.bias, add_THWO)
            return fused, None
        if kernels.usable(whole_THWC.device):
            y_THWO, bias = _conv3d(whole_THWC, layer.weight, None), layer.bias
        else:
            y_THWO = _conv3d(whole_THWC, layer.weight, layer.bias)
        if add_THWO is None:
            return y_THWO, bias
        add_residual(y_THWO, bias, add_THWO)
        return y_THWO, None

    def _conv(self, conv: Any, x_THWC: Tensor) -> Tensor:
        layer = self._layer(conv)
        return _conv3d(copy_after(self._history(conv, x_THWC), x_THWC), layer.weight, layer.bias)

    def _pointwise(self, conv: Any, x_THWC: Tensor) -> Tensor:
        layer = self._layer(conv)
        return F.linear(x_THWC, layer.weight.flatten(1), layer.bias)

    def _plane(self, conv: Any, x_THWC: Tensor, **settings: int) -> Tensor:
        layer = self._layer(conv)
        out = F.conv2d(x_THWC.permute(0, 3, 1, 2), layer.weight, layer.bias, **settings)
        return out.permute(0, 2, 3, 1).contiguous()

    def _history(self, conv: Any, x_THWC: Tensor, frames: int = HISTORY) -> Tensor:
        """The last frames that `conv` was given: zeros before the first."""
        found = self._histories.get(conv)
        if found is None:
            found = x_THWC.new_zeros((frames, *x_THWC.shape[1:]))
            self._histories[conv] = found
        return found

    def _layer(self, conv: Any) -> _Weights:
        found = self._weights.get(conv)
        if found is None:
            _enter(conv)
            kinds = {5: torch.channels_last_3d, 4: torch.channels_last}
            weight = conv.weight.contiguous(memory_format=kinds[conv.weight.dim()])
            found = _Weights(weight=weight, bias=conv.bias)
            self._weights[conv] = found
        return found

    @staticmethod
    def _gamma(norm: Any) -> Tensor:
        _enter(norm)
        gamma: Tensor = norm.gamma
        return gamma.flatten()


class Decoder(_Walk):
    """Latents to pixels, chunk after chunk of one clip."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self._vae = vae

    def __call__(self, z_BCTHW: Tensor) -> Tensor:
        """Pixels [T, H, W, 3], not clamped: one frame of the clip's first latent frame, four of each other.

        Latents are as the net wants them, not normalised. The first chunk has one latent frame.
        """
        half = self._vae.decoder
        x_THWC = _frames(z_BCTHW)
        assert not self._first or len(x_THWC) == 1, "the first latent frame goes alone"
        x_THWC = self._conv(half.conv_in, self._pointwise(self._vae.post_quant_conv, x_THWC))
        for part in self._middle(half.mid_block):
            x_THWC = self._part(part, x_THWC)
        for block in half.up_blocks:
            for part in (*block.resnets, *(block.upsamplers or ())):
                x_THWC = self._part(part, x_THWC)
        self._first, out = False, self._head(half, x_THWC)
        return out

    def _resampled(self, part: Any, x_THWC: Tensor) -> Tensor:
        times = 1
        # The clip's first frame stays one, and later ones do not see it here.
        if part.mode == "upsample3d" and not self._first:
            x_THWC, times = self._conv(part.time_conv, x_THWC), 2
        return self._plane(part.resample[1], enlarged(x_THWC, times), padding=1)


class Encoder(_Walk):
    """Pixels to latents, chunk after chunk of one clip.

    A chunk that is the same as the one before need not be computed where the frames before it were the
    same too: each causal convolution is one or two chunks later than its input to give the same again.
    So an image's grey rest costs less and less: of 21 latent frames the level of all pixels is computed
    for 3 to 7, the next one for 9 to 12.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self._vae = vae
        half = vae.encoder
        self._parts = [half.conv_in, *half.down_blocks, *self._middle(half.mid_block)]
        self._lags = list(_lags(self._parts))
        self._repeats = 0
        """How often the newest chunk has come again."""
        self._begin = 0
        """The first part that is computed; those before give what they gave."""
        self._kept: Tensor | None = None
        """What that part is given."""

    def __call__(self, x_BCTHW: Tensor, *, again: bool = False) -> Tensor:
        """The latents' means [1, 16, T, H/8, W/8] of 1 frame, the clip's first, or of 4 for each of T.

        `again` says that these are 4 frames and the same as those of the chunk before; then all that
        follow are.
        """
        x_THWC = _frames(x_BCTHW)
        assert not self._first or len(x_THWC) == 1, "the first frame goes alone"
        assert again or self._begin == 0, "after a chunk that came again only the same may come"
        self._repeats = self._repeats + 1 if again else 0
        if self._kept is not None:
            x_THWC = self._kept
        begin, following = self._begin, self._first_new(self._repeats + 1) if again else 0
        for number, part in enumerate(self._parts[begin:], begin):
            if 0 < number == following:
                self._kept, self._begin = x_THWC, following
            x_THWC = self._part(part, x_THWC)
        self._first, out = False, self._pointwise(self._vae.quant_conv, self._head(self._vae.encoder, x_THWC))
        for part in self._parts[begin : self._begin]:
            for conv in part.modules():
                self._histories.pop(conv, None)
        return out.chunk(2, dim=-1)[0].permute(3, 0, 1, 2)[None]

    def _first_new(self, repeats: int) -> int:
        """The first part that gives something new after so many repeats of a chunk."""
        for number, lag in enumerate(self._lags):
            repeats -= lag
            if repeats <= 0:
                return number
        return len(self._lags) - 1

    def _resampled(self, part: Any, x_THWC: Tensor) -> Tensor:
        x_THWC = self._plane(part.resample[1], F.pad(x_THWC, (0, 0, 0, 1, 0, 1)), stride=2)
        if part.mode != "downsample3d":
            return x_THWC
        history = self._history(part.time_conv, x_THWC, 1)
        if self._first:
            history.copy_(x_THWC)
            return x_THWC
        layer = self._layer(part.time_conv)
        return _conv3d(copy_after(history, x_THWC), layer.weight, layer.bias, stride=(2, 1, 1))


def _lags(parts: Sequence[Any]) -> Iterator[int]:
    """Of each part of the encoder: how many chunks later than its input its output comes again.

    A causal convolution sees the two frames before a chunk, which are the end of the chunk before or,
    where a chunk is one frame, that of two chunks before.
    """
    frames = TEMPORAL_STRIDE
    for part in parts:
        convolution = 1 if frames >= HISTORY else HISTORY
        if isinstance(part, WanResidualBlock):
            yield 2 * convolution
        elif isinstance(part, WanCausalConv3d):
            yield convolution
        elif isinstance(part, WanResample) and part.mode == "downsample3d":
            yield 1
            frames //= 2
        else:
            yield 0


def _frames(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW[0].permute(1, 2, 3, 0).contiguous()


def _conv3d(
    whole_THWC: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int] = (1, 1, 1)
) -> Tensor:
    """Padded with zeros in rows and columns only: the frames before are there."""
    rows, columns = weight.shape[3:]
    out = F.conv3d(
        whole_THWC[None].permute(0, 4, 1, 2, 3), weight, bias, stride, (0, rows // 2, columns // 2)
    )
    return out.permute(0, 2, 3, 4, 1).contiguous()[0]


def _enter(part: nn.Module) -> None:
    """Let whoever guards the part's weights see to it that they are there."""
    for hook in part._forward_pre_hooks.values():
        hook(part, ())
