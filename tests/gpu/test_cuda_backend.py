"""The CUDA backend under the arena: exact bytes, whole weights, errors told apart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import JobCancelled
from engine.models.index import ComponentIndex, read_component_index
from engine.worker.arena import Arena
from engine.worker.backend import CHUNK_BYTES
from engine.worker.cuda import CudaBackend
from tests.gpu.backends import connected
from tests.unit.worker.conftest import load_arena

MIB = 2**20
ROUNDING = 2 * MIB
"""The allocator takes large segments from the driver in steps of this."""


@pytest.fixture(scope="module")
def backend() -> Iterator[CudaBackend]:
    backend = connected()
    backend.warm_up()
    yield backend


def _module(dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(
            nn.Linear(4096, 8192, dtype=dtype),
            nn.Linear(8192, 5000, dtype=dtype),
            nn.Linear(3, 5, dtype=dtype),
        )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[ComponentIndex, dict[str, Tensor]]:
    """A file of 285 MB whose large tensors take several chunks and more than the ring holds."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    shapes = {name: tuple(p.shape) for name, p in _module(torch.float32).named_parameters()}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    assert sum(tensor.nbytes for tensor in tensors.values()) > 17 * CHUNK_BYTES
    return read_component_index(folder), tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_whole_and_every_byte_goes_back(
    backend: CudaBackend, stored: tuple[ComponentIndex, dict[str, Tensor]], dtype: torch.dtype
) -> None:
    index, tensors = stored
    module = _module(dtype)
    arena = Arena(module, backend, label="test/mlp", dtypes={})
    assert load_arena(arena, index, backend).ok  # its first cast makes a buffer that stays
    arena.unload()
    backend.free_cache()
    empty = backend.held_bytes()
    for _ in range(3):
        assert load_arena(arena, index, backend).ok
        assert 0 <= backend.held_bytes() - empty - arena.bytes < ROUNDING
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor.cpu(), tensors[name].to(dtype)), name
        arena.unload()
        assert backend.held_bytes() == empty


def test_a_leaked_view_holds_nothing_back(
    backend: CudaBackend, stored: tuple[ComponentIndex, dict[str, Tensor]]
) -> None:
    index = stored[0]
    module = _module(torch.float32)
    arena = Arena(module, backend, label="test/mlp", dtypes={})
    empty = backend.held_bytes()
    assert load_arena(arena, index, backend).ok
    leaked = next(module.parameters()).data
    arena.unload()
    assert backend.held_bytes() == empty
    assert load_arena(arena, index, backend).ok
    assert torch.equal(leaked, next(module.parameters()))
    arena.unload()


def test_a_cancelled_load_leaves_no_byte_and_the_next_one_is_whole(
    backend: CudaBackend, stored: tuple[ComponentIndex, dict[str, Tensor]]
) -> None:
    index, tensors = stored
    module = _module(torch.float32)
    arena = Arena(module, backend, label="test/mlp", dtypes={})
    empty = backend.held_bytes()
    seen: list[int] = []

    def cancel(num_bytes: int) -> None:
        seen.append(num_bytes)
        if len(seen) == 5:
            raise JobCancelled("cancelled")

    assert isinstance(load_arena(arena, index, backend, cancel).failure, JobCancelled)
    assert backend.held_bytes() == empty
    assert load_arena(arena, index, backend).ok
    assert all(torch.equal(t.cpu(), tensors[name]) for name, t in module.state_dict().items())
    arena.unload()


def test_a_region_larger_than_the_card_is_out_of_memory_and_not_fatal(backend: CudaBackend) -> None:
    memory = backend.new_memory(2 * backend.total_bytes)
    with pytest.raises(RuntimeError) as refused:
        memory.commit()
    assert backend.is_oom(refused.value)
    assert not backend.is_fatal(refused.value)
    memory.release()
    assert backend.new_memory(MIB).commit().numel() == MIB


def test_the_sample_counts_what_moved(backend: CudaBackend) -> None:
    before = backend.sample({})
    memory = backend.new_memory(64 * MIB)
    memory.commit()
    during = backend.sample({"a/dit": 64 * MIB})
    memory.release()
    backend.free_cache()
    after = backend.sample({})
    assert during.allocated_bytes is not None and before.allocated_bytes is not None
    assert during.allocated_bytes - before.allocated_bytes == 64 * MIB
    assert before.device_allocs < during.device_allocs < after.device_allocs


def test_a_broken_context_is_fatal() -> None:
    code = (
        "import torch\n"
        "from engine.worker.cuda import CudaBackend\n"
        "from engine.worker.faults import as_engine_error\n"
        "backend = CudaBackend()\nbackend.connect()\n"
        "try:\n"
        "    torch.zeros(4, device='cuda')[torch.tensor([9], device='cuda')].cpu()\n"
        "except RuntimeError as error:\n"
        "    print(as_engine_error(error, backend, 'testing').code)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "device_fault", ran.stderr[-2000:]
