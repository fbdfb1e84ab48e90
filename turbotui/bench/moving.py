"""The rows about moving weights alone: unload, loads, switches and cleanup, each from request to receipt."""

from __future__ import annotations

import time
from collections.abc import Iterator

from engine.wire import CleanupRequest, Receipt, WarmRequest
from turbotui.bench.drift import component_residency, residency
from turbotui.bench.roles import Role
from turbotui.bench.rows import Row, unmeasured
from turbotui.bench.run import Run, Series, load_step, steps_text

SETTLE_S = 60.0
"""Registering what was loaded goes on after the load: 28.6 GB at 10 GB/s and more."""
CLEARED_S = 0.25
"""What the driver gets to clear memory that was given back: it does 28.6 GB in 0.06 s."""
REST_S = 2.0
"""In which a worker does what it leaves for when nobody asks anything of it."""
ENOUGH = 0.98
"""Of a component's bytes registered: the rest may be refused by the budget or be at the file's edges."""
COLD_RUNS = 2
"""Each takes as long as the disk does: 16 s for 28.6 GB at 1.8 GB/s."""
COLD_SHARE = 0.02
"""What may be left in the page cache of a file that is called cold."""
STILL = 10
"""Looks, half a second apart, between which nothing more was registered."""
DIT = "dit"


def measure_loads(run: Run) -> Iterator[Row]:
    """Unload of the large DiT, and its load back from registered pages, in turn."""
    name = run.cast.name("large")
    run.switch("large")
    _settle(run, "large")
    found = component_residency(run.engine.model(name), DIT)
    unload, load = Series(name="unload"), Series(name="load_registered")
    with run.drift() as drift:
        for _ in range(run.cycles):
            run.switch("large")
            taken, receipt = run.unload("large", DIT)
            unload.add(taken, receipt.elapsed_s)
            unload.note(_proof(receipt))
            if receipt.residue_bytes:
                unload.note(f"residue {receipt.residue_bytes} bytes: {', '.join(receipt.residue)}")
            _, receipt = run.switch("large")
            at_once = load_step(receipt, f"{name}/{DIT}")
            # Memory that was given back is cleared by the driver before it is given out again: a load
            # straight after an unload of as much waits for that, one at any later moment does not.
            run.unload("large", DIT)
            time.sleep(CLEARED_S)
            _, receipt = run.switch("large")
            step = load_step(receipt, f"{name}/{DIT}")
            load.add((step.bytes or 0) / step.elapsed_s / 1e9)
            run.plain_once()
    load.note(_warm_state(run))
    load.note(f"straight after its unload {(at_once.bytes or 0) / at_once.elapsed_s / 1e9:.1f} GB/s")
    yield unload.row(run, drift=drift, residency=found)
    if run.on_gpu:
        yield load.row(run, drift=drift, residency=found)
    else:
        yield unmeasured("load_registered", "no GPU: there is no driver to register pages with")


def measure_first_load(run: Run) -> Iterator[Row]:
    """The large DiT's load by a fresh worker: registrations ended with the one before, the pages stay."""
    name = run.cast.name("large")
    run.switch("large")
    series = Series(name="load_page_cache")
    found = component_residency(run.engine.model(name), DIT)
    with run.drift() as drift:
        for _ in range(run.cycles):
            run.timed(run.engine.client.park)
            # The small one first: text encoder and VAE are there then, as in the other load's runs.
            run.switch("small" if "small" in run.roles else "large")
            if "small" not in run.roles:
                run.unload("large", DIT)
            _, receipt = run.switch("large")
            step = load_step(receipt, f"{name}/{DIT}")
            series.add((step.bytes or 0) / step.elapsed_s / 1e9)
            run.plain_once()
    series.note(_warm_state(run))
    if "small" not in run.roles:
        series.note("the small model is missing, so the same worker had loaded it before: not a first load")
    yield series.row(run, drift=drift, residency=found)


def measure_cold_load(run: Run) -> Iterator[Row]:
    """The large DiT's load when the page cache holds nothing of it: the disk's rate and no more."""
    name = run.cast.name("large")
    run.switch("large")
    series = Series(name="load_cold")
    left = 0.0
    with run.drift() as drift:
        for _ in range(min(run.cycles, COLD_RUNS)):
            run.unload("large", DIT)
            run.timed(lambda: run.engine.client.drop_warm(WarmRequest(model=name, component=DIT)))
            found = component_residency(run.engine.model(name), DIT)
            left = max(left, found.cached_share or 0.0)
            _, receipt = run.switch("large")
            step = load_step(receipt, f"{name}/{DIT}")
            series.add((step.bytes or 0) / step.elapsed_s / 1e9)
    if found.cached_share is None:
        series.note("whether the files had left the page cache is not known here")
    elif left > COLD_SHARE:
        series.note(f"not cold: {left:.0%} stayed in the page cache")
    yield series.row(run, drift=drift, residency=found)


def measure_switches(run: Run) -> Iterator[Row]:
    """Small to large and back; text encoder and VAE are the same files and stay where they are."""
    names = [run.cast.name("small"), run.cast.name("large")]
    run.switch("large")
    _settle(run, "large")
    run.switch("small")
    _settle(run, "small")
    found = residency(*map(run.engine.model, names))
    there, back = Series(name="switch_small_large"), Series(name="switch_large_small")
    with run.drift() as drift:
        for _ in range(run.cycles):
            run.switch("small")
            taken, to_large = run.switch("large")
            there.add(taken, to_large.elapsed_s)
            taken, to_small = run.switch("small")
            back.add(taken, to_small.elapsed_s)
            run.plain_once()
    there.note(steps_text(to_large))
    back.note(steps_text(to_small))
    yield there.row(run, drift=drift, residency=found)
    yield back.row(run, drift=drift, residency=found)


def measure_both_experts(run: Run) -> Iterator[Row]:
    """Large to the model of two experts, both of which must be there afterwards."""
    model = run.engine.model(run.cast.name("two"))
    run.switch("two")
    _settle(run, "two")
    found = residency(run.engine.model(model.name))
    series = Series(name="switch_large_two")
    both = sum(part.bytes for part in model.components if part.name.startswith(DIT))
    with run.drift() as drift:
        for _ in range(run.cycles):
            run.switch("large")
            taken, receipt = run.switch("two")
            series.add(taken, receipt.elapsed_s)
            if receipt.loaded_bytes < both:
                series.note(
                    f"not both: {receipt.loaded_bytes / 1e9:.1f} of {both / 1e9:.1f} GB were loaded, "
                    "the rest did not fit"
                )
    series.note(steps_text(receipt))
    series.note(_warm_state(run))
    yield series.row(run, drift=drift, residency=found)


def measure_cleanup(run: Run) -> Iterator[Row]:
    """Kill the worker with the large model on it, until a fresh one has it again and is warm.

    Its files are registered and it is at rest, as when somebody comes and looks for memory.
    """
    model = run.engine.model(run.cast.name("large"))
    run.switch("large")
    found = residency(model)
    series = Series(name="cleanup")
    steps: dict[str, list[float]] = {}
    with run.drift() as drift:
        for _ in range(run.cycles):
            run.switch("large")
            _settle(run, "large")
            time.sleep(REST_S if run.on_gpu else 0)
            taken, receipt = run.timed(lambda: run.engine.client.cleanup(CleanupRequest(reload=True)))
            series.add(taken, receipt.elapsed_s)
            for step in receipt.steps:
                name = "worker ready" if step.name.endswith("ready") else step.name
                steps.setdefault(name, []).append(step.elapsed_s)
            if not receipt.loaded_bytes:
                series.note("nothing was loaded again")
            run.plain_once()
    series.note(", ".join(f"{name} {sorted(taken)[len(taken) // 2]:.3f} s" for name, taken in steps.items()))
    yield series.row(run, drift=drift, residency=found)


def _settle(run: Run, role: Role) -> None:
    """Wait until the model's DiTs are registered, or no more of them will be."""
    if not run.on_gpu:
        return
    name = run.cast.name(role)
    deadline, last, still = time.monotonic() + SETTLE_S, -1, 0
    while time.monotonic() < deadline and still < STILL:
        workers = run.engine.client.status().workers
        if not workers or workers[0].warm_refusal is not None:
            return
        parts = [part for part in run.engine.model(name).components if part.name.startswith(DIT)]
        if all((part.warm_bytes or 0) >= ENOUGH * part.bytes for part in parts):
            return
        warm_bytes = workers[0].warm_bytes or 0
        still = still + 1 if warm_bytes == last else 0
        last = warm_bytes
        time.sleep(0.5)


def _proof(receipt: Receipt) -> str:
    return f"proof: {receipt.proof}" + (f" ({receipt.proof_reason})" if receipt.proof_reason else "")


def _warm_state(run: Run) -> str:
    """Which way the weights took, as the worker tells it."""
    workers = run.engine.client.status().workers
    if not run.on_gpu or not workers:
        return "read from the page cache"
    worker = workers[0]
    if worker.warm_refusal is not None:
        return f"through pinned buffers: {worker.warm_refusal}"
    rate = (
        "not registered yet"
        if worker.warm_rate is None
        else f"registers at {worker.warm_rate / 1e9:.1f} GB/s"
    )
    return f"{(worker.warm_bytes or 0) / 1e9:.1f} GB registered by this worker, which {rate}"
