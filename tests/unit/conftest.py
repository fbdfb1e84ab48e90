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
