"""Weight files that a person wants in host memory, or no longer: what is remembered, what leaves."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.daemon.actions import Actions
from engine.daemon.kept import KeptWarm, not_remembered
from engine.errors import NotFound
from engine.models.card import inferred_card
from engine.models.model import Model, ModelComponent
from engine.models.page_cache import cached_bytes
from engine.wire import Receipt

SIZE = 64 * 4096


def receipt(error: str | None = None) -> Receipt:
    return Receipt(
        action="warm", target="a", ok=error is None, error=error, elapsed_s=0.1, proof="page-cache"
    )


async def test_what_is_kept_is_there_for_the_next_engine(tmp_path: Path) -> None:
    file = tmp_path / "warm.json"
    kept = KeptWarm(file)
    assert await kept.add([("a", "dit"), ("a", "vae")]) is None
    assert await kept.remove([("a", "vae")]) is None
    assert KeptWarm(file).names == {("a", "dit")}
    assert await kept.remove(None) is None
    assert KeptWarm(file).names == set()
    assert [path.name for path in tmp_path.iterdir()] == ["warm.json"]


async def test_wishes_at_once_leave_the_newest_in_the_file(tmp_path: Path) -> None:
    kept = KeptWarm(tmp_path / "warm.json")
    await asyncio.gather(*(kept.add([("a", f"part{number}")]) for number in range(20)))
    assert KeptWarm(tmp_path / "warm.json").names == kept.names
    assert len(kept.names) == 20


async def test_a_list_that_cannot_be_written_stays_as_it_was_and_the_receipt_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "warm.json"
    kept = KeptWarm(file)
    await kept.add([("a", "dit")])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    problem = await kept.add([("a", "vae")])
    assert json.loads(file.read_text()) == [["a", "dit"]]
    assert [path.name for path in tmp_path.iterdir()] == ["warm.json"]
    told = not_remembered(receipt(), problem)
    assert not told.ok and told.error is not None
    assert "will not be remembered" in told.error and "No space left on device" in told.error
    assert (not_remembered(receipt("short"), problem).error or "").startswith("short; and what is")
    assert not_remembered(receipt(), None).ok
    assert await kept.add([("a", "vae")]) is not None, "it is still not written"


class NoWorker:
    worker = None
    on_ready = None

    def __init__(self) -> None:
        self.issued: list[Receipt] = []

    def issue(self, receipt: Receipt) -> Receipt:
        self.issued.append(receipt)
        return receipt


def cached_model(folder: Path, name: str) -> Model:
    components = []
    for part in ("dit", "vae"):
        path = folder / f"{name}-{part}"
        path.write_bytes(os.urandom(SIZE))
        components.append(
            ModelComponent(
                name=part, folder=folder, bytes=SIZE, identity=part, dtype="bfloat16", files=(path,)
            )
        )
    return Model(
        name=name, kind="t2v", path=folder, card=inferred_card(name, "t2v"), components=tuple(components)
    )


async def test_without_a_worker_the_files_asked_for_leave_the_page_cache(tmp_path: Path) -> None:
    models = [cached_model(tmp_path, "a"), cached_model(tmp_path, "b")]
    supervisor = NoWorker()
    fake = SimpleNamespace()
    actions = Actions(
        supervisor,  # type: ignore[arg-type]
        fake,  # type: ignore[arg-type]
        fake,  # type: ignore[arg-type]
        fake,  # type: ignore[arg-type]
        supervisor,  # type: ignore[arg-type]
        find=lambda name: next(model for model in models if model.name == name),
        models=lambda: models,
        running=lambda: None,
        kept_file=tmp_path / "warm.json",
    )
    a_dit, a_vae, b_dit, b_vae = (item.files for model in models for item in model.components)
    with pytest.raises(NotFound):
        await actions.drop_warm([models[0]], "nose")
    told = await actions.drop_warm([models[0]], "vae")
    assert (told.ok, told.proof, told.target) == (True, "page-cache", "a/vae")
    assert told.expected_bytes == SIZE
    left = cached_bytes(a_vae)
    assert left is not None and told.returned_bytes == SIZE - left
    assert bool(told.residue) == bool(told.residue_bytes) == bool(left)
    assert cached_bytes([*a_dit, *b_dit, *b_vae]) == 3 * SIZE, "nobody asked for those"
    everything = await actions.drop_warm(None, None)
    assert everything.target == "all weight files" and everything.expected_bytes == 3 * SIZE + left
    assert supervisor.issued == [told, everything]
