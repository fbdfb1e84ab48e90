"""The GPU tests run wherever a driver answers, and say why they do not elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.wire import Status
from tests.daemon.live import LiveEngine, wait_for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    present = Path("/dev/nvidia0").exists()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not present:
                item.add_marker(pytest.mark.skip(reason="no NVIDIA device file on this host"))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """A running engine on the emptiest GPU, with the demo models made."""
    engine = LiveEngine(tmp_path_factory.mktemp("engine"), TURBOTUI_ENGINE_DEVICE="auto")
    engine.start()
    try:
        engine.client.make_demo_models()
        wait_for(lambda: engine.status().engine.nursery.state == "ready", 90, "the nursery")
        yield engine
    finally:
        engine.close()


@pytest.fixture
def status(live: LiveEngine) -> Status:
    return live.status()
