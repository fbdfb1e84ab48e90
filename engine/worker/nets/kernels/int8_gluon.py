"""The 8-bit linear on Hopper, in Gluon, Triton's lower language: who fetches, who multiplies, and when.

A program computes tiles of 256 x 128, one after the other. One warp lets the copy engine fetch; two groups of
four warps have 128 rows of the tile each, as four products of 64 x 64 for each block of K. Two are under way
at a time: while the tensor cores multiply one, the finished one is converted, scaled and added, which takes
half as long. By `tl.dot` the tensor cores wait for that.

Source: NVIDIA's PTX manual (wgmma, mbarrier, tensor copies) for what may overlap.
"""

# Shapes: L tokens, N outputs, K inputs; scales [ceil(L / 128), K / 128] and [N / 128, K / 128].

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

BLOCK = 128
ROWS = 256
"""Of a tile; its columns are a block."""
STAGES = 4
"""Blocks of K that are under way to shared memory: as many as fit."""
GROUP = 8
"""Rows of tiles that are walked together, so that their weights are still in the cache."""
MOST_REGISTERS = 168
"""Of a thread before the groups are told apart: what 384 threads of a processor can have."""
# Releases of Triton name them one way or the other.
fetch_tile = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
store_tile = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global
DTYPES = {torch.int8: gl.int8, torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


def linear(
    values_LK: Tensor,
    x_scale: Tensor,
    weight_NK: Tensor,
    scale: Tensor,
    bias_N: Tensor | None,
    out_LN: Tensor,
) -> None:
    """Into `out_LN`: of int8 values and weights, with K and N whole blocks of 128."""
    (length, inputs), outputs = values_LK.shape, len(weight_NK)
    tiles = -(-length // ROWS) * (outputs // BLOCK)
    _linear[(min(_processors(out_LN.device), tiles),)](
        _tiles(values_LK, BLOCK), _tiles(weight_NK, BLOCK), _tiles(out_LN, 64), x_scale, scale,
        x_scale if bias_N is None else bias_N, length, outputs, inputs, HAS_BIAS=bias_N is not None,
        GROUP=GROUP, STAGES=STAGES, num_warps=4, maxnreg=MOST_REGISTERS,
    )  # fmt: skip


def _tiles(matrix: Tensor, rows: int) -> TensorDescriptor:
    """Of a contiguous matrix in tiles of `rows` x 128."""
    return TensorDescriptor.from_tensor(matrix, [rows, BLOCK], _layout(rows, matrix.dtype))


# A small model's step is over as fast as its kernels can be launched: what is always the same is kept.
@lru_cache
def _layout(rows: int, dtype: torch.dtype) -> gl.NVMMASharedLayout:
    return gl.NVMMASharedLayout.get_default_for([rows, BLOCK], DTYPES[dtype])


@lru_cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@gluon.jit
def _place(number, rows, columns, GROUP: gl.constexpr):
    """Row and column of a tile by its number: down a group of rows first."""
    in_group = GROUP * columns
    first = number // in_group * GROUP
    height = gl.minimum(rows - first, GROUP)
    return first + (number % in_group) % height, (number % in_group) // height


@gluon.jit
def _fetch(
    values, weights, x_tiles, w_tiles, full, empty, length, outputs, inputs, GROUP: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    rows, columns, blocks = gl.cdiv(length, 256), gl.cdiv(outputs, 128), inputs // 128
    count = 0
    for tile in range(gl.program_id(0), rows * columns, gl.num_programs(0)):
        row, column = _place(tile, rows, columns, GROUP)
        for k in range(0, blocks):
            stage = count % STAGES
            mbarrier.wait(empty.index(stage), ((count // STAGES) & 1) ^ 1)
            there = full.index(stage)
            mbarrier.expect(there, (256 + 128) * 128)
            for half in gl.static_range(2):
                fetch_tile(values, [row * 256 + half * 128, k * 128], there, x_tiles.index(stage * 2 + half))
            fetch_tile(weights, [column * 128, k * 128], there, w_tiles.index(stage))
            count += 1


@gluon.jit
def _begun(x, w, row: gl.constexpr, column: gl.constexpr, zero):
    """A product of 64 x 64 of a block of K, under way."""
    right = w.slice(column * 64, 64).permute((1, 0))
    return warpgroup_mma(x.slice(row * 64, 64), right, zero, use_acc=False, is_async=True)


@gluon.jit
def _multiply(
    own: gl.constexpr, out_tiles, x_tiles, w_tiles, staging, full, empty, x_scale_ptr, scale_ptr, bias_ptr,
    length, outputs, inputs, HAS_BIAS: gl.constexpr, GROUP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    mma: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 64, 32]
    )
    rows, columns, blocks = gl.cdiv(length, 256), gl.cdiv(outputs, 128), inputs // 128
    row_blocks = gl.cdiv(length, 128)
    zero = gl.zeros([64, 64], gl.int32, mma)
    count = 0
    for tile in range(gl.program_id(0), rows * columns, gl.num_programs(0)):
        row, column = _place(tile, rows, columns, GROUP)
        total_00 = gl.zeros([64, 64], gl.float32, mma)
        total_01 = gl.zeros([64, 64], gl.float32, mma)
        total_10 = gl.zeros([64, 64], gl.float32, mma)
        total_11 = gl.zeros([64, 64], gl.float32, mma)
        # The second half of the last tile may lie beyond the end, where nothing is stored.
        row_block = gl.minimum(row * 2 + own, row_blocks - 1)
        for k in range(0, blocks):
            scale = gl.load(x_scale_ptr + row_block * blocks + k) * gl.load(scale_ptr + column * blocks + k)
            stage = count % STAGES
            mbarrier.wait(full.index(stage), (count // STAGES) & 1)
            x, w = x_tiles.index(stage * 2 + own), w_tiles.index(stage)
            product_00 = _begun(x, w, 0, 0, zero)
            product_01 = _begun(x, w, 0, 1, zero)
            product_00 = warpgroup_mma_wait(1, deps=[product_00])
            total_00 += product_00.to(gl.float32) * scale
            product_10 = _begun(x, w, 1, 0, zero)
            product_01 = warpgroup_mma_wait(1, deps=[product_01])
            total_01 += product_01.to(gl.float32) * scale
            product_11 = _begun(x, w, 1, 1, zero)
            product_10 = warpgroup_mma_wait(1, deps=[product_10])
            total_10 += product_10.to(gl.float32) * scale
            product_11 = warpgroup_mma_wait(0, deps=[product_11])
            mbarrier.arrive(empty.index(stage), count=1)
            total_11 += product_11.to(gl.float32) * scale
            count += 1
        top, left, way = row * 256 + own * 128, column * 128, staging.index(own)
        _store(total_00, total_01, bias_ptr, out_tiles, way, top, left, HAS_BIAS, mma)
        _store(total_10, total_11, bias_ptr, out_tiles, way, top + 64, left, HAS_BIAS, mma)
    tma.store_wait(0)


@gluon.jit
def _rounded(total, bias_ptr, column, dtype: gl.constexpr, HAS_BIAS: gl.constexpr, mma: gl.constexpr):
    """The sum is rounded, and its sum with the bias once more."""
    out = total.to(dtype)
    if HAS_BIAS:
        bias = gl.load(bias_ptr + column + gl.arange(0, 64, layout=gl.SliceLayout(0, mma)))
        out = (out.to(gl.float32) + gl.expand_dims(bias, 0).to(gl.float32)).to(dtype)
    return out


@gluon.jit
def _store(left, right, bias_ptr, out_tiles, way, row, column, HAS_BIAS: gl.constexpr, mma: gl.constexpr):
    left = _rounded(left, bias_ptr, column, out_tiles.dtype, HAS_BIAS, mma)
    right = _rounded(right, bias_ptr, column + 64, out_tiles.dtype, HAS_BIAS, mma)
    tma.store_wait(0)
    way.slice(0, 64, dim=1).store(left)
    way.slice(64, 64, dim=1).store(right)
    fence_async_shared()
    store_tile(out_tiles, [row, column], way)


@gluon.jit
def _linear(
    values, weights, out_tiles, x_scale_ptr, scale_ptr, bias_ptr, length, outputs, inputs,
    HAS_BIAS: gl.constexpr, GROUP: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    x_tiles = gl.allocate_shared_memory(values.dtype, [STAGES * 2, 128, 128], values.layout)
    w_tiles = gl.allocate_shared_memory(weights.dtype, [STAGES, 128, 128], weights.layout)
    staging = gl.allocate_shared_memory(out_tiles.dtype, [2, 64, 128], out_tiles.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=2)
    fence_async_shared()
    gl.warp_specialize(
        [
            (
                _multiply,
                (
                    0, out_tiles, x_tiles, w_tiles, staging, full, empty, x_scale_ptr, scale_ptr, bias_ptr,
                    length, outputs, inputs, HAS_BIAS, GROUP, STAGES,
                ),
            ),
            (
                _multiply,
                (
                    1, out_tiles, x_tiles, w_tiles, staging, full, empty, x_scale_ptr, scale_ptr, bias_ptr,
                    length, outputs, inputs, HAS_BIAS, GROUP, STAGES,
                ),
            ),
            (
                _fetch,
                (values, weights, x_tiles, w_tiles, full, empty, length, outputs, inputs, GROUP, STAGES),
            ),
        ],
        [4, 1],
        [232, 24],  # registers of a thread that multiplies, and of one that fetches
    )  # fmt: skip
