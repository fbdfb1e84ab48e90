"""The kernels of SageSLA and of choosing blocks beside their twins, on any device: as `kernel_cases`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engine.worker.nets import sage as engine
from engine.worker.nets import sparse_linear
from engine.worker.nets.kernels import blocks as block_kernels
from engine.worker.nets.kernels import sage as kernels
from engine.worker.nets.sparse_linear import Blocks
from tests.specification import attention
from tests.specification.kernel_cases import numbers


def error(found: Tensor, expected: Tensor) -> float:
    found, expected = found.double().cpu(), expected.double().cpu()
    assert torch.isfinite(found).all()
    return ((found - expected).norm() / expected.norm()).item()


def heads_apart(device: str, dtype: torch.dtype, batch: int, length: int, seed: int) -> Tensor:
    """[B, L, 2, 128] whose heads lie among others', and whose means are not 0."""
    x = numbers(device, dtype, batch, length, 5, 128, seed=seed)
    return x[:, :, 1:3] + numbers(device, dtype, 5, 128, seed=seed + 90)[1:3]


def check_means(device: str, dtype: torch.dtype, batch: int, length: int, rows: int) -> None:
    x = heads_apart(device, dtype, batch, length, seed=1)
    middle, expected = block_kernels.centre(x), x.float().mean(1, keepdim=True)
    most = {torch.float32: 1e-6, torch.float16: 4e-4}.get(dtype, 3e-3)
    assert middle.dtype == dtype and middle.shape == expected.shape and error(middle, expected) < most
    assert torch.equal(block_kernels.largest(x), x.float().abs().amax(1).flatten(0, 1))
    for centre in (None, middle):
        found = block_kernels.block_means(x, rows, centre)
        expected = sparse_linear.block_means(x, rows, centre)
        assert found.dtype == dtype and found.shape == expected.shape and found.is_contiguous()
        # Sums in another order, which then are rounded.
        assert error(found, expected) < most / 2
        assert dtype == torch.float32 or (found != expected).float().mean() < 0.02


def check_quantiser(device: str, dtype: torch.dtype, batch: int, length: int, rows: int) -> None:
    x = heads_apart(device, dtype, batch, length, seed=1)
    x[:, : rows // 2, 1] = 0.0
    middle = x.mean(1, keepdim=True)
    for centre in (None, middle):
        found = kernels.quantised(x, rows, centre)
        # On the CPU: elsewhere PyTorch multiplies by the reciprocal where it should divide by a number.
        values, scale = engine.quantised_blocks(x.cpu(), rows, None if centre is None else centre.cpu())
        assert torch.equal(found.values.cpu(), values.flatten(0, 3))
        assert torch.equal(found.scale.cpu(), scale.flatten(0, 1))
        # Summed in another order, which shows where the mean is not rounded to 16 bits.
        torch.testing.assert_close(
            found.means,
            block_kernels.block_means(x, rows, centre),
            rtol=1e-5 if dtype == torch.float32 else 0,
            atol=1e-7,
        )


def check_values(device: str, dtype: torch.dtype, batch: int, length: int, rows: int) -> None:
    v = heads_apart(device, dtype, batch, length, seed=1)
    v[..., 5] *= 1e-3 * torch.arange(length, device=device, dtype=dtype)[:, None]
    v[..., 9] = 0.0
    found, scale = kernels.packed_values(v, rows, fp8=True)
    values, expected = engine.quantised_values(v.cpu())
    assert torch.equal(scale.cpu(), expected.flatten(0, 2))
    # Every token is there, in an order that is the same for all dimensions within each 16.
    found = found.cpu().view(batch, 2, 128, -1, 16).float().sort(-1).values
    values = torch.nn.functional.pad(values.float(), (0, 0, 0, 0, 0, -length % rows))
    values = values.permute(0, 2, 3, 1).unflatten(-1, (-1, 16)).sort(-1).values
    assert torch.equal(found, values)


def check_attention(
    device: str, dtype: torch.dtype, batch: int, length: int, blocks: Blocks, taken: int, *, fp8: bool,
    launch: kernels.Launch | None = None,
) -> None:  # fmt: skip
    q, k, v = (heads_apart(device, dtype, batch, length, seed=seed) for seed in (1, 2, 3))
    queries, keys = (-(-length // rows) for rows in (blocks.query, blocks.key))
    score = numbers(device, torch.float32, batch, 2, queries, keys, seed=4)
    # The last key block, which has fewer keys, is among those chosen.
    score[..., -1] = 9.0
    chosen = score.topk(taken).indices.sort(-1).values
    middle = k.cpu().mean(1, keepdim=True).to(device)
    found, onto = torch.full_like(q, torch.nan), numbers(device, dtype, *q.shape, seed=5)
    summed = onto.clone()
    for out, add in ((found, False), (summed, True)):
        kernels.attention(
            out, kernels.quantised(q, blocks.query), kernels.quantised(k, blocks.key, middle),
            kernels.packed_values(v, blocks.key, fp8=fp8), chosen.int().contiguous(), length,
            add=add, launch=launch,
        )  # fmt: skip
    # In fp32 a compiler may fuse the last product and the sum; 16 bits are rounded between.
    torch.testing.assert_close(
        summed, found + onto, rtol=1e-6 if dtype == torch.float32 else 0, atol=1e-6 * (dtype == torch.float32)
    )
    at_all = torch.zeros(score.shape, dtype=torch.bool).scatter(-1, chosen.cpu(), True)
    tensors = [x.cpu() for x in (q, k, v)]
    expected = attention.sage_sparse(*tensors, at_all, (blocks.query, blocks.key), fp8)
    # The interpreter does not fuse, which moves scores whose product is summed onto a float's bits.
    # Hopper sums 8-bit products with some bits less than fp32 has: 2.0e-3 and 2.4e-3 on an H200.
    most = 1e-3 if dtype == torch.float32 or device == "cpu" else 3e-3
    assert error(found, expected) < most


def check_whole(device: str, dtype: torch.dtype, length: int, blocks: Blocks, *, fp8: bool) -> None:
    """`SageSparseLinearAttention` by its kernels, over all blocks, so that none is chosen otherwise."""
    q, k, v = (heads_apart(device, dtype, 1, length, seed=seed) for seed in (1, 2, 3))
    proj_l = torch.nn.Linear(128, 128, device=device, dtype=dtype).requires_grad_(False)
    found = engine.SageSparseLinearAttention(topk=1.0, blocks=blocks)(q.clone(), k.clone(), v, proj_l)
    weight, bias = proj_l.weight.cpu(), proj_l.bias.cpu()
    expected = attention.sage_sla(
        q.cpu(), k.cpu(), v.cpu(), weight, bias,
        topk=1.0, blocks=(blocks.query, blocks.key), eight_bit_values=fp8,
    )  # fmt: skip
    assert error(found, expected) < 5e-3


def check_chosen(device: str, dtype: torch.dtype, length: int, blocks: Blocks) -> None:
    """Few blocks are chosen otherwise than is stated: those whose scores lie closer than roundings."""
    q, k = (heads_apart(device, dtype, 1, length, seed=seed) for seed in (1, 2))
    found = sparse_linear.choose_blocks(q, k, 0.3, blocks).cpu()
    expected = attention.chosen_blocks(q.cpu(), k.cpu(), 0.3, (blocks.query, blocks.key))
    marked = torch.zeros_like(expected).scatter(-1, found, True)
    assert marked.sum(-1).unique().tolist() == expected.sum(-1).unique().tolist() == [found.shape[-1]]
    other = (marked & ~expected).sum() / expected.sum()
    assert other < (1e-3 if dtype == torch.float32 else 0.02)


def spargeattn(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, steps: Tensor, count: Tensor, q_scale: Tensor,
    k_scale: Tensor, v_scale: Tensor, layout: int, causal: int, granularity: int, scale: float,
) -> None:  # fmt: skip
    """What SpargeAttn's product for Hopper is told to compute, into `out` [B, H, L, d]; its own stand-in.

    Keys of 128 to a block, queries of 64; values [B, H, d, padded] whose tokens lie in each 16 as its
    transpose_pad_permute puts them.
    """
    assert (layout, causal, granularity) == (1, 0, 1) and v.dtype == torch.float8_e4m3fn
    assert steps.dtype == count.dtype == torch.int32 and (count == steps.shape[-1]).all()
    length, keys = q.shape[2], k.shape[2]
    slot = torch.tensor([0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15])  # of each token
    values = v.float().unflatten(-1, (-1, 16))[..., slot].flatten(-2)[..., :keys]
    wide = [
        x.float() * s.repeat_interleave(rows, dim=-1)[..., : x.shape[2], None]
        for x, s, rows in ((q, q_scale, 64), (k, k_scale, 128))
    ]
    score = wide[0] @ wide[1].transpose(-1, -2) * scale
    present = torch.zeros((*steps.shape[:3], k_scale.shape[-1]), dtype=torch.bool)
    present.scatter_(-1, steps.long().cumsum(-1), True)
    present = present.repeat_interleave(64, dim=2)[:, :, :length].repeat_interleave(128, dim=3)[..., :keys]
    weight = score.masked_fill(~present, -torch.inf).softmax(-1)
    out.copy_(weight @ values.transpose(-1, -2) * v_scale[:, :, None])


def check_library(dtype: torch.dtype, batch: int, length: int) -> None:
    """By the library's product as by our own, with the linear part and without."""
    own = engine.SageSparseLinearAttention(topk=0.5, blocks=engine.HOPPER_BLOCKS)
    theirs = replace(own, product=spargeattn)
    proj_l = torch.nn.Linear(128, 128, dtype=dtype).requires_grad_(False)
    for linear in (None, proj_l):
        given = [heads_apart("cpu", dtype, batch, length, seed=seed) for seed in (1, 2, 3)]
        found, expected = (call(*(x.clone() for x in given), linear) for call in (theirs, own))
        # Weights are not rounded to fp8 here.
        assert error(found, expected) < 0.03
