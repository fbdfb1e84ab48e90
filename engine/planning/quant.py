"""Which of a model and its int8 sibling a job runs: the one named, unless only the other fits.

The two are one family: the same net, and what a job gives differs by rounding alone. Pure decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from engine.errors import InvalidRequest
from engine.models.configs import INT8_BLOCK, QuantizationConfig
from engine.models.dtypes import BYTES_BY_NAME
from engine.models.layout import INT8_BLOCK_SIZE, int8_scale_shape
from engine.models.model import Model
from engine.models.siblings import int8_siblings, is_int8, originals
from engine.units import size_text
from engine.wire import Quant

SHORT_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
"""Of what a model computes in, as people write it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A model that was asked for and those that could run in its place."""

    first: Model
    """What runs if it fits, and if nothing else does."""
    sibling: Model | None = None
    """Its int8 sibling, where `first` is none itself and there is one."""
    free: bool = False
    """Whether that may take its place unasked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What runs."""

    model: Model
    reason: str | None = None
    """Why it is another than the one that is first, in figures."""


def find_family(asked: Model, quant: Quant, models: Iterable[Model]) -> Family:
    """What a job that names `asked` and wants `quant` may run.

    Raises:
        InvalidRequest: there is no such sibling; names the way to one.
    """
    models = list(models)
    if is_int8(asked):
        if quant != "bf16":
            return Family(first=asked)
        found = originals(asked, models)
        if not found:
            raise InvalidRequest(
                f"quant is bf16, and the model that {asked.name} was quantised from is not here; leave quant "
                "out, or put that model beside it"
            )
        return Family(first=found[0], sibling=asked)
    sibling = next(iter(int8_siblings(asked, models)), None)
    if quant != "int8" or asked.problem is not None:  # what is wrong with it is said by whoever checks it
        return Family(first=asked, sibling=sibling, free=quant == "auto")
    if sibling is None:
        raise InvalidRequest(
            f"quant is int8, and {asked.name} has no int8 sibling; `turbotui quantize {asked.name}` makes it"
        )
    return Family(first=sibling)


def choose(family: Family, peak: Callable[[Model], int], room_bytes: int | None) -> Chosen:
    """What runs where the empty device has `room_bytes`; `peak` is what the job takes with a model.

    Others' memory has no part in it: that is waited for, and the same job gives the same video tomorrow.
    """
    needed = peak(family.first)
    if room_bytes is None or needed <= room_bytes or family.sibling is None or not family.free:
        return Chosen(model=family.first)
    less = peak(family.sibling)
    if less > room_bytes:
        return Chosen(model=family.first)
    reason = (
        f"{short_name(family.first)} needs {size_text(needed)} of {size_text(room_bytes)}; "
        f"int8 needs {size_text(less)}"
    )
    return Chosen(model=family.sibling, reason=reason)


def way_out(family: Family, peak: Callable[[Model], int], room_bytes: int) -> str | None:
    """How int8 weights would make a job fit that does not; None where they would not, or are what it has."""
    model, sibling = family.first, family.sibling
    if is_int8(model):
        return None
    needed = peak(as_int8(model) if sibling is None else sibling)
    if needed > room_bytes:
        return None
    if sibling is not None:
        return f"leave quant out: {sibling.name} needs {size_text(needed)}"
    return f"run `turbotui quantize {model.name}`: with int8 weights it needs {size_text(needed)}"


def short_name(model: Model) -> str:
    """`bf16`, `fp32` or `int8`."""
    return SHORT_NAMES.get(model.dtype, model.dtype)


def as_int8(model: Model) -> Model:
    """`model` as it would be if it were quantised: the bytes of its DiTs, and nothing that can be loaded."""
    assert model.configs is not None
    dit = model.configs.dit
    width = dit.width
    shapes = [(width, width)] * 8 + [(dit.ffn_dim, width), (width, dit.ffn_dim)]
    numbers = sum(rows * columns for rows, columns in shapes) * dit.num_layers
    scales = sum(rows * columns for rows, columns in (int8_scale_shape(*shape) for shape in shapes))
    components = tuple(
        replace(
            part,
            bytes=part.bytes - numbers * (BYTES_BY_NAME[part.dtype] - 1) + 4 * scales * dit.num_layers,
        )
        if part.name.startswith("dit")
        else part
        for part in model.components
    )
    config = QuantizationConfig(quant_method=INT8_BLOCK, block_size=INT8_BLOCK_SIZE)
    configs = msgspec.structs.replace(
        model.configs, dit=msgspec.structs.replace(dit, quantization_config=config)
    )
    return replace(model, components=components, configs=configs)
