"""The demo models: made whole, the same each time, and good for a video."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import AutoTokenizer, UMT5EncoderModel

import engine.models.demo as demo
from engine.models.catalog import Catalog
from engine.models.demo import make_demo_models
from engine.models.demo_files import DEMO_MODELS, MARKER, are_demo_models_complete
from engine.models.index import read_component_index
from engine.models.model import read_model
from engine.planning.shapes import FPS, dit_tokens, latent_shape, rcm_timesteps

MIB = 2**20


@pytest.fixture
def models(models_with_demo: Path) -> Path:
    return models_with_demo


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_catalog_finds_three_usable_models_of_visible_sizes(models: Path) -> None:
    catalog = Catalog(models)
    assert catalog.has_demo_models()
    found = {model.name: model for model in catalog.models()}
    assert tuple(found) == DEMO_MODELS
    for model in found.values():
        assert (model.problem, model.card.demo, model.dtype) == (None, True, "bfloat16")
        assert (model.card.default_frames, model.card.default_steps) == (17, 4)
        for row in model.card.table:
            assert dit_tokens(row.width, row.height, model.card.max_frames) > 0
        assert all(component.bytes > 8 * MIB for component in model.components)
    assert [model.kind for model in found.values()] == ["t2v", "t2v", "i2v"]
    large, small = found["wan-demo-large"].component("dit"), found["wan-demo-small"].component("dit")
    assert large.bytes > 4 * small.bytes
    shared = {model.component("vae").identity for model in found.values()}
    assert len(shared) == 1


def test_together_they_stay_below_150_mb(models: Path) -> None:
    sizes = {info.st_ino: info.st_size for path in models.rglob("*.*") if (info := path.stat())}
    assert sum(sizes.values()) < 150 * 10**6


def test_what_they_have_in_common_lies_on_the_disk_once_and_is_one_to_a_loader(models: Path) -> None:
    found = [read_model(models / "demo" / name) for name in DEMO_MODELS]
    for part in ("text", "vae"):
        assert len({model.component(part).content for model in found}) == 1
    for name in ("text_encoder/model.safetensors", "vae/config.json", "tokenizer/tokenizer.json"):
        assert len({(model.path / name).stat().st_ino for model in found}) == 1
    assert len({(model.path / "model_index.json").stat().st_ino for model in found}) == 3


def test_a_disk_without_links_gets_the_same_bytes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    make_demo_models(tmp_path)
    assert digests(tmp_path / "demo") == digests(models / "demo")
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "demo").rglob("*.*") if path.is_file())


def test_the_experts_differ_in_every_block_and_every_tensor(models: Path) -> None:
    root = models / "demo" / "wan-demo-i2v"
    high, low = (read_component_index(root / part) for part in ("transformer", "transformer_2"))
    assert high.identity != low.identity
    assert high.tensors == low.tensors
    high_bytes, low_bytes = (index.files[0].path.read_bytes() for index in (high, low))
    for name, entry in high.tensors.items():
        assert high_bytes[entry.begin : entry.end] != low_bytes[entry.begin : entry.end], name


def test_no_tensor_is_left_at_zero(models: Path) -> None:
    for name in DEMO_MODELS:
        for part in ("transformer", "vae", "text_encoder"):
            index = read_component_index(models / "demo" / name / part)
            content = index.files[0].path.read_bytes()
            for tensor, entry in index.tensors.items():
                assert any(content[entry.begin : entry.end]), f"{name}/{part}: {tensor}"


def test_the_same_bytes_are_made_each_time(models: Path, tmp_path: Path) -> None:
    demo._make_model(tmp_path / "again", "wan-demo-i2v")
    assert digests(tmp_path / "again") == digests(models / "demo" / "wan-demo-i2v")


def quick(folder: Path, name: str, donor: Path | None) -> None:
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"name": name}))


def test_whole_models_are_left_alone_and_older_or_damaged_ones_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counting(folder: Path, name: str, donor: Path | None) -> None:
        made.append(name)
        quick(folder, name, donor)

    monkeypatch.setattr(demo, "_make_model", counting)
    said: list[str] = []
    make_demo_models(tmp_path, said.append)
    assert said == [*(f"making {name}" for name in DEMO_MODELS), "demo models ready"]
    make_demo_models(tmp_path)
    assert len(made) == 3
    assert sorted(os.listdir(tmp_path)) == [".demo.lock", "demo"]
    os.truncate(tmp_path / "demo" / "wan-demo-large" / "model_index.json", 3)
    assert not are_demo_models_complete(tmp_path)
    make_demo_models(tmp_path)
    assert len(made) == 6
    marker = tmp_path / "demo" / MARKER
    marker.write_text(marker.read_text().replace('"format":', '"format":9'))
    assert not are_demo_models_complete(tmp_path)
    make_demo_models(tmp_path)
    assert len(made) == 9
    assert are_demo_models_complete(tmp_path)


def test_makers_at_once_make_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    together = threading.Barrier(3)

    def counting(folder: Path, name: str, donor: Path | None) -> None:
        made.append(name)
        quick(folder, name, donor)

    def make() -> None:
        together.wait(10)
        make_demo_models(tmp_path)

    monkeypatch.setattr(demo, "_make_model", counting)
    makers = [threading.Thread(target=make) for _ in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(20)
    assert sorted(made) == sorted(DEMO_MODELS)
    assert are_demo_models_complete(tmp_path)


def test_a_maker_that_fails_leaves_nothing_and_the_next_clears_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, name: str, donor: Path | None) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_make_model", full)
    with pytest.raises(OSError, match="No space left"):
        make_demo_models(tmp_path)
    assert os.listdir(tmp_path) == [".demo.lock"]
    (tmp_path / ".demo-making-killed" / "demo").mkdir(parents=True)
    monkeypatch.setattr(demo, "_make_model", quick)
    make_demo_models(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".demo.lock", "demo"]


def test_the_tokenizer_reads_english_chinese_and_emoji_without_unknown_tokens(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "demo" / "wan-demo-small" / "tokenizer")
    for text in ("A cat walks at sunset.", "一只猫在夕阳下走过", "🐈 قطة"):
        ids = tokenizer(text).input_ids
        assert ids[-1] == tokenizer.eos_token_id == 1
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    assert len(tokenizer("一只猫在夕阳下走过").input_ids) <= 12
    padded = tokenizer("cat", padding="max_length", max_length=16, truncation=True)
    assert padded.input_ids[-1] == tokenizer.pad_token_id == 0
    assert sum(padded.attention_mask) < 16


@torch.inference_mode()
def generate(root: Path, prompt: str, image: torch.Tensor | None = None) -> torch.Tensor:
    """One frame [3, 80, 128] in [-1, 1], by diffusers' and transformers' own loading and forward."""
    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(root / "text_encoder", dtype=torch.bfloat16)
    dit = WanTransformer3DModel.from_pretrained(root / "transformer", torch_dtype=torch.bfloat16)
    vae = AutoencoderKLWan.from_pretrained(root / "vae")
    tokens = tokenizer([prompt], padding="max_length", max_length=512, truncation=True, return_tensors="pt")
    text = encoder(**tokens).last_hidden_state.clone()
    text[:, int(tokens.attention_mask.sum()) :] = 0
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    shape = latent_shape(128, 80, 1)
    condition = None
    if image is not None:
        mask = torch.ones(1, 4, *shape[2:])
        condition = torch.cat(
            [mask, (vae.encode(image[None, :, None]).latent_dist.mode() - mean) / std], dim=1
        )
    timesteps = rcm_timesteps(4, 80.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * timesteps[0]
    for t, after in pairwise(timesteps):
        net_input = x if condition is None else torch.cat([x, condition], dim=1)
        v = dit(net_input.bfloat16(), torch.tensor([1000 * t]), text, return_dict=False)[0].float()
        x = (1 - after) * (x - t * v) + after * torch.randn(shape, generator=generator)
    assert torch.isfinite(x).all()
    pixels: torch.Tensor = vae.decode(x * std + mean).sample[0, :, 0]
    return pixels


def test_a_video_has_colours_that_follow_the_prompt(models: Path) -> None:
    root = models / "demo" / "wan-demo-small"
    english, chinese = generate(root, "a cat in the rain"), generate(root, "一只猫在夕阳下")
    assert english.shape == (3, 80, 128)
    assert torch.isfinite(english).all()
    assert 0.1 < float(english.std()) < 0.9
    # Grey noise would have its colours in step.
    assert float((english[0] - english[1]).abs().mean()) > 0.1
    assert float((english - chinese).abs().mean()) > 0.05


def test_the_first_frame_of_image_to_video_resembles_the_image(models: Path) -> None:
    across = torch.linspace(-0.8, 0.8, 128).expand(80, 128)
    image = torch.stack([across, -across, torch.zeros(80, 128)])
    video = generate(models / "demo" / "wan-demo-i2v", "it moves", image)
    seen = torch.corrcoef(torch.stack([video[:2].flatten(), image[:2].flatten()]))[0, 1]
    assert float(seen) > 0.4


def test_a_default_video_lasts_about_a_second(models: Path) -> None:
    card = Catalog(models).get("wan-demo-small").card
    assert 1 <= card.default_frames / FPS < 1.2
