"""One engine, one nursery and one set of demo models for the whole run.

Tests that kill what they use come last (`test_deaths.py`, `test_stop.py`) and start engines of
their own over the same models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine.wire import JobSpec
from tests.daemon.live import LiveEngine, wait_for


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """A running engine with the demo models made and its nursery ready."""
    engine = LiveEngine(tmp_path_factory.mktemp("engine"))
    engine.start()
    try:
        engine.client.make_demo_models()
        wait_for(lambda: engine.status().engine.nursery.state == "ready", 60, "the nursery")
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def models(live: LiveEngine) -> Path:
    """The folder of the demo models, for engines that a test starts itself."""
    return live.paths.models


@pytest.fixture
def spare(tmp_path: Path, models: Path) -> Iterator[LiveEngine]:
    """An engine of the test's own, not started, over the same demo models."""
    engine = LiveEngine(tmp_path)
    engine.paths.data.mkdir(parents=True)
    engine.paths.models.symlink_to(models)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "first frame.png"
    Image.new("RGB", (64, 48), (200, 80, 40)).save(path)
    return path


@pytest.fixture
def short() -> JobSpec:
    """The quickest job there is."""
    return JobSpec(
        model="wan-demo-small", prompt="一只猫在雪地里跑, a cat in snow", frames=5, steps=1, seed=7
    )


@pytest.fixture
def long() -> JobSpec:
    """A job that is still running when a test looks: the largest that the demo models take."""
    return JobSpec(model="wan-demo-large", prompt="harbour at dawn", resolution="112p", frames=33, steps=4)
