"""SageSLA: the statement's own properties, and the engine's PyTorch path beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.worker.nets import sage
from engine.worker.nets.sparse_linear import SLA_BLOCKS, Blocks
from tests.specification import attention

BLOCKS = [attention.SLA_BLOCKS, attention.SAGE_BLOCKS_HOPPER]


def heads(length: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, length, 2, 128, generator=generator).to(dtype) for _ in range(3))


def error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def everywhere(length: int, blocks: tuple[int, int]) -> Tensor:
    return torch.ones((1, 2, -(-length // blocks[0]), -(-length // blocks[1])), dtype=torch.bool)


def test_the_int8_quantiser() -> None:
    x = torch.randn(1, 1, 200, 128, generator=torch.Generator().manual_seed(1))
    values, scale = attention.sage_quantise(x, 128)
    assert values.abs().amax((-1, -2)).item() == 127
    assert ((values * scale) - x).abs().max() <= scale.max() * 0.5001
    assert scale[0, 0, 0] != scale[0, 0, 199] and scale[0, 0, :128].unique().numel() == 1
    row = torch.tensor([[[[127.0, 2.51, -2.51, 0.49]]]])
    assert attention.sage_quantise(row, 1)[0].flatten().tolist() == [127, 3, -3, 0]
    assert attention.sage_quantise(row * 0, 1)[0].abs().max() == 0


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize(("eight_bit_values", "most"), [(True, 0.045), (False, 0.015)])
def test_near_dense_attention_over_all_blocks(
    blocks: tuple[int, int], eight_bit_values: bool, most: float
) -> None:
    q, k, v = heads(500)
    found = attention.sage_sparse(q, k, v, everywhere(500, blocks), blocks, eight_bit_values)
    assert most / 10 < error(found, attention.dense(q, k, v)) < most


def test_what_all_keys_share_has_no_part() -> None:
    """Softmax does not see a vector added to every key, and the scales of int8 do not either."""
    q, k, v = heads(300)
    shifted = k + 50.0 * torch.randn(128, generator=torch.Generator().manual_seed(5))
    chosen = everywhere(300, (128, 64))
    found = attention.sage_sparse(q, shifted, v, chosen, (128, 64))
    assert error(found, attention.sage_sparse(q, k, v, chosen, (128, 64))) < 5e-3


def test_scales_of_values_are_of_a_dimension_and_of_no_consequence() -> None:
    """Doubling one dimension doubles what comes out there exactly, and changes nothing elsewhere."""
    q, k, v = heads(300)
    chosen = everywhere(300, (128, 64))
    plain = attention.sage_sparse(q, k, v, chosen, (128, 64))
    v[..., 7] *= 4.0
    v[..., 9] = 0.0
    found = attention.sage_sparse(q, k, v, chosen, (128, 64))
    assert torch.equal(found[..., 7], plain[..., 7] * 4.0) and found[..., 9].abs().max() == 0
    others = [d for d in range(128) if d not in {7, 9}]
    assert torch.equal(found[..., others], plain[..., others])


def test_the_order_of_tokens_in_a_block_is_not_seen() -> None:
    q, k, v = heads(256)
    order = torch.cat([torch.randperm(128, generator=torch.Generator().manual_seed(s)) for s in (1, 2)])
    order[128:] += 128
    chosen = everywhere(256, (64, 128))
    found = attention.sage_sparse(q, k[:, order], v[:, order], chosen, (64, 128))
    # The mean is summed in another order, which may move a number across the edge of a step.
    assert error(found, attention.sage_sparse(q, k, v, chosen, (64, 128))) < 2e-3


def test_weights_sum_to_one() -> None:
    q, k, v = heads(300)
    found = attention.sage_sparse(q, k, torch.ones_like(v), everywhere(300, (128, 64)), (128, 64))
    # Up to how e4m3 rounds the weights, which the normaliser does not know of.
    assert (found - 1).abs().max() < 0.02 and (found - 1).abs().max() > 1e-6


def test_blocks_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sage.sage_blocks(torch.device("cpu")) == SLA_BLOCKS and sage.has_fp8(torch.device("cpu"))
    for capability, blocks, fp8 in (
        ((8, 0), (128, 64), False), ((8, 6), (128, 64), False), ((8, 9), (128, 64), True),
        ((9, 0), (64, 128), True), ((10, 0), (128, 64), True), ((12, 0), (128, 64), True),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, is_now=capability: is_now)
        device = torch.device("cuda")
        assert sage.sage_blocks(device) == Blocks(query=blocks[0], key=blocks[1])
        assert sage.has_fp8(device) == fp8


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("topk", [0.4, 1.0])
def test_the_attention_is_the_statement(blocks: tuple[int, int], dtype: torch.dtype, topk: float) -> None:
    q, k, v = heads(700, dtype)
    proj_l = torch.nn.Linear(128, 128, dtype=dtype).requires_grad_(False)
    engine = sage.SageSparseLinearAttention(topk=topk, blocks=Blocks(query=blocks[0], key=blocks[1]))
    found = engine(q, k, v, proj_l)
    expected = attention.sage_sla(q, k, v, proj_l.weight, proj_l.bias, topk=topk, blocks=blocks)
    assert found.dtype == dtype and found.shape == q.shape
    assert error(found, expected) < 3e-4
    # Far nearer to it than to attention that rounds nothing.
    exact = attention.sla(q, k, v, proj_l.weight, proj_l.bias, topk=topk, blocks=blocks)
    assert error(exact, expected) > 20 * error(found, expected)
    assert error(engine(q, k, v, None), expected) > 0.1


def test_values_in_fp16() -> None:
    q, k, v = heads(500)
    numbers = torch.tensor([0, 2, 5]).expand(1, 2, 4, 3)
    chosen = torch.zeros((1, 2, 4, 8), dtype=torch.bool).scatter(-1, numbers, True)
    found = sage.sage_attention(q, k, v, numbers, SLA_BLOCKS, fp8=False)
    assert error(found, attention.sage_sparse(q, k, v, chosen, (128, 64), eight_bit_values=False)) < 2e-5


def test_two_videos_at_once_are_each_their_own() -> None:
    one, other = heads(300), heads(300)[::-1]
    both = [torch.cat(pair) for pair in zip(one, other, strict=True)]
    engine = sage.SageSparseLinearAttention(topk=0.5)
    found = engine(*both, None)
    assert torch.equal(found[:1], engine(*one, None)) and torch.equal(found[1:], engine(*other, None))
