"""A prompt that was encoded before comes back from the disk as the encoder gave it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from engine.embeddings import EmbeddingStore
from engine.models import prompts
from engine.models.folders import TEXT
from engine.models.index import read_index
from engine.models.prompts import digest_of
from engine.planning.shapes import TEXT_TOKENS
from engine.worker import embedding_cache
from engine.worker.channel import ModelFiles
from engine.worker.components import Model
from engine.worker.cpu import CpuBackend
from engine.worker.embedding_cache import EmbeddingCache, pack, unpack
from engine.worker.store import ComponentStore
from engine.worker.text import encode_prompt

from .conftest import BUDGET, LARGE, SMALL

Files = Callable[[str], ModelFiles]
PROMPTS = ["a red kite over the sea", "一只猫在雪地里跑", "", "word " * 3000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "embeddings"


@pytest.fixture
def cache(folder: Path) -> EmbeddingCache:
    return EmbeddingCache(EmbeddingStore(folder, 2**27))


def encode(store: ComponentStore, model: Model, prompt: str) -> Tensor:
    lease = store.lease(model, (TEXT,), stage="text", stage_bytes=0, budget_bytes=BUDGET)
    with lease as modules, torch.inference_mode():
        return encode_prompt(modules[TEXT], model.tokenizer, prompt, torch.device("cpu"))


def same_bits(one: Tensor, other: Tensor) -> bool:
    return (one.dtype, one.shape, one.device, one.stride()) == (
        other.dtype,
        other.shape,
        other.device,
        other.stride(),
    ) and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_found_bit_for_bit_as_it_was_encoded_also_by_another_worker(
    prompt: str, store: ComponentStore, files: Files, backend: CpuBackend, cache: EmbeddingCache, folder: Path
) -> None:
    model = store.open(files(SMALL))
    assert cache.find(model, prompt, backend) is None
    embedding = encode(store, model, prompt)
    assert cache.keep(model, prompt, embedding) is None
    other = ComponentStore(backend, on_component=lambda _: None, on_moved=lambda _: None)
    for found in (
        cache.find(model, prompt, backend),
        EmbeddingCache(EmbeddingStore(folder, 2**27)).find(other.open(files(SMALL)), prompt, backend),
    ):
        assert found is not None and same_bits(found, embedding)
    assert other.weights() == {}


def test_only_the_rows_of_the_prompt_are_stored(
    store: ComponentStore, files: Files, cache: EmbeddingCache, folder: Path
) -> None:
    model = store.open(files(SMALL))
    prompt = "a red kite"
    embedding = encode(store, model, prompt)
    cache.keep(model, prompt, embedding)
    tokens = len(model.tokenizer(prompt)["input_ids"])
    row_bytes = embedding[0, 0].numel() * embedding.element_size()
    (path,) = folder.iterdir()
    assert tokens * row_bytes < path.stat().st_size < tokens * row_bytes + 500


def test_another_prompt_is_a_miss_and_another_spacing_is_not(
    store: ComponentStore, files: Files, backend: CpuBackend, cache: EmbeddingCache
) -> None:
    model = store.open(files(SMALL))
    embedding = encode(store, model, "a red kite")
    cache.keep(model, "a red kite", embedding)
    assert cache.find(model, "a red Kite", backend) is None
    spaced = cache.find(model, "  a  red\nkite ", backend)
    assert spaced is not None and same_bits(spaced, encode(store, model, "  a  red\nkite "))


def test_models_share_what_the_same_encoder_gave_and_another_encoder_is_a_miss(
    store: ComponentStore, files: Files, copy_of: Files, backend: CpuBackend, cache: EmbeddingCache
) -> None:
    model = store.open(files(SMALL))
    embedding = encode(store, model, "a red kite")
    cache.keep(model, "a red kite", embedding)
    shared = cache.find(store.open(files(LARGE)), "a red kite", backend)
    assert shared is not None and same_bits(shared, embedding)
    own = copy_of(LARGE)
    (weights,) = (Path(own.path) / "text_encoder").glob("*.safetensors")
    with weights.open("r+b") as file:
        file.seek(read_index(weights).data_begin)
        file.write(b"other weights")
    assert cache.find(store.open(own), "a red kite", backend) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda patch, model, backend: patch.setattr(
            prompts, "CLEANING_VERSION", prompts.CLEANING_VERSION + 1
        ),
        lambda patch, model, backend: patch.setattr(torch, "__version__", "99.0"),
        lambda patch, model, backend: patch.setattr(transformers, "__version__", "99.0"),
        lambda patch, model, backend: patch.setattr(type(backend), "kind", "cuda"),
        lambda patch, model, backend: patch.setattr(model, "tokenizer_digest", "sha256:another"),
        lambda patch, model, backend: patch.setattr(model, "tokenizer_digest", None),
        lambda patch, model, backend: patch.setattr(model.components[TEXT], "config", "sha256:another"),
        lambda patch, model, backend: patch.setattr(embedding_cache, "main_dtype", lambda index: "F32"),
    ],
    ids=[
        "cleaning",
        "torch",
        "transformers",
        "device",
        "tokenizer",
        "unknown tokenizer",
        "configuration",
        "dtype",
    ],
)
def test_whatever_else_decides_the_values_makes_a_miss(
    change: Callable[..., None],
    store: ComponentStore,
    files: Files,
    backend: CpuBackend,
    cache: EmbeddingCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = store.open(files(SMALL))
    cache.keep(model, "a red kite", encode(store, model, "a red kite"))
    with monkeypatch.context() as patch:
        change(patch, model, backend)
        assert cache.find(model, "a red kite", backend) is None
    assert cache.find(model, "a red kite", backend) is not None


def test_a_tokenizer_that_was_edited_is_another(
    store: ComponentStore, copy_of: Files, backend: CpuBackend, cache: EmbeddingCache
) -> None:
    own = copy_of(SMALL)
    model = store.open(own)
    cache.keep(model, "a red kite", encode(store, model, "a red kite"))
    before = model.tokenizer_digest
    path = Path(own.path) / "tokenizer" / "tokenizer_config.json"
    os.utime(path, ns=(1, 1))
    # Read anew for its new time, and found to be the same.
    assert store.open(own).tokenizer_digest == before == digest_of(path.parent)
    assert cache.find(model, "a red kite", backend) is not None
    path.write_bytes(path.read_bytes() + b"\n")
    assert store.open(own).tokenizer_digest not in (before, None)
    assert cache.find(model, "a red kite", backend) is None


def test_a_tokenizer_whose_files_change_while_it_is_read_keeps_nothing(
    store: ComponentStore,
    copy_of: Files,
    cache: EmbeddingCache,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = copy_of(SMALL)
    path = Path(own.path) / "tokenizer" / "tokenizer_config.json"
    with monkeypatch.context() as patch:
        real = digest_of

        def meanwhile(folder: Path) -> str | None:
            path.write_bytes(path.read_bytes() + b"\n")
            return real(folder)

        patch.setattr("engine.worker.components.digest_of", meanwhile)
        model = store.open(own)
    assert model.tokenizer_digest is None
    assert cache.keep(model, "a red kite", encode(store, model, "a red kite")) is None
    assert not folder.exists()
    assert store.open(own).tokenizer_digest is not None


def test_the_digest_of_a_folder_is_of_names_and_bytes(tmp_path: Path) -> None:
    seen = set()
    for names in (("a", "b"), ("b", "a"), ("a", "c")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name, content in zip(names, "xy", strict=True):
            (folder / name).write_text(content)
        (folder / "below").mkdir()
        seen.add(digest_of(folder))
    assert len(seen) == 3 and None not in seen
    assert digest_of(tmp_path / "missing") is None


def test_a_damaged_entry_is_a_miss_that_encoding_mends(
    store: ComponentStore, files: Files, backend: CpuBackend, cache: EmbeddingCache, folder: Path
) -> None:
    model = store.open(files(SMALL))
    embedding = encode(store, model, "a red kite")
    cache.keep(model, "a red kite", embedding)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.find(model, "a red kite", backend) is None
    cache.keep(model, "a red kite", embedding)
    assert cache.find(model, "a red kite", backend) is not None


def test_a_cache_without_a_budget_keeps_and_finds_nothing(
    store: ComponentStore, files: Files, backend: CpuBackend, folder: Path
) -> None:
    off = EmbeddingCache(EmbeddingStore(folder, 0))
    model = store.open(files(SMALL))
    assert off.keep(model, "x", torch.ones(1, TEXT_TOKENS, 4)) is None
    assert off.find(model, "x", backend) is None
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_said_once(
    store: ComponentStore, files: Files, folder: Path, cache: EmbeddingCache
) -> None:
    folder.touch()
    model = store.open(files(SMALL))
    reason = cache.keep(model, "x", torch.ones(1, TEXT_TOKENS, 4))
    assert reason is not None and str(folder) in reason
    assert cache.keep(model, "x", torch.ones(1, TEXT_TOKENS, 4)) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("count", [0, 1, 7, TEXT_TOKENS])
def test_every_dtype_and_length_survives_packing_also_rows_of_negative_zeros(
    dtype: torch.dtype, count: int
) -> None:
    embedding = torch.zeros(1, TEXT_TOKENS, 6, dtype=dtype)
    embedding[0, :count] = torch.randn(count, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    if count > 1:
        embedding[0, 0] = 0.0
        embedding[0, count - 1] = -0.0
    rows = unpack(pack(embedding))
    assert rows is not None and rows.shape == (count, 6)
    assert torch.equal(rows.view(torch.uint8), embedding[0, :count].contiguous().view(torch.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no safetensors at all",
        embedding_cache.save({"other": torch.ones(2, 2)}),
        embedding_cache.save({"rows": torch.ones(2)}),
        embedding_cache.save({"rows": torch.ones(TEXT_TOKENS + 1, 2)}),
    ],
)
def test_bytes_that_hold_no_embedding_are_none(data: bytes) -> None:
    assert unpack(data) is None
