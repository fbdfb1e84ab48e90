"""A look into a worker: what is live beside what the engine keeps, in a job and beside one."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.worker.channel import ModelFiles, RunJob
from engine.worker.cpu import CpuBackend
from engine.worker.host_tensors import Regions, live_tensor_bytes
from engine.worker.leaks import graph, inspector, tracing
from engine.worker.leaks.facts import Findings, Inspect, Inspected, LiveTensors, Trace
from engine.worker.leaks.inspector import Inspector
from engine.worker.leaks.look import look
from engine.worker.leaks.tracing import UNSEEN, UNTRACED, Tracer
from engine.worker.pipeline import run_job
from engine.worker.store import ComponentStore
from tests.unit.worker import leak_plants as plants
from tests.unit.worker.conftest import SMALL

BYTES = 64 * 1024 * 4


@pytest.fixture(autouse=True)
def _clear(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(graph, "MOST_FROZEN", 60_000)
    # A look has little time, and on a busy machine less than it took for its first finding.
    monkeypatch.setattr(graph, "MOST_FROZEN_S", 30.0)
    monkeypatch.setattr("engine.worker.leaks.look.HOLDERS_S", 30.0)
    gc.collect()
    yield
    plants.clear()
    gc.collect()


@pytest.fixture
def seen_now(backend: CpuBackend, store: ComponentStore) -> Callable[..., Findings]:
    def see(tracer: Tracer | None = None, job_id: int | None = None) -> Findings:
        tracer = Tracer("cpu") if tracer is None else tracer
        return look(backend=backend, store=store, tracer=tracer, roots={}, job_id=job_id)

    return see


def planted(found: Findings) -> list[LiveTensors]:
    return [item for item in found.tensors if item.holder.file == plants.__file__]


def test_tensors_of_one_list_are_one_finding_however_many_look_into_them(
    seen_now: Callable[..., Findings],
) -> None:
    plants.KEPT.extend([plants.new(), plants.new(), plants.new()])
    plants.BY_NAME["view"] = plants.KEPT[2][3:5]
    found = planted(seen_now())
    assert sorted((item.bytes // BYTES, item.storages) for item in found) == [(1, 1), (2, 2)]
    listed = next(item for item in found if item.storages == 2)
    assert (listed.place, listed.shape, listed.dtype) == ("host", plants.SHAPE, "float32")
    assert not listed.running and not listed.pinned
    assert listed.site is None and listed.site_reason == UNTRACED
    assert all(item.bytes >= BYTES for item in found)


def test_what_answers_by_code_of_its_own_is_not_asked(
    seen_now: Callable[..., Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    plants.HELD.append(plants.Proxy(plants.new()))
    assert object.__getattribute__(plants.HELD[0], "__dict__")  # from here on a table of its own
    monkeypatch.setitem(sys.modules, "plants_that_are_not_there", plants.HELD[0])
    plants.BY_NAME["own"] = torch.Tensor._make_subclass(plants.Refusing, plants.new())
    own, proxied = sorted(planted(seen_now()), key=lambda item: item.holder.path)
    assert own.holder.path[1:] == ("BY_NAME", "[own]") and own.shape == plants.SHAPE
    assert proxied.holder.path[1:] == ("HELD", "[0]", f"{plants.__name__}.Proxy.kept")
    assert live_tensor_bytes(Regions()) >= 2 * BYTES


def test_a_context_variable_of_the_thread_is_a_holder(seen_now: Callable[..., Findings]) -> None:
    before = plants.VARIABLE.set((plants.new(),))
    try:
        (found,) = planted(seen_now())
    finally:
        plants.VARIABLE.reset(before)
    assert not found.running and found.holder.kind == "global"
    assert found.holder.path == ("the thread's context", "variable plant", "[0]")
    assert found.holder.line == plants.line_of("VARIABLE =")


def test_pairs_in_a_table_are_one_finding_and_names_of_a_module_are_not(
    seen_now: Callable[..., Findings],
) -> None:
    plants.BY_NAME["pairs"] = [(number, plants.new()) for number in range(20)]
    plants.make_global()
    found = planted(seen_now())
    assert sorted(item.storages for item in found) == [1, 20]


def test_resident_weights_are_accounted_for_and_absent_ones_are_nothing(
    store: ComponentStore, files: Callable[[str], ModelFiles], seen_now: Callable[..., Findings]
) -> None:
    before = seen_now()
    assert store.restore([(files(SMALL), "vae")]).ok
    there = seen_now()
    label = f"weights {SMALL}/vae"
    component = store.component(files(SMALL), "vae")
    assert there.accounted[label] == component.arena.held_bytes > 0
    assert sum(item.bytes for item in there.tensors) - sum(item.bytes for item in before.tensors) < BYTES
    assert any(item.bytes == there.accounted[label] for item in there.segments)
    store.unload()
    gone = seen_now()
    assert label not in gone.accounted
    assert sum(item.bytes for item in gone.tensors) - sum(item.bytes for item in before.tensors) < BYTES


def test_a_job_s_own_tensors_run_and_a_plant_of_it_does_not_nor_does_anything_stay(
    store: ComponentStore,
    backend: CpuBackend,
    job: Callable[..., RunJob],
    seen_now: Callable[..., Findings],
) -> None:
    untraced, _ = run_job(job(), store, backend, report=lambda _: None, cancelled=lambda: False)
    tracer, looks = Tracer("cpu"), list[Findings]()
    tracer.switch(True)

    def between_steps() -> bool:
        if len(looks) == 4:
            plants.KEPT.append(plants.new())
        looks.append(seen_now(tracer, 3))
        return False

    with tracer.job():
        traced, _ = run_job(job(), store, backend, report=lambda _: None, cancelled=between_steps)
    assert traced.frames_sha256 == untraced.frames_sha256
    assert len(looks) > 5
    busiest = max(looks, key=lambda found: sum(item.bytes for item in found.tensors if item.running))
    running = [item for item in busiest.tensors if item.running]
    assert running and busiest.job_id == 3
    assert any(
        item.site and item.site.file.endswith(("denoise.py", "pipeline.py", "text.py")) for item in running
    )
    (plant,) = planted(looks[-1])
    assert plant.site is not None and not plant.running
    assert (plant.site.file, plant.site.function) == (plants.__file__, "new")
    assert plant.site.line == plants.line_of("return torch.ones(SHAPE)")
    assert any(site.file == plants.__file__ and site.bytes == BYTES for site in looks[-1].sites)
    assert looks[-1].tracing.on and looks[-1].tracing.entries > 0
    plants.KEPT.clear()
    after = seen_now(tracer)
    assert not [item for item in after.tensors if item.running and item.site]
    assert not planted(after)


def test_off_nothing_is_in_the_way_and_on_it_ends_with_its_job() -> None:
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as modes

    tracer = Tracer("cpu")
    with tracer.job():
        assert modes() == []
        plants.KEPT.append(plants.new())
    tracer.switch(True)
    assert modes() == []
    with pytest.raises(RuntimeError), tracer.job():
        assert len(modes()) == 1
        raise RuntimeError
    assert modes() == [] and len(tracer.noted) == 0
    assert tracer.site_of_storage(plants.KEPT[0].untyped_storage()) == (None, UNSEEN)


def test_tracing_takes_nothing_of_torchs_compiler() -> None:
    """Its import takes seconds and a hundred MiB of the worker, with the first operation that is traced."""
    assert not hasattr(tracing._Noting.__torch_dispatch__, "__wrapped__")
    assert tracing._Noting(Tracer("cpu")).__torch_dispatch__.__module__ == tracing.__name__


def test_what_an_operation_returns_is_noted_as_far_as_it_is_new() -> None:
    tracer = Tracer("cpu")
    tracer.switch(True)
    old = torch.ones(64, 64)
    with tracer.job(), torch.inference_mode():
        same = old.to(torch.float32).contiguous().reshape(-1)
        parts = [*old.split(1), *torch.unbind(old)]
        assert len(tracer.noted) == 0, "all of it is what there was"
        new = [old.half(), old.t().contiguous(), torch.empty_like(old), torch.cat([old, old])]
        new += [*torch.sort(old), torch.full((600,), 1.0), torch.nn.functional.linear(old, old)]
        assert len(tracer.noted) == len(new)
        for tensor in new:
            assert tracer.site_of_storage(tensor.untyped_storage())[0] is not None
    del same, parts


def test_views_are_not_new_and_what_is_freed_or_too_much_is_forgotten() -> None:
    tracer = Tracer("cpu")
    tracer.switch(True)
    old = plants.new()
    with tracer.job(), torch.inference_mode():
        view = old[2:]
        old.add_(1)
        assert len(tracer.noted) == 0
        assert tracer.site_of_storage(view.untyped_storage())[0] is None
        new = old.reshape(-1) * 2
        assert tracer.site_of_storage(new.untyped_storage())[0] is not None
        del new
        tracer.noted.sweep()
        assert len(tracer.noted) == 0
        tracer.noted._most = 8
        kept = [torch.zeros(300) for _ in range(20)]
        assert len(tracer.noted) <= 8
        assert tracer.site_of_storage(kept[-1].untyped_storage())[0] is not None
        tracer.switch(False)
        torch.zeros(300)
        last = torch.zeros(300)
        assert tracer.site_of_storage(last.untyped_storage())[0] is None


def test_the_cost_of_tracing_is_of_the_same_steps_both_ways() -> None:
    tracer, shape = Tracer("cpu"), ("m", 32)
    began = tracer.began_job()
    tracer.ended_job(began, shape, (2.0, 1.0))
    tracer.ended_job(began, shape, (3.0, 1.2))
    assert tracer.state().cost_share is None
    tracer.switch(True)
    tracer.ended_job(began, shape, (90.0, 90.0))  # switched in its midst
    assert tracer.state().cost_share is None
    tracer.ended_job(tracer.began_job(), ("other", 1), (9.0,))
    assert tracer.state().cost_share is None
    tracer.ended_job(tracer.began_job(), shape, (2.1, 1.05))
    assert tracer.state().cost_share == pytest.approx(0.05)


def test_nothing_of_a_look_stays(seen_now: Callable[..., Findings]) -> None:
    plants.KEPT.append(plants.new())
    gc.collect()
    gc.disable()
    try:
        seen_now()  # what each first use keeps for good, such as the empty tables of running frames
        before = len(gc.get_objects())
        for _ in range(3):
            seen_now()
        after = len(gc.get_objects())
    finally:
        gc.enable()
    assert after - before < 5


def test_a_look_at_100_000_objects_takes_less_than_two_seconds(seen_now: Callable[..., Findings]) -> None:
    table: list[object] = [{"number": [number], "next": (number, [])} for number in range(25_000)]
    plants.HELD.append(table)
    plants.KEPT.extend(torch.empty(10) for _ in range(2000))
    began = time.thread_time()  # of this thread: other load on the machine is no part of it
    found = seen_now()
    elapsed = time.thread_time() - began
    assert found.objects > 100_000 and elapsed < 2.0
    assert any(item.storages == 2000 for item in planted(found))


# --------------------------------------------------------------------------- asked from outside


@pytest.fixture
def asked(backend: CpuBackend, store: ComponentStore) -> tuple[Inspector, list[Inspected], threading.Event]:
    answers: list[Inspected] = []
    came = threading.Event()

    def send(answer: Inspected) -> None:
        answers.append(answer)
        came.set()

    return Inspector(backend, store, root=object(), send=send), answers, came


Asked = tuple[Inspector, list[Inspected], threading.Event]


def test_the_thread_that_computes_answers_between_steps(asked: Asked) -> None:
    inspected, answers, _ = asked
    with inspected.job(5):
        inspected.ask(Inspect(inspection_id=1))
        assert answers == []
        inspected.serve()
    assert inspected.job_id is None
    assert answers[0].inspection_id == 1 and answers[0].refusal is None
    assert answers[0].findings is not None and answers[0].findings.job_id == 5


def test_another_thread_answers_while_that_one_is_in_a_long_call(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "PATIENCE_S", 0.01)
    inspected, answers, came = asked
    plants.KEPT.append(plants.new())
    inspected.ask(Inspect(inspection_id=2))
    assert came.wait(20)
    inspected.serve()
    assert len(answers) == 1 and answers[0].findings is not None
    assert planted(answers[0].findings)


def test_late_looks_at_once_leave_the_interval_of_threads_as_it_was(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected, answers, _ = asked
    usual, within = sys.getswitchinterval(), list[float]()

    def slow(**_: Any) -> Findings:
        within.append(sys.getswitchinterval())
        time.sleep(0.02)
        return Findings(at=0, elapsed_s=0, pid=1, objects=0, tracing=inspected.tracer.state())

    monkeypatch.setattr(inspector, "PATIENCE_S", 0.001)
    monkeypatch.setattr(inspector, "look", slow)
    for number in range(6):
        inspected.ask(Inspect(inspection_id=number))
        time.sleep(0.015)
    deadline = time.monotonic() + 20
    while threading.active_count() > 1 and len(answers) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    with inspected._late:
        assert sys.getswitchinterval() == pytest.approx(usual)
    assert len(answers) == 6 and max(within) == pytest.approx(inspector.UNDISTURBED_S)


def test_tracing_is_switched_at_once(asked: Asked) -> None:
    inspected, answers, _ = asked
    inspected.ask(Trace(inspection_id=3, on=True))
    assert answers[0].tracing.on and answers[0].tracing.since is not None and answers[0].tracing.limit > 0
    inspected.ask(Trace(inspection_id=4, on=False))
    assert not answers[1].tracing.on and answers[1].tracing.since is None


def test_exports_are_json_on_cpu_and_a_snapshot_for_memory_viz_is_refused(
    asked: Asked, tmp_path: Path
) -> None:
    inspected, answers, _ = asked
    plants.KEPT.append(plants.new())
    for number, (path, kind) in enumerate(
        [(tmp_path / "a.json", "json"), (tmp_path / "a.pickle", "pickle"), (tmp_path / "no" / "a", "json")]
    ):
        message: Any = Inspect(inspection_id=number, export=str(path), export_format=kind)  # type: ignore[arg-type]
        inspected.ask(message)
        inspected.serve()
    data = (tmp_path / "a.json").read_bytes()
    assert answers[0].exported_bytes == len(data) and "KEPT" in str(json.loads(data)["tensors"])
    assert "memory_viz" in (answers[1].refusal or "") and not (tmp_path / "a.pickle").exists()
    assert "cannot be written" in (answers[2].refusal or "")
    assert answers[1].exported_bytes is answers[2].exported_bytes is None


def test_a_look_that_fails_is_told_and_ends_nothing(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected, answers, _ = asked

    def broken(**_: Any) -> Findings:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(inspector, "look", broken)
    inspected.ask(Inspect(inspection_id=1))
    inspected.serve()
    assert answers[0].findings is None and "ZeroDivisionError: planted" in (answers[0].refusal or "")
