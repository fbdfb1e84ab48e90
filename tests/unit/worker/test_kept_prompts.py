"""What the daemon says of a kept embedding, without torch, is what the worker then finds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from engine.daemon.prompts import KeptPrompts
from engine.embeddings import EmbeddingStore
from engine.models import prompts
from engine.models.model import read_model
from engine.models.prompts import installed_libraries, libraries_text
from engine.planning.shapes import TEXT_TOKENS
from engine.worker.channel import ModelFiles
from engine.worker.cpu import CpuBackend
from engine.worker.embedding_cache import EmbeddingCache
from engine.worker.store import ComponentStore

from .conftest import LARGE, SMALL

Files = Callable[[str], ModelFiles]
PROMPT = "a red kite over the sea"
BUDGET = 2**27


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "embeddings"


@pytest.fixture
def kept(folder: Path) -> KeptPrompts:
    return KeptPrompts(EmbeddingStore(folder, BUDGET))


def keep(store: ComponentStore, files: ModelFiles, folder: Path, prompt: str = PROMPT) -> None:
    cache = EmbeddingCache(EmbeddingStore(folder, BUDGET))
    assert cache.keep(store.open(files), prompt, torch.ones(1, TEXT_TOKENS, 4)) is None


def found(store: ComponentStore, files: ModelFiles, folder: Path, prompt: str = PROMPT) -> bool:
    cache = EmbeddingCache(EmbeddingStore(folder, BUDGET))
    return cache.find(store.open(files), prompt, CpuBackend()) is not None


async def says(kept: KeptPrompts, files: ModelFiles, prompt: str = PROMPT, kind: str = "cpu") -> bool | None:
    return await kept.has(read_model(Path(files.path)), prompt, device_kind=kind)


def test_what_is_installed_is_what_a_worker_has_loaded() -> None:
    loaded = libraries_text(torch=torch.__version__, transformers=transformers.__version__)
    assert installed_libraries() == loaded


async def test_a_kept_prompt_is_known_however_it_is_spaced_and_another_is_not(
    store: ComponentStore, files: Files, folder: Path, kept: KeptPrompts
) -> None:
    assert await says(kept, files(SMALL)) is False
    keep(store, files(SMALL), folder)
    for prompt in (PROMPT, f"  {PROMPT}\n", "another"):
        assert await says(kept, files(SMALL), prompt) is found(store, files(SMALL), folder, prompt)
    assert await says(kept, files(SMALL), "another") is False
    # A model with the same encoder; and the same encoder on another kind of device.
    assert await says(kept, files(LARGE)) is found(store, files(LARGE), folder) is True
    assert await says(kept, files(SMALL), kind="cuda") is False


@pytest.mark.parametrize("name", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
async def test_an_edited_encoder_or_tokenizer_has_kept_nothing(
    store: ComponentStore, copy_of: Files, folder: Path, kept: KeptPrompts, name: str
) -> None:
    own = copy_of(SMALL)
    keep(store, own, folder)
    assert await says(kept, own) is True
    path = Path(own.path) / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert await says(kept, own) is found(store, own, folder) is False


async def test_looking_marks_nothing_as_used_and_removes_no_damaged_file(
    store: ComponentStore, files: Files, folder: Path, kept: KeptPrompts
) -> None:
    keep(store, files(SMALL), folder)
    (path,) = folder.iterdir()
    os.utime(path, ns=(1, 1))
    assert await says(kept, files(SMALL)) is True
    assert path.stat().st_mtime_ns == 1
    path.write_bytes(path.read_bytes()[:-1])
    assert await says(kept, files(SMALL)) is False
    assert path.exists()


async def test_what_cannot_be_known_is_not_guessed(
    store: ComponentStore, files: Files, folder: Path, kept: KeptPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, files(SMALL), folder)
    assert await KeptPrompts(EmbeddingStore(folder, 0)).has(
        read_model(Path(files(SMALL).path)), PROMPT, device_kind="cpu"
    ) is False  # fmt: skip
    monkeypatch.setattr(prompts, "installed_libraries", lambda: None)
    assert await says(kept, files(SMALL)) is None
    monkeypatch.undo()
    monkeypatch.setattr(prompts, "digest_of", lambda folder: None)
    assert await says(kept, files(SMALL)) is None
