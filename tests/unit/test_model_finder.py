"""The engine's errands: looking, fetching and importing in processes of its own, one errand at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.daemon import finding
from engine.daemon.finding import ModelFinder
from engine.daemon.logbook import LogBook
from engine.errors import InvalidRequest, NotFound, NotNow
from engine.wire import ModelErrand
from tests.unit.hub_server import HubServer, serve
from tests.unit.test_finding import TEXT, VAE, dit, put, tokenizer
from tests.unit.test_getting import DIT, NAME, hub_of_released


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve(hub_of_released()) as hub:
        yield hub


def finder_in(tmp_path: Path, hub: HubServer | None = None) -> ModelFinder:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environ |= {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf")}
    environ["HF_ENDPOINT"] = "http://127.0.0.1:9" if hub is None else hub.address
    log = LogBook(tmp_path / "logs", max_bytes=1 << 20, on_line=lambda line: None)

    async def rescan() -> None:
        pass

    return ModelFinder(tmp_path / "models", tmp_path, environ, log, rescan)


async def ended(finder: ModelFinder) -> ModelErrand:
    async with asyncio.timeout(30):
        while True:
            errand = finder.status().errand
            assert errand is not None
            if errand.state != "running":
                return errand
            await asyncio.sleep(0.02)


async def test_a_look_answers_what_is_where(tmp_path: Path) -> None:
    put(tmp_path / "x", turbo=dit(), vae=VAE, t5=TEXT)
    tokenizer(tmp_path / "x" / "umt5-xxl")
    finder = finder_in(tmp_path)
    scan = await finder.scan([str(tmp_path / "x")])
    assert [(model.name, model.missing) for model in scan.models] == [("turbo", ())]
    with pytest.raises(InvalidRequest, match="no absolute path"):
        await finder.scan(["x"])


async def test_one_errand_at_a_time_whose_end_is_kept(tmp_path: Path, hub: HubServer) -> None:
    finder = finder_in(tmp_path, hub)
    assert finder.status().errand is None
    assert (await finder.plan(NAME)).missing_bytes > len(DIT)
    with pytest.raises(NotFound, match="lists them all"):
        await finder.plan("nonsense")
    finder.get(NAME)
    with pytest.raises(NotNow, match=f"{NAME} is under way"):
        finder.import_found("other", ["/x"])
    errand = await ended(finder)
    # Toy bytes are fetched whole, and are no checkpoint that could be imported.
    assert (errand.verb, errand.state) == ("import", "failed")
    assert errand.error is not None and f"{NAME}.pth" in errand.error.message
    assert {model.name: model.presence for model in await finder.released()}[NAME] == "fetched"


async def test_what_was_cancelled_stays_for_the_next_time(tmp_path: Path, hub: HubServer) -> None:
    hub.pause_after = len(DIT) - 1000
    finder = finder_in(tmp_path, hub)
    finder.get(NAME)
    async with asyncio.timeout(30):
        while not (errand := finder.status().errand) or (errand.bytes or 0) < 10 << 20:
            await asyncio.sleep(0.02)
    finder.cancel()
    assert (await ended(finder)).state == "cancelled"
    parts = list((tmp_path / "hf").rglob("*.incomplete"))
    assert [part.stat().st_size for part in parts] == [10 << 20]
    with pytest.raises(NotNow, match="no model is being fetched"):
        finder.cancel()


async def test_an_errand_that_fails_as_nobody_thought_of_has_an_end_and_keeps_out_no_other(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LINE_BYTES", 16)  # its plan is longer than a line may be
    finder = finder_in(tmp_path, hub)
    for _ in range(2):
        finder.get(NAME)
        errand = await ended(finder)
        assert errand.state == "failed" and errand.error is not None
