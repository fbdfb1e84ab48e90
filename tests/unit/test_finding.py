"""Looking for models: made trees of the places that other tools keep theirs in, with toy files in them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from engine.models.finding import look as looking
from engine.models.finding.look import look_through
from engine.models.finding.places import Place, find_places
from engine.models.finding.run import main, scan
from engine.models.importing.naming import NAME
from engine.models.importing.plan import Request, make_plan
from engine.wire import ModelScan, ScanNews
from tests.released import umt5, wan_vae
from tests.specification.checkpoints import quantised, turbo_wan
from tests.unit.model_folders import write_model, write_safetensors

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def shapes_of(tensors: Mapping[str, Tensor], dtype: str = "BF16") -> Shapes:
    def told(name: str, tensor: Tensor) -> str:
        return "I8" if tensor.dtype == torch.int8 else "F32" if name.endswith(".scale") else dtype

    return {name: (told(name, tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}


@cache
def dit(channels: int = 16, *, distilled: bool = True, quant: bool = False, layers: int = 2) -> Shapes:
    tensors = turbo_wan(channels=channels, proj_l=distilled, blocks=layers)
    return shapes_of(quantised(tensors) if quant else tensors)


VAE = shapes_of(wan_vae(), "F32")
TEXT = shapes_of(umt5())


def put(folder: Path, **files: Shapes) -> None:
    for name, tensors in files.items():
        # Of two experts the bytes differ, or they are one that was given twice.
        path = folder / f"{name.replace('__', '-')}.safetensors"
        write_safetensors(path, tensors, fill=hashlib.sha256(name.encode()).digest()[:1])


def tokenizer(folder: Path, words: int = 1024) -> None:
    folder.mkdir(parents=True)
    vocab = {f"w{number}": number for number in range(words)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))


def hub_cache(cache: Path, repository: str, **files: Shapes) -> Path:
    """A repository as huggingface_hub lays it out: links to blobs, and an older snapshot of the same."""
    root = cache / ("models--" + repository.replace("/", "--"))
    for commit in ("a" * 40, "b" * 40):
        for name, tensors in files.items():
            link = root / "snapshots" / commit / f"{name}.safetensors"
            blob = root / "blobs" / f"{name}-{commit[:4]}"
            write_safetensors(blob, tensors)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("b" * 40)
    return root / "snapshots" / ("b" * 40)


@pytest.fixture(autouse=True)
def _toys_count(no_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LEAST_BYTES", 0)


def places(home: Path, *given: Path, **environ: str) -> list[Place]:
    empty = home / "none"
    found = find_places(
        given, {"HOME": str(home), **environ}, cwd=empty, mounts=empty, common=(str(home / "data"),)
    )
    return list(found)


def looked(home: Path, *given: Path, **environ: str) -> ModelScan:
    return scan(places(home, *given, **environ), home / "own")


def test_a_checkout_of_turbodiffusion_becomes_its_models(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "TurboDiffusion" / "checkpoints"
    put(
        folder,
        TurboWan2__T2V=dit(),
        **{"TurboWan2.2-I2V-A14B-high-720P": dit(36), "TurboWan2.2-I2V-A14B-low-720P": dit(36)},
        vae=VAE,
        t5=TEXT,
    )
    tokenizer(folder / "google" / "umt5-xxl")
    found = looked(tmp_path)
    assert [model.name for model in found.models] == ["TurboWan2-T2V", "TurboWan2.2-I2V-A14B-720P"]
    one, two = found.models
    assert (one.kind, two.kind) == ("t2v", "i2v") and not one.missing and not two.missing
    assert [Path(path).name for path in two.paths] == [
        "TurboWan2.2-I2V-A14B-high-720P.safetensors",
        "TurboWan2.2-I2V-A14B-low-720P.safetensors",
        "t5.safetensors",
        "vae.safetensors",
        "umt5-xxl",
    ]
    assert shlex.split(two.command) == ["turbotui", "import", *two.paths, "--name", two.name]
    parts = {Path(part.path).name: part for part in found.parts}
    assert parts["vae.safetensors"].becomes == (one.name, two.name)
    assert {part.verdict for part in found.parts} == {"usable"} and found.skipped == ()


def test_what_is_told_to_import_is_a_command_that_import_takes(tmp_path: Path) -> None:
    put(tmp_path / "src", **{"Turbo Wan (1) 猫": dit(), "猫": dit(layers=3)})
    names = {model.name: shlex.split(model.command)[-1] for model in looked(tmp_path).models}
    assert names == {"Turbo-Wan-1": "Turbo-Wan-1", "src": "src"}
    assert all(NAME.fullmatch(name) for name in names)


def test_hub_caches_are_found_by_their_variables_and_in_their_newest_snapshot(tmp_path: Path) -> None:
    put(hub_cache(tmp_path / "hf" / "hub", "TurboDiffusion/TurboWan2.1-T2V-1.3B-480P", model=dit()) / "x")
    standard = tmp_path / ".cache" / "huggingface" / "hub"
    shared = hub_cache(standard, "Wan-AI/Wan2.1-T2V-1.3B", models_t5=TEXT, Wan2=VAE)
    tokenizer(shared / "google" / "umt5-xxl")
    found = looked(tmp_path, HF_HOME=str(tmp_path / "hf"))
    (model,) = found.models
    # Its file's name says nothing, so its repository's does.
    assert model.name == "TurboWan2.1-T2V-1.3B-480P" and model.missing == ()
    assert len(found.parts) == 4 and all("a" * 40 not in part.path for part in found.parts)


def test_comfyui_folders_are_followed_deeper_than_others(tmp_path: Path) -> None:
    root = tmp_path / "data" / "ComfyUI" / "models"
    put(root / "diffusion_models" / "wan", turbo=dit(), lora={"x.lora_A.weight": ("BF16", (8, 8))})
    put(root / "vae", wan=VAE)
    put(root / "text_encoders", umt5=TEXT, fp8={"a": ("BF16", (1,)), "scaled_fp8": ("BF16", (1,))})
    put(root / "unet", sdxl={"input_blocks.0.weight": ("BF16", (8, 8))})
    found = looked(tmp_path)
    (model,) = found.models
    assert model.missing[0].startswith("no umT5 tokenizer was found")
    named = {Path(part.path).name: part.verdict for part in found.parts}
    assert named["lora.safetensors"] == named["fp8.safetensors"] == "unsupported"
    assert "sdxl.safetensors" not in named and found.others == 1
    # In a folder that was named everything is told.
    told = looked(tmp_path, root)
    assert "sdxl.safetensors" in {Path(part.path).name for part in told.parts} and told.others == 0


def test_a_repository_that_is_not_distilled_gives_its_encoder_vae_and_tokenizer(tmp_path: Path) -> None:
    plain = write_model(tmp_path / "data" / "Wan2.1-T2V-1.3B-Diffusers")
    for name, net in {"transformer": dit(distilled=False), "vae": VAE, "text_encoder": TEXT}.items():
        shutil.rmtree(plain / name)
        put(plain / name, model=net)
    shutil.rmtree(plain / "tokenizer")
    tokenizer(plain / "tokenizer")
    put(tmp_path / "data" / "turbo", TurboWan=dit())
    found = looked(tmp_path)
    repository = next(part for part in found.parts if part.kind == "diffusers")
    assert repository.verdict == "parts" and "not distilled" in repository.sentence
    (model,) = found.models
    assert model.name == "TurboWan"
    lent = [path for path in model.paths if Path(path).is_relative_to(plain)]
    assert {Path(path).name for path in lent} >= {"tokenizer"} and repository.becomes == ("TurboWan",)


def test_an_expert_alone_or_of_another_kind_is_no_pair(tmp_path: Path) -> None:
    put(tmp_path / "data", **{"A14B-high": dit(36), "A14B-low": dit(36, quant=True)})
    found = looked(tmp_path)
    assert [model.missing[0] for model in found.models] == [
        "the expert for low noise was not found; image to video takes two",
        "the expert for high noise was not found; image to video takes two",
    ]


def test_a_truncated_file_is_damaged_and_a_lost_shard_is_told(tmp_path: Path) -> None:
    put(tmp_path / "data", broken=dit(), **{"m-00001-of-00002": dit()})
    file = tmp_path / "data" / "broken.safetensors"
    os.truncate(file, file.stat().st_size - 10)
    found = looked(tmp_path)
    assert found.models == () and {part.verdict for part in found.parts} == {"damaged"}
    sentences = sorted(part.sentence for part in found.parts)
    assert len(sentences) == 2
    assert any("truncated" in said for said in sentences)
    assert any("m-00002-of-00002" in said for said in sentences)


def test_one_file_under_two_names_is_told_once_and_our_own_models_never(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a", turbo=dit())
    (tmp_path / "data" / "b").symlink_to(tmp_path / "data" / "a")
    os.link(tmp_path / "data" / "a" / "turbo.safetensors", tmp_path / "data" / "again.safetensors")
    write_model(tmp_path / "own" / "mine")
    (tmp_path / "own" / "turbo").mkdir()
    found = looked(tmp_path)
    assert len(found.parts) == 1
    assert [model.imported for model in looked(tmp_path, tmp_path / "data" / "a").models] == [True]


def test_what_was_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "data" / "deep", turbo=dit())
    ticks = iter(range(1000))
    look = look_through(places(tmp_path), own=tmp_path / "own", clock=lambda: float(next(ticks)), time_s=3)
    assert look.found == [] and "name a folder to look there" in look.skipped[-1]
    assert str(tmp_path / "data") in look.skipped[-1]
    monkeypatch.setattr(looking, "FOLDER_ENTRIES", 0)
    assert "has more than 0 entries" in looked(tmp_path).skipped[0]
    assert looked(tmp_path, tmp_path / "gone").skipped[0].endswith("is not there")


def test_mounted_disks_are_places_and_the_systems_are_not(tmp_path: Path) -> None:
    disk = tmp_path / "my disk"
    disk.mkdir()
    mounts = tmp_path / "mounts"
    named = str(disk).replace(" ", "\\040")
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\n/dev/b {named} xfs rw 0 0\nproc /proc proc rw 0 0\n/dev/c /boot ext4 rw\n"
    )
    found = list(find_places((), {"HOME": "/h"}, cwd=tmp_path, mounts=mounts, common=()))
    assert found[-1].path == disk and Path("/boot") not in {place.path for place in found}


def test_the_process_says_it_as_json(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "x", turbo=dit())
    monkeypatch.setattr(
        "engine.models.finding.run.find_places", lambda given, *_, **__: places(tmp_path, *given)
    )
    assert main([str(tmp_path / "own"), str(tmp_path / "x")]) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    last = msgspec.json.decode(lines[-1], type=ScanNews).scan
    assert last is not None and [model.name for model in last.models] == ["turbo"]
    assert json.loads(lines[0])["progress"]["place"]


def without(tensors: Shapes, name: str) -> Shapes:
    return {key: told for key, told in tensors.items() if key != name}


def whole(folder: Path, *, text: Shapes = TEXT, words: int = 1024) -> None:
    """What every model has."""
    put(folder, vae=VAE, t5=text)
    tokenizer(folder / "umt5-xxl", words)


def test_a_net_that_is_not_whole_is_damaged_and_makes_no_model(tmp_path: Path) -> None:
    lost, wrong = "blocks.1.self_attn.q.weight", "time_embedding.2.bias"
    put(tmp_path / "data", lost=without(dit(), lost), wrong=dit() | {wrong: ("BF16", (8,))})
    put(tmp_path / "data", vae=without(VAE, "decoder.head.2.bias"), t5=without(TEXT, "norm.weight"))
    found = looked(tmp_path)
    assert found.models == ()
    assert {Path(part.path).stem: (part.kind, part.verdict) for part in found.parts} == {
        "lost": ("dit", "damaged"),
        "wrong": ("dit", "damaged"),
        "vae": ("vae", "damaged"),
        "t5": ("text", "damaged"),
    }
    said = {Path(part.path).stem: part.sentence for part in found.parts}
    assert "lacks" in said["lost"] and f"{wrong!r} of shape [8]" in said["wrong"]


def test_two_experts_of_equal_bytes_are_not_offered(tmp_path: Path) -> None:
    whole(tmp_path / "data")
    for name in ("A14B-high", "A14B-low"):
        write_safetensors(tmp_path / "data" / f"{name}.safetensors", dit(36))
    (model,) = looked(tmp_path).models
    assert len(model.missing) == 1 and "so one expert was given twice" in model.missing[0]


def test_a_tokenizer_of_another_encoder_is_not_offered(tmp_path: Path) -> None:
    whole(tmp_path / "data", text=shapes_of(umt5(vocabulary=2048)))
    put(tmp_path / "data", turbo=dit())
    (model,) = looked(tmp_path).models
    assert len(model.missing) == 1 and model.missing[0].startswith("no tokenizer of 2048 words was found")
    tokenizer(tmp_path / "data" / "far" / "umt5-xxl", 2000)
    (model,) = looked(tmp_path).models
    assert model.missing == () and model.paths[-1] == str(tmp_path / "data" / "far" / "umt5-xxl")
    assert (made := make_plan(tmp_path / "own", Request(paths=tuple(map(Path, model.paths))))).notes == ()
    assert str(made.tokenizer) == model.paths[-1]


def test_parts_of_another_folder_tree_are_taken_last_and_told(tmp_path: Path) -> None:
    put(tmp_path / "data" / "mine", turbo=dit(), vae=VAE)
    whole(tmp_path / "data" / "a-stranger")
    (model,) = looked(tmp_path).models
    there = tmp_path / "data" / "a-stranger"
    assert str(tmp_path / "data" / "mine" / "vae.safetensors") in model.paths and not model.missing
    assert model.notes == (
        f"its umT5 encoder is of another folder: {there}/t5.safetensors",
        f"its umT5 tokenizer is of another folder: {there}/umt5-xxl",
    )
