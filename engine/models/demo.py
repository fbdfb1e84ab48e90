"""Makes the demo models: three toys of the real architectures with seeded random weights.

They let everything run on a machine with no GPU and no download: the same files, classes,
loading, queue and loop as the released models, in seconds. Nobody trained them, so a plain
random net would give grey noise; instead a few channels of each net carry a signal straight
through (colour through the VAE, the noise through the DiT, the image of I2V), which gives
soft moving colours and a first frame that resembles the image. All other weights are random.

    python -P -m engine.models.demo MODELS
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

from engine.models.configs import I2V_CHANNELS
from engine.models.demo_files import (
    DEMO_FORMAT,
    DEMO_MODELS,
    MARKER,
    Marker,
    are_demo_models_complete,
    demo_card,
    demo_folder,
)
from engine.models.demo_tokenizer import make_tokenizer
from engine.models.layout import stays_fp32
from engine.models.making import (
    files_in,
    hidden_folder,
    link_shared,
    only_maker,
    write_card,
    write_model_index,
)
from engine.planning.shapes import LATENT_CHANNELS
from engine.wire import ModelKind

Progress: TypeAlias = Callable[[str], None]
Tensors: TypeAlias = dict[str, torch.Tensor]

TEXT_DIM = 256
VAE_DIM = 16
SIZES: dict[str, dict[str, int]] = {
    "wan-demo-small": {"num_attention_heads": 2, "num_layers": 5, "ffn_dim": 768},
    "wan-demo-large": {"num_attention_heads": 4, "num_layers": 7, "ffn_dim": 2048},
    "wan-demo-i2v": {"num_attention_heads": 2, "num_layers": 6, "ffn_dim": 768},
}

CONST = 4.0
"""A constant channel of the VAE: it keeps its RMS norms from stretching what is carried."""
PATCH_ELEMENTS = LATENT_CHANNELS * 4
ANSWER_GAIN = 2.0
"""Found by looking: most of the noise is gone after four steps, and the colours are not yet clipped."""
ONE_COLOUR = (
    "patch_embedding.bias",
    "to_out.0.weight",
    "to_out.0.bias",
    "ffn.net.2.weight",
    "ffn.net.2.bias",
    "time_embedder.linear_2.weight",
    "time_embedder.linear_2.bias",
    "time_proj.weight",
    "time_proj.bias",
    "scale_shift_table",
)


def make_demo_models(models: Path, progress: Progress | None = None) -> None:
    """Make the three demo models in `models`/demo, unless they lie there whole already.

    They appear all at once: made in a folder beside it, then renamed. A second maker waits for
    the first and finds them done. Older or damaged ones are replaced.

    Raises:
        OSError: `models` cannot be written, or its disk is full; nothing is left behind.
    """
    say = progress or (lambda _text: None)
    root = demo_folder(models.absolute())
    models.mkdir(parents=True, exist_ok=True)
    with only_maker(root.parent, root.name) as alone:
        if are_demo_models_complete(models):
            return
        with hidden_folder(root.parent, root.name, alone=alone) as making:
            made = making / root.name
            made.mkdir()
            with _one_thread():
                donor: Path | None = None
                for name in DEMO_MODELS:
                    say(f"making {name}")
                    _make_model(made / name, name, donor)
                    donor = made / name
            _write_marker(made)
            _replace(root, made, making)
    say("demo models ready")


def _make_model(folder: Path, name: str, donor: Path | None = None) -> None:
    """Make one of them; what all have in common is that of `donor`, a made one, where there is any."""
    kind: ModelKind = "i2v" if name.endswith("i2v") else "t2v"
    folder.mkdir()
    for part in ("transformer", "transformer_2") if kind == "i2v" else ("transformer",):
        _make_dit(folder / part, kind, SIZES[name], seed=f"{name}/{part}")
    if donor is None or not link_shared(donor, folder, files_in(donor)):
        _make_vae(folder / "vae")
        _make_text_encoder(folder / "text_encoder", make_tokenizer(folder / "tokenizer"))
    write_model_index(folder, kind)
    write_card(folder, demo_card(name, kind))


# --------------------------------------------------------------------------- the three nets


def _make_dit(folder: Path, kind: ModelKind, size: dict[str, int], *, seed: str) -> None:
    in_channels = I2V_CHANNELS if kind == "i2v" else LATENT_CHANNELS
    with torch.device("meta"):
        model = WanTransformer3DModel(
            in_channels=in_channels,
            out_channels=LATENT_CHANNELS,
            attention_head_dim=128,
            text_dim=TEXT_DIM,
            **size,
        )
    tensors: Tensors = {}
    for name, meta in model.state_dict().items():
        noise = _noise(seed, name, meta.shape)
        if "attn2.norm_" in name:
            # Sharp scores: few of the 512 text rows are words, and the prompt should be seen.
            tensors[name] = 2 + 0.1 * noise
        elif "norm_" in name or name.endswith("norm2.weight"):
            tensors[name] = 1 + 0.1 * noise
        elif name.endswith("bias"):
            tensors[name] = 0.05 * noise
            if name == "proj_out.bias":
                tensors[name] *= 0.2
        elif name.endswith("scale_shift_table"):
            tensors[name] = noise / math.sqrt(meta.shape[-1])
        else:
            tensors[name] = noise / math.sqrt(meta[0].numel())
    tensors["condition_embedder.time_proj.weight"] *= 0.5
    tensors["scale_shift_table"] *= 0.5
    _carry_patches(tensors)
    files = {name: tensor if stays_fp32(name) else tensor.bfloat16() for name, tensor in tensors.items()}
    _save(folder, "diffusion_pytorch_model.safetensors", files)
    model.save_config(folder)


def _carry_patches(tensors: Tensors) -> None:
    """Let the first 64 hidden channels carry the patch of x, less that of I2V's image, to the output.

    The last norm divides by the hidden state's size, so the net's answer is close to
    v = (x - image) / |x - image|: what a trained net says when it expects exactly that image.
    """
    embed, out = tensors["patch_embedding.weight"], tensors["proj_out.weight"]
    width = embed.shape[0]
    given_image = embed.shape[1] == I2V_CHANNELS
    for name, tensor in tensors.items():
        if name.endswith(ONE_COLOUR):
            # What is added to or scales these channels is one colour for the whole patch, or every
            # video would show a grid. Modulations hold two or six such maps on top of each other.
            columns = tensor.shape[-1] if name.endswith("weight") else 1
            lanes = tensor.view(-1, width, columns)[:, :PATCH_ELEMENTS].view(-1, LATENT_CHANNELS, 4, columns)
            lanes[:] = lanes[:, :, :1].clone() * (0.3 if given_image else 0.8)
    embed[:PATCH_ELEMENTS] *= 0.1
    out *= 0.1
    carried = embed[:PATCH_ELEMENTS].view(LATENT_CHANNELS, 4, -1, 4)
    answers = out.view(4, LATENT_CHANNELS, width)
    for channel in range(LATENT_CHANNELS):
        for patch in range(4):
            carried[channel, patch, channel, patch] += 1.0
            if given_image:
                carried[channel, patch, LATENT_CHANNELS + 4 + channel, patch] -= 1.0
            # The input lists a patch's elements channel first, the output channel last.
            answers[patch, channel, channel * 4 + patch] += math.sqrt(PATCH_ELEMENTS / width) * ANSWER_GAIN


def _make_text_encoder(folder: Path, vocabulary: int) -> None:
    config = UMT5Config(
        vocab_size=math.ceil(vocabulary / 64) * 64,
        d_model=TEXT_DIM,
        d_kv=64,
        d_ff=1024,
        num_heads=4,
        num_layers=5,
        architectures=["UMT5EncoderModel"],
        dtype="bfloat16",
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    tensors: Tensors = {}
    for name, meta in model.state_dict().items():
        noise = _noise("text_encoder", name, meta.shape)
        if "layer_norm" in name:
            tensors[name] = 1 + 0.1 * noise
        elif name.endswith("embed_tokens.weight"):
            continue  # tied to `shared`
        elif name.endswith(".q.weight"):
            # T5 does not scale its scores, so its queries start smaller.
            tensors[name] = noise / math.sqrt(TEXT_DIM * config.d_kv)
        elif "shared" in name or "relative_attention_bias" in name:
            tensors[name] = noise
        else:
            tensors[name] = noise / math.sqrt(meta.shape[1])
    _save(folder, "model.safetensors", {name: tensor.bfloat16() for name, tensor in tensors.items()})
    config.save_pretrained(folder)


def _make_vae(folder: Path) -> None:
    """fp32, as the released VAE's file is."""
    with torch.device("meta"):
        model = AutoencoderKLWan(base_dim=VAE_DIM)
    tensors: Tensors = {}
    for name, meta in model.state_dict().items():
        noise = _noise("vae", name, meta.shape)
        if name.endswith("gamma"):
            tensors[name] = 1 + 0.05 * noise
        elif name.endswith("bias"):
            tensors[name] = 0.02 * noise
        else:
            tensors[name] = noise / math.sqrt(meta[0].numel())
            if name.endswith(("conv2.weight", "proj.weight")):
                # The last map of a residual branch: texture, not the picture.
                tensors[name] *= 0.2
    _carry_colour(tensors, model.config.latents_mean, model.config.latents_std)
    _save(folder, "diffusion_pytorch_model.safetensors", tensors)
    model.save_config(folder)


def _carry_colour(tensors: Tensors, mean: list[float], std: list[float]) -> None:
    """Let channels 0-2 carry red, green and blue through encoder and decoder, 3-5 their negatives.

    silu(a) - silu(-a) = a, so the pair passes the final activation unharmed. Channel 6 is constant.
    """
    blur = torch.tensor([0.25, 0.5, 0.25])
    halve = torch.tensor([0.5, 0.5, 0.0])
    for name, weight in tensors.items():
        if not name.endswith("weight"):
            continue
        bias = tensors.get(name.removesuffix("weight") + "bias")
        if "conv_shortcut" in name or "time_conv" in name or ".resample.1." in name:
            assert bias is not None
            # time_conv of the decoder makes two frames of one; both halves carry.
            for half in range(2 if "decoder" in name and "time_conv" in name else 1):
                for lane in range(7):
                    row = lane + half * weight.shape[1]
                    weight[row] *= 0.0
                    bias[row] = 0.0
                    if lane == 6:
                        bias[row] = CONST
                    elif "conv_shortcut" in name:
                        weight[row, lane] = 1.0
                    elif "time_conv" in name:
                        taps = [0.0, 0.5, 0.5] if "encoder" in name else [0.0, 0.0, 1.0]
                        weight[row, lane, :, 0, 0] = torch.tensor(taps)
                    else:
                        side = halve if "encoder" in name else blur
                        weight[row, lane] = torch.outer(side, side)
    for side_name in ("encoder", "decoder"):
        weight, bias = tensors[f"{side_name}.conv_in.weight"], tensors[f"{side_name}.conv_in.bias"]
        weight[:7] *= 0.0
        bias[:7] = torch.tensor([0.0] * 6 + [CONST])
        for lane in range(6):
            colour, sign = lane % 3, 1.0 if lane < 3 else -1.0
            scale = 1.0 if side_name == "encoder" else 1.0 / std[colour]
            weight[lane, colour, -1, 1, 1] = sign * scale
            bias[lane] = 0.0 if side_name == "encoder" else -sign * mean[colour] * scale
        weight, bias = tensors[f"{side_name}.conv_out.weight"], tensors[f"{side_name}.conv_out.bias"]
        weight *= 0.1
        # Undo the last norm, whose divisor the constant channel dominates.
        size = math.sqrt((CONST**2 + weight.shape[1]) / weight.shape[1])
        for colour in range(3):
            scale = size if side_name == "decoder" else size * std[colour]
            weight[colour, colour, -1, 1, 1] += scale
            weight[colour, colour + 3, -1, 1, 1] -= scale
        if side_name == "encoder":
            bias[:LATENT_CHANNELS] = torch.tensor(mean)
            # Log-variances: small, so that even a sampled posterior stays near its mean.
            bias[LATENT_CHANNELS:] = -6.0
    for name in ("quant_conv", "post_quant_conv"):
        weight = tensors[f"{name}.weight"]
        weight *= 0.05
        weight[:, :, 0, 0, 0] += torch.eye(weight.shape[0])


# --------------------------------------------------------------------------- tensors and files


def _noise(seed: str, name: str, shape: torch.Size) -> torch.Tensor:
    """Standard normal fp32; its own stream for each tensor, so that no order matters."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator)


def _save(folder: Path, file: str, tensors: Tensors) -> None:
    folder.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file, {"format": "pt"}
    )


def _write_marker(made: Path) -> None:
    """Name every file with its bytes, once they are on the disk: the marker must not outlive them."""
    files: dict[str, int] = {}
    for name in files_in(made):
        with open(made / name, "rb") as handle:
            os.fsync(handle.fileno())
        files[name] = (made / name).stat().st_size
    (made / MARKER).write_bytes(msgspec.json.encode(Marker(format=DEMO_FORMAT, files=files)))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """No team of threads: drawing noise is serial, and helpers that wait spin (1 s against 2.3 s)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _replace(root: Path, made: Path, making: Path) -> None:
    """Put `made` in the place of `root`; an engine that has the old files mapped keeps them."""
    if root.is_symlink() or root.exists():
        root.rename(making / "replaced")
    try:
        made.rename(root)
    except OSError:
        # Another maker, where there are no locks, may have been first.
        if not are_demo_models_complete(root.parent):
            raise


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -P -m engine.models.demo MODELS", file=sys.stderr)
        return 2
    make_demo_models(Path(arguments[0]), lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
