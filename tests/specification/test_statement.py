"""The statement against what can be known without it: diffusers in fp32, closed forms, and float64."""

from __future__ import annotations

import math
import re

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from tests.specification import attention, int8, sampler
from tests.specification.checkpoints import FFN, LINEARS, TEXT, WIDTH, quantised, turbo_wan
from tests.specification.dit import Transformer

RENAMED = (
    (r"text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"time_projection\.1\.", "condition_embedder.time_proj."),
    (r"head\.head\.", "proj_out."),
    (r"head\.modulation$", "scale_shift_table"),
    (r"(blocks\.\d+)\.modulation$", r"\1.scale_shift_table"),
    (r"(blocks\.\d+)\.norm3\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.ffn\.0\.", r"\1.ffn.net.0.proj."),
    (r"(blocks\.\d+)\.ffn\.2\.", r"\1.ffn.net.2."),
)


def renamed(tensors: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """By diffusers' names and shapes, without `proj_l`."""
    found = {}
    for name, tensor in tensors.items():
        if "proj_l" in name:
            continue
        for pattern, by in RENAMED:
            name, changed = re.subn(f"^{pattern}", by, name)
            if changed:
                break
        attn = re.match(r"(blocks\.\d+)\.(self|cross)_attn\.(\w+)\.(.*)", name)
        if attn is not None:
            block, kind, part, rest = attn.groups()
            part = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}.get(part, part)
            name = f"{block}.attn{1 if kind == 'self' else 2}.{part}.{rest}"
        if name == "patch_embedding.weight":
            tensor = tensor.reshape(WIDTH, channels, 1, 2, 2)
        found[name] = tensor
    return found


def stock(tensors: dict[str, Tensor], channels: int) -> WanTransformer3DModel:
    net = WanTransformer3DModel(
        num_attention_heads=WIDTH // 128, attention_head_dim=128, in_channels=channels, out_channels=16,
        text_dim=TEXT, ffn_dim=FFN, num_layers=2, freq_dim=256,
    )  # fmt: skip
    net.load_state_dict(renamed(tensors, channels), strict=True)
    return net.eval()


@pytest.mark.parametrize("channels", [16, 36])
def test_the_transformer_is_diffusers_in_fp32(channels: int) -> None:
    tensors = turbo_wan(channels=channels)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, 3, 8, 12, generator=generator)
    condition = None if channels == 16 else torch.randn(1, 20, 3, 8, 12, generator=generator)
    text = torch.randn(1, 20, TEXT, generator=generator)
    for timestep in (988.0, 932.0, 608.0):
        at = torch.tensor([timestep])
        mine = Transformer(tensors)(x, at, text, condition)
        whole = x if condition is None else torch.cat((x, condition), dim=1)
        with torch.no_grad():
            (theirs,) = stock(tensors, channels)(whole, at, text, return_dict=False)
        assert (mine - theirs).norm() / theirs.norm() < 2e-5


def test_bf16_rounds_but_stays_the_same_net() -> None:
    tensors = turbo_wan(dtype=torch.bfloat16)
    x, text = torch.randn(1, 16, 2, 8, 8).bfloat16(), torch.randn(1, 20, TEXT).bfloat16()
    at = torch.tensor([932.0]).bfloat16()
    narrow = Transformer(tensors)(x, at, text)
    wide = Transformer({name: tensor.float() for name, tensor in tensors.items()})(
        x.float(), at, text.float()
    )
    error = ((narrow - wide).norm() / wide.norm()).item()
    assert 0 < error < 0.02


def test_eight_bits_are_near_and_are_not_the_same() -> None:
    tensors = turbo_wan(dtype=torch.bfloat16)
    x, text = torch.randn(1, 16, 2, 8, 8).bfloat16(), torch.randn(1, 20, TEXT).bfloat16()
    at = torch.tensor([932.0]).bfloat16()
    small = quantised(tensors)
    assert sum(name.endswith("int8_weight") for name in small) == 2 * len(LINEARS)
    dense, coarse = Transformer(tensors)(x, at, text), Transformer(small)(x, at, text)
    assert 1e-3 < (coarse - dense).norm() / dense.norm() < 0.1


def heads(length: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, length, 2, 128, generator=generator).to(dtype) for _ in range(3))


def test_sparse_over_every_block_is_dense() -> None:
    q, k, v = heads(300)
    chosen = attention.chosen_blocks(q, k, 1.0, attention.SLA_BLOCKS)
    assert bool(chosen.all()) and chosen.shape == (1, 2, 3, 5)
    near = attention.sparse(q, k, v, chosen, attention.SLA_BLOCKS)
    torch.testing.assert_close(near, attention.dense(q, k, v), atol=2e-6, rtol=2e-5)


def test_as_many_blocks_as_the_share_truncated_and_never_none() -> None:
    q, k, _ = heads(1300)
    assert attention.chosen_blocks(q, k, 0.1, (128, 64)).sum(-1).unique().tolist() == [2]  # of 21
    assert attention.chosen_blocks(q, k, 0.01, (128, 64)).sum(-1).unique().tolist() == [1]
    assert attention.chosen_blocks(q, k, 0.1, (64, 128)).shape[-2:] == (21, 11)


def test_the_linear_part_against_float64() -> None:
    q, k, v = heads(200)
    soft_q, soft_k, wide = q.double().softmax(-1), k.double().softmax(-1), v.double()
    weights = torch.einsum("blhd,bmhd->bhlm", soft_q, soft_k)
    expected = (
        torch.einsum("bhlm,bmhd->blhd", weights, wide) / (1e-5 + weights.sum(-1)).transpose(1, 2)[..., None]
    )
    torch.testing.assert_close(attention.linear_part(q, k, v).double(), expected, atol=1e-6, rtol=1e-4)


def test_eight_bit_attention_is_near_the_sparse_one() -> None:
    q, k, v = heads(700, dtype=torch.bfloat16)
    weight, bias = torch.zeros(128, 128), torch.zeros(128)
    exact = attention.sla(q, k, v, weight, bias, topk=0.5).float()
    for eight_bit_values, most in ((True, 0.06), (False, 0.03)):
        coarse = attention.sage_sla(
            q, k, v, weight, bias, topk=0.5, eight_bit_values=eight_bit_values
        ).float()
        assert (coarse.float() - exact).norm() / exact.norm() < most


def test_the_quantiser_saturates_upwards_alone() -> None:
    matrix = torch.zeros(130, 256)
    matrix[0, 0], matrix[0, 1], matrix[129, 255] = 2.0, -2.0, 0.5
    values, scale = int8.quantise(matrix)
    assert values[0, 0] == 127 and values[0, 1] == -128 and values[129, 255] == 127
    assert scale.shape == (2, 2) and scale[0, 0] == 2.0 / 128 and scale[1, 1] == 0.5 / 128
    assert scale[0, 1] == pytest.approx(1e-8 / 128)


def test_the_eight_bit_linear_against_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 512, generator=generator).bfloat16()
    weight = torch.randn(384, 512, generator=generator)
    expected = x.double() @ weight.double().T
    error = (int8.linear(x, int8.quantise(weight), None).double() - expected).norm() / expected.norm()
    assert error == pytest.approx(1.3e-2, rel=0.15)
    with pytest.raises(TypeError, match="float32"):
        int8.linear(x.float(), int8.quantise(weight), None)


def test_times_and_timesteps_are_the_published_ones() -> None:
    assert sampler.times(80, 4) == pytest.approx(
        [0.9876543210, 0.9337810614, 0.8528953948, 0.6089790492, 0.0], abs=1e-9
    )
    assert sampler.times(200, 1) == pytest.approx([200 / 201, 0.0])
    assert sampler.times(1600, 2)[0] == pytest.approx(0.9993753904, abs=1e-9)
    assert [sampler.net_timestep(time) for time in sampler.times(80, 4)[:-1]] == [988, 932, 852, 608]
    assert sampler.net_timestep(sampler.times(200, 1)[0]) == 996


def test_experts_change_once_below_the_boundary() -> None:
    assert sampler.experts(200, 4) == ["high", "high", "low", "low"]
    assert sampler.experts(200, 3) == ["high", "high", "low"]
    assert sampler.experts(200, 2) == ["high", "high"]


def test_a_net_that_knows_the_answer_arrives_at_it() -> None:
    """With v = (x - x0) / t the first estimate is x0 already, whatever the noise was."""
    goal = torch.full((1, 16, 2, 4, 4), 0.25)
    for ode in (True, False):
        grid = iter(sampler.times(80, 4))

        def net(x: Tensor, _timestep: Tensor, grid=grid) -> Tensor:
            return (x.double() - goal.double()) / next(grid)

        generator = torch.Generator().manual_seed(3)
        out = sampler.sample(net, tuple(goal.shape), sigma_max=80, steps=4, ode=ode, generator=generator)
        # The net sees x rounded to bf16, which is all that keeps the last step from being exact.
        assert (out - goal).abs().max() < 0.02
        drawn = torch.Generator().manual_seed(3)
        for _ in range(1 if ode else 5):
            torch.randn(goal.shape, generator=drawn)
        assert torch.equal(drawn.get_state(), generator.get_state())


def test_the_angles_are_of_a_closed_form() -> None:
    for time, angle in zip(sampler.times(80, 4)[1:4], sampler.MIDDLE_ANGLES, strict=True):
        assert time == pytest.approx(math.tan(angle) / (1 + math.tan(angle)))
