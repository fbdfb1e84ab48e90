"""What a model is made of, what goes not together, and what becomes of one whose files change."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import msgspec
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
from engine.models.importing.keymaps import dit_name, text_name, vae_name
from engine.models.importing.make import check_room, describe, make
from engine.models.importing.plan import Plan, Request, make_plan
from engine.models.importing.tokenizers import count_words
from engine.models.in_place import IN_PLACE
from engine.models.making import write_card
from engine.models.model import Model, read_model
from tests.released import umt5, wan_vae
from tests.specification.checkpoints import quantised, turbo_wan

pytestmark = pytest.mark.usefixtures("no_cache")

Tensors = dict[str, Tensor]
T2V = turbo_wan(dtype=torch.bfloat16)
HIGH = turbo_wan(channels=36, dtype=torch.bfloat16)
LOW = turbo_wan(channels=36, dtype=torch.bfloat16, seed=1)


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
    text = save(tmp_path / "t5.pth", umt5())
    refused(models, "no Wan2.1 VAE was given.*hf download .* Wan2.1_VAE.pth", path, text)
    vae = parts / "Wan2.1_VAE.pth"
    refused(models, "no tokenizer of 1024 words.*hf download", path, text, vae)
    refused(models, "only parts of a model; give a TurboWan checkpoint", vae, text)
    other = save(tmp_path / "wide.pth", umt5(width=64))
    refused(models, "gives 64 numbers a word and the DiT takes 48", path, other, vae)


def test_a_model_of_random_weights_lends_nothing_and_neither_does_its_sibling(
    parts: Path, models: Path, tmp_path: Path
) -> None:
    first = imported(models, save(parts / "random-int8.pth", T2V))
    alone = tmp_path / "alone"
    alone.mkdir()
    path = save(alone / "turbo.pth", T2V)
    assert plan(models, path).components[0].of_model == first.name
    write_card(first.path, msgspec.structs.replace(first.card, random=True))
    with pytest.raises(InvalidRequest, match="no umT5 text encoder was given"):
        plan(models, path)


def test_what_is_missing_and_lies_damaged_beside_the_file_is_named(parts: Path, models: Path) -> None:
    path = save(parts / "turbo.pth", T2V)
    (vae := parts / "Wan2.1_VAE.pth").write_bytes(vae.read_bytes()[:-9])
    with pytest.raises(ModelUnusable, match=r"VAE.pth cannot be imported: .*fetched with: hf"):
        plan(models, path)


def test_the_tokenizer_is_found_in_a_hub_cache_and_another_ones_is_not_taken(
    parts: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(parts / "turbo.pth", T2V)
    snapshots = tmp_path / "hub" / "models--google--umt5-xxl" / "snapshots"
    shutil.copytree(parts / "google" / "umt5-xxl", snapshots / "abc")
    shutil.rmtree(parts / "google")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert plan(models, path).tokenizer == snapshots / "abc"
    described = describe(models, plan(models, path))
    assert described.notes[-1].startswith("vae: kept as bfloat16") and "stored" in described.notes[-1]
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
    assert (model.problem, model.few_steps, model.attention) == (None, True, "dense")
    assert imported(models, turbo).card.few_steps is None


def repository(folder: Path, **transformers: Tensors) -> Path:
    """A whole repository in diffusers layout, by diffusers' and transformers' names."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    nets = {"vae": {str(vae_name(name)): tensor for name, tensor in wan_vae().items()}}
    nets["text_encoder"] = {str(text_name(name)): tensor for name, tensor in umt5().items()}
    for name, tensors in transformers.items():
        nets[name] = {str(dit_name(source)): tensor for source, tensor in tensors.items()}
    for name, found in nets.items():
        (folder / name).mkdir()
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        save_file(found, folder / name / f"{stem}.safetensors")
    make_tokenizer(folder / "tokenizer")
    return folder


def five_d(tensors: Tensors) -> Tensors:
    weight = tensors["patch_embedding.weight"]
    return tensors | {"patch_embedding.weight": weight.reshape(len(weight), -1, 1, 2, 2)}


def test_encoder_vae_and_tokenizer_of_an_undistilled_repository_serve_a_distilled_dit(
    models: Path, tmp_path: Path
) -> None:
    plain = five_d(turbo_wan(proj_l=False, dtype=torch.bfloat16))
    repo = repository(tmp_path / "Wan2.1-T2V-1.3B-Diffusers", transformer=plain)
    found = identify(repo)
    assert (found.kind, found.verdict, found.distilled) == ("diffusers", "parts", False)
    assert [part.kind for part in found.parts] == ["text", "tokenizer", "dit", "vae"]
    refused(models, "--undistilled", repo)
    model = imported(models, save(tmp_path / "turbo.pth", T2V), repo)
    assert (model.problem, model.name) == (None, "turbo")
    assert model.component("vae").files == (repo / "vae" / "diffusion_pytorch_model.safetensors",)
    assert (model.path / "tokenizer" / "tokenizer.json").is_file()


def test_a_repository_with_two_experts_is_one_model_in_place_and_can_be_copied_later(
    models: Path, tmp_path: Path
) -> None:
    repo = repository(tmp_path / "Turbo-A14B", transformer=five_d(HIGH), transformer_2=five_d(LOW))
    model = imported(models, repo)
    assert (model.problem, model.name, model.kind) == (None, "Turbo-A14B", "i2v")
    assert model.component("dit.low").files[0].parent.name == "transformer_2"
    assert identify(model.path).verdict == "usable"
    copied = imported(models, model.path, copy=True, name="copied")
    shutil.rmtree(repo)
    assert read_model(model.path).problem and read_model(copied.path).problem is None


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


@pytest.mark.parametrize("failure", [OSError("no"), SystemExit(143)])
def test_a_model_that_cannot_be_replaced_stays(
    failure: BaseException, parts: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(parts / "turbo.pth", T2V)
    model = imported(models, path)
    (model.path / "mine.txt").write_text("the one before")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "turbo" and target == model.path:
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(type(failure)):
        imported(models, path, replace=True)
    assert (model.path / "mine.txt").is_file() and read_model(model.path).problem is None
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
        patched.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
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
