"""Writes small models in diffusers layout: real headers and configurations over weights of zeros."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

WIDTH = 128
LAYERS = 2
TEXT_DIM = 32


def write_safetensors(
    path: Path,
    tensors: dict[str, tuple[str, tuple[int, ...]]],
    *,
    fill: bytes = b"\0",
    metadata: dict[str, str] | None = None,
) -> int:
    """Write `tensors` (name to dtype and shape) to `path`; the file's length."""
    sizes = {"BF16": 2, "F16": 2, "F32": 4, "I8": 1}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + math.prod(shape) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + (fill * begin)[:begin])
    return path.stat().st_size


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def dit_tensors(in_channels: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        "patch_embedding.weight": ("BF16", (WIDTH, in_channels, 1, 2, 2)),
        "condition_embedder.time_embedder.linear_1.bias": ("BF16", (WIDTH,)),
        **{f"blocks.{block}.attn1.to_q.weight": ("BF16", (WIDTH, WIDTH)) for block in range(LAYERS)},
    }


def write_model(folder: Path, kind: str = "t2v", card: dict[str, Any] | None = None) -> Path:
    """A whole model in `folder`, as the released ones look."""
    two = kind == "i2v"
    in_channels = 36 if two else 16
    transformer = ["diffusers", "WanTransformer3DModel"]
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "WanImageToVideoPipeline" if two else "WanPipeline",
            "boundary_ratio": 0.9 if two else None,
            "expand_timesteps": False,
            "image_encoder": [None, None],
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "T5TokenizerFast"],
            "transformer": transformer,
            "transformer_2": transformer if two else [None, None],
            "vae": ["diffusers", "AutoencoderKLWan"],
        },
    )
    for number, part in enumerate(("transformer", "transformer_2") if two else ("transformer",)):
        write_json(
            folder / part / "config.json",
            {
                "_class_name": "WanTransformer3DModel",
                "num_attention_heads": 1,
                "attention_head_dim": WIDTH,
                "in_channels": in_channels,
                "out_channels": 16,
                "text_dim": TEXT_DIM,
                "ffn_dim": 256,
                "num_layers": LAYERS,
                "patch_size": [1, 2, 2],
                "image_dim": None,
            },
        )
        write_safetensors(
            folder / part / "diffusion_pytorch_model.safetensors",
            dit_tensors(in_channels),
            fill=bytes([number]),
        )
    write_json(
        folder / "vae" / "config.json", {"_class_name": "AutoencoderKLWan", "base_dim": 4, "z_dim": 16}
    )
    write_safetensors(
        folder / "vae" / "diffusion_pytorch_model.safetensors",
        {"decoder.conv_in.weight": ("F32", (16, 16, 3, 3, 3)), "decoder.conv_in.bias": ("F32", (16,))},
    )
    write_json(
        folder / "text_encoder" / "config.json",
        {"model_type": "umt5", "d_model": TEXT_DIM, "d_kv": 8, "d_ff": 64, "num_heads": 2, "num_layers": 2},
    )
    write_safetensors(
        folder / "text_encoder" / "model.safetensors",
        {"shared.weight": ("BF16", (64, TEXT_DIM)), "encoder.final_layer_norm.weight": ("BF16", (TEXT_DIM,))},
    )
    write_json(folder / "tokenizer" / "tokenizer.json", {})
    if card is not None:
        write_json(folder / "turbotui.json", card)
    return folder
