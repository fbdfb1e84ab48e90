"""What is made once for all unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models_with_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with the demo models in it; read only, copy what you damage."""
    from engine.models.demo import make_demo_models  # torch, which most tests do without

    models = tmp_path_factory.mktemp("models")
    make_demo_models(models)
    return models


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this person has fetched from the Hub is not looked into."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with the text encoder and the VAE that checkpoints are imported with."""
    from tests.released import write_parts  # torch

    return write_parts(tmp_path / "checkpoints")
