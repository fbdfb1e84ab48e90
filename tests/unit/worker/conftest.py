"""The demo models once for all tests of the worker, and a store over them."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
import torch

from engine.models.demo_files import demo_folder
from engine.models.index import ComponentIndex
from engine.wire import JobSpec, Manifest, Receipt, Stage
from engine.worker.arena import Arena
from engine.worker.backend import Backend
from engine.worker.channel import ComponentChanged, JobProgressed, ModelFiles, RunJob
from engine.worker.components import Component
from engine.worker.cpu import CpuBackend
from engine.worker.loading import Loading
from engine.worker.store import ComponentStore
from engine.worker.stream import plan_transfers

SMALL, LARGE, I2V = "wan-demo-small", "wan-demo-large", "wan-demo-i2v"
BUDGET = 2 * 2**30
STAGE_BYTES = 2**20
"""Working memory that a test's job plans for each stage."""


@pytest.fixture(scope="session", autouse=True)
def _quick() -> None:
    # Two OpenMP threads on a busy two-core machine wait for each other: eight times slower, measured.
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """The million objects of the libraries and of tests before, which every stage of a job would walk."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def demo_models(models_with_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo models, each with files of its own; read only, copy what you damage.

    What models share changes hands without a load, which has tests of its own.
    """
    own = tmp_path_factory.mktemp("models") / "demo"
    shutil.copytree(demo_folder(models_with_demo), own)
    return own


@pytest.fixture
def files(demo_models: Path) -> Callable[[str], ModelFiles]:
    def find(name: str) -> ModelFiles:
        return ModelFiles(name=name, kind="i2v" if name == I2V else "t2v", path=str(demo_models / name))

    return find


@pytest.fixture
def copy_of(demo_models: Path, tmp_path: Path) -> Callable[[str], ModelFiles]:
    """A demo model of one's own, to damage."""

    def copy(name: str) -> ModelFiles:
        target = tmp_path / name
        shutil.copytree(demo_models / name, target)
        return ModelFiles(name=name, kind="i2v" if name == I2V else "t2v", path=str(target))

    return copy


@dataclass
class Seen:
    """What a store and a job said."""

    components: list[ComponentChanged] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    progress: list[JobProgressed] = field(default_factory=list)

    def leased(self) -> set[str]:
        last = {f"{item.model}/{item.component}": item.leased for item in self.components}
        return {name for name, leased in last.items() if leased}


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def backend() -> CpuBackend:
    return CpuBackend()


@pytest.fixture
def store(backend: CpuBackend, seen: Seen) -> ComponentStore:
    return ComponentStore(backend, on_component=seen.components.append, on_moved=seen.receipts.append)


@pytest.fixture
def job(tmp_path: Path, files: Callable[[str], ModelFiles]) -> Callable[..., RunJob]:
    """A 5-frame job of 32x32 pixels."""

    def make(model: ModelFiles | str = SMALL, *, budget_bytes: int = BUDGET, **spec: object) -> RunJob:
        found = files(model) if isinstance(model, str) else model
        wanted = {"prompt": "a red kite over the sea", "frames": 5, "steps": 2, "seed": 7, **spec}
        return RunJob(
            job_id=3,
            attempt=1,
            spec=JobSpec(model=found.name, **wanted),  # type: ignore[arg-type]
            model=found,
            width=32,
            height=32,
            output=str(tmp_path / "clip.mp4"),
            budget_bytes=budget_bytes,
            stage_bytes=dict.fromkeys(get_args(Stage), STAGE_BYTES),
        )

    return make


def load(component: Component, backend: CpuBackend) -> None:
    """Make it resident, outside any store."""
    loading = component.begin_load(backend, None, 0.0, lambda _loading: None)
    loading.run()
    assert loading.failure is None, loading.failure


def load_arena(
    arena: Arena, index: ComponentIndex, backend: Backend, moved: Callable[[int], None] | None = None
) -> Loading:
    """Load an arena that belongs to no component; how it ended is in the loading."""
    memory, gates = arena.attach()
    loading = Loading(
        arena.label,
        index,
        plan_transfers(arena.layout, index),
        memory,
        gates,
        backend,
        None,
        total_bytes=arena.bytes,
        began=0.0,
        on_end=lambda _loading: None,
    )
    loading.run(moved)
    if loading.failure is not None:
        arena.detach()
    return loading


def fill_arena(arena: Arena, backend: Backend, write: Callable[[torch.Tensor], object]) -> None:
    """Attach an arena, let `write` make its weights, and let whoever computes with them in."""
    memory, gates = arena.attach()
    write(memory)
    for gate in gates:
        gate.arrive(backend.mark_copies())


def manifest_of(output: Path) -> Manifest:
    """The manifest of some video that should lie at `output`."""
    return Manifest(
        job_id=1,
        spec=JobSpec(model="m", prompt="风筝"),
        kind="t2v",
        width=32,
        height=32,
        fps=16,
        timesteps=(0.9, 0.0),
        device="cpu",
        device_name="test",
        output=str(output),
        output_bytes=1,
        frames_sha256="0",
        elapsed_s=1.0,
        stages=(),
        weights={},
        versions={},
        created_at=0.0,
    )
