"""One model on disk: its kind, components, sizes and card, or what is wrong with its folder.

Reads `model_index.json`, configurations and the headers of weight files, never the weights.
Imports no torch: the daemon uses it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import ModelUnusable, NotFound
from engine.models.card import CARD_FILE, Card, inferred_card, read_card
from engine.models.configs import (
    I2V_CHANNELS,
    Configs,
    read_dit_config,
    read_json,
    read_text_config,
    read_vae_config,
)
from engine.models.content import content_of
from engine.models.dtypes import DTYPES
from engine.models.folders import DIT, DIT_HIGH, DIT_LOW, FOLDERS, TEXT, TOKENIZER, VAE
from engine.models.index import FETCH_AGAIN, read_component_index
from engine.models.layout import (
    INT8,
    PROJ_L,
    SCALE,
    has_proj_l,
    int8_scale_shape,
    kept_dtype,
    resident_bytes,
)
from engine.wire import AttentionKind, ModelKind, VaePrecision

MODEL_INDEX = "model_index.json"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelComponent:
    """One loadable part of a model, as its files say."""

    name: str
    """`text`, `dit` or `dit.high` and `dit.low`, `vae`."""
    folder: Path
    bytes: int
    """When resident."""
    identity: str
    dtype: str
    """The floating one that holds most of its resident bytes, such as `bfloat16`: what it computes in."""
    content: str = ""
    """Equal for components whose weights are surely the same."""
    files: tuple[Path, ...] = ()
    """Of its weights."""
    proj_l: bool = False
    """Whether it is a DiT with the weights of the linear part of sparse-linear attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model on disk. One with a problem may lack components and configs."""

    name: str
    kind: ModelKind
    path: Path
    card: Card
    components: tuple[ModelComponent, ...] = ()
    """In the order in which a job first needs them."""
    configs: Configs | None = None
    problem: str | None = None
    """One sentence: why it cannot be used, and the way out."""

    @property
    def bytes(self) -> int:
        return sum(component.bytes for component in self.components)

    @property
    def dtype(self) -> str:
        """What most of the DiT is stored in."""
        if self.configs is not None and self.configs.dit.int8:
            return DTYPES[INT8].name
        return next(
            (component.dtype for component in self.components if component.name.startswith("dit")), "unknown"
        )

    @property
    def attention(self) -> AttentionKind:
        """What its DiT was trained for."""
        return "sla" if any(component.proj_l for component in self.components) else "dense"

    def component(self, name: str) -> ModelComponent:
        """Raises: NotFound: it has no component of that name."""
        for component in self.components:
            if component.name == name:
                return component
        names = ", ".join(component.name for component in self.components)
        raise NotFound(f"{self.name} has no component {name!r}; it has {names}")


def read_model(folder: Path, vae_precision: VaePrecision = "auto") -> Model:
    """The model in `folder`; what is wrong with it becomes its `problem`."""
    name = printable(folder.name)
    kind: ModelKind = "t2v"
    card: Card | None = None
    problem: str | None = None
    components: tuple[ModelComponent, ...] = ()
    configs: Configs | None = None
    try:
        if name != folder.name:
            raise ModelUnusable(f"the folder {name!r} has a name that is no UTF-8; rename it")
        if os.path.lexists(folder / CARD_FILE):
            card = read_card(folder / CARD_FILE)
            kind = card.kind
        parts = _read_model_index(folder)
        folders = _component_folders(folder, parts)
        kind = "i2v" if DIT_HIGH in folders else "t2v"
        if card is not None and card.kind != kind:
            raise ModelUnusable(
                f"{folder / CARD_FILE} says {card.kind} of a model whose nets are {kind}; "
                "correct it or remove it"
            )
        configs, components = _read_components(folders, vae_precision)
        _check_tokenizer(folder / TOKENIZER)
    except (ModelUnusable, OSError, ValueError) as error:
        problem = printable(str(error) or type(error).__name__)
    return Model(
        name=name,
        kind=kind,
        path=folder,
        card=card or inferred_card(name, kind),
        components=components,
        configs=configs if problem is None else None,
        problem=problem,
    )


def printable(text: str | Path) -> str:
    """`text` with what UTF-8 cannot hold replaced, such as the bytes of a foreign file name."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


# --------------------------------------------------------------------------- reading a folder


def _read_model_index(folder: Path) -> dict[str, Sequence[str | None]]:
    """Component name to (library, class) of `model_index.json`; absent ones are left out."""
    path = folder / MODEL_INDEX
    if not path.exists():
        raise ModelUnusable(
            f"{folder} has no {MODEL_INDEX}, so it is no model in diffusers layout; convert the model, "
            "or move the folder elsewhere"
        )
    entries = read_json(path, dict[str, msgspec.Raw])
    parts: dict[str, Sequence[str | None]] = {}
    for name, raw in entries.items():
        if name.startswith("_"):
            continue
        try:
            part = msgspec.json.decode(raw, type=tuple[str | None, str | None])
        except (msgspec.MsgspecError, ValueError):
            continue  # a setting of the pipeline, such as boundary_ratio
        if part != (None, None):
            parts[name] = part
    for name in (*FOLDERS["t2v"].values(), TOKENIZER):
        if name not in parts:
            raise ModelUnusable(f"{path} names no {name}; {FETCH_AGAIN}")
    return parts


def _component_folders(folder: Path, parts: Mapping[str, object]) -> dict[str, Path]:
    """Component name to folder, by the channels of the DiT and the number of experts."""
    channels = read_dit_config(folder / FOLDERS["t2v"][DIT]).in_channels
    two = FOLDERS["i2v"][DIT_LOW] in parts
    if two != (channels == I2V_CHANNELS):
        raise ModelUnusable(
            f"{folder} has {'two experts' if two else 'one expert'} of {channels} channels; this build runs "
            f"text-to-video with one and image-to-video ({I2V_CHANNELS} channels) with two; use another model"
        )
    return {name: folder / part for name, part in FOLDERS["i2v" if two else "t2v"].items()}


def _read_components(
    folders: Mapping[str, Path], vae_precision: VaePrecision
) -> tuple[Configs, tuple[ModelComponent, ...]]:
    dits = {name: read_dit_config(folder) for name, folder in folders.items() if name.startswith("dit")}
    dit = next(iter(dits.values()))
    for name, other in dits.items():
        if other != dit:
            raise ModelUnusable(
                f"{folders[name]} differs from the other expert in its configuration; {FETCH_AGAIN}"
            )
    configs = Configs(dit=dit, vae=read_vae_config(folders[VAE]), text=read_text_config(folders[TEXT]))
    if configs.text.d_model != dit.text_dim:
        raise ModelUnusable(
            f"{folders[TEXT]} gives {configs.text.d_model} numbers a word and the DiT takes "
            f"{dit.text_dim}; they belong to different models: {FETCH_AGAIN}"
        )
    patch = (dit.width, dit.in_channels, 1, 2, 2)
    last = f"blocks.{dit.num_layers - 1}.attn1.to_q.weight"
    widest = configs.vae.dim_mult[-1] * (configs.vae.decoder_base_dim or configs.vae.base_dim)
    expected: dict[str, dict[str, tuple[int, ...]]] = {
        "dit": {"patch_embedding.weight": patch, last: (dit.width, dit.width)},
        "vae": {"decoder.conv_in.weight": (widest, configs.vae.z_dim, 3, 3, 3)},
        "text": {"encoder.final_layer_norm.weight": (configs.text.d_model,)},
    }
    if dit.int8:
        scales = last.removesuffix(".weight") + SCALE
        expected["dit"][scales] = int8_scale_shape(dit.width, dit.width)
    components: list[ModelComponent] = []
    for name, folder in folders.items():
        index = read_component_index(folder)
        sla = name in dits and has_proj_l(index)
        if any(other.proj_l != sla for other in components if other.name in dits and name in dits):
            raise ModelUnusable(
                f"{folder} and the other expert are not both trained for sparse-linear attention, by their "
                f"tensors proj_l; they belong to different models: {FETCH_AGAIN}"
            )
        if sla:
            expected["dit"][PROJ_L.format(dit.num_layers - 1)] = (dit.attention_head_dim,) * 2
        for tensor, shape in expected[name.partition(".")[0]].items():
            entry = index.tensors.get(tensor)
            if entry is None or entry.shape != shape:
                found = "is missing" if entry is None else f"has shape {list(entry.shape)}"
                raise ModelUnusable(
                    f"{folder} holds other weights than its config.json describes: {tensor} {found} "
                    f"instead of {list(shape)}; {FETCH_AGAIN}"
                )
        if name in dits and (index.tensors[last].dtype == INT8) != dit.int8:
            raise ModelUnusable(
                f"{folder} holds {last} as {index.tensors[last].dtype}, and its config.json says "
                f"{'int8 blocks' if dit.int8 else 'nothing of int8'}; {FETCH_AGAIN}"
            )
        files = tuple(file.path for file in index.files)
        components.append(
            ModelComponent(
                name=name,
                folder=folder,
                bytes=resident_bytes(name, index, vae_precision),
                identity=index.identity,
                dtype=DTYPES[kept_dtype(name, index, vae_precision)].name,
                content=content_of(folder / "config.json", files),
                files=files,
                proj_l=sla,
            )
        )
    return configs, tuple(components)


def _check_tokenizer(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelUnusable(f"{folder} is missing, so prompts cannot be read; {FETCH_AGAIN}")
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            if path.stat().st_size == 0:
                raise ModelUnusable(f"{path} is empty; {FETCH_AGAIN}")
            return
    raise ModelUnusable(
        f"{folder} has no tokenizer ({' or '.join(TOKENIZER_FILES)}), so prompts cannot be read; "
        f"{FETCH_AGAIN}"
    )
