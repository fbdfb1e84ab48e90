"""A checkpoint's tensors in the places of the net that its own shapes describe, or what does not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.importing.keymaps import Rename, dit_names, spellings, text_name, vae_name
from engine.models.importing.nets import FLOATING, Net, Wanted, dit_sizes, text_sizes, vae_sizes
from engine.models.importing.weights import SourceTensor, Weights
from engine.models.layout import INT8, SCALE, TIED
from engine.models.weight_file import FETCH_AGAIN, TensorEntry, UnsupportedFormat

Part: TypeAlias = Literal["dit", "text", "vae"]

CALLED: Mapping[Part, str] = MappingProxyType({"dit": "Wan DiT", "text": "umT5 encoder", "vae": "Wan2.1 VAE"})
SET_ASIDE = frozenset({"spiece_model"})
"""What some text encoders' files carry beside the weights: the tokenizer."""
PATCH = "patch_embedding.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """One tensor of a checkpoint in its place."""

    source: SourceTensor
    shape: tuple[int, ...]
    """As the net has it; the bytes are the same."""

    @property
    def entry(self) -> TensorEntry:
        """Where it lies, as the net sees it."""
        found = self.source.entry
        return TensorEntry(dtype=found.dtype, shape=self.shape, begin=found.begin, end=found.end)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapped:
    """A whole net out of a checkpoint."""

    path: Path
    weights: Weights
    net: Net
    tensors: Mapping[str, Placed]
    """By our names; of a tied tensor one."""


def map_weights(part: Part, path: Path, weights: Weights) -> Mapped:
    """Every tensor of `weights`, which lie at `path`, in its place of a net of that kind.

    Raises:
        ModelUnusable: a tensor is missing, is none of the net's, or has another shape or dtype; names it
            and what was expected.
    """
    called = CALLED[part]
    renamed = _renamed(part, path, weights)
    shapes = {name: tensor.entry.shape for name, tensor in renamed.items()}
    try:
        net = _net(part, renamed, shapes)
    except (KeyError, IndexError, ValueError) as error:
        named = _spelled(part, weights, error.args[0]) if isinstance(error, KeyError) else "its sizes"
        raise ModelUnusable(f"{path} lacks {named!r}, which every {called} has; {FETCH_AGAIN}") from error
    wanted = net.tensors()
    missing = [name for name in wanted if name not in renamed]
    if missing:
        lost, shape = _spelled(part, weights, missing[0]), list(wanted[missing[0]].shape)
        if len(missing) == 1:
            raise ModelUnusable(
                f"{path} lacks {lost!r} of shape {shape}, which a {called} of its sizes has; {FETCH_AGAIN}"
            )
        raise ModelUnusable(
            f"{path} lacks {lost!r} of shape {shape} and {len(missing) - 1} more of the tensors of a "
            f"{called} of its sizes; {FETCH_AGAIN}"
        )
    for name, tensor in renamed.items():
        if name not in wanted:
            raise ModelUnusable(
                f"{path} holds {tensor.name!r} of shape {list(tensor.entry.shape)}, which a {called} of its "
                f"other sizes has not; {FETCH_AGAIN}"
            )
        _check(name, tensor, wanted[name], called)
    placed = {name: Placed(source=renamed[name], shape=wanted[name].shape) for name in wanted}
    return Mapped(path=path, weights=weights, net=net, tensors=MappingProxyType(placed))


def _renamed(part: Part, path: Path, weights: Weights) -> dict[str, SourceTensor]:
    found: dict[str, SourceTensor] = {}
    rename = _rename(part, weights)
    for name, tensor in weights.tensors.items():
        if name in SET_ASIDE:
            continue
        if 0 in tensor.entry.shape:
            raise ModelUnusable(
                f"{path} holds {tensor.name!r} of shape {list(tensor.entry.shape)}, which is empty; "
                f"{FETCH_AGAIN}"
            )
        ours = rename(name)
        if ours is None:
            raise UnsupportedFormat(
                f"{path} holds {tensor.name!r} of shape {list(tensor.entry.shape)}, which no {CALLED[part]} "
                f"has; it is another model, or {FETCH_AGAIN}",
                title="another model",
            )
        if ours in found:
            raise ModelUnusable(
                f"{path} holds {ours!r} twice, as {found[ours].name!r} and as {tensor.name!r}; {FETCH_AGAIN}"
            )
        found[ours] = tensor
    for tied, kept in TIED.items():
        # Of the two names of one tensor one is enough.
        if tied in found:
            other = found.pop(tied)
            there = found.setdefault(kept, other)
            if there.entry.shape != other.entry.shape:
                raise ModelUnusable(
                    f"{path} holds {other.name!r} of shape {list(other.entry.shape)}, which is "
                    f"{there.name!r} once more, of shape {list(there.entry.shape)}; {FETCH_AGAIN}"
                )
    return found


def _rename(part: Part, weights: Weights) -> Rename:
    return {"dit": dit_names(weights.tensors), "text": text_name, "vae": vae_name}[part]


def _spelled(part: Part, weights: Weights, ours: str) -> str:
    """What the file of `weights` would call the tensor that is `ours` here and that it lacks."""
    rename, names = _rename(part, weights), weights.tensors
    can_be = [name for name in spellings(ours) if rename(name) == ours]
    if not can_be:
        return ours
    # As the same layer of another block is called there.
    there = {re.sub(r"\d+", "#", name) for name in names}
    alike = [name for name in can_be if re.sub(r"\d+", "#", name) in there]
    others = [name for name in can_be if name != ours]
    # A DiT has one spelling a Rename; the others' take ours too.
    foreign = part != "dit" and any(rename(name) != name for name in names if name not in SET_ASIDE)
    bare = (alike or (others if foreign else []) or can_be)[0]
    prefix = next((t.name.removesuffix(name) for name, t in names.items() if t.name.endswith(name)), "")
    return prefix + bare


def _net(part: Part, tensors: Mapping[str, SourceTensor], shapes: Mapping[str, tuple[int, ...]]) -> Net:
    if part == "text":
        return text_sizes(shapes)
    if part == "vae":
        return vae_sizes(shapes)
    quantised = any(
        name.endswith(SCALE) or (name.endswith(".weight") and tensor.entry.dtype == INT8)
        for name, tensor in tensors.items()
    )
    return dit_sizes(shapes, quantised=quantised)


def _check(name: str, tensor: SourceTensor, wanted: Wanted, called: str) -> None:
    entry = tensor.entry
    same = entry.shape == wanted.shape
    if name == PATCH and len(entry.shape) == 2:
        # A linear layer over flattened patches: channel, time, row, column, as the convolution's weight lies.
        same = entry.shape == (wanted.shape[0], math.prod(wanted.shape[1:]))
    if not same:
        raise ModelUnusable(
            f"{tensor.path} holds {tensor.name!r} of shape {list(entry.shape)} where a {called} of its other "
            f"sizes has {list(wanted.shape)}; {FETCH_AGAIN}"
        )
    right = DTYPES[entry.dtype].floating if wanted.dtype == FLOATING else entry.dtype == wanted.dtype
    if not right:
        raise ModelUnusable(
            f"{tensor.path} holds {tensor.name!r} as {entry.dtype} where a {called} of its kind has "
            f"{wanted.dtype} numbers; {FETCH_AGAIN}"
        )
