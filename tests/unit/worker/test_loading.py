"""Loads under compute: gates, faults at every place, and what is left of them: nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import JobCancelled, ModelUnusable
from engine.worker import stream
from engine.worker.backend import Batch, Mark
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, Model
from engine.worker.cpu import CpuBackend
from engine.worker.store import ComponentStore

from .conftest import BUDGET, SMALL, Seen, load

Files = Callable[[str], ModelFiles]
SEGMENTS = 6
"""Of the small model's DiT: what lies outside its blocks, and five blocks."""
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


class SteppedBackend(CpuBackend):
    """Asks `before(segment)` before it copies each segment's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[int], None] = lambda segment: None
        self.begun = 0
        self.copied = 0

    def copy(self, batches: Iterable[Batch], moved: Callable[[int], None]) -> None:
        for batch in batches:
            self.begun += 1
            self.before(self.begun - 1)
            super().copy([replace(batch, queued=partial(self._queued, batch))], moved)

    def _queued(self, batch: Batch, mark: Mark) -> None:
        self.copied += 1
        batch.queued(mark)


@pytest.fixture
def backend() -> SteppedBackend:
    return SteppedBackend()


def _forward(net: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    dtype = net.dtype
    with torch.inference_mode():
        out: Tensor = net(
            torch.randn(1, 16, 2, 4, 4, generator=generator).to(dtype),
            torch.tensor([932.0]),
            torch.randn(1, 8, net.config.text_dim, generator=generator).to(dtype),
        )
    return out


@pytest.fixture
def expected(store: ComponentStore, files: Files, backend: SteppedBackend) -> Tensor:
    """What the DiT computes when all of it was there before."""
    component = store.open(files(SMALL)).components["dit"]
    assert len(component.arena.layout.segments) == SEGMENTS
    load(component, backend)
    out = _forward(component.module)
    component.unload()
    backend.begun = backend.copied = 0
    return out


def _lease(store: ComponentStore, model: Model, **more: Any) -> Any:
    return store.lease(model, ("dit",), stage="denoise", stage_bytes=0, budget_bytes=BUDGET, **more)


def test_a_forward_waits_for_each_block_and_computes_the_same(
    store: ComponentStore, files: Files, backend: SteppedBackend, expected: Tensor
) -> None:
    allowed = threading.Semaphore(0)
    backend.before = lambda segment: allowed.acquire()  # type: ignore[assignment,return-value]
    model = store.open(files(SMALL))
    polled: list[int] = []
    at_block: list[int] = []

    def moved(component: Component, done: int, total: int) -> None:
        polled.append(done)
        if len(polled) > 1 and backend.begun > backend.copied:  # it waits in a forward
            allowed.release()

    with _lease(store, model, under_compute=True, moved=moved) as modules:
        net = modules["dit"]
        for block in net.blocks:
            block.register_forward_pre_hook(lambda module, args: at_block.append(backend.copied))
        assert backend.copied == 0
        assert torch.equal(_forward(net), expected)
        assert backend.copied == SEGMENTS
    # Each block began when its segment had been copied, and the first ones long before the last.
    assert all(copied >= segment + 1 for segment, copied in enumerate(at_block, start=1))
    assert at_block == sorted(at_block)
    assert at_block[0] < SEGMENTS
    assert len(polled) > SEGMENTS


def _cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(path, 4096)


def _unreadable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stream.os, "preadv", refuse)


def _touched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(path, ns=(1, 1))


def _gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.rename(path.with_suffix(".away"))


def _replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = path.stat()
    content = path.read_bytes()
    path.rename(path.with_suffix(".away"))
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def _repair(path: Path, original: bytes) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".away").unlink(missing_ok=True)
    path.write_bytes(original)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _torn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other numbers at the end of the file, in place: what was read before is of the old one."""
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))


FAULTS_UNDER_WAY = [
    (_cut, "is truncated: it ends at byte"),
    (_unreadable, "Input/output error"),
    (_torn, "changed since the model was opened: it was written to"),
]
FAULTS_BEFORE = [
    (_cut, "changed since the model was opened: it has 4096 bytes"),
    (_touched, "it was written to"),
    (_gone, "No such file|missing|cannot be read"),
    (_replaced, "another file under the same name"),
]


@pytest.mark.parametrize("under_way", [1, 4, SEGMENTS - 1])
@pytest.mark.parametrize(("fault", "said"), FAULTS_UNDER_WAY)
def test_a_fault_under_way_is_told_at_the_gate_and_leaves_nothing(
    store: ComponentStore,
    copy_of: Files,
    backend: SteppedBackend,
    seen: Seen,
    expected: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    said: str,
    under_way: int,
) -> None:
    own = copy_of(SMALL)
    path = Path(own.path) / WEIGHTS
    original = path.read_bytes()
    model = store.open(own)
    entered: list[int] = []
    opened = _open_files()
    with monkeypatch.context() as patch:
        backend.before = lambda segment: fault(path, patch) if segment == under_way else None
        with pytest.raises(ModelUnusable, match=said), _lease(store, model, under_compute=True) as modules:
            for number, block in enumerate(modules["dit"].blocks, start=1):
                block.register_forward_pre_hook(lambda module, args, number=number: entered.append(number))
            _forward(modules["dit"])
    # Those before the fault may be computed with; after it none is.
    assert entered == list(range(1, len(entered) + 1))
    assert len(entered) < under_way or under_way == 1 or fault is _torn
    assert len(entered) < SEGMENTS - 1, "the last block's gate stays shut"
    assert store.weights() == {}
    assert not model.components["dit"].arena.attached
    assert model.components["dit"].loading is None
    assert _open_files() == opened
    assert seen.leased() == set()

    backend.before = lambda segment: None
    _repair(path, original)
    with _lease(store, store.open(own), under_compute=True) as modules:
        assert torch.equal(_forward(modules["dit"]), expected)


@pytest.mark.parametrize("under_compute", [True, False])
@pytest.mark.parametrize(("fault", "said"), FAULTS_BEFORE)
def test_a_file_that_changed_since_it_was_opened_is_not_loaded(
    store: ComponentStore,
    copy_of: Files,
    expected: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    said: str,
    under_compute: bool,
) -> None:
    own = copy_of(SMALL)
    path = Path(own.path) / WEIGHTS
    original = path.read_bytes()
    model = store.open(own)
    fault(path, monkeypatch)
    opened = _open_files()
    with (
        pytest.raises(ModelUnusable, match=said),
        _lease(store, model, under_compute=under_compute) as modules,
    ):
        _forward(modules["dit"])
    assert store.weights() == {}
    assert not model.components["dit"].arena.attached
    assert _open_files() == opened
    _repair(path, original)
    with _lease(store, store.open(own), under_compute=under_compute) as modules:
        assert torch.equal(_forward(modules["dit"]), expected)


@pytest.mark.parametrize("under_compute", [True, False])
@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_a_cancel_at_any_segment_leaves_nothing(
    store: ComponentStore,
    files: Files,
    backend: SteppedBackend,
    seen: Seen,
    expected: Tensor,
    under_compute: bool,
    segment: int,
) -> None:
    model = store.open(files(SMALL))
    component = model.components["dit"]
    asked = threading.Event()

    def before(number: int) -> None:
        if number == segment and under_compute:
            assert asked.wait(10)

    def cancel(component: Component, done: int, total: int) -> None:
        if backend.begun > segment:
            asked.set()
            raise JobCancelled("job 3 was cancelled")

    backend.before = before
    opened = _open_files()
    backend.free_cache()
    held = backend.held_bytes()
    with (
        pytest.raises(JobCancelled, match="job 3"),
        _lease(store, model, under_compute=under_compute, moved=cancel) as modules,
    ):
        _forward(modules["dit"])
    assert backend.begun <= segment + 1
    assert store.weights() == {}
    assert not component.arena.attached
    assert component.loading is None
    assert _open_files() == opened
    assert seen.leased() == set()
    backend.free_cache()
    assert backend.held_bytes() - held < component.bytes // 4

    backend.before = lambda number: None
    with _lease(store, model) as modules:
        assert torch.equal(_forward(modules["dit"]), expected)


def test_a_restore_does_not_count_what_failed_while_it_waited_for_the_rest(
    store: ComponentStore, files: Files, backend: SteppedBackend
) -> None:
    own = files(SMALL)
    components = store.open(own).components
    vae, dit = components["vae"], components["dit"]

    def refuse(number: int) -> None:
        if number >= len(vae.arena.layout.segments):
            raise ModelUnusable("its disk is broken")

    backend.before = refuse
    store.begin(own, "vae")
    store.begin(own, "dit")
    assert dit.loading is not None
    dit.loading.wait(lambda: None)
    receipt = store.restore([(own, "vae"), (own, "dit")])
    assert not receipt.ok
    assert receipt.error is not None and "its disk is broken" in receipt.error
    assert receipt.loaded_bytes == vae.bytes
    assert set(store.weights()) == {f"{SMALL}/vae"}


@pytest.mark.parametrize("broken", [False, True], ids=["arrives", "fails"])
def test_a_switch_waits_for_weights_that_travel_already(
    store: ComponentStore, files: Files, backend: SteppedBackend, expected: Tensor, broken: bool
) -> None:
    own = files(SMALL)
    dit = store.open(own).components["dit"]
    begun, go_on = threading.Event(), threading.Event()

    def stall(number: int) -> None:
        if number == 1:
            begun.set()
            go_on.wait(10)
            if broken:
                raise ModelUnusable("its disk is broken")

    backend.before = stall
    store.begin(own, "dit")
    assert begun.wait(10)
    backend.before = lambda number: None
    ended: list[Any] = []
    switch = threading.Thread(target=lambda: ended.append(store.switch(own, BUDGET)))
    switch.start()
    switch.join(0.2)
    assert switch.is_alive(), "it may not say that it is there"
    go_on.set()
    switch.join(10)
    (receipt,) = ended
    assert receipt.ok is not broken
    if broken:
        assert "its disk is broken" in receipt.error
        assert dit.resident, "what was on its way before comes back"
    else:
        assert receipt.loaded_bytes == sum(item.bytes for item in store.open(own).components.values())
        assert torch.equal(_forward(dit.module), expected)


def test_a_lease_that_fails_takes_nothing_from_another_of_the_same_component(
    store: ComponentStore, files: Files, backend: SteppedBackend, expected: Tensor
) -> None:
    model = store.open(files(SMALL))
    go_on = threading.Event()
    backend.before = lambda segment: go_on.wait(10) if segment else None  # type: ignore[assignment,return-value]
    with _lease(store, model, under_compute=True) as modules:
        with pytest.raises(JobCancelled), _lease(store, model, under_compute=True):
            go_on.set()
            backend.before = lambda segment: None
            raise JobCancelled("cancelled")
        assert set(store.weights()) == {f"{SMALL}/dit"}
        assert torch.equal(_forward(modules["dit"]), expected)
