"""What a video costs with plain diffusers, in a process of its own: the other side of `bench generate`.

Each net alone on the device, in bf16, warmed by one run that is not told: umT5 over 512 tokens, one
dense step of the DiT, and the VAE's decode of the whole clip. Prints one JSON line for each run,
{"name": ..., "seconds": ..., "held": bytes before it, "peak": the most under it}; both null without a GPU.

    python -P -m engine.models.plain_generation MODEL WIDTH HEIGHT FRAMES RUNS cuda|cpu   (a model's folder)
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from engine.models.folders import DIT, DIT_HIGH, FOLDERS, TEXT, VAE
from engine.planning.shapes import TEXT_TOKENS, latent_shape

TIMESTEP = 932.0
BF16 = torch.bfloat16


def run(model: str, width: str, height: str, frames: str, runs: str, device: str) -> None:
    """Measure the three nets one after the other."""
    shape, folder = latent_shape(int(width), int(height), int(frames)), Path(model)
    kind = "i2v" if (folder / FOLDERS["i2v"]["dit.low"]).is_dir() else "t2v"
    folders = FOLDERS[kind]
    with torch.inference_mode():
        text_BLD = _text(folder / folders[TEXT], int(runs), device)
        _steps(folder / folders[DIT if kind == "t2v" else DIT_HIGH], shape, text_BLD, int(runs), device)
        _decode(folder / folders[VAE], shape, int(runs), device)


def _text(folder: Path, runs: int, device: str) -> torch.Tensor:
    encoder = UMT5EncoderModel.from_pretrained(folder, dtype=BF16).to(device)
    tokens = torch.arange(TEXT_TOKENS, device=device)[None] % encoder.config.vocab_size
    hidden_BLD: torch.Tensor = _measured("text", runs, lambda: encoder(input_ids=tokens).last_hidden_state)
    return hidden_BLD


def _steps(folder: Path, shape: tuple[int, ...], text_BLD: torch.Tensor, runs: int, device: str) -> None:
    net = WanTransformer3DModel.from_pretrained(folder, torch_dtype=BF16).to(device)
    x = torch.randn(shape[0], net.config.in_channels, *shape[2:], dtype=BF16, device=device)
    timestep = torch.tensor([TIMESTEP], device=device)
    _measured("step", runs, lambda: net(x, timestep, text_BLD, return_dict=False)[0])


def _decode(folder: Path, shape: tuple[int, ...], runs: int, device: str) -> None:
    vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=BF16).to(device)
    z = torch.randn(shape, dtype=BF16, device=device)
    _measured("decode", runs, lambda: vae.decode(z, return_dict=False)[0])


def _measured(name: str, runs: int, act: Callable[[], Any]) -> Any:
    """Tell each of `runs` runs of `act` but a first one; what the last gave."""
    gc.collect()  # the net before this one
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
    result = act()
    for _ in range(runs):
        result = None
        held = None
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        began = time.perf_counter()
        result = act()
        if on_gpu:
            torch.cuda.synchronize()
        taken = time.perf_counter() - began
        peak = torch.cuda.max_memory_allocated() if on_gpu else None
        print(json.dumps({"name": name, "seconds": taken, "held": held, "peak": peak}), flush=True)
    return result


if __name__ == "__main__":
    if len(sys.argv) != 7 or sys.argv[6] not in ("cuda", "cpu"):
        print(
            "usage: python -P -m engine.models.plain_generation MODEL WIDTH HEIGHT FRAMES RUNS cuda|cpu",
            file=sys.stderr,
        )
        sys.exit(2)
    run(*sys.argv[1:])
