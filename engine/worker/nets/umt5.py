"""The umT5 encoder on transformers' modules, computing in the reference's order of rounding.

The modules, and so the names and shapes of all weights, are transformers'; what is computed with them is
written here, since theirs rounds GELU, scores and softmax elsewhere. A block is always entered by calling
it: its weights may still travel, and the arena waits for them there. Whoever changes what comes out raises
`engine.models.prompts.CLEANING_VERSION`.

Source: Wan2.1 wan/modules/t5.py, as TurboDiffusion uses it.
"""

# Shapes: B prompts, L tokens, D width, H heads, d a head's dimension.

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import UMT5Config, UMT5EncoderModel
from transformers.models.umt5.modeling_umt5 import UMT5Block

GELU_CUBE = 0.044715


class TextBlock(UMT5Block):  # type: ignore[misc]  # transformers has no types
    """Self-attention with a relative bias of its own, then a gated feed-forward; in the weights' dtype."""

    def forward(self, x_BLD: Tensor, masked_B11L: Tensor, bucket_LL: Tensor) -> Tensor:
        """`masked_B11L` tells the keys that are padding, `bucket_LL` how far each key is from each query."""
        attention, feed_forward = self.layer
        x_BLD = x_BLD + self._attend(attention, x_BLD, masked_B11L, bucket_LL)
        net = feed_forward.DenseReluDense
        y_BLD = rms_norm(x_BLD, feed_forward.layer_norm)
        out: Tensor = net.wo(net.wi_1(y_BLD) * gelu(net.wi_0(y_BLD)))
        return x_BLD + out

    def _attend(self, layer: Any, x_BLD: Tensor, masked_B11L: Tensor, bucket_LL: Tensor) -> Tensor:
        attn = layer.SelfAttention
        y_BLD = rms_norm(x_BLD, layer.layer_norm)
        q, k, v = (
            part(y_BLD).unflatten(-1, (attn.n_heads, attn.key_value_proj_dim))
            for part in (attn.q, attn.k, attn.v)
        )
        bias_BHLL = attn.relative_attention_bias(bucket_LL).permute(2, 0, 1)[None]
        # Instead of the bias and not beside it: the sum would be no number of the dtype any more.
        bias_BHLL = bias_BHLL.masked_fill(masked_B11L, torch.finfo(x_BLD.dtype).min)
        scores_BHLL = torch.einsum("blhd,bmhd->bhlm", q, k) + bias_BHLL
        weights_BHLL = F.softmax(scores_BHLL.float(), dim=-1).to(x_BLD.dtype)
        out: Tensor = attn.o(torch.einsum("bhlm,bmhd->blhd", weights_BHLL, v).flatten(2))
        return out


class TextEncoder(UMT5EncoderModel):  # type: ignore[misc]  # transformers has no types
    """Tokens to their embeddings."""

    @classmethod
    def build(cls, config: dict[str, Any]) -> TextEncoder:
        """The encoder of a transformers `config.json`, its weights as the caller's device makes them.

        Raises:
            ValueError: it describes no encoder with a gated GELU, which is all that Wan uses.
        """
        whole = UMT5Config.from_dict(config)
        if (whole.dense_act_fn, whole.is_gated_act) != ("gelu_new", True):
            raise ValueError(f"its feed-forward is {whole.feed_forward_proj!r}, expected 'gated-gelu'")
        net = cls(UMT5Config.from_dict({**config, "num_layers": 0}))
        for number in range(whole.num_layers):
            net.encoder.block.append(TextBlock(net.encoder.config, layer_idx=number))
        net.config.num_layers = whole.num_layers
        # Its configuration says that embeddings are not tied, which means those of a decoder.
        net.encoder.embed_tokens.weight = net.shared.weight
        return net

    def forward(self, tokens_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """[B, L, D] in the weights' dtype; `mask_BL` is 0 where a token is padding, which no token sees."""
        masked_B11L = (mask_BL == 0)[:, None, None]
        bucket_LL = buckets(tokens_BL.shape[1], self.config, tokens_BL.device)
        x_BLD = self.encoder.embed_tokens(tokens_BL)
        for block in self.encoder.block:
            x_BLD = block(x_BLD, masked_B11L, bucket_LL)
        return rms_norm(x_BLD, self.encoder.final_layer_norm)


def rms_norm(x_BLD: Tensor, norm: Any) -> Tensor:
    """In fp32, rounded to the weights' dtype, then times the weights."""
    inverse = torch.rsqrt(x_BLD.float().square().mean(-1, keepdim=True) + norm.variance_epsilon)
    scaled: Tensor = norm.weight * (x_BLD * inverse).to(norm.weight.dtype)
    return scaled


def gelu(x: Tensor) -> Tensor:
    """The tanh approximation, each operation rounded to the dtype of `x`."""
    inner = math.sqrt(2.0 / math.pi) * (x + GELU_CUBE * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


def buckets(length: int, config: Any, device: torch.device) -> Tensor:
    """[L, L], queries by keys: near distances each have a number of their own, far ones share by logarithm.

    Keys to the right of a query have the upper half of the numbers.
    """
    half = config.relative_attention_num_buckets // 2
    exact = half // 2
    place = torch.arange(length, device=device)
    offset_LL = place[None, :] - place[:, None]
    far_LL = offset_LL.abs()
    log_LL = torch.log(far_LL.float() / exact) / math.log(config.relative_attention_max_distance / exact)
    shared_LL = (exact + (log_LL * (half - exact)).long()).clamp(max=half - 1)
    bucket_LL: Tensor = torch.where(far_LL < exact, far_LL, shared_LL) + (offset_LL > 0) * half
    return bucket_LL
