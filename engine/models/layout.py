"""How a component's weights lie when they are resident: in which dtypes, on which boundaries.

The daemon plans with it from the headers of files, the worker places tensors by it, and so a
plan's bytes are those that a load takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.models.dtypes import DTYPES
from engine.models.index import ComponentIndex
from engine.wire import VaePrecision

ALIGNMENT = 512
"""Bytes; what the caching allocator itself aligns to, so kernels meet the alignment they know."""
FP32 = "F32"
INT8 = "I8"
INT8_BLOCK_SIZE = 128
"""Rows and columns of an int8 weight that share one scale."""
PROJ_L = "blocks.{}.attn1.proj_l.weight"
"""A block's map of sparse-linear attention's linear part, [d, d], where the model was trained for it."""
SCALE = ".weight_scale"
"""Ending of the name of an int8 weight's scales, which are fp32 in every model."""
FP32_PARTS = frozenset({"rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"})
"""Parts of a DiT's tensor names that stay fp32 beside 16-bit weights; the released files have
them so too. Source: diffusers WanTransformer3DModel._keep_in_fp32_modules."""
TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""Names of one tensor in the text encoder; a file may hold it under both."""


def place(sizes: Iterable[int]) -> tuple[tuple[int, ...], int]:
    """Where tensors of `sizes` bytes begin, each on its boundary, and what they take together."""
    begins = []
    end = 0
    for size in sizes:
        begins.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return tuple(begins), end


def int8_scale_shape(rows: int, columns: int) -> tuple[int, int]:
    """The shape of the scales of an int8 weight [`rows`, `columns`]: one to a block, also a cut one."""
    return -(-rows // INT8_BLOCK_SIZE), -(-columns // INT8_BLOCK_SIZE)


def main_dtype(index: ComponentIndex) -> str:
    """The floating dtype that holds most of the component's bytes, as the header spells it.

    What it computes in: integers are stored numbers, and the scales that belong to them no others. Or
    what was asked for when it was imported.
    """
    if index.kept is not None:
        return index.kept
    share: dict[str, int] = {}
    # Tied tensors of a checkpoint lie in one place and count once.
    distinct = {
        (index.file_of[name], entry.begin, entry.end): entry
        for name, entry in index.tensors.items()
        if not name.endswith(SCALE)
    }
    for entry in distinct.values():
        if DTYPES[entry.dtype].floating:
            share[entry.dtype] = share.get(entry.dtype, 0) + entry.bytes
    return max(share, key=lambda dtype: share[dtype], default=FP32)


def has_proj_l(index: ComponentIndex) -> bool:
    """Whether a DiT of these tensors was trained for sparse-linear attention."""
    return PROJ_L.format(0) in index.tensors


def stays_fp32(tensor: str) -> bool:
    """Whether a DiT keeps the tensor of this name in fp32 beside 16-bit weights."""
    return not FP32_PARTS.isdisjoint(tensor.split("."))


def resident_dtype(component: str, tensor: str, main: str) -> str:
    """The dtype in which a floating tensor is kept, as headers spell it.

    That of most of the file's bytes, for all: a module of mixed dtypes cannot run. What a DiT's
    class wants in fp32 beside 16-bit weights is widened to that, and scales of int8 blocks always.
    """
    if tensor.endswith(SCALE):
        return FP32
    # transformers applies its own such list to float16 alone.
    keep = DTYPES[main].bytes == 2 and component.startswith("dit") and stays_fp32(tensor)
    return FP32 if keep else main


def vae_precision_on(device_id: str, wanted: VaePrecision) -> VaePrecision:
    """What `wanted` comes to there: `auto` is bf16 on a GPU, as the reference has it, on cpu the file's."""
    return "bf16" if wanted == "auto" and device_id != "cpu" else wanted


def kept_dtype(component: str, index: ComponentIndex, vae_precision: VaePrecision = "auto") -> str:
    """The main dtype in which a component is kept: its file's, but for a VAE whose precision is set."""
    if component == "vae" and vae_precision != "auto":
        return {"bf16": "BF16", "fp32": FP32}[vae_precision]
    return main_dtype(index)


def resident_bytes(component: str, index: ComponentIndex, vae_precision: VaePrecision = "auto") -> int:
    """What the weights of `index` take when resident."""
    main = kept_dtype(component, index, vae_precision)
    sizes = []
    for name, entry in index.tensors.items():
        if TIED.get(name) in index.tensors:
            continue
        dtype = DTYPES[entry.dtype]
        kept = DTYPES[resident_dtype(component, name, main)] if dtype.floating else dtype
        sizes.append(entry.bytes // dtype.bytes * kept.bytes)
    return place(sizes)[1]
