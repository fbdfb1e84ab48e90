"""Weights on a real GPU: whole by every way they travel, under compute, in place, and gone when told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine.errors import JobCancelled
from engine.models.demo import make_demo_models
from engine.models.demo_files import demo_folder
from engine.wire import CleanupRequest, JobSpec, Manifest, Receipt, Stage, SwitchRequest, UnloadRequest
from engine.worker import mapped, ring
from engine.worker.backend import Registrar
from engine.worker.channel import ModelFiles, RunJob, WorkerSettings
from engine.worker.components import Component, open_component
from engine.worker.cuda import CudaBackend
from engine.worker.pinned import HostBuffer
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore
from engine.worker.warm import open_warm_tier
from tests.daemon.live import LiveEngine
from tests.gpu.backends import connected

LARGE, I2V = "wan-demo-large", "wan-demo-i2v"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    make_demo_models(models)
    return demo_folder(models)


@pytest.fixture(scope="module")
def backend() -> Iterator[CudaBackend]:
    backend = connected()
    backend.warm_up()
    yield backend


def _dit(demo: Path, backend: CudaBackend) -> Component:
    return open_component(LARGE, "dit", demo / LARGE / "transformer", backend)


def _same_as_file(component: Component) -> bool:
    stored = load_file(component.index.files[0].path)
    return all(
        torch.equal(tensor.cpu(), stored[name].to(tensor.dtype))
        for name, tensor in component.module.state_dict().items()
    )


def _refuse(buffer: HostBuffer, registrar: Registrar) -> None:
    buffer.refusal = "no"


@pytest.mark.parametrize("stream", ["registered", "auto", "ring", "unpinned"])
def test_weights_arrive_whole_by_every_way(
    demo: Path, stream: str, monkeypatch: pytest.MonkeyPatch, held: Callable[[], int]
) -> None:
    # Small enough that the ring is full again and again and every tensor is cut.
    monkeypatch.setattr(mapped, "PIECE_BYTES", 64 * 1024)
    monkeypatch.setattr(ring, "CHUNK_BYTES", 16 * 1024)  # of which the buffers are a whole number
    if stream == "unpinned":
        monkeypatch.setattr(HostBuffer, "pin", _refuse)
    backend = connected()
    tier = None
    if stream in ("registered", "auto"):
        tier = open_warm_tier(backend, WorkerSettings(stream=stream), on_log=print)  # type: ignore[arg-type]
        assert tier is not None
    component = _dit(demo, backend)
    path, size = component.index.files[0].path, component.index.files[0].bytes
    taken: list[int] = []
    for turn in range(4):
        empty = held()
        loading = component.begin_load(backend, tier, 0.0, lambda _loading: None)
        loading.run()
        assert loading.failure is None
        assert _same_as_file(component)
        component.unload()
        assert held() <= empty
        if tier is not None:
            taken.append(tier.registered_bytes([path]))
            if turn == 0 and stream == "registered":
                assert taken == [size], "a load registers all that it comes to"
            if turn == 0 and stream == "auto":
                deadline = time.monotonic() + 5
                while tier.registered_bytes([path]) < size and time.monotonic() < deadline:
                    time.sleep(0.01)
    if tier is not None:
        assert taken[-1] == size
        assert tier.drop([path]) == size
    assert (backend.prepare_copies() is not None) == (stream == "unpinned")


@pytest.fixture
def held() -> Callable[[], int]:
    def reserved() -> int:
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(0)

    return reserved


def _inputs(component: Component, backend: CudaBackend) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timestep and text."""
    torch.manual_seed(3)
    like = {"device": backend.device, "dtype": torch.bfloat16}
    text = torch.randn(1, 512, component.module.config.text_dim, **like)
    return torch.randn(1, 16, 3, 8, 8, **like), torch.tensor([932.0], device=backend.device), text


def test_a_net_computes_the_same_while_its_weights_arrive(demo: Path, backend: CudaBackend) -> None:
    seen: list[Receipt] = []
    store = ComponentStore(backend, on_component=lambda change: None, on_moved=seen.append)
    model = store.open(ModelFiles(name=LARGE, kind="t2v", path=str(demo / LARGE)))

    def forward(*, under_compute: bool) -> torch.Tensor:
        with (
            torch.inference_mode(),
            store.lease(
                model,
                ("dit",),
                stage="denoise",
                stage_bytes=0,
                budget_bytes=2**40,
                under_compute=under_compute,
            ) as modules,
        ):
            answer: torch.Tensor = modules["dit"](*_inputs(model.components["dit"], backend))
            return answer.cpu()

    first = forward(under_compute=False)
    for _ in range(5):
        store.unload()
        assert torch.equal(forward(under_compute=True), first)
    assert any(receipt.steps and receipt.steps[0].name == "copy under compute" for receipt in seen)
    store.unload()


def test_a_load_cancelled_at_any_block_leaves_no_byte(demo: Path, backend: CudaBackend) -> None:
    component = _dit(demo, backend)
    chunks = 0

    def count(num_bytes: int) -> None:
        nonlocal chunks
        chunks += 1

    component.begin_load(backend, None, 0.0, lambda _loading: None).run(count)
    component.unload()
    empty = backend.held_bytes()
    for stop in range(1, chunks, max(1, chunks // 6)):
        left = stop

        def cancel(num_bytes: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise JobCancelled("cancelled")

        loading = component.begin_load(backend, None, 0.0, lambda _loading: None)
        loading.run(cancel)
        assert isinstance(loading.failure, JobCancelled)
        component.unload()
        assert backend.held_bytes() <= empty
    component.begin_load(backend, None, 0.0, lambda _loading: None).run()
    assert _same_as_file(component)
    component.unload()


@pytest.fixture
def make(demo: Path, backend: CudaBackend, tmp_path: Path) -> Callable[[int], tuple[Manifest, list[Receipt]]]:
    """Runs the two-expert job within a budget, with a store of its own."""
    image = tmp_path / "first.png"
    Image.new("RGB", (64, 64), (200, 80, 40)).save(image)

    def run(budget_bytes: int) -> tuple[Manifest, list[Receipt]]:
        seen: list[Receipt] = []
        store = ComponentStore(backend, on_component=lambda change: None, on_moved=seen.append)
        manifest, _ = run_job(
            RunJob(
                job_id=1,
                attempt=1,
                spec=JobSpec(model=I2V, prompt="it moves", image=str(image), frames=17, steps=4, seed=7),
                model=ModelFiles(name=I2V, kind="i2v", path=str(demo / I2V)),
                width=128,
                height=128,
                output=str(tmp_path / "clip.mp4"),
                budget_bytes=budget_bytes,
                stage_bytes=dict.fromkeys(get_args(Stage), 2**20),
            ),
            store,
            backend,
            report=lambda progress: None,
            cancelled=lambda: False,
        )
        largest = max(item.bytes for item in store.components())
        store.unload()
        seen.append(Receipt(action="free", target=str(largest), ok=True, elapsed_s=0.0, proof="allocator"))
        return manifest, seen

    return run


def test_experts_that_change_places_make_the_same_frames(
    make: Callable[[int], tuple[Manifest, list[Receipt]]], backend: CudaBackend
) -> None:
    roomy, moves = make(2**40)
    assert not any(receipt.action == "swap" for receipt in moves)
    largest = int(moves[-1].target)
    empty = backend.held_bytes()
    for _ in range(3):
        tight, moves = make(largest + 2**20)
        assert any(receipt.action == "swap" and receipt.ok for receipt in moves)
        assert tight.frames_sha256 == roomy.frames_sha256
    assert backend.held_bytes() <= empty


def test_allocator_settings_are_told_by_the_allocator_itself() -> None:
    code = (
        "import torch\n"
        "from engine.worker.allocator import apply_allocator, read_allocator\n"
        "apply_allocator('max_split_size_mb:128,expandable_segments:True')\n"
        "torch.cuda.init()\n"
        "print(read_allocator('cuda'))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "max_split_size:134217728" in ran.stdout, ran.stderr[-2000:]
    assert "expandable_segments:True" in ran.stdout


def test_using_a_reference_that_went_stale_ends_its_own_process_only() -> None:
    code = (
        "import torch\n"
        "from engine.worker.cuda import CudaBackend\n"
        "backend = CudaBackend()\nbackend.connect()\n"
        "memory = backend.new_memory(2**28)\n"
        "leaked = memory.commit()[:1024]\n"
        "memory.release(); backend.free_cache()\n"
        "print(backend.held_bytes())\n"
        "try:\n"
        "    leaked.sum().item()\n"
        "except RuntimeError as error:\n"
        "    print('refused', type(error).__name__)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.splitlines()[0] == "0", ran.stderr[-2000:]


def test_a_hard_cleanup_is_proved_and_brings_back_what_was_there(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model=LARGE)).ok
    before = live.worker_pid()
    receipt = live.client.cleanup(CleanupRequest(reload=True))
    print(receipt)
    assert receipt.ok
    assert receipt.proof == "nvml-process"
    assert receipt.residue_bytes == 0
    assert receipt.loaded_bytes > 0
    assert live.worker_pid() not in (None, before)
    again = live.client.switch(SwitchRequest(model=LARGE))
    assert (again.ok, again.loaded_bytes) == (True, 0)


def test_park_leaves_nothing_of_ours_on_the_card(live: LiveEngine) -> None:
    assert live.client.switch(SwitchRequest(model=LARGE)).ok
    receipt = live.client.park()
    print(receipt)
    assert (receipt.ok, receipt.residue_bytes) == (True, 0)
    assert live.worker_pid() is None
    assert live.client.unload(UnloadRequest()).returned_bytes == 0
