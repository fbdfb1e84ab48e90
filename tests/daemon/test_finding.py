"""A released model, of toy size in the released formats, from a hub on this machine into a live engine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.errors import InvalidRequest, NotFound
from engine.models.demo_tokenizer import make_tokenizer
from engine.models.getting.released import SHARED_REPOSITORY
from engine.wire import GetRequest, ImportRequest, ModelErrand, ScanRequest
from tests.daemon.live import LiveEngine, wait_for
from tests.released import umt5, wan_vae
from tests.specification.checkpoints import turbo_wan
from tests.unit.hub_server import HubServer, serve

NAME = "TurboWan2.1-T2V-1.3B-480P"


def saved(tensors: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    make_tokenizer(tmp_path / "words")
    shared = {
        "Wan2.1_VAE.pth": saved(wan_vae()),
        "models_t5_umt5-xxl-enc-bf16.pth": saved(umt5()),
        "google/umt5-xxl/tokenizer.json": (tmp_path / "words" / "tokenizer.json").read_bytes(),
    }
    dit = {f"{NAME}.pth": saved(turbo_wan(dtype=torch.bfloat16))}
    with serve(HubServer(repositories={f"TurboDiffusion/{NAME}": dit, SHARED_REPOSITORY: shared})) as hub:
        yield hub


@pytest.fixture
def engine(tmp_path: Path, hub: HubServer) -> Iterator[LiveEngine]:
    (tmp_path / "home").mkdir()
    cache = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": ""}
    live = LiveEngine(tmp_path / "engine", HOME=str(tmp_path / "home"), HF_TOKEN="", **cache)
    live.home.mkdir()
    live.start()
    try:
        yield live
    finally:
        live.close()


def ended(engine: LiveEngine) -> ModelErrand:
    def look() -> ModelErrand | None:
        errand = engine.client.model_errand().errand
        return errand if errand is not None and errand.state != "running" else None

    return wait_for(look, 60, "the errand's end")


def test_a_released_model_is_fetched_imported_in_place_and_listed(engine: LiveEngine, tmp_path: Path) -> None:
    client = engine.client
    assert {model.presence for model in client.released_models()} == {"absent"}
    plan = client.get_plan(NAME)
    assert plan.problem is None and plan.missing_bytes and plan.folder == str(tmp_path / "hf" / "hub")
    with pytest.raises(NotFound, match="lists them all"):
        client.get_plan("nonsense")
    client.get_model(GetRequest(name=NAME))
    errand = ended(engine)
    assert (errand.state, errand.error) == ("done", None)
    (model,) = client.models()
    assert (model.name, model.kind, model.problem) == (NAME, "t2v", None)
    # In place: what the model's own folder takes is tables and the tokenizer.
    own = sum(path.stat().st_size for path in Path(model.path).rglob("*") if path.is_file())
    assert own < plan.missing_bytes // 2
    assert {one.name: one.presence for one in client.released_models()}[NAME] == "imported"


def test_what_a_scan_found_is_imported_as_it_says(engine: LiveEngine, hub: HubServer, tmp_path: Path) -> None:
    client, folder = engine.client, tmp_path / "given"
    for files in hub.repositories.values():
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    (found,) = client.scan_models(ScanRequest(paths=(str(folder),))).models
    assert (found.name, found.missing, found.imported) == (NAME, (), False)
    with pytest.raises(InvalidRequest, match="absolute paths"):
        client.import_model(ImportRequest(name="x", paths=("x",)))
    client.import_model(ImportRequest(name="mine", paths=found.paths))
    assert ended(engine).state == "done"
    assert [(model.name, model.problem) for model in client.models()] == [("mine", None)]
    client.import_model(ImportRequest(name="mine", paths=found.paths))
    failed = ended(engine)
    assert (
        failed.state == "failed" and failed.error is not None and "imported already" in failed.error.message
    )
