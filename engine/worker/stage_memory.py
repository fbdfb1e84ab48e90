"""The working memory of each stage beside its weights, estimated from shapes alone.

Used to decide what must be evicted before a stage begins; deliberately a little too much.

Source: live bytes of one forward at the released sizes, by a tracker on meta tensors
(832x480 and 1280x720, 81 frames), fitted to tokens x width. cuDNN's workspace is not in it.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from engine.planning.shapes import TEXT_TOKENS, dit_tokens, latent_shape
from engine.wire import Stage
from engine.worker.components import TEXT, VAE, Model

ATTENTION_UNITS = 9.0
"""Dense attention's share, in units of tokens x width."""
FFN_UNITS = 2.6
FFN_UNITS_PER_RATIO = 1.9
"""The feed-forward's share: FFN_UNITS plus this for each unit of its width over the net's."""
DECODE_ELEMENTS = 56.0
ENCODE_ELEMENTS = 42.0
"""Elements alive at once, for each pixel of a frame and base channel of the VAE."""


def stage_bytes(stage: Stage, model: Model, width: int, height: int, num_frames: int) -> int:
    """Bytes that `stage` needs beside resident weights, for one video of this size."""
    if stage == "text":
        return _text_bytes(model.components[TEXT].module)
    if stage == "image":
        return _vae_bytes(model.components[VAE].module, ENCODE_ELEMENTS, width, height)
    if stage == "denoise":
        net: Any = next(part.module for name, part in model.components.items() if name.startswith("dit"))
        return _dit_bytes(net, width, height, num_frames)
    if stage == "decode":
        return _vae_bytes(model.components[VAE].module, DECODE_ELEMENTS, width, height)
    return 0


def _text_bytes(encoder: Any) -> int:
    config = encoder.config
    scores = config.num_heads * TEXT_TOKENS * TEXT_TOKENS * 4
    rows = TEXT_TOKENS * (3 * config.d_ff + 8 * config.d_model) * _itemsize(encoder)
    return int(4 * scores + rows)


def _dit_bytes(net: Any, width: int, height: int, num_frames: int) -> int:
    channels = net.config.num_attention_heads * net.config.attention_head_dim
    unit = dit_tokens(width, height, num_frames) * channels * _itemsize(net)
    ffn_units = FFN_UNITS + FFN_UNITS_PER_RATIO * net.config.ffn_dim / channels
    # State, velocity and noise in float64, the net's input and condition.
    latents = 6 * 8 * math.prod(latent_shape(width, height, num_frames))
    return int(unit * max(ATTENTION_UNITS, ffn_units)) + latents


def _vae_bytes(vae: Any, elements: float, width: int, height: int) -> int:
    return int(elements * width * height * vae.config.base_dim * _itemsize(vae))


def _itemsize(module: torch.nn.Module) -> int:
    return next(module.parameters()).dtype.itemsize
