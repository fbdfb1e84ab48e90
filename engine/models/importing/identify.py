"""What a file or a folder is, from its tensors alone: names, shapes and dtypes.

A name of a file is believed in two things that no tensor tells: which of two experts it holds, and
(elsewhere) for which resolution it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from engine.errors import ModelUnusable
from engine.models.configs import I2V_CHANNELS, T2V_CHANNELS
from engine.models.importing.weights import WEIGHT_ENDINGS, Weights, groups_in, read_weights
from engine.models.layout import INT8
from engine.models.model import MODEL_INDEX, TOKENIZER_FILES, printable
from engine.models.weight_file import open_weight_file
from engine.planning.shapes import LATENT_CHANNELS
from engine.wire import ModelKind

Kind: TypeAlias = Literal["dit", "text", "vae", "tokenizer", "diffusers", "folder", "lora", "unsupported"]
Verdict: TypeAlias = Literal["usable", "parts", "unsupported", "damaged"]
Expert: TypeAlias = Literal["high", "low"]

HEAD_DIM = 128
DEPTH = 2
"""Levels of folders below a given one that are looked into."""
ENTRIES = 1024
"""Of one folder that are looked at."""
NOT_DISTILLED = (
    "its DiT has no proj_l, so it is not distilled by TurboDiffusion and makes no video in 1 to 4 steps; "
    "encoder, VAE and tokenizer of such a model can be used beside a TurboWan checkpoint"
)

_LORA = re.compile(r"\.(lora_(A|B|up|down)|lora\.(up|down)|hada_w\d|lokr_w\d|diff(_b)?)(\.|$)|(^|\.)lora_")
_HIGH = re.compile(r"(?<![a-z])high(?:(?=[-_. ]?noise)|(?![a-z]))", re.IGNORECASE)
_LOW = re.compile(r"(?<![a-z])low(?:(?=[-_. ]?noise)|(?![a-z]))", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one path holds."""

    path: Path
    kind: Kind
    verdict: Verdict
    sentence: str
    """Why it has that verdict, one sentence in English."""
    title: str
    """What it is in a few words, such as `TurboWan T2V DiT, 30 layers of 1536, int8`."""
    files: tuple[Path, ...] = ()
    """Of weights; of several shards all."""
    bytes: int = 0
    """Of all tensors."""
    dtype: str | None = None
    """As torch spells it; None where there are no weights or they could not be read."""
    # Of a DiT:
    width: int | None = None
    layers: int | None = None
    in_channels: int | None = None
    quantised: bool = False
    distilled: bool = False
    """Whether it has the `proj_l` of sparse-linear attention, as TurboDiffusion's checkpoints have."""
    expert: Expert | None = None
    """Which of two, where its name or that of its folder says so."""
    # Of a folder:
    parts: tuple[Found, ...] = ()
    """Everything that was found in it, one by one; of a diffusers repository its components."""

    @property
    def shards(self) -> int:
        return len(self.files)

    @property
    def model_kind(self) -> ModelKind | None:
        """What a DiT makes videos from; None of anything else."""
        if self.in_channels == I2V_CHANNELS:
            return "i2v"
        return "t2v" if self.in_channels == T2V_CHANNELS else None


def identify(path: Path) -> Found:
    """What the file or folder at `path` is; reads headers and no weight, and executes nothing.

    Never raises: what cannot be read is `damaged` with the sentence that says why.
    """
    try:
        if path.is_dir():
            return _folder(path, DEPTH)
        return identify_group((path,))
    except (ModelUnusable, OSError, ValueError) as error:
        return _damaged(path, error)


def identify_group(paths: Sequence[Path]) -> Found:
    """What the weight files at `paths` are, which belong to one net. Never raises."""
    path = paths[0] if len(paths) == 1 else paths[0].parent
    try:
        foreign = _foreign(paths[0])
        if foreign is not None:
            return _unsupported(path, *foreign)
        weights = read_weights(paths)
    except (ModelUnusable, OSError, ValueError) as error:
        return _damaged(path, error)
    return identify_weights(path, weights)


def identify_weights(path: Path, weights: Weights) -> Found:
    """What `weights`, which lie at `path`, are."""
    found = _identify(path, weights)
    return replace(
        found,
        files=tuple(file.path for file in weights.files),
        bytes=weights.bytes,
        dtype="int8" if found.quantised else weights.dtype_name,
    )


def expert_of(path: Path) -> Expert | None:
    """Which of two experts `path` names, or else the folder that it lies in; None where neither says."""
    for name in (path.name, path.parent.name):
        said: list[Expert] = []
        if _HIGH.search(name):
            said.append("high")
        if _LOW.search(name):
            said.append("low")
        if len(said) == 1:
            return said[0]
    return None


# --------------------------------------------------------------------------- one net


def _identify(path: Path, weights: Weights) -> Found:
    names = weights.tensors
    lora = next((name for name in names if _LORA.search(name)), None)
    if lora is not None:
        return replace(
            _unsupported(
                path,
                "LoRA",
                f"it is a LoRA ({lora}), which changes a model and is none; merge it into a model first",
            ),
            kind="lora",
        )
    eight = next((tensor for tensor in names.values() if tensor.entry.dtype.startswith("F8_")), None)
    if eight is not None or "scaled_fp8" in names:
        which = "scaled_fp8" if eight is None else eight.name
        return _unsupported(
            path,
            "fp8 weights",
            f"its weights are fp8 ({which}), which this build does not run; take the bf16 or the -quant file",
        )
    if "patch_embedding.weight" in names and _any_of(names, "blocks.0.self_attn.", "blocks.0.attn1."):
        return _dit(path, weights)
    if _any_of(names, "decoder.conv1.", "decoder.conv_in.", "decoder.middle.", "decoder.mid_block."):
        return _vae(path, weights)
    encoder = _text(path, weights)
    if encoder is not None:
        return encoder
    if _any_of(names, "visual.", "text_model.", "vision_model.", "conditioner.", "log_scale", "textual."):
        return _unsupported(
            path,
            "CLIP",
            "it is a CLIP encoder, which Wan2.1 I2V needs and no model that this build runs",
        )
    first = ", ".join(list(names)[:3])
    return _unsupported(
        path,
        f"{len(names)} tensors of another net",
        f"its tensors ({first}, ...) belong to no Wan DiT, no Wan2.1 VAE and no umT5 encoder",
    )


def _dit(path: Path, weights: Weights) -> Found:
    names = weights.tensors
    patch = names["patch_embedding.weight"].entry.shape
    if len(patch) not in (2, 5) or not all(patch):
        return _damaged(
            path,
            ModelUnusable(
                f"{path} holds patch_embedding.weight of shape {list(patch)} where a Wan DiT has "
                "[width, channels * 4] or [width, channels, 1, 2, 2]"
            ),
        )
    width = patch[0]
    channels = patch[1] // 4 if len(patch) == 2 else patch[1]
    layers = _layers(names, r"blocks\.(\d+)\.")
    quantised = any(
        name.endswith(".int8_weight") or (name.endswith(".weight") and tensor.entry.dtype == INT8)
        for name, tensor in names.items()
    )
    distilled = any(".proj_l." in name for name in names)
    kind = {T2V_CHANNELS: "T2V", I2V_CHANNELS: "I2V"}.get(channels, f"{channels}-channel")
    family = "TurboWan" if distilled else "Wan"
    title = f"{family} {kind} DiT, {layers} layers of {width}, {'int8' if quantised else weights.dtype_name}"
    found = Found(
        path=path,
        kind="dit",
        verdict="usable",
        sentence="it is distilled by TurboDiffusion: it makes videos in 1 to 4 steps",
        title=title,
        width=width,
        layers=layers,
        in_channels=channels,
        quantised=quantised,
        distilled=distilled,
        expert=expert_of(path),
    )
    refusal = _dit_refusal(weights, width, channels)
    if refusal is not None:
        return replace(found, kind="unsupported", verdict="unsupported", sentence=refusal)
    if not distilled:
        return replace(found, verdict="parts", sentence=NOT_DISTILLED)
    return found


def _dit_refusal(weights: Weights, width: int, channels: int) -> str | None:
    """Why this build does not run such a DiT; None where it does."""
    names = weights.tensors

    def first(*parts: str) -> str | None:
        return next((name for name in names if any(part in name for part in parts)), None)

    if of := first("vace_"):
        return f"it is a Wan VACE model ({of}), which this build does not run; take a TurboWan checkpoint"
    if channels == 48:
        return (
            "it is Wan2.2 TI2V 5B (48 channels of latents), which TurboDiffusion does not distil and this "
            "build does not run; take TurboWan2.1 T2V or TurboWan2.2 I2V A14B"
        )
    if of := first("img_emb.", ".k_img.", "image_embedder.", ".add_k_proj."):
        return (
            f"it is Wan2.1 I2V with an image encoder ({of}), which this build does not run; take "
            "TurboWan2.2 I2V A14B"
        )
    if of := first("motion_encoder.", "face_adapter.", "casual_audio_encoder.", "audio_injector."):
        return f"it is a Wan model for faces or sound ({of}), which this build does not run"
    if of := first("control_adapter.", "ref_conv."):
        return f"it is a Wan model with control inputs ({of}), which this build does not run"
    if channels not in (T2V_CHANNELS, I2V_CHANNELS):
        return (
            f"its DiT takes {channels} channels, and this build runs {T2V_CHANNELS} (text to video) and "
            f"{I2V_CHANNELS} (image to video with two experts)"
        )
    if width % HEAD_DIM:
        return f"its DiT is {width} wide, which is no whole number of heads of {HEAD_DIM}"
    return None


def _vae(path: Path, weights: Weights) -> Found:
    names = weights.tensors
    released = "conv2.weight" in names
    bottleneck = weights.shape("conv2.weight" if released else "post_quant_conv.weight")
    depth = len(bottleneck) if bottleneck else 0
    if (bottleneck and bottleneck[0] == 48) or _any_of(names, "decoder.upsamples.0.upsamples."):
        return _unsupported(
            path,
            "Wan2.2 VAE",
            "it is the VAE of Wan2.2 TI2V 5B (48 channels of latents); every model that this build runs has "
            "that of Wan2.1 (Wan2.1_VAE.pth)",
        )
    first = "encoder.conv1.weight" if released else "encoder.conv_in.weight"
    if depth != 5 or bottleneck is None or bottleneck[0] != LATENT_CHANNELS or first not in names:
        said = "no 3-D bottleneck" if depth != 5 or bottleneck is None else f"{bottleneck[0]} latent channels"
        return _unsupported(
            path, "another VAE", f"it is a VAE with {said}, and this build decodes with that of Wan2.1"
        )
    return Found(
        path=path,
        kind="vae",
        verdict="usable",
        sentence="it is the VAE of all models that this build runs",
        title=f"Wan2.1 VAE, {weights.dtype_name}",
    )


def _text(path: Path, weights: Weights) -> Found | None:
    """The text encoder that `weights` are; None where they are no such thing."""
    names = weights.tensors
    released = "token_embedding.weight" in names and "blocks.0.attn.q.weight" in names
    if not released and "encoder.block.0.layer.0.SelfAttention.q.weight" not in names:
        return None
    own_bias = (
        "blocks.{}.pos_embedding.embedding.weight"
        if released
        else "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    blocks = r"blocks\.(\d+)\." if released else r"encoder\.block\.(\d+)\."
    layers = _layers(names, blocks)
    if layers > 1 and own_bias.format(1) not in names:
        return _unsupported(
            path,
            "T5 encoder",
            f"it is a T5 encoder with one bias for all layers ({own_bias.format(1)} is missing); Wan models "
            "need umT5",
        )
    return Found(
        path=path,
        kind="text",
        verdict="usable",
        sentence="it is the umT5 encoder of all models that this build runs",
        title=f"umT5 encoder, {layers} layers, {weights.dtype_name}",
    )


# --------------------------------------------------------------------------- folders and what is no weights


def _folder(path: Path, depth: int) -> Found:
    if (path / MODEL_INDEX).is_file():
        return _repository(path)
    parts: list[Found] = []
    tokenizer = _tokenizer(path)
    if tokenizer is not None:
        parts.append(tokenizer)
    parts += [identify_group(group) for group in groups_in(path)]
    if depth:
        for number, entry in enumerate(sorted(path.iterdir())):
            if number >= ENTRIES:
                break
            if entry.is_dir() and not entry.name.startswith("."):
                below = _try_folder(entry, depth - 1)
                if below.kind == "diffusers":
                    parts.append(below)
                else:
                    parts += below.parts or ((below,) if below.kind != "folder" else ())
    if len(parts) == 1:
        return parts[0]
    verdict, sentence = _together(parts)
    return Found(
        path=path,
        kind="folder",
        verdict=verdict,
        sentence=sentence,
        title=f"a folder with {len(parts)} parts",
        files=tuple(file for part in parts for file in part.files),
        bytes=sum(part.bytes for part in parts),
        parts=tuple(parts),
    )


def _try_folder(path: Path, depth: int) -> Found:
    try:
        return _folder(path, depth)
    except (ModelUnusable, OSError, ValueError) as error:
        return _damaged(path, error)


def _repository(path: Path) -> Found:
    """A repository in diffusers layout."""
    parts: list[Found] = []
    experts: dict[str, Expert | None] = {"transformer": None}
    if (path / "transformer_2").is_dir():
        experts = {"transformer": "high", "transformer_2": "low"}
    for name in ("text_encoder", "tokenizer", *experts, "vae"):
        folder = path / name
        if folder.is_dir():
            found = _try_folder(folder, 0)
            if found.kind != "folder":
                parts.append(replace(found, expert=experts[name]) if name in experts else found)
    verdict, sentence = _together(parts)
    dit = next((part for part in parts if part.kind == "dit"), None)
    return Found(
        path=path,
        kind="diffusers",
        verdict=verdict,
        sentence=sentence,
        title=f"diffusers repository: {dit.title if dit else ', '.join(part.title for part in parts)}",
        files=tuple(file for part in parts for file in part.files),
        bytes=sum(part.bytes for part in parts),
        dtype=dit.dtype if dit else None,
        width=dit.width if dit else None,
        layers=dit.layers if dit else None,
        in_channels=dit.in_channels if dit else None,
        quantised=bool(dit and dit.quantised),
        distilled=bool(dit and dit.distilled),
        parts=tuple(parts),
    )


def _together(parts: Sequence[Found]) -> tuple[Verdict, str]:
    """The verdict on a folder with `parts`: that of its best DiT, else what of the rest can be used."""
    dits = [part for part in parts if part.in_channels is not None]
    # A DiT that is damaged or of another kind spoils nothing beside one that can be used.
    order: tuple[Verdict, ...] = ("usable", "parts", "damaged", "unsupported")
    for verdict in order:
        for part in dits:
            if part.verdict == verdict:
                return part.verdict, part.sentence
    usable = [part.title for part in parts if part.verdict == "usable"]
    if usable:
        return "usable", f"it has {', '.join(usable)}, and no DiT"
    for verdict in order:
        for part in parts:
            if part.verdict == verdict:
                return part.verdict, part.sentence
    return "unsupported", "it holds no weights, no tokenizer and no model that this build knows"


def _tokenizer(path: Path) -> Found | None:
    """The tokenizer in the folder `path`; None where there is none."""
    names = [name for name in TOKENIZER_FILES if (path / name).is_file()]
    if not names:
        return None
    size = sum((path / name).stat().st_size for name in names)
    found = Found(
        path=path,
        kind="tokenizer",
        verdict="usable",
        sentence="it is a tokenizer; whether it is umT5's is seen when it is taken",
        title=f"tokenizer ({', '.join(names)})",
        bytes=size,
    )
    empty = next((name for name in names if (path / name).stat().st_size == 0), None)
    if empty is not None:
        return replace(
            found, verdict="damaged", sentence=f"{path / empty} is empty; fetch the tokenizer again"
        )
    return found


def _foreign(path: Path) -> tuple[str, str] | None:
    """What a file that holds weights in no format of ours is, and why it is not taken; None of others."""
    with open_weight_file(path) as file:
        magic = file.read(0, min(4, file.num_bytes))
    if magic == b"GGUF":
        return "GGUF", "it is a GGUF file, which this build does not read; take the safetensors or the .pth"
    if not path.name.endswith(WEIGHT_ENDINGS):
        return (
            "no weight file",
            f"it is no weight file: its name ends in none of {', '.join(WEIGHT_ENDINGS)}",
        )
    return None


def _unsupported(path: Path, title: str, sentence: str) -> Found:
    return Found(path=path, kind="unsupported", verdict="unsupported", title=title, sentence=sentence)


def _damaged(path: Path, error: Exception) -> Found:
    return Found(
        path=path,
        kind="unsupported",
        verdict="damaged",
        title="damaged",
        sentence=printable(str(error) or type(error).__name__),
    )


def _any_of(names: Iterable[str], *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in names)


def _layers(names: Iterable[str], block: str) -> int:
    """How many blocks there are by the highest number of one, which `block` finds."""
    return max(int(found[1]) for name in names if (found := re.match(block, name))) + 1
