"""Each Triton kernel beside the statement, on any device: what tests on the CPU and on a GPU share."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.worker.nets.kernels import causal_conv, linear_attention, rows, sparse
from engine.worker.nets.kernels import frames as frame_kernels
from engine.worker.nets.kernels import int8 as int8_kernels
from tests.specification import attention, dit, int8

EPS = 1e-6


def numbers(device: str, dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def near(found: Tensor, expected: Tensor, dtype: torch.dtype, most_changed: float = 0.02) -> None:
    """Equal but for last digits: of a rounded number one of them."""
    found, expected = found.float().cpu(), expected.float().cpu()
    assert torch.isfinite(found).all()
    error = (found - expected).norm() / expected.norm()
    assert error < {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}[dtype], error
    if dtype != torch.float32:
        assert (found != expected).float().mean() < most_changed


def check_norms(device: str, dtype: torch.dtype, length: int, width: int) -> None:
    # Rows that lie apart, as those of a part of a larger tensor do.
    x = numbers(device, dtype, length, width + 64)[:, :width]
    shift, scale = (numbers(device, torch.float32, width, seed=seed) for seed in (1, 2))
    near(rows.modulated_norm(x, shift, scale, EPS), dit.modulated(x.cpu(), shift.cpu(), scale.cpu()), dtype)
    weight, bias = (numbers(device, dtype, width, seed=seed) for seed in (3, 4))
    near(rows.affine_norm(x, weight, bias, EPS), dit.layer_norm(x.cpu(), weight.cpu(), bias.cpu()), dtype)
    near(rows.rms_norm(x, weight, EPS), dit.rms_norm(x.cpu(), weight.cpu()), dtype)


def check_rotation(device: str, dtype: torch.dtype, grid: tuple[int, int, int], heads: int) -> None:
    turn = dit.angles(*grid)
    x = numbers(device, dtype, len(turn), heads * 128)
    weight = numbers(device, dtype, heads * 128, seed=1)
    out = torch.empty_like(x)
    rows.rotated_rms_norm(x, weight, EPS, turn.cos().to(device), turn.sin().to(device), out)
    expected = dit.rms_norm(x.cpu(), weight.cpu()).view(1, len(turn), heads, 128)
    near(out, dit.rotated(expected, turn).flatten(2)[0], dtype)


def check_gate(device: str, dtype: torch.dtype) -> None:
    x, y = (numbers(device, dtype, 33, 300, seed=seed) for seed in (1, 2))
    gate = numbers(device, torch.float32, 300, seed=3)
    expected = x + y * gate.to(dtype)
    rows.add_gated(x, y, gate)
    assert torch.equal(x, expected)


def check_quantiser(device: str, dtype: torch.dtype, length: int, width: int) -> None:
    x = numbers(device, dtype, length, width)
    x[0, 0], x[1, 1] = -9.0, 9.0
    values, scale = int8_kernels.quantise(x)
    expected = int8.quantise(x.cpu())
    assert torch.equal(scale.cpu(), expected.scale) and torch.equal(values.cpu(), expected.values)


def check_gelu_quantiser(device: str, dtype: torch.dtype, length: int, width: int) -> None:
    x = 2 * numbers(device, dtype, length, width)
    values, scale = int8_kernels.gelu_quantise(x)
    expected = int8.quantise(torch.nn.functional.gelu(x.cpu().float(), approximate="tanh").to(dtype))
    assert torch.allclose(scale.cpu(), expected.scale, rtol=1e-2)
    apart = (values.cpu().int() - expected.values.int()).abs()
    assert apart.max() <= 1 and (apart != 0).float().mean() < 0.01


def check_linear(device: str, dtype: torch.dtype, length: int, inputs: int, outputs: int) -> None:
    x = numbers(device, dtype, length, inputs)
    weight = int8.quantise(numbers("cpu", torch.float32, outputs, inputs, seed=1))
    bias = numbers(device, dtype, outputs, seed=2)
    found = int8_kernels.linear(
        *int8_kernels.quantise(x), weight.values.to(device), weight.scale.to(device), bias, dtype
    )
    # Sums of many tiles in fp32, whose last digits become other ones when they are rounded.
    near(found, int8.linear(x.cpu(), weight, bias.cpu()), dtype, most_changed=0.5)


def check_sparse(device: str, dtype: torch.dtype, length: int, blocks: tuple[int, int], topk: float) -> None:
    q, k, v = (numbers(device, dtype, 1, length, 2, 128, seed=seed) for seed in (1, 2, 3))
    chosen = attention.chosen_blocks(q.float().cpu(), k.float().cpu(), topk, blocks)
    count = int(chosen[0, 0, 0].sum())
    lut = chosen.int().topk(count, dim=-1).indices.int().to(device).contiguous()
    found = sparse.sparse_attention(q, k, v, lut, *blocks)
    expected = attention.sparse(q.cpu(), k.cpu(), v.cpu(), chosen, blocks)
    error = (found.float().cpu() - expected.float()).norm() / expected.float().norm()
    assert error < {torch.float32: 2e-3 if device != "cpu" else 2e-6}.get(dtype, 6e-3), error


def check_linear_attention(device: str, dtype: torch.dtype, length: int) -> None:
    q, k, v = (numbers(device, dtype, 1, length, 2, 128, seed=seed) for seed in (1, 2, 3))
    weight, bias = numbers(device, dtype, 128, 128, seed=4) * 0.1, numbers(device, dtype, 128, seed=5)
    found = numbers(device, dtype, 1, length, 2, 128, seed=6)
    far = attention.linear_part(q.cpu(), k.cpu(), v.cpu())
    projected = torch.nn.functional.linear(far, weight.cpu(), bias.cpu())
    expected = found.cpu() + projected
    state = linear_attention.key_state(k, v)
    linear_attention.add_linear(found, q, *state, weight, bias, 1e-5)
    elsewhere = torch.full_like(q, torch.nan)
    linear_attention.put_linear(elsewhere, q, *state, weight, bias, 1e-5)
    linear_attention.put_linear(q, q, *state, weight, bias, 1e-5)
    assert torch.equal(elsewhere, q)
    for what, stated in ((found, expected), (q, projected)):
        error = (what.float().cpu() - stated.float()).norm() / stated.float().norm()
        assert error < {torch.float32: 2e-6}.get(dtype, 6e-3), error


def check_frames(
    device: str, dtype: torch.dtype, frames: int, channels: int, places: tuple[int, int]
) -> None:
    """What lies between the VAE's convolutions, as diffusers rounds it."""
    x = numbers(device, dtype, frames, *places, channels)
    before = numbers(device, dtype, 2, *places, channels, seed=3)
    bias, gamma = (numbers(device, dtype, channels, seed=seed) for seed in (1, 2))
    shape = (places[0] + 1, places[1] + 1)

    def normed(y: Tensor) -> Tensor:
        unit = (y.float() / y.float().norm(dim=-1, keepdim=True).clamp(min=1e-12)).to(dtype)
        return unit * channels**0.5 * gamma.cpu()

    out = torch.empty_like(x)
    frame_kernels.rms_norm(x, gamma, out)
    near(out, normed(x.cpu()), dtype)
    for added in (None, bias):
        y = x.cpu() if added is None else x.cpu() + added.cpu()
        expected = torch.cat((before.cpu(), torch.nn.functional.silu(normed(y))))
        history, whole = before.clone(), x.new_full((2 + frames, *places, channels), float("nan"))
        frame_kernels.norm_silu_after(history, x, added, gamma, whole)
        near(whole, expected, dtype)
        assert torch.equal(whole[:2], before) and torch.equal(history, whole[-2:])
        history, edged = before.clone(), whole.new_full((2 + frames, *shape, channels), float("nan"))
        frame_kernels.norm_silu_after(history, x, added, gamma, edged)
        assert torch.equal(edged[:, :-1, :-1], whole) and torch.equal(history, whole[-2:])
        assert not edged[:, -1].any() and not edged[:, :, -1].any()
        found = x * 3
        total = (found if added is None else found + added) + x
        frame_kernels.add_residual(found, added, x)
        assert torch.equal(found, total)


def check_causal_conv(
    device: str, dtype: torch.dtype, channels: tuple[int, int], shape: tuple[int, int, int],
    launch: causal_conv.Launch,
) -> None:  # fmt: skip
    """Frames and places that are no multiple of a tile; sums as one convolution's, each addition rounded."""
    inputs, outputs = channels
    frames, height, width = shape
    whole = numbers(device, dtype, frames + 2, height, width, inputs)
    weight = numbers(device, dtype, outputs, inputs, 3, 3, 3, seed=1) / (27 * inputs) ** 0.5
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    bias = numbers(device, dtype, outputs, seed=2)
    beside = numbers(device, dtype, frames, height, width, outputs, seed=3)
    wide = whole.double().cpu().permute(3, 0, 1, 2)[None]
    whole = torch.nn.functional.pad(whole, (0, 0, 0, 1, 0, 1))
    exact = torch.nn.functional.conv3d(wide, weight.double().cpu(), padding=(0, 1, 1))
    plain = exact[0].permute(1, 2, 3, 0).to(dtype) + bias.cpu()
    near(causal_conv.causal_conv(whole, weight, bias, None, launch), plain, dtype)
    near(causal_conv.causal_conv(whole, weight, bias, beside, launch), plain + beside.cpu(), dtype)
