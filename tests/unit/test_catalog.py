"""Models on disk: found, described, and named with what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import engine.models.catalog as catalog_module
from engine.errors import NotFound
from engine.models.catalog import Catalog, model_status
from engine.models.layout import vae_precision_on
from engine.models.model import Model, read_model
from engine.wire import ComponentState
from tests.unit.model_folders import WIDTH, write_json, write_model, write_safetensors

CARD = {
    "format": 1,
    "title": "Toy",
    "kind": "t2v",
    "resolutions": [{"name": "80p", "aspect_ratio": "16:10", "width": 128, "height": 80}],
    "default_resolution": "80p",
    "default_aspect_ratio": "16:10",
    "default_frames": 17,
    "max_frames": 33,
}


@dataclass(frozen=True)
class Present:
    bytes: int
    state: ComponentState
    leased: bool


class Rate:
    def seconds(self, num_bytes: int) -> float:
        return num_bytes / 1000


def test_a_released_model_without_a_card_is_described_by_its_configs(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "Wan2.1-T2V"))
    assert (model.name, model.kind, model.problem, model.dtype) == ("Wan2.1-T2V", "t2v", None, "bfloat16")
    assert [component.name for component in model.components] == ["text", "dit", "vae"]
    assert {row.name for row in model.card.table} == {"480p", "720p"}
    assert (model.card.default_resolution, model.card.default_frames, model.card.max_frames) == (
        "480p",
        81,
        81,
    )
    assert not model.card.demo


def test_two_experts_of_36_channels_are_image_to_video(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "a14b", "i2v"))
    assert (model.kind, model.problem, model.card.default_resolution) == ("i2v", None, "720p")
    high, low = model.component("dit.high"), model.component("dit.low")
    assert high.bytes == low.bytes
    assert high.identity != low.identity
    with pytest.raises(NotFound, match=r"no component 'dit'; it has text, vae, dit.high, dit.low"):
        model.component("dit")


def test_resident_bytes_count_alignment_and_what_is_widened_to_fp32(tmp_path: Path) -> None:
    dit = read_model(write_model(tmp_path / "m")).component("dit")
    patch, block, time_bias = WIDTH * 16 * 4 * 2, WIDTH * WIDTH * 2, WIDTH * 4
    assert dit.bytes == patch + 2 * block + time_bias


def test_what_shows_that_a_model_makes_videos_in_few_steps(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "Wan2.1-T2V-Diffusers")
    assert (read_model(folder).problem, read_model(folder).few_steps) == (None, False), "no proj_l"
    told = model_status(read_model(folder), {}, rate=None, active=False, last_used_at=None)
    assert "no proj_l" in (told.no_jobs or "") and not told.takes_jobs
    for says, expected in (
        ({}, False),
        ({"demo": True}, True),
        ({"random": True}, True),
        ({"few_steps": True}, True),
        ({"demo": True, "few_steps": False}, False),
    ):
        write_json(folder / "turbotui.json", {**CARD, **says})
        assert (read_model(folder).problem, read_model(folder).few_steps) == (None, expected)
    (folder / "turbotui.json").unlink()
    (folder / "random.json").write_text("{}")
    assert read_model(folder).few_steps, "made by an earlier build"
    assert model_status(read_model(folder), {}, rate=None, active=False, last_used_at=None).takes_jobs


def test_a_card_decides_the_table_and_the_defaults(tmp_path: Path) -> None:
    model = read_model(write_model(tmp_path / "m", card=CARD))
    assert model.problem is None
    assert [(row.name, row.width, row.height) for row in model.card.table] == [("80p", 128, 80)]
    assert (model.card.title, model.card.default_frames, model.card.default_steps) == ("Toy", 17, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "i2v"}, "says i2v of a model whose nets are t2v"),
        ({"format": 2}, "has format 2"),
        ({"default_resolution": "90p"}, "its own table lacks"),
        ({"default_frames": 16}, "not 4n"),
        ({"default_frames": 37}, "up to 33"),
        ({"default_steps": 5}, "no model card"),
        ({"unknown": 1}, "no model card"),
        ({"resolutions": []}, "no model card"),
        (
            {"resolutions": [{"name": "x", "aspect_ratio": "1:1", "width": 100, "height": 96}]},
            "no model card",
        ),
    ],
)
def test_a_wrong_card_is_the_models_problem(tmp_path: Path, change: dict[str, object], words: str) -> None:
    model = read_model(write_model(tmp_path / "m", card=CARD | change))
    assert model.problem is not None
    assert words in model.problem
    assert "turbotui.json" in model.problem


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def edit_config(path: Path, **change: object) -> None:
    write_json(path, json.loads(path.read_text()) | change)


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("model_index.json", "has no model_index.json"),
        ("tokenizer", "is missing, so prompts cannot be read"),
        ("tokenizer/tokenizer.json", "has no tokenizer"),
        ("vae", "vae/config.json is missing"),
        ("vae/diffusion_pytorch_model.safetensors", "has no weights"),
        ("transformer/config.json", "config.json is missing"),
        ("text_encoder/model.safetensors", "has no weights"),
    ],
)
def test_a_missing_part_is_named_with_the_way_out(tmp_path: Path, part: str, words: str) -> None:
    remove(write_model(tmp_path / "m") / part)
    problem = read_model(tmp_path / "m").problem
    assert problem is not None
    assert words in problem
    assert "fetch or convert" in problem or "convert the model" in problem


def test_truncated_weights_are_named_with_their_bytes(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "m") / WEIGHTS
    size = weights.stat().st_size
    os.truncate(weights, size - 10)
    assert f"{weights} is truncated: it has {size - 10} of {size} bytes" in str(
        read_model(tmp_path / "m").problem
    )


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ("transformer", {"_class_name": "FluxTransformer2DModel"}, "of class 'FluxTransformer2DModel'"),
        ("transformer", {"image_dim": 1280}, "expects an image encoder"),
        ("transformer", {"in_channels": 48}, "48 input"),
        ("transformer", {"in_channels": 36}, "one expert of 36 channels"),
        ("transformer", {"patch_size": [1, 1, 1]}, "patches of"),
        ("transformer", {"num_layers": 3}, "other weights than its config.json describes"),
        ("transformer", {"num_attention_heads": "many"}, "damaged or of another kind"),
        ("transformer", {"text_dim": 64}, "belong to different models"),
        ("vae", {"_class_name": "AutoencoderKL"}, "of class 'AutoencoderKL'"),
        ("vae", {"z_dim": 48}, "no Wan2.1 VAE"),
        ("vae", {"base_dim": 8}, "other weights"),
        ("text_encoder", {"model_type": "t5"}, "of class 't5'"),
        ("text_encoder", {"d_model": 64}, "different models"),
    ],
)
def test_nets_that_this_build_cannot_run_are_refused(
    tmp_path: Path, config: str, change: dict[str, object], words: str
) -> None:
    edit_config(write_model(tmp_path / "m") / config / "config.json", **change)
    assert words in str(read_model(tmp_path / "m").problem)


def test_experts_that_differ_in_size_are_refused(tmp_path: Path) -> None:
    edit_config(write_model(tmp_path / "m", "i2v") / "transformer_2" / "config.json", ffn_dim=512)
    assert "differs from the other expert" in str(read_model(tmp_path / "m").problem)


def test_no_folder_whatever_is_in_it_makes_a_scan_fail(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for number, content in enumerate((b"", b"[]", b"{", b"\xff", b'{"transformer": 1}', b"[" * 100_000)):
        folder = tmp_path / f"bad{number}"
        folder.mkdir()
        (folder / "model_index.json").write_bytes(content)
    pipe = write_model(tmp_path / "pipe") / WEIGHTS
    pipe.unlink()
    os.mkfifo(pipe)
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")
    catalog = Catalog(tmp_path)
    models = {model.name: model for model in catalog.models()}
    assert set(models) == {"empty", "pipe", "??", *(f"bad{number}" for number in range(6))}
    for model in models.values():
        assert model.problem is not None
        model.problem.encode()
        status = catalog.status(model, {}, rate=None, active=False, last_used_at=None)
        status.path.encode()
        status.name.encode()


def test_a_missing_models_folder_holds_no_models(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "none")
    assert catalog.models() == ()
    assert not catalog.has_demo_models()
    with pytest.raises(NotFound, match="holds none yet"):
        catalog.get("wan")


def test_an_unknown_name_lists_the_known_ones_and_the_likeliest(tmp_path: Path) -> None:
    for name in ("wan-small", "wan-large"):
        write_model(tmp_path / name)
    with pytest.raises(
        NotFound, match="no model 'wan-smal'; did you mean wan-small\\? There are wan-large, wan-small"
    ):
        Catalog(tmp_path).get("wan-smal")
    with pytest.raises(NotFound, match="there are wan-large, wan-small"):
        Catalog(tmp_path).get("x" * 100_000)
    with pytest.raises(NotFound) as error:
        Catalog(tmp_path).get("\ud800")
    str(error.value).encode()


def test_demo_models_come_last_and_the_persons_own_hides_one_of_the_same_name(tmp_path: Path) -> None:
    for name in ("z-mine", "demo/wan-demo-large", "demo/wan-demo-small", "wan-demo-large"):
        write_model(tmp_path / name)
    catalog = Catalog(tmp_path)
    assert [model.name for model in catalog.models()] == ["wan-demo-large", "z-mine", "wan-demo-small"]
    assert catalog.get("wan-demo-large").path == tmp_path / "wan-demo-large"


def test_a_rescan_reads_again_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(folder: Path, *settings: Any) -> Model:
        read.append(folder.name)
        return read_model(folder, *settings)

    monkeypatch.setattr(catalog_module, "read_model", counting)
    for name in ("a", "b"):
        write_model(tmp_path / name)
    catalog = Catalog(tmp_path)
    assert catalog.rescan()
    assert not catalog.rescan()
    assert read == ["a", "b"]
    os.truncate(tmp_path / "b" / WEIGHTS, 100)
    assert catalog.rescan()
    assert read == ["a", "b", "b"]
    assert "truncated" in str(catalog.get("b").problem)
    shutil.rmtree(tmp_path / "a")
    assert catalog.rescan()
    assert [model.name for model in catalog.models()] == ["b"]


def test_a_weight_file_replaced_by_one_of_the_same_length_is_read_again(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    catalog = Catalog(tmp_path)
    before = catalog.get("m").component("vae").identity
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    shape = {"decoder.conv_in.weight": ("F32", (16, 16, 3, 3, 3)), "decoder.conv_in.bias": ("F32", (16,))}
    write_safetensors(folder / "new", shape, fill=b"\7")
    os.replace(folder / "new", vae)
    assert catalog.rescan()
    assert catalog.get("m").component("vae").identity != before


def test_a_status_joins_the_files_with_what_the_worker_holds(tmp_path: Path) -> None:
    write_model(tmp_path / "m", card=CARD)
    catalog = Catalog(tmp_path)
    model = catalog.get("m")
    states = {
        "dit": Present(bytes=70_000, state="resident", leased=True),
        "vae": Present(bytes=5, state="loading", leased=False),
    }
    status = catalog.status(model, states, rate=Rate(), active=True, last_used_at=3.0)
    parts = {part.name: part for part in status.components}
    assert (parts["dit"].state, parts["dit"].bytes, parts["dit"].leased) == ("resident", 70_000, True)
    assert (parts["vae"].state, parts["vae"].bytes) == ("loading", model.component("vae").bytes)
    assert (parts["text"].state, parts["text"].leased) == ("absent", False)
    assert parts["text"].back_in_s == model.component("text").bytes / 1000
    assert (status.title, status.active, status.last_used_at, status.default_frames) == ("Toy", True, 3.0, 17)
    unmeasured = catalog.status(model, {}, rate=None, active=False, last_used_at=None)
    assert {part.back_in_s for part in unmeasured.components} == {None}


def test_the_catalog_and_the_checks_import_no_torch() -> None:
    code = (
        "import sys, engine.models.catalog, engine.planning.admission, engine.planning.footprint; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_what_lost_its_files_since_it_was_loaded_is_there_all_the_same(tmp_path: Path) -> None:
    (folder := tmp_path / "gone").mkdir()
    write_json(folder / "model_index.json", {"_class_name": "WanPipeline"})
    catalog = Catalog(tmp_path)
    broken = catalog.get("gone")
    assert broken.problem is not None and broken.components == ()
    states = {"dit": Present(bytes=2**30, state="resident", leased=False)}
    (part,) = catalog.status(broken, states, rate=None, active=True, last_used_at=None).components
    assert (part.name, part.bytes, part.state) == ("dit", 2**30, "resident")


def test_a_vae_is_kept_in_bf16_on_a_gpu_and_as_its_file_on_cpu(tmp_path: Path) -> None:
    assert vae_precision_on("cpu", "auto") == "auto"
    assert vae_precision_on("GPU-1", "fp32") == "fp32"
    write_model(tmp_path / "m")
    catalog = Catalog(tmp_path)
    wide = catalog.get("m").component("vae")
    catalog.vae_precision = vae_precision_on("GPU-1", "auto")
    assert catalog.rescan()
    kept = catalog.get("m").component("vae")
    assert (wide.dtype, kept.dtype) == ("float32", "bfloat16")
    assert kept.bytes < wide.bytes
