"""The umT5 encoder over a released checkpoint's tensors, with the reference's order of rounding.

And what becomes of a prompt before and after it.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping

import ftfy
import torch
import torch.nn.functional as F
from torch import Tensor

BUCKETS = 32
FARTHEST = 128
EPS = 1e-6
LENGTH = 512


def cleaned(prompt: str) -> str:
    """Repaired text, HTML's escapes undone twice, any run of whitespace as one space."""
    text = ftfy.fix_text(prompt)
    text = html.unescape(html.unescape(text))
    return re.sub(r"\s+", " ", text.strip()).strip()


def padded(embedding: Tensor, tokens: int) -> Tensor:
    """[L, D] -> [512, D]: the rows of a prompt's `tokens`, and zeros beyond them."""
    out = torch.zeros(LENGTH, embedding.shape[1], dtype=embedding.dtype)
    out[:tokens] = embedding[:tokens]
    return out


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / rms in fp32, rounded, and times the weight in the weight's dtype."""
    wide = x.float() * torch.rsqrt(x.float().pow(2).mean(dim=-1, keepdim=True) + EPS)
    return weight * wide.to(weight.dtype)


def gelu(x: Tensor) -> Tensor:
    """Every operation is rounded to the dtype."""
    cube = torch.pow(x, 3.0)
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * cube)
    return 0.5 * x * (1.0 + torch.tanh(inner))


def bucket(distance: int) -> int:
    """The number of a key so many places to the right of a query, or with a minus to the left."""
    half, near = BUCKETS // 2, BUCKETS // 4
    base, far = (half if distance > 0 else 0), abs(distance)
    if far < near:
        return base + far
    # The logarithm is one of fp32, which decides where a bucket ends.
    log = torch.log(torch.tensor(far, dtype=torch.float32) / near) / math.log(FARTHEST / near)
    return base + min(half - 1, near + int(log * (half - near)))


def encode(tensors: Mapping[str, Tensor], tokens: Tensor, mask: Tensor, heads: int) -> Tensor:
    """tokens [B, L], mask [B, L] with 0 for padding -> [B, L, D] in the checkpoint's dtype."""
    length = tokens.shape[1]
    numbers = torch.tensor([[bucket(key - query) for key in range(length)] for query in range(length)])
    x = tensors["token_embedding.weight"][tokens]
    blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    for block in range(blocks):
        part = {
            name.removeprefix(f"blocks.{block}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"blocks.{block}.")
        }
        y = norm(x, part["norm1.weight"])
        q, k, v = (
            F.linear(y, part[f"attn.{name}.weight"]).unflatten(-1, (heads, -1)) for name in ("q", "k", "v")
        )
        bias = part["pos_embedding.embedding.weight"][numbers].permute(2, 0, 1)[None]
        bias = bias.repeat(len(tokens), 1, 1, 1)
        bias[(mask == 0)[:, None, None].expand_as(bias)] = torch.finfo(x.dtype).min
        scores = torch.einsum("binc,bjnc->bnij", q, k) + bias  # no 1 / sqrt(d)
        weights = scores.float().softmax(dim=-1).to(x.dtype)
        out = torch.einsum("bnij,bjnc->binc", weights, v).flatten(2)
        x = x + F.linear(out, part["attn.o.weight"])
        y = norm(x, part["norm2.weight"])
        gated = F.linear(y, part["ffn.fc1.weight"]) * gelu(F.linear(y, part["ffn.gate.0.weight"]))
        x = x + F.linear(gated, part["ffn.fc2.weight"])
    return norm(x, tensors["norm.weight"])


def random_checkpoint(
    *, width: int = 64, heads: int = 4, ffn: int = 96, blocks: int = 3, vocabulary: int = 40,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:  # fmt: skip
    """Tensors as the released .pth names them, of a tiny width, none of them zero."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int, scale: float = 1.0, around: float = 0.0) -> Tensor:
        return (around + scale * torch.randn(shape, generator=generator)).to(dtype)

    found = {
        "token_embedding.weight": noise(vocabulary, width),
        "norm.weight": noise(width, around=1, scale=0.2),
    }
    for number in range(blocks):
        name = f"blocks.{number}"
        for which in ("norm1", "norm2"):
            found[f"{name}.{which}.weight"] = noise(width, around=1, scale=0.2)
        for which in ("q", "k", "v", "o"):
            found[f"{name}.attn.{which}.weight"] = noise(width, width, scale=width**-0.5)
        found[f"{name}.pos_embedding.embedding.weight"] = noise(BUCKETS, heads)
        found[f"{name}.ffn.gate.0.weight"] = noise(ffn, width, scale=width**-0.5)
        found[f"{name}.ffn.fc1.weight"] = noise(ffn, width, scale=width**-0.5)
        found[f"{name}.ffn.fc2.weight"] = noise(width, ffn, scale=ffn**-0.5)
    return found
