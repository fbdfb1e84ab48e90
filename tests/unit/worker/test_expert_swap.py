"""Experts that take each other's bytes: the same frames, one region, and never a mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from engine.errors import JobCancelled, ModelUnusable, NotResident
from engine.wire import Manifest
from engine.worker.backend import Backend, Batch
from engine.worker.channel import ModelFiles, RunJob
from engine.worker.components import Component, Model
from engine.worker.cpu import CpuBackend
from engine.worker.expert_swap import ExpertSwap
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore

from .conftest import I2V, STAGE_BYTES, Seen

Files = Callable[[str], ModelFiles]
HIGH, LOW = "dit.high", "dit.low"
SEGMENTS = 7
"""Of an expert: what lies outside its blocks, and six blocks."""
Run = Callable[..., Manifest]


class WatchedBackend(CpuBackend):
    """Asks `before(source path)` before it copies a segment's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[str], None] = lambda path: None

    def copy(self, batches: Iterable[Batch], moved: Callable[[int], None]) -> None:
        for batch in batches:
            parts = list(batch.parts)
            self.before(str(parts[0].source.path) if parts else "")  # type: ignore[attr-defined]
            super().copy([replace(batch, parts=parts)], moved)


class KnownPrompts:
    """The embeddings of one text encoder, each made once: the experts are what is tested here."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def find(self, model: Model, prompt: str, backend: Backend) -> Tensor | None:
        return self._kept.get(prompt)

    def keep(self, model: Model, prompt: str, tensor: Tensor) -> str | None:
        self._kept[prompt] = tensor
        return None


@pytest.fixture
def backend() -> WatchedBackend:
    return WatchedBackend()


@pytest.fixture(scope="module")
def known_prompts() -> KnownPrompts:
    return KnownPrompts()


@pytest.fixture
def experts(store: ComponentStore, files: Files) -> tuple[Component, Component]:
    components = store.open(files(I2V)).components
    high, low = components[HIGH], components[LOW]
    assert len(high.arena.layout.segments) == SEGMENTS
    assert high.arena.layout == low.arena.layout
    return high, low


@pytest.fixture
def run(
    store: ComponentStore,
    files: Files,
    job: Callable[..., RunJob],
    backend: CpuBackend,
    seen: Seen,
    experts: tuple[Component, Component],
    known_prompts: KnownPrompts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A job of both experts and one frame, with the memory of one expert unless `roomy`."""
    picture = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.radial_gradient("L").convert("RGB").save(picture)
    largest = max(item.bytes for item in store.open(files(I2V)).components.values())

    def run(*, roomy: bool = False, cancelled: Callable[[], bool] = lambda: False) -> Manifest:
        budget = {} if roomy else {"budget_bytes": largest + STAGE_BYTES}
        made = job(I2V, image=str(picture), frames=1, steps=4, **budget)
        return run_job(
            made,
            store,
            backend,
            report=seen.progress.append,
            cancelled=cancelled,
            embeddings=known_prompts,
        )[0]

    return run


@contextmanager
def _before_block(component: Component, number: int, act: Callable[[], None]) -> Iterator[None]:
    """`act` runs before each forward of a block of the expert."""
    hook = component.module.blocks[number].register_forward_pre_hook(lambda module, args: act())  # type: ignore[index,union-attr]
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """The frames of a job that has both experts resident from the start, once for all tests."""
    return {}


@pytest.fixture
def expected(known: dict[str, str], run: Run, store: ComponentStore, seen: Seen) -> str:
    if not known:
        known["frames"] = run(roomy=True).frames_sha256
        store.unload()
        seen.receipts.clear()
    return known["frames"]


def _swaps(seen: Seen) -> list[bool]:
    return [receipt.ok for receipt in seen.receipts if receipt.action == "swap"]


def _assert_whole(store: ComponentStore, seen: Seen, experts: tuple[Component, Component]) -> None:
    """Nothing broken or leased is left, and what is counted is what is attached."""
    store.settle()
    assert seen.leased() == set()
    for item in store.components():
        assert item.leases == 0
        assert not item.broken
        assert item.resident == item.arena.attached
        assert item.arena.held_bytes in (0, item.bytes)
    assert not any(block._forward_hooks for item in experts for block in item.module.blocks)  # type: ignore[union-attr]
    attached = {item.label: item.bytes for item in store.components() if item.arena.attached}
    assert store.weights() == attached


def test_a_swap_has_one_expert_s_bytes_and_makes_the_frames_of_both_resident(
    run: Run, store: ComponentStore, seen: Seen, experts: tuple[Component, Component], expected: str
) -> None:
    high, low = experts
    held: list[int] = []

    def count() -> None:
        of_experts = sum(size for name, size in store.weights().items() if "/dit." in name)
        held.append(max(of_experts, high.arena.held_bytes + low.arena.held_bytes))
        if high.arena.attached and low.arena.attached:
            assert high.arena._region is low.arena._region

    hooks = [
        part.register_forward_pre_hook(lambda module, args: count())
        for item in experts
        for part in (item.module, *item.module.blocks)  # type: ignore[union-attr]
    ]
    try:
        frames = run().frames_sha256
    finally:
        for hook in hooks:
            hook.remove()
    assert frames == expected
    assert _swaps(seen) == [True]
    assert max(held) <= high.bytes
    _assert_whole(store, seen, experts)


def test_what_came_by_a_swap_is_in_use_before_anybody_may_take_it_for_idle(
    run: Run,
    store: ComponentStore,
    seen: Seen,
    experts: tuple[Component, Component],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end_swap = store.end_swap

    def and_free(swap: ExpertSwap, *, finished: bool) -> None:
        end_swap(swap, finished=finished)
        store.free()  # a person asks in just this moment

    monkeypatch.setattr(store, "end_swap", and_free)
    assert run().frames_sha256 == expected
    loads = [receipt.target for receipt in seen.receipts if receipt.action == "load"]
    assert experts[1].label not in loads, "it was dropped, and loaded again for its step"
    _assert_whole(store, seen, experts)


def test_a_mixed_set_of_blocks_is_refused_in_both_experts(
    store: ComponentStore, files: Files, experts: tuple[Component, Component]
) -> None:
    high, low = experts
    model = store.open(files(I2V))
    store.begin(files(I2V), HIGH)
    assert high.loading is not None
    high.loading.wait(lambda: None)
    swap = store.begin_swap(model, HIGH, LOW, job_id=None)
    assert swap is not None
    for segment in (1, 2, 3):
        swap._leave(segment)
    blocks: Any = high.module.blocks, low.module.blocks  # type: ignore[assignment]
    for number in (0, 1, 2):
        with pytest.raises(NotResident, match=rf"{I2V}/dit\.high .* block {number + 1} holds {I2V}/dit\.low"):
            blocks[0][number](None, None, None, None)
    for number in (3, 4, 5):
        with pytest.raises(NotResident, match=rf"{I2V}/dit\.low .* block {number + 1} holds {I2V}/dit\.high"):
            blocks[1][number](None, None, None, None)
    with pytest.raises(NotResident, match=rf"{I2V}/dit\.low .* block 0 holds {I2V}/dit\.high"):
        low.module(None, None, None)
    assert high.arena.held_bytes + low.arena.held_bytes == high.bytes
    store.end_swap(swap, finished=False)
    assert store.weights() == {}
    assert not high.arena.attached and not low.arena.attached
    for item in experts:
        with pytest.raises(NotResident, match="lease it first"):
            item.module(None, None, None)


OUT_OF_MEMORY = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize(
    ("block", "error"),
    [*((block, MemoryError()) for block in range(SEGMENTS - 1)), (0, OUT_OF_MEMORY), (5, OUT_OF_MEMORY)],
)
def test_a_fault_in_the_pass_of_the_swap_makes_the_step_again(
    run: Run,
    store: ComponentStore,
    seen: Seen,
    experts: tuple[Component, Component],
    expected: str,
    block: int,
    error: Exception,
) -> None:
    raised: list[int] = []

    def fail() -> None:
        if experts[1].arena.attached and not raised:
            raised.append(block)
            raise error

    with _before_block(experts[0], block, fail):
        frames = run().frames_sha256
    assert raised == [block]
    assert frames == expected
    _assert_whole(store, seen, experts)
    assert run().frames_sha256 == expected


@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_a_read_that_fails_in_the_swap_makes_the_step_again(
    run: Run,
    store: ComponentStore,
    seen: Seen,
    backend: WatchedBackend,
    experts: tuple[Component, Component],
    expected: str,
    segment: int,
) -> None:
    read = 0

    def before(path: str) -> None:
        nonlocal read
        if "/transformer_2/" in path:
            read += 1
            if read == segment + 1:
                raise ModelUnusable("the disk had a bad moment")

    backend.before = before
    frames = run().frames_sha256
    assert frames == expected
    assert read == segment + 1 + SEGMENTS
    assert _swaps(seen) == [False]
    _assert_whole(store, seen, experts)
    assert run().frames_sha256 == expected


@pytest.mark.parametrize("block", range(SEGMENTS - 1))
def test_a_cancel_in_the_swap_ends_the_job_and_leaves_no_mixture(
    run: Run,
    store: ComponentStore,
    seen: Seen,
    experts: tuple[Component, Component],
    expected: str,
    block: int,
) -> None:
    reached: list[int] = []

    def cancel() -> None:
        if experts[1].arena.attached:
            reached.append(block)
            raise JobCancelled("job 3 was cancelled")

    with _before_block(experts[0], block, cancel), pytest.raises(JobCancelled):
        run()
    assert reached == [block]
    _assert_whole(store, seen, experts)
    assert not experts[0].arena.attached and not experts[1].arena.attached
    assert run().frames_sha256 == expected


def test_a_second_fault_ends_the_job_and_the_next_one_is_whole(
    run: Run, store: ComponentStore, seen: Seen, experts: tuple[Component, Component], expected: str
) -> None:
    armed = False

    def fail() -> None:
        nonlocal armed
        armed = armed or experts[1].arena.attached
        if armed:
            raise MemoryError

    with _before_block(experts[0], 2, fail), pytest.raises(Exception, match="no memory left"):
        run()
    _assert_whole(store, seen, experts)
    assert run().frames_sha256 == expected


def test_experts_that_are_both_resident_do_not_swap(
    run: Run, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: ExpertSwap, *args: Any, **more: Any) -> None:
        raise AssertionError("both are there")

    monkeypatch.setattr(ExpertSwap, "__init__", never)
    run(roomy=True)
    assert _swaps(seen) == []
