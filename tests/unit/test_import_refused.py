"""What a file is by its tensors, and each that cannot be used refused by its name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import ModelUnusable
from engine.models.importing.identify import identify
from engine.models.importing.mapping import Part, map_weights
from engine.models.importing.plan import Plan, Request, make_plan
from engine.models.importing.weights import SourceTensor, Weights, bare_name
from engine.models.weight_file import TensorEntry
from tests.released import umt5, wan_vae
from tests.specification.checkpoints import quantised, turbo_wan

pytestmark = pytest.mark.usefixtures("no_cache")

Tensors = dict[str, Tensor]
T2V = turbo_wan(dtype=torch.bfloat16)
HIGH = turbo_wan(channels=36, dtype=torch.bfloat16)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def save(path: Path, tensors: Tensors) -> Path:
    torch.save(tensors, path)
    return path


def plan(models: Path, *paths: Path, **wanted: object) -> Plan:
    return make_plan(models, Request(paths=paths, **wanted))  # type: ignore[arg-type]


def test_a_checkpoint_is_told_by_its_tensors(tmp_path: Path) -> None:
    path = save(tmp_path / "TurboWan2.2-I2V-A14B-high-720P-quant.pth", quantised(HIGH))
    found = identify(path)
    assert (found.kind, found.verdict, found.model_kind, found.expert) == ("dit", "usable", "i2v", "high")
    assert (found.width, found.layers, found.in_channels) == (256, 2, 36)
    assert found.quantised and found.distilled and found.dtype == "int8" and found.shards == 1
    assert found.bytes == sum(t.numel() * t.element_size() for t in quantised(HIGH).values())


def test_a_dit_without_proj_l_is_named_as_not_distilled(tmp_path: Path) -> None:
    found = identify(save(tmp_path / "wan.pth", turbo_wan(proj_l=False, dtype=torch.bfloat16)))
    assert (found.kind, found.verdict, found.distilled) == ("dit", "parts", False)
    assert "not distilled" in found.sentence


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("TurboWan2.2-I2V-A14B-high-720P.pth", "high"),
        ("wan2.2_i2v_low_noise_14B.safetensors", "low"),
        ("Wan2_2-I2V-HighNoise.safetensors", "high"),
        ("low_noise_model/diffusion_pytorch_model.safetensors", "low"),
        ("slow-flower.pth", None),
        ("high-and-low.pth", None),
    ],
)
def test_names_tell_the_expert(name: str, expert: str | None, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".pth":
        save(path, HIGH)
    else:
        save_file(HIGH, path)
    assert identify(path).expert == expert


def lora(folder: Path) -> Path:
    tensors = {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.ones(4, 256)}
    save_file(tensors, path := folder / "lora.safetensors")
    return path


def five_b(folder: Path) -> Path:
    return save(folder / "ti2v.pth", turbo_wan(channels=48, dtype=torch.bfloat16))


def old_i2v(folder: Path) -> Path:
    extra = {"img_emb.proj.0.weight": torch.ones(4), "blocks.0.cross_attn.k_img.weight": torch.ones(4)}
    return save(folder / "i2v.pth", HIGH | extra)


def vace(folder: Path) -> Path:
    return save(folder / "vace.pth", T2V | {"vace_patch_embedding.weight": torch.ones(4)})


def other_vae(folder: Path) -> Path:
    return save(folder / "Wan2.2_VAE.pth", wan_vae(latent=48))


def fp8(folder: Path) -> Path:
    name = "blocks.0.ffn.0.weight"
    tensors = dict(T2V) | {name: T2V[name].to(torch.float8_e4m3fn), "scaled_fp8": torch.ones(2)}
    save_file(tensors, path := folder / "fp8.safetensors")
    return path


def clip(folder: Path) -> Path:
    return save(folder / "clip.pth", {"visual.patch_embedding.weight": torch.ones(4)})


def t5(folder: Path) -> Path:
    tensors = {name: t for name, t in umt5().items() if "1.pos_embedding" not in name}
    return save(folder / "t5.pth", tensors)


def gguf(folder: Path) -> Path:
    (path := folder / "wan.gguf").write_bytes(b"GGUF" + bytes(64))
    return path


def stranger(folder: Path) -> Path:
    return save(folder / "resnet.pth", {"fc.weight": torch.ones(4)})


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


def hostile(folder: Path) -> Path:
    torch.save({**T2V, "x": _Hostile(folder / "ran")}, path := folder / "hostile.pth")
    return path


def truncated(folder: Path) -> Path:
    path = save(folder / "short.pth", T2V)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def short_safetensors(folder: Path) -> Path:
    save_file(T2V, path := folder / "short.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    return path


def compressed(folder: Path) -> Path:
    plain = save(folder / "plain.pth", T2V)
    with (
        zipfile.ZipFile(plain) as before,
        zipfile.ZipFile(folder / "z.pth", "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name))
    return folder / "z.pth"


def before_1_6(folder: Path) -> Path:
    torch.save(T2V, path := folder / "old.pth", _use_new_zipfile_serialization=False)
    return path


def nested(folder: Path) -> Path:
    torch.save({"ema": T2V, "optimizer": {"step": 3}}, path := folder / "nested.pth")
    return path


def a_text_file(folder: Path) -> Path:
    (path := folder / "notes.txt").write_text("a cat")
    return path


REFUSED = [
    (lora, "unsupported", "LoRA .*lora_A"),
    (five_b, "unsupported", "TI2V 5B .48 channels"),
    (old_i2v, "unsupported", "Wan2.1 I2V with an image encoder .img_emb"),
    (vace, "unsupported", "VACE"),
    (other_vae, "unsupported", "Wan2.2 TI2V 5B .48 channels"),
    (fp8, "unsupported", "fp8 .blocks.0.ffn.0.weight"),
    (clip, "unsupported", "CLIP"),
    (t5, "unsupported", r"one bias for all layers .*blocks\.1\.pos_embedding"),
    (gguf, "unsupported", "GGUF"),
    (stranger, "unsupported", r"fc\.weight"),
    (a_text_file, "unsupported", "no weight file"),
    (hostile, "unsupported", "posix.system"),
    (before_1_6, "unsupported", "the format of torch before 1.6"),
    (nested, "unsupported", "'ema' beside the weights"),
    (truncated, "damaged", "truncated"),
    (short_safetensors, "damaged", "truncated"),
    (compressed, "unsupported", "compressed"),
]


@pytest.mark.parametrize(
    ("write", "verdict", "words"), REFUSED, ids=lambda item: getattr(item, "__name__", "")
)
def test_what_cannot_be_used_is_named_and_refused(
    write: Callable[[Path], Path], verdict: str, words: str, tmp_path: Path, models: Path
) -> None:
    path = write(tmp_path)
    found = identify(path)
    assert found.verdict == verdict
    with pytest.raises(ModelUnusable, match=words) as refused:
        plan(models, path)
    assert str(path) in str(refused.value)
    assert not (tmp_path / "ran").exists() and not list(models.iterdir())


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


PROJ_L = "blocks.1.self_attn.attn_op.local_attn.proj_l"
INT32 = torch.ones(256, 384, dtype=torch.int32)
NOT_WHOLE = [
    (T2V | {"blocks.987654321.modulation": torch.ones(1, 6, 256)}, r"lacks 'blocks.2', which every Wan DiT"),
    (T2V | {"head.head.bias": torch.ones(0)}, r"'head.head.bias' of shape \[0\], which is empty"),
    (
        without(T2V, "blocks.1.cross_attn.norm_k.weight"),
        r"lacks 'blocks.1.cross_attn.norm_k.weight' of shape \[256\], which a",
    ),
    (without(T2V, "blocks.0.norm3.weight"), r"lacks 'blocks.0.norm3.weight' of shape \[256\]"),
    (without(T2V, "blocks.0.ffn.0.bias"), r"lacks 'blocks.0.ffn.0.bias'"),
    (
        without(T2V, f"{PROJ_L}.weight", f"{PROJ_L}.bias"),
        rf"'{PROJ_L}.weight' of shape \[128, 128\] and 1 more of the tensors",
    ),
    (T2V | {"blocks.0.norm2.weight": torch.ones(256)}, r"holds 'blocks.0.norm2.weight' .*no Wan DiT"),
    (T2V | {"blocks.0.norm4.weight": torch.ones(256)}, r"holds 'blocks.0.norm4.weight' .*no Wan DiT"),
    (
        T2V | {"time_embedding.2.bias": torch.ones(8)},
        r"'time_embedding.2.bias' of shape \[8\] .*\[256\]",
    ),
    (T2V | {"blocks.0.ffn.2.weight": INT32}, r"'blocks.0.ffn.2.weight' as I32 where .*floating"),
    (without(quantised(T2V), "blocks.1.ffn.2.scale"), r"lacks 'blocks.1.ffn.2.scale'"),
    (quantised(T2V) | {"blocks.0.ffn.2.int8_weight": INT32.float()}, r"as F32 where .*I8"),
    (
        T2V | {"net.head.modulation": torch.ones(1, 2, 256)},
        r"'net.head.modulation', which is 'head.mod",
    ),
]


@pytest.mark.parametrize(("tensors", "words"), NOT_WHOLE, ids=[words for _, words in NOT_WHOLE])
def test_a_dit_that_is_not_whole_is_refused_by_the_tensor(
    tensors: Tensors, words: str, parts: Path, models: Path
) -> None:
    path = save(parts / "turbo.pth", tensors)
    with pytest.raises(ModelUnusable, match=words):
        plan(models, path)


def test_a_vae_and_an_encoder_that_are_not_whole_are_refused_by_the_tensor(parts: Path, models: Path) -> None:
    path = save(parts / "turbo.pth", T2V)
    vae = wan_vae()
    del vae["decoder.upsamples.3.time_conv.bias"]
    save(parts / "Wan2.1_VAE.pth", vae)
    with pytest.raises(ModelUnusable, match=r"lacks 'decoder.upsamples.3.time_conv.bias'"):
        plan(models, path)
    save(parts / "Wan2.1_VAE.pth", wan_vae())
    save(parts / "models_t5_umt5-xxl-enc-bf16.pth", umt5() | {"blocks.0.attn.q.bias": torch.ones(2)})
    with pytest.raises(ModelUnusable, match=r"'blocks.0.attn.q.bias' .*no umT5 encoder"):
        plan(models, path)


@pytest.mark.parametrize(
    ("part", "tensors"), [("dit", T2V), ("dit", quantised(T2V)), ("vae", wan_vae()), ("text", umt5())]
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_every_tensor_that_is_missing_is_told_by_the_file_s_name(
    part: Part, tensors: Tensors, prefix: str, tmp_path: Path
) -> None:
    for lost in tensors:
        left = {prefix + name: tensor for name, tensor in tensors.items() if name != lost}
        entries = {
            bare_name(name): SourceTensor(
                name=name,
                path=tmp_path,
                entry=TensorEntry(
                    dtype={torch.int8: "I8", torch.float32: "F32"}.get(tensor.dtype, "BF16"),
                    shape=tuple(tensor.shape),
                    begin=0,
                    end=1,
                ),
            )
            for name, tensor in left.items()
        }
        with pytest.raises(ModelUnusable) as refused:
            map_weights(part, tmp_path, Weights(files=(), tensors=entries))
        assert f"lacks {prefix + lost!r}" in str(refused.value)


def test_a_folder_whose_dit_or_expert_is_not_whole_is_refused_by_the_tensor(
    parts: Path, models: Path
) -> None:
    lost = "blocks.1.cross_attn.norm_k.weight"
    low = save(parts / "turbo-low.pth", without(HIGH, lost))
    with pytest.raises(ModelUnusable, match=r"turbo-low.pth cannot be imported: .*norm_k"):
        plan(models, parts)
    save(parts / "turbo-high.pth", HIGH)
    with pytest.raises(ModelUnusable, match=r"turbo-low.pth cannot be imported: .*norm_k"):
        plan(models, parts)
    save(low, turbo_wan(channels=36, dtype=torch.bfloat16, seed=1))
    vae = wan_vae()
    del vae["decoder.head.2.bias"]
    save(parts / "Wan2.1_VAE.pth", vae)
    with pytest.raises(ModelUnusable, match=r"VAE.pth cannot be imported: .*'decoder.*bias'"):
        plan(models, parts)


def test_a_missing_shard_is_named(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "turbo"
    folder.mkdir()
    save_file(T2V, folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelUnusable, match=r"model-00002-of-00002.safetensors is missing"):
        plan(models, folder)
