"""The engine's net against the statement of the specification, from the same tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.worker.nets import sparse_linear, wan
from engine.worker.nets.attention import SelfAttention, SparseLinearAttention, dense_attention
from engine.worker.nets.wan import WanNet
from tests.specification import attention, dit
from tests.specification.checkpoints import FFN, TEXT, WIDTH, turbo_wan
from tests.specification.test_statement import heads, renamed


def net_of(
    tensors: dict[str, Tensor], channels: int, self_attention: SelfAttention = dense_attention
) -> WanNet:
    config = {
        "num_attention_heads": WIDTH // 128, "attention_head_dim": 128, "in_channels": channels,
        "out_channels": 16, "text_dim": TEXT, "ffn_dim": FFN, "num_layers": 2, "freq_dim": 256,
    }  # fmt: skip
    net = WanNet.build(config, self_attention).requires_grad_(False).eval()
    net.load_state_dict(renamed(tensors, channels), strict=True)
    assert (net.config.num_layers, net.config.ffn_dim) == (len(net.blocks), FFN)
    return net.to(tensors["patch_embedding.weight"].dtype)


def inputs(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, 3, 8, 12, generator=generator).to(dtype)
    condition = None if channels == 16 else torch.randn(1, 20, 3, 8, 12, generator=generator).to(dtype)
    return x, torch.randn(1, 20, TEXT, generator=generator).to(dtype), condition


@pytest.mark.parametrize("channels", [16, 36])
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)], ids=["fp32", "bf16"]
)
def test_the_net_is_the_statement(channels: int, dtype: torch.dtype, most: float) -> None:
    tensors = turbo_wan(channels=channels, dtype=dtype)
    net = net_of(tensors, channels)
    x, text, condition = inputs(channels, dtype)
    whole = x if condition is None else torch.cat((x, condition), dim=1)
    for timestep in (988.0, 932.0, 608.0):
        expected = dit.Transformer(tensors)(x, torch.tensor([timestep]), text, condition)
        with torch.inference_mode():
            found = net(whole.clone(), torch.tensor([timestep]), text)
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert (found - expected).norm() / expected.norm() <= most


def test_bf16_rounds_where_the_statement_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, with the two things in common that differ in their last digit: softmax and layer norm."""

    def exact(q: Tensor, k: Tensor, v: Tensor, proj_l: object = None) -> Tensor:
        return attention.dense(q, k, v)

    def torch_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        affine = (None, None) if weight is None or bias is None else (weight.float(), bias.float())
        return torch.nn.functional.layer_norm(x.float(), x.shape[-1:], *affine, eps=dit.EPS).to(x.dtype)

    monkeypatch.setattr(wan, "dense_attention", exact)
    monkeypatch.setattr(dit, "layer_norm", torch_norm)
    tensors = turbo_wan(dtype=torch.bfloat16)
    x, text, _ = inputs(16, torch.bfloat16)
    expected = dit.Transformer(tensors)(x, torch.tensor([932.0]), text)
    with torch.inference_mode():
        found = net_of(tensors, 16, exact)(x.clone(), torch.tensor([932.0]), text)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("length", [300, 1000])
@pytest.mark.parametrize("topk", [0.3, 1.0])
def test_sparse_attention_is_the_statement(length: int, topk: float) -> None:
    q, k, v = heads(length)
    chosen = sparse_linear.choose_blocks(q, k, topk, sparse_linear.SLA_BLOCKS)
    theirs = attention.chosen_blocks(q, k, topk, attention.SLA_BLOCKS)
    assert torch.equal(torch.zeros_like(theirs).scatter(-1, chosen, True), theirs)
    found = sparse_linear.sparse_attention(q, k, v, chosen, sparse_linear.SLA_BLOCKS)
    torch.testing.assert_close(found, attention.sparse(q, k, v, theirs, attention.SLA_BLOCKS))


@pytest.mark.parametrize("part", [8192, 256])
def test_sparse_linear_attention_is_the_statement(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_linear, "PART_TOKENS", part)
    q, k, v = heads(700)
    proj_l = torch.nn.Linear(128, 128).requires_grad_(False)
    found = SparseLinearAttention(topk=0.4)(q, k, v, proj_l)
    torch.testing.assert_close(found, attention.sla(q, k, v, proj_l.weight, proj_l.bias, topk=0.4))
    alone = SparseLinearAttention(topk=0.4)(q, k, v, None)
    assert (found - alone).abs().mean() > 0.01


@pytest.mark.parametrize("dropped", [False, True])
def test_a_net_that_changes_its_attention_is_the_statement_of_each_kind(dropped: bool) -> None:
    """A block's own `proj_l`; without it another video would come, and no error."""
    tensors = turbo_wan()
    net = net_of(tensors, 16)
    x, text, _ = inputs(16, torch.float32)
    if not dropped:
        wan.add_proj_l(net)
        for number, block in enumerate(net.blocks):
            name = f"blocks.{number}.self_attn.attn_op.local_attn.proj_l"
            state = {part: tensors[f"{name}.{part}"] for part in ("weight", "bias")}
            block.attn1.proj_l.load_state_dict(state)
    assert net.has_proj_l == (not dropped)

    def found() -> Tensor:
        with torch.inference_mode():
            return net(x.clone(), torch.tensor([932.0]), text)

    def differs(one: Tensor, other: Tensor) -> float:
        return ((one - other).norm() / other.norm()).item()

    dense = found()
    net.set_attention(SparseLinearAttention(topk=0.5))
    sla, stated = found(), dit.Transformer(tensors).with_sla(0.5)(x, torch.tensor([932.0]), text)
    assert (differs(sla, stated) <= 1e-5) == (not dropped)
    assert differs(sla, dense) > 1e-3
    net.set_attention(dense_attention)
    assert torch.equal(found(), dense)


def test_tokens_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = turbo_wan()
    x, text, _ = inputs(16, torch.float32)
    with torch.inference_mode():
        whole = net_of(tensors, 16)(x.clone(), torch.tensor([932.0]), text)
        monkeypatch.setattr(sparse_linear, "PART_TOKENS", 32)
        parts = net_of(tensors, 16)(x.clone(), torch.tensor([932.0]), text)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_two_videos_at_once_are_each_their_own() -> None:
    tensors = turbo_wan()
    x, text, _ = inputs(16, torch.float32)
    other = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    net = net_of(tensors, 16)
    at = torch.tensor([932.0, 608.0])
    with torch.inference_mode():
        both = net(torch.cat((x, other)), at, torch.cat((text, text * 0.5)))
        alone = net(other.clone(), at[1:], text * 0.5)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
