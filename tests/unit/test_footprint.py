"""Estimates of what a generation takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.card import inferred_card
from engine.models.configs import (
    INT8_BLOCK,
    Configs,
    DitConfig,
    QuantizationConfig,
    TextConfig,
    VaeConfig,
)
from engine.models.model import Model, ModelComponent
from engine.planning.footprint import GIB, DeviceKind, Footprint, estimate_footprint
from engine.wire import AttentionKind, ModelKind


def component(name: str, num_bytes: int) -> ModelComponent:
    return ModelComponent(name=name, folder=Path(name), bytes=num_bytes, identity="", dtype="bfloat16")


def released(kind: ModelKind = "t2v", *, large: bool = False) -> Model:
    """Wan2.1 T2V 1.3B or 14B, or Wan2.2 I2V A14B, with the bf16 bytes of its components."""
    dit = (
        DitConfig(class_name="W")
        if large
        else DitConfig(class_name="W", num_attention_heads=12, ffn_dim=8960, num_layers=30)
    )
    size = 28_576_983_168 if large else 2_837_993_600
    names = ("dit.high", "dit.low") if kind == "i2v" else ("dit",)
    return Model(
        name="wan",
        kind=kind,
        path=Path("wan"),
        card=inferred_card("wan", kind),
        components=(
            component("text", 11_361_820_672),
            *(component(name, size) for name in names),
            component("vae", 253_785_062),
        ),
        configs=Configs(dit=dit, vae=VaeConfig(class_name="V"), text=TextConfig(model_type="umt5")),
    )


def estimate(model: Model, width: int = 832, height: int = 480, frames: int = 81) -> Footprint:
    return estimate_footprint(model, width, height, frames, device_kind="cuda")


@pytest.mark.parametrize(
    ("large", "width", "height", "gib"),
    [(False, 832, 480, 0.51), (True, 832, 480, 1.66), (False, 1280, 720, 1.13), (True, 1280, 720, 3.66)],
)
def test_the_dit_stays_near_and_never_below_what_an_h200_measured(
    large: bool, width: int, height: int, gib: float
) -> None:
    active = estimate(released(large=large), width, height).stages["denoise"].activation_bytes / GIB
    assert gib < active < 1.5 * gib + 0.4


@pytest.mark.parametrize(
    ("width", "height", "decode", "encode"), [(832, 480, 2.90, 2.43), (1280, 720, 6.50, 5.48)]
)
def test_the_vae_stays_near_and_never_below_its_live_bytes(
    width: int, height: int, decode: float, encode: float
) -> None:
    """The tensors that live at once in a walk by the kernels; what a test beside the net tracks."""
    stages = estimate(released("i2v", large=True), width, height).stages
    assert decode < stages["decode"].activation_bytes / GIB < 1.3 * decode + 0.3
    assert encode < stages["image"].activation_bytes / GIB < 1.3 * encode + 0.3


def test_text_encoding_is_the_largest_stage_of_the_small_model() -> None:
    footprint = estimate(released())
    assert footprint.peak_bytes == footprint.stages["text"].bytes
    assert footprint.weights_bytes == 11_361_820_672


def test_two_experts_are_never_counted_together() -> None:
    footprint = estimate(released("i2v", large=True))
    assert footprint.stages["denoise"].weights_bytes == 28_576_983_168
    assert footprint.peak_bytes < 40 * GIB


def test_only_image_to_video_encodes_an_image() -> None:
    assert "image" not in estimate(released()).stages
    stages = estimate(released("i2v")).stages
    assert stages["image"].weights_bytes == stages["decode"].weights_bytes


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 20), st.sampled_from(["t2v", "i2v"]))
def test_more_pixels_or_frames_never_take_less(across: int, down: int, fours: int, kind: ModelKind) -> None:
    model = released(kind)
    small = estimate(model, across * 16, down * 16, 4 * fours + 1)
    wider = estimate(model, across * 16 + 16, down * 16, 4 * fours + 1)
    longer = estimate(model, across * 16, down * 16, 4 * fours + 5)
    for stage, footprint in small.stages.items():
        assert footprint.activation_bytes <= wider.stages[stage].activation_bytes
        assert footprint.activation_bytes <= longer.stages[stage].activation_bytes
    assert small.peak_bytes == max(stage.bytes for stage in small.stages.values())


def test_int8_blocks_add_copies_of_what_is_computed_at_once() -> None:
    wide = released(large=True)
    assert wide.configs is not None
    quantised = QuantizationConfig(quant_method=INT8_BLOCK, block_size=128)
    dit = msgspec.structs.replace(wide.configs.dit, quantization_config=quantised)
    int8 = dataclasses.replace(wide, configs=msgspec.structs.replace(wide.configs, dit=dit))
    assert (wide.dtype, int8.dtype) == ("bfloat16", "int8")
    before, after = (
        estimate_footprint(model, 128, 80, 17, device_kind="cpu").stages["denoise"].activation_bytes
        for model in (wide, int8)
    )
    # 5 latent frames of 5 x 8 tokens.
    assert after - before == pytest.approx(5 * 40 * 13824 * 12 * 1.5, rel=0.5)
    # In a long video that is far below what attention takes.
    large = (estimate(model).stages["denoise"].activation_bytes for model in (wide, int8))
    assert len(set(large)) == 1


def test_a_model_with_a_problem_has_no_footprint() -> None:
    model = Model(
        name="m", kind="t2v", path=Path("m"), card=inferred_card("m", "t2v"), problem="its files are gone"
    )
    with pytest.raises(ValueError, match="its files are gone"):
        estimate(model)


@pytest.mark.parametrize("large", [False, True])
def test_sparse_attention_takes_its_tables_and_eight_bits_their_copies(large: bool) -> None:
    def denoise(kind: AttentionKind, topk: float | None = None, device: DeviceKind = "cuda") -> int:
        found = estimate_footprint(
            released(large=large), 1280, 720, 81, device_kind=device, attention=kind, topk=topk
        )
        return found.stages["denoise"].activation_bytes

    unit = 75_600 * (5120 if large else 1536) * 2
    assert denoise("dense") == estimate(released(large=large), 1280, 720).stages["denoise"].activation_bytes
    assert 0 <= denoise("sla", 0.1) - denoise("dense") < 0.3 * unit
    assert 0.5 * unit < denoise("sagesla", 0.1) - denoise("sla", 0.1) < 2 * unit
    assert denoise("sla", 0.1) <= denoise("sla", 0.15) < denoise("sla", 1.0)
    assert denoise("sla", 0.1, "cpu") > denoise("dense", None, "cpu")
