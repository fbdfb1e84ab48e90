"""Makes random models: the sizes and layout of released ones, and weights that nobody trained.

They are for benchmarks: loading, switching and a step take as long with them as with released
weights, and nothing is fetched. Their videos are noise, finite and within bounds.

    python -P -m engine.models.random_models MODELS NAME [--dtype bf16|int8] [--layers N]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from engine.errors import EngineError, InvalidRequest, StorageUnusable
from engine.models.card import inferred_card
from engine.models.configs import I2V_CHANNELS, INT8_BLOCK
from engine.models.demo_tokenizer import make_tokenizer
from engine.models.layout import INT8_BLOCK_SIZE, SCALE, stays_fp32
from engine.models.making import hidden_folder, only_maker, write_card, write_model_index
from engine.models.random_files import (
    RandomDtype,
    bytes_given_back,
    folder_name,
    link_from_another,
    read_marker,
    was_made_here,
    write_marker,
)
from engine.models.random_noise import POOL_ELEMENTS, NoisePool, Recipe
from engine.models.weight_writer import (
    FilePlan,
    TensorPlan,
    library_order,
    plan_file,
    plan_shards,
    shard_table,
    write_files,
)
from engine.planning.shapes import LATENT_CHANNELS
from engine.units import size_text
from engine.wire import ModelKind
from engine.worker.nets.int8 import replace_linears
from engine.worker.nets.wan import add_proj_l

Progress: TypeAlias = Callable[[str], None]

WRITERS = 4
SMALL_FILES_BYTES = 2**20
"""Configurations, tokenizer, card and tables together: more than they take."""
INT8_STD = 40.0
"""Of the stored integers, so that few meet the end of their range."""
DIT_STEM = "diffusion_pytorch_model"
SHARED_SEED = "random"
"""Of text encoder and VAE, which are alike in all random models, as in the released family."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The sizes of one model's nets; the defaults are those that the released family has in common."""

    title: str
    kind: ModelKind = "t2v"
    num_attention_heads: int
    ffn_dim: int
    num_layers: int
    text_dim: int = 4096
    text_heads: int = 64
    text_ffn_dim: int = 10240
    text_layers: int = 24
    vocabulary: int = 256384
    vae_dim: int = 96
    shard_bytes: int = 10 * 10**9
    """The largest file of a DiT, as diffusers saves it."""
    pool_elements: int = POOL_ELEMENTS

    def with_layers(self, layers: int) -> Sizes:
        """The same with no more than `layers` in DiT and text encoder."""
        return dataclasses.replace(
            self, num_layers=min(layers, self.num_layers), text_layers=min(layers, self.text_layers)
        )

    @property
    def shared_recipe(self) -> str:
        """Of text encoder, tokenizer and VAE: equal for equal files."""
        names = ("text_dim", "text_heads", "text_ffn_dim", "text_layers", "vocabulary", "vae_dim")
        return _digest({name: getattr(self, name) for name in (*names, "pool_elements")})


SIZES: Mapping[str, Sizes] = MappingProxyType(
    {
        "wan2.1-t2v-1.3b": Sizes(
            title="Wan2.1 T2V 1.3B", num_attention_heads=12, ffn_dim=8960, num_layers=30
        ),
        "wan2.1-t2v-14b": Sizes(title="Wan2.1 T2V 14B", num_attention_heads=40, ffn_dim=13824, num_layers=40),
        "wan2.2-i2v-a14b": Sizes(
            title="Wan2.2 I2V A14B", kind="i2v", num_attention_heads=40, ffn_dim=13824, num_layers=40
        ),
    }
)
"""Source: the released models' configurations; 1.42, 14.29 and 2 x 14.29 thousand million weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One component in the making."""

    folder: str
    files: tuple[FilePlan, ...]
    write_config: Callable[[Path], None]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def make_random_model(
    models: Path,
    name: str,
    *,
    dtype: RandomDtype = "bf16",
    layers: int | None = None,
    progress: Progress | None = None,
    sizes: Sizes | None = None,
) -> Path:
    """Make the random model of the size called `name` in `models`, unless it lies there already; its folder.

    It appears all at once. Text encoder, tokenizer and VAE are hard links to those of another random
    model of equally many layers where there is one. One of another number of layers is replaced.
    `layers` leaves out the deeper ones; `sizes` are the tests' own. Needs some 1.5 GB of memory.

    Raises:
        InvalidRequest: there is no such size or number of layers.
        StorageUnusable: the disk has too little room, or the folder holds somebody's own model.
        OSError: `models` cannot be written, or its disk filled up; nothing is left behind.
    """
    say = progress or (lambda _text: None)
    found = sizes or SIZES.get(name)
    if found is None:
        raise InvalidRequest(f"there are no sizes called {name!r}; there are {', '.join(SIZES)}")
    if layers is not None and layers < 1:
        raise InvalidRequest(f"a net has at least 1 layer, not {layers}")
    wanted = found if layers is None else found.with_layers(layers)
    models.mkdir(parents=True, exist_ok=True)

    def on_wait() -> None:
        say("another random model is being made; waiting for its end")

    with only_maker(models, "random", on_wait=on_wait) as alone:
        _make(models.absolute(), name, dtype, wanted, say, alone=alone)
    return models / folder_name(name, dtype)


def _make(models: Path, name: str, dtype: RandomDtype, sizes: Sizes, say: Progress, *, alone: bool) -> None:
    root = models / folder_name(name, dtype)
    recipe = _digest({"name": name, "dtype": dtype, **dataclasses.asdict(sizes)})
    there = read_marker(root)
    if there is not None and there.recipe == recipe:
        say(f"{root.name} is there already")
        return
    if (root.is_symlink() or root.exists()) and not was_made_here(root):
        raise StorageUnusable(f"{root} is there and is no random model; rename it, or take it away")
    began = time.monotonic()
    with hidden_folder(models, "random", alone=alone) as making:
        made = making / root.name
        made.mkdir()
        pool = NoisePool(sizes.pool_elements)
        parts = list(_dits(sizes, name, dtype, pool))
        donor = link_from_another(models, made, sizes.shared_recipe)
        if donor is None:
            parts += [_text_encoder(sizes, pool), _vae(sizes, pool)]
        else:
            say(f"text_encoder, tokenizer and vae are hard links to those of {donor}, so they take no room")
        num_bytes = sum(part.bytes for part in parts)
        _require_room(models, root, num_bytes + SMALL_FILES_BYTES)
        if root.exists():
            say(f"taking away the {root.name} of another size")
            root.rename(making / "replaced")
            shutil.rmtree(making / "replaced")
        for part in parts:
            (made / part.folder).mkdir()
            part.write_config(made / part.folder)
            if len(part.files) > 1:
                table = made / part.folder / f"{DIT_STEM}.safetensors.index.json"
                table.write_bytes(shard_table(part.files))
            say(f"{part.folder}: {size_text(part.bytes)} in {len(part.files)} file(s)")
        write_files(
            [(made / part.folder, file) for part in parts for file in part.files],
            writers=WRITERS,
            on_progress=lambda done: say(f"{100 * done // num_bytes} % written"),
        )
        if donor is None:
            make_tokenizer(made / "tokenizer")
        write_model_index(made, sizes.kind)
        write_card(made, inferred_card(f"{sizes.title}, random weights", sizes.kind))
        write_marker(made, recipe, sizes.shared_recipe)
        made.rename(root)
    seconds = time.monotonic() - began
    say(
        f"{root.name} is ready: {size_text(num_bytes)} written in {seconds:.1f} s, "
        f"{num_bytes / seconds / 1e9:.1f} GB/s"
    )


def _require_room(models: Path, root: Path, needed: int) -> None:
    free = shutil.disk_usage(models).free
    back = bytes_given_back(root) if root.exists() else 0
    if needed > free + back:
        raise StorageUnusable(
            f"{root.name} needs {needed} bytes ({size_text(needed)}) in {models}, whose disk has "
            f"{free + back} ({size_text(free + back)}) free; make room, or take fewer with --layers"
        )


# --------------------------------------------------------------------------- the three nets


def _dits(sizes: Sizes, name: str, dtype: RandomDtype, pool: NoisePool) -> Iterator[_Part]:
    folders = ("transformer", "transformer_2") if sizes.kind == "i2v" else ("transformer",)
    with torch.device("meta"):
        model = WanTransformer3DModel(
            in_channels=I2V_CHANNELS if sizes.kind == "i2v" else LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_attention_heads=sizes.num_attention_heads,
            attention_head_dim=128,
            ffn_dim=sizes.ffn_dim,
            num_layers=sizes.num_layers,
            text_dim=sizes.text_dim,
        )
        add_proj_l(model)
    if dtype == "int8":
        replace_linears(model)
    shapes = _shapes(model)

    def write_config(folder: Path) -> None:
        model.save_config(folder)
        if dtype == "int8":
            path = folder / "config.json"
            config = json.loads(path.read_text("utf-8"))
            config["quantization_config"] = {"quant_method": INT8_BLOCK, "block_size": INT8_BLOCK_SIZE}
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")

    for folder in folders:
        tensors = [
            _planned(pool, f"{name}/{folder}", tensor, shape, _dit_recipe(tensor, shapes))
            for tensor, shape in shapes.items()
        ]
        files = plan_shards(DIT_STEM, tensors, sizes.shard_bytes)
        yield _Part(folder=folder, files=files, write_config=write_config)


def _dit_recipe(tensor: str, shapes: Mapping[str, tuple[int, ...]]) -> Recipe:
    dtype = "F32" if stays_fp32(tensor) else "BF16"
    shape = shapes[tensor]
    if tensor.endswith(SCALE):
        # About what gives the weight its usual size, and another for each block.
        scale = 1 / (INT8_STD * math.sqrt(_fan_in(shapes[tensor.removesuffix("_scale")])))
        return Recipe(dtype="F32", shift=scale, scale=0.1 * scale)
    if f"{tensor}_scale" in shapes:
        return Recipe(dtype="I8", scale=INT8_STD)
    if tensor.endswith("bias"):
        return Recipe(dtype=dtype, scale=0.05)
    if "norm" in tensor:
        return Recipe(dtype=dtype, shift=1.0, scale=0.1)
    if tensor.endswith("scale_shift_table"):
        return Recipe(dtype=dtype, scale=1 / math.sqrt(shape[-1]))
    return Recipe(dtype=dtype, scale=1 / math.sqrt(_fan_in(shape)))


def _text_encoder(sizes: Sizes, pool: NoisePool) -> _Part:
    config = UMT5Config(
        vocab_size=sizes.vocabulary,
        d_model=sizes.text_dim,
        d_kv=sizes.text_dim // sizes.text_heads,
        d_ff=sizes.text_ffn_dim,
        num_heads=sizes.text_heads,
        num_layers=sizes.text_layers,
        architectures=["UMT5EncoderModel"],
        dtype="bfloat16",
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)

    def recipe(tensor: str, shape: tuple[int, ...]) -> Recipe:
        if "layer_norm" in tensor:
            return Recipe(dtype="BF16", shift=1.0, scale=0.1)
        if "shared" in tensor or "relative_attention_bias" in tensor:
            return Recipe(dtype="BF16", scale=1.0)
        # T5 does not scale its scores, so its queries start smaller.
        fan_in = _fan_in(shape) * (config.d_kv if tensor.endswith(".q.weight") else 1)
        return Recipe(dtype="BF16", scale=1 / math.sqrt(fan_in))

    tensors = [
        _planned(pool, f"{SHARED_SEED}/text_encoder", tensor, shape, recipe(tensor, shape))
        for tensor, shape in _shapes(model).items()
        if not tensor.endswith("embed_tokens.weight")  # tied to `shared`
    ]
    file = plan_file("model.safetensors", library_order(tensors))
    return _Part(folder="text_encoder", files=(file,), write_config=config.save_pretrained)


def _vae(sizes: Sizes, pool: NoisePool) -> _Part:
    """fp32, as the released VAE's file is."""
    with torch.device("meta"):
        model = AutoencoderKLWan(base_dim=sizes.vae_dim)

    def recipe(tensor: str, shape: tuple[int, ...]) -> Recipe:
        if tensor.endswith("gamma"):
            return Recipe(dtype="F32", shift=1.0, scale=0.05)
        if tensor.endswith("bias"):
            return Recipe(dtype="F32", scale=0.02)
        scale = 1 / math.sqrt(_fan_in(shape))
        if tensor.endswith(("conv2.weight", "proj.weight")):
            scale *= 0.2  # the last map of a residual branch: the sum must not grow with the depth
        if "conv_out" in tensor:
            scale *= 0.1  # pixels near grey, where the video encoder has an ordinary film's work
        return Recipe(dtype="F32", scale=scale)

    tensors = [
        _planned(pool, f"{SHARED_SEED}/vae", tensor, shape, recipe(tensor, shape))
        for tensor, shape in _shapes(model).items()
    ]
    file = plan_file(f"{DIT_STEM}.safetensors", library_order(tensors))
    return _Part(folder="vae", files=(file,), write_config=model.save_config)


def _planned(pool: NoisePool, seed: str, tensor: str, shape: tuple[int, ...], recipe: Recipe) -> TensorPlan:
    content = pool.stretch(recipe, f"{seed}/{tensor}", math.prod(shape))
    return TensorPlan(name=tensor, dtype=recipe.dtype, shape=shape, content=content)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {tensor: tuple(meta.shape) for tensor, meta in model.state_dict().items()}


def _fan_in(shape: Sequence[int]) -> int:
    return math.prod(shape[1:])


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m engine.models.random_models", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("name")
    parser.add_argument("--dtype", choices=("bf16", "int8"), default="bf16")
    parser.add_argument("--layers", type=int)
    given = parser.parse_args(arguments)
    # The usual end would leave gigabytes in a hidden folder until the next maker.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    torch.set_num_threads(1)  # the writers are the threads
    try:
        make_random_model(
            given.models,
            given.name,
            dtype=given.dtype,
            layers=given.layers,
            progress=lambda text: print(text, flush=True),
        )
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{given.name} could not be made in {given.models}: {error}", file=sys.stderr)
        return StorageUnusable.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
