"""What an import takes, what it refuses and by which name, and what becomes of a model whose files change."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import InvalidRequest, ModelUnusable, NotNow, StorageUnusable
from engine.models import weight_writer
from engine.models.catalog import Catalog
from engine.models.demo_tokenizer import make_tokenizer
from engine.models.importing import make as making
from engine.models.importing.identify import identify
from engine.models.importing.make import check_room, describe, make
from engine.models.importing.plan import Plan, Request, make_plan
from engine.models.importing.tokenizers import count_words
from engine.models.in_place import IN_PLACE
from engine.models.model import Model, read_model
from tests.released import umt5, wan_vae
from tests.specification.checkpoints import quantised, turbo_wan
from turbotui.cli import main

Tensors = dict[str, Tensor]
T2V = turbo_wan(dtype=torch.bfloat16)
HIGH = turbo_wan(channels=36, dtype=torch.bfloat16)
LOW = turbo_wan(channels=36, dtype=torch.bfloat16, seed=1)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with what all models have in common, as TurboDiffusion's checkpoints lie."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(wan_vae(), folder / "Wan2.1_VAE.pth")
    torch.save(umt5(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    make_tokenizer(folder / "google" / "umt5-xxl")
    return folder


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


def imported(models: Path, *paths: Path, replace: bool = False, **wanted: object) -> Model:
    root = make(models, plan(models, *paths, **wanted), replace=replace, progress=lambda _event: None)
    return read_model(root)


# --------------------------------------------------------------------------- what a file is


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
    (hostile, "damaged", "posix.system"),
    (truncated, "damaged", "truncated"),
    (short_safetensors, "damaged", "truncated"),
    (compressed, "damaged", "compressed"),
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
    (without(T2V, "blocks.1.cross_attn.norm_k.weight"), r"lacks 'blocks.1.attn2.norm_k.weight' of shape"),
    (without(T2V, "blocks.0.norm3.weight"), r"lacks 'blocks.0.norm2.weight' of shape \[256\]"),
    (without(T2V, "blocks.0.ffn.0.bias"), r"lacks 'blocks.0.ffn.net.0.proj.bias'"),
    (
        without(T2V, f"{PROJ_L}.weight", f"{PROJ_L}.bias"),
        r"'blocks.1.attn1.proj_l.weight' of shape \[128, 128",
    ),
    (T2V | {"blocks.0.norm2.weight": torch.ones(256)}, r"holds 'blocks.0.norm2.weight' .*no Wan DiT"),
    (T2V | {"blocks.0.norm4.weight": torch.ones(256)}, r"holds 'blocks.0.norm4.weight' .*no Wan DiT"),
    (
        T2V | {"time_embedding.2.bias": torch.ones(8)},
        r"'time_embedding.2.bias' of shape \[8\] .*\[256\]",
    ),
    (T2V | {"blocks.0.ffn.2.weight": INT32}, r"'blocks.0.ffn.2.weight' as I32 where .*floating"),
    (without(quantised(T2V), "blocks.1.ffn.2.scale"), r"lacks 'blocks.1.ffn.net.2.weight_scale'"),
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
    with pytest.raises(ModelUnusable, match=r"lacks 'decoder.up_blocks.0.upsamplers.0.time_conv.bias'"):
        plan(models, path)
    save(parts / "Wan2.1_VAE.pth", wan_vae())
    save(parts / "models_t5_umt5-xxl-enc-bf16.pth", umt5() | {"blocks.0.attn.q.bias": torch.ones(2)})
    with pytest.raises(ModelUnusable, match=r"'blocks.0.attn.q.bias' .*no umT5 encoder"):
        plan(models, path)


def test_a_missing_shard_is_named(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "turbo"
    folder.mkdir()
    save_file(T2V, folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelUnusable, match=r"lacks model-00002-of-00002.safetensors, one of 2 files"):
        plan(models, folder)


# --------------------------------------------------------------------------- two experts


def experts(parts: Path, high: Tensors = HIGH, low: Tensors = LOW) -> tuple[Path, Path]:
    return (
        save(parts / "TurboWan2.2-I2V-A14B-high-720P.pth", high),
        save(parts / "TurboWan2.2-I2V-A14B-low-720P.pth", low),
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_experts_take_their_places_by_their_names(
    order: tuple[int, int], parts: Path, models: Path
) -> None:
    files = experts(parts)
    model = imported(models, *(files[number] for number in order))
    assert (model.problem, model.name, model.kind) == (None, "TurboWan2.2-I2V-A14B-720P", "i2v")
    assert model.card.default_resolution == "720p" and model.card.title == "TurboWan2.2 I2V A14B 720P"
    assert [model.component(name).files for name in ("dit.high", "dit.low")] == [(path,) for path in files]


def test_a_whole_folder_of_checkpoints_is_one_model(parts: Path, models: Path) -> None:
    experts(parts)
    model = imported(models, parts)
    assert model.problem is None and model.kind == "i2v"


def refused(models: Path, words: str, *paths: Path, **wanted: object) -> None:
    with pytest.raises(InvalidRequest, match=words):
        plan(models, *paths, **wanted)
    assert not list(models.iterdir())


def test_experts_that_do_not_belong_together_are_refused(parts: Path, models: Path, tmp_path: Path) -> None:
    high, low = experts(parts)
    save_file(HIGH, same := parts / "again-low-noise.safetensors")
    refused(models, "same weights, so one expert was given twice", high, same)
    refused(models, "is the high-noise expert of a model of two; give the low-noise one", high)
    again = save(tmp_path / "other-high.pth", LOW)
    refused(models, "are all high-noise experts", high, again)
    untold = save(tmp_path / "noname.pth", LOW)
    refused(models, "nothing says which expert .*noname", high, untold)
    quant = save(tmp_path / "low-quant.pth", quantised(LOW))
    refused(models, "low-quant.pth is quantised and .* is not", high, quant)
    t2v = save(tmp_path / "t2v.pth", T2V)
    refused(models, "belong to different models", high, t2v)
    refused(models, "is a text-to-video DiT, which has no experts", high=t2v)
    deeper = save(tmp_path / "low-3.pth", turbo_wan(channels=36, blocks=3, dtype=torch.bfloat16, seed=2))
    refused(models, "their sizes differ", high, deeper)
    refused(models, "Wan2.1_VAE.pth is no DiT", high=parts / "Wan2.1_VAE.pth", low=low)
    refused(models, "is not there", tmp_path / "nothing.pth")
    other = save(tmp_path / "t2v-2.pth", turbo_wan(dtype=torch.bfloat16, seed=3))
    refused(models, "are DiTs of a model each", t2v, other)


def test_experts_given_the_wrong_way_round_need_force(parts: Path, models: Path) -> None:
    high, low = experts(parts)
    refused(models, "was given as --high, and its name says that it is the low-noise", high=low, low=high)
    forced = plan(models, high=low, low=high, force=True)
    assert [part.mapped.path for part in forced.components if "dit" in part.name] == [low, high]
    given = plan(models, parts, high=high, low=low)
    assert [part.mapped.path for part in given.components if "dit" in part.name] == [high, low]


# --------------------------------------------------------------------------- what is missing


def test_what_is_missing_is_taken_from_a_model_that_is_here(
    parts: Path, models: Path, tmp_path: Path
) -> None:
    first = imported(models, save(parts / "TurboWan2.1-T2V-1.3B-480P.pth", T2V))
    alone = tmp_path / "alone"
    alone.mkdir()
    files = experts(alone)
    described = describe(models, made := plan(models, *files, copy=True))
    assert {part.name: part.of_model for part in described.parts if part.of_model} == dict.fromkeys(
        ("text", "vae"), first.name
    )
    second = read_model(make(models, made, replace=False, progress=lambda _event: None))
    assert second.problem is None
    for name in ("text", "vae"):
        # One to whoever loads them: a switch between the two moves neither.
        assert second.component(name).content == first.component(name).content
        assert second.component(name).files == first.component(name).files


def test_what_is_missing_everywhere_is_named_with_the_way_to_get_it(
    parts: Path, models: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    path = save(alone / "turbo.pth", T2V)
    refused(models, "no umT5 text encoder was given.*hf download .* models_t5_umt5-xxl-enc-bf16.pth", path)
    text = shutil.copy(parts / "models_t5_umt5-xxl-enc-bf16.pth", tmp_path / "t5.pth")
    refused(models, "no Wan2.1 VAE was given.*hf download .* Wan2.1_VAE.pth", path, text)
    vae = parts / "Wan2.1_VAE.pth"
    refused(models, "no tokenizer of 1024 words.*hf download", path, text, vae)
    refused(models, "only parts of a model; give a TurboWan checkpoint", vae, text)
    other = save(tmp_path / "wide.pth", umt5(width=64))
    refused(models, "gives 64 numbers a word and the DiT takes 48", path, other, vae)


def test_the_tokenizer_is_found_in_a_hub_cache_and_another_ones_is_not_taken(
    parts: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(parts / "turbo.pth", T2V)
    snapshots = tmp_path / "hub" / "models--google--umt5-xxl" / "snapshots"
    shutil.copytree(parts / "google" / "umt5-xxl", snapshots / "abc")
    shutil.rmtree(parts / "google")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert plan(models, path).tokenizer == snapshots / "abc"
    tokenizer = json.loads((snapshots / "abc" / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = dict(list(tokenizer["model"]["vocab"].items())[:900])
    (snapshots / "abc" / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(models, "no tokenizer of 1024 words", path)


def test_the_pieces_of_a_sentencepiece_model_are_counted(tmp_path: Path) -> None:
    piece = b"\x0a\x03abc\x15" + struct.pack("<f", -1.5)
    model = b"".join(b"\x0a" + bytes([len(piece)]) + piece for _ in range(7)) + b"\x12\x02\x18\x01"
    (tmp_path / "spiece.model").write_bytes(model)
    assert count_words(tmp_path) == 7
    (tmp_path / "spiece.model").write_bytes(model[:-1])
    with pytest.raises(ModelUnusable, match="no tokenizer"):
        count_words(tmp_path)


def test_an_undistilled_dit_is_left_out_beside_a_distilled_one_and_alone_only_taken_when_asked(
    parts: Path, models: Path
) -> None:
    plain = save(parts / "wan.pth", turbo_wan(proj_l=False, dtype=torch.bfloat16, seed=8))
    refused(models, "not distilled by TurboDiffusion.*--undistilled", plain)
    turbo = save(parts / "turbo.pth", T2V)
    beside = plan(models, plain, turbo)
    assert beside.name == "turbo" and any("wan.pth is left out" in note for note in beside.notes)
    model = imported(models, plain, undistilled=True)
    assert model.problem is None


# --------------------------------------------------------------------------- the model that was made


def test_a_file_that_is_gone_or_another_is_named_with_the_way_to_import_again(
    parts: Path, models: Path
) -> None:
    high = save(parts / "turbo-high.pth", HIGH)
    save_file(LOW, low := parts / "turbo-low.safetensors")
    catalog = Catalog(models)
    name = imported(models, high, low).name
    assert catalog.get(name).problem is None
    os.utime(low)
    catalog.rescan()
    assert catalog.get(name).problem is None  # only touched
    kept = low.read_bytes()
    save_file(HIGH, low)  # the same length and header, other weights
    assert low.stat().st_size == len(kept)
    assert catalog.rescan() and "its weights are others" in str(catalog.get(name).problem)
    low.write_bytes(kept[:-1])
    assert catalog.rescan() and f"it has {len(kept) - 1} bytes" in str(catalog.get(name).problem)
    low.unlink()
    catalog.rescan()
    problem = str(catalog.get(name).problem)
    assert f"{low} is gone" in problem and f"--name {name} --replace" in problem
    low.write_bytes(kept)
    assert catalog.rescan() and catalog.get(name).problem is None


def test_the_command_of_the_sentence_makes_the_model_again(
    parts: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(parts / "turbo.pth", T2V)
    model = imported(models, path)
    table = json.loads((model.path / "transformer" / IN_PLACE).read_text())
    assert table["again"] == f"turbotui import {path} --name turbo --replace"
    torch.save(turbo_wan(dtype=torch.bfloat16, seed=4), path)
    assert read_model(model.path).problem
    with pytest.raises(NotNow, match="imported already; --replace"):
        imported(models, path, name="turbo")
    assert imported(models, path, name="turbo", replace=True).problem is None
    assert [entry.name for entry in models.iterdir() if not entry.name.endswith("lock")] == ["turbo"]


def test_a_damaged_table_is_a_problem_and_no_exception(parts: Path, models: Path) -> None:
    model = imported(models, save(parts / "turbo.pth", T2V))
    path = model.path / "transformer" / IN_PLACE
    whole = json.loads(path.read_text())
    name = "blocks.0.attn1.to_q.weight"
    for change in (
        {"begin": whole["tensors"][name]["begin"] + 1},
        {"file": 7},
        {"dtype": "X9"},
        {"begin": -5, "end": 131067},
        {"shape": [3]},
    ):
        damaged = json.loads(json.dumps(whole))
        damaged["tensors"][name] |= change
        path.write_text(json.dumps(damaged))
        assert "is damaged" in str(read_model(model.path).problem), change
    path.write_text(json.dumps(whole | {"format": 99}))
    assert "has format 99" in str(read_model(model.path).problem)
    path.write_text("{")
    assert "is damaged" in str(read_model(model.path).problem)


def test_nobodys_own_folder_is_replaced(parts: Path, models: Path) -> None:
    path = save(parts / "turbo.pth", T2V)
    (models / "turbo").mkdir()
    (models / "turbo" / "mine.txt").write_text("mine")
    with pytest.raises(NotNow, match="was not imported"):
        imported(models, path, replace=True)
    assert (models / "turbo" / "mine.txt").read_text() == "mine"
    assert imported(models, path, name="other").problem is None
    for name in ("", "../x", ".hidden", "a/b", "demo", "é" * 3):
        if name:
            refused_name(models, path, name)


def refused_name(models: Path, path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no name for a model"):
        plan(models, path, name=name)


def test_a_copy_says_its_size_and_what_the_disk_lacks(
    parts: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(models, save(parts / "turbo.pth", T2V), copy=True)
    described = describe(models, made)
    root = make(models, made, replace=False, progress=lambda _event: None)
    written = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
    tokenizer = sum(path.stat().st_size for path in (root / "tokenizer").iterdir())
    assert described.written_bytes == written + tokenizer
    with monkeypatch.context() as patched:
        patched.setattr(making.shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
        with pytest.raises(StorageUnusable, match=r"has 0 .* free; make room, or leave --copy out"):
            check_room(models, made, replace=True)
    shutil.rmtree(parts)  # a copy needs nothing of it
    assert read_model(root).problem is None


def test_a_copy_that_was_interrupted_goes_on_where_it_stopped(
    parts: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(parts / "turbo.pth", T2V)
    made = plan(models, path, copy=True)
    written: list[str] = []
    write = weight_writer.write_files

    def until_the_vae(files: list[tuple[Path, weight_writer.FilePlan]], **settings: object) -> None:
        written.extend(folder.name for folder, _ in files)
        if files and files[0][0].name == "vae" and len(written) < 4:
            raise KeyboardInterrupt
        write(files, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "write_files", until_the_vae)
    with pytest.raises(KeyboardInterrupt):
        make(models, made, replace=False, progress=lambda _event: None)
    assert written == ["text_encoder", "transformer", "vae"]
    assert not Catalog(models).models()
    again = plan(models, path, copy=True)
    root = make(models, again, replace=False, progress=lambda _event: None)
    assert written == ["text_encoder", "transformer", "vae", "vae"]
    assert read_model(root).problem is None
    assert [entry.name for entry in models.iterdir() if not entry.name.endswith("lock")] == ["turbo"]


# --------------------------------------------------------------------------- the command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "data" / "models"


def test_the_command_tells_its_plan_and_makes_the_model(
    parts: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(parts / "TurboWan2.1-T2V-1.3B-480P.pth", T2V)
    assert main(["import", str(path), "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "TurboWan T2V DiT, 2 layers of 256" in said and "used where they lie" in said
    assert not (home / "TurboWan2.1-T2V-1.3B-480P").exists()
    assert main(["import", str(path), "--copy", "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["event"] for event in events][:: len(events) - 1] == ["plan", "done"]
    assert {event["component"] for event in events if event["event"] == "progress"} == {"text", "dit", "vae"}
    assert read_model(home / "TurboWan2.1-T2V-1.3B-480P").problem is None


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["lora.safetensors"], 4, "model_unusable"),
        (["nothing.pth"], 2, "invalid_request"),
        (["Wan2.1_VAE.pth"], 2, "invalid_request"),
        ([], 2, "invalid_request"),
    ],
)
def test_a_refusal_has_its_code(
    arguments: list[str], code: int, kind: str, parts: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lora(parts)
    assert main(["import", *(str(parts / name) for name in arguments), "--json"]) == code
    assert json.loads(capfd.readouterr().out)["code"] == kind


def test_the_importer_loads_no_torch() -> None:
    program = (
        "import sys; import engine.models.importing.__main__; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
