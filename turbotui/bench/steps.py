"""The rows about weights that travel under a job: to its first step, and between its experts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

from engine.errors import WorkFailed
from engine.wire import JobSpec, Manifest
from turbotui.bench.drift import residency, unloaded
from turbotui.bench.rows import Row, unmeasured
from turbotui.bench.run import Run, Series
from turbotui.bench.session import BenchEngine
from turbotui.bench.watch import Watch

BOUNDARY = 0.9
"""Timesteps below it are the low-noise expert's."""
SLACK = 1.01
"""On the least budget in which the job fits."""


def measure_first_step(run: Run) -> Iterator[Row]:
    """From the request until the device computes the first step, everything unloaded and the files warm."""
    model = run.engine.model(run.cast.name("large"))
    spec = run.cast.quickest("large")
    for prompt in (spec.prompt, "to load the libraries once"):
        run.engine.run(replace(spec, prompt=prompt))
    found = residency(run.engine.model(model.name))
    cached, new = Series(name="first_step_cached"), Series(name="first_step_new")
    last: dict[str, Manifest] = {}
    with run.drift() as drift:
        for number in range(run.cycles):
            for series, prompt in ((cached, spec.prompt), (new, f"{spec.prompt}, take {number}")):
                unloaded(run.engine)
                asked_at, manifest = run.engine.run(replace(spec, prompt=prompt))
                if manifest.first_step_at is None:
                    raise WorkFailed("the manifest does not say when the first step began")
                series.add(manifest.first_step_at - asked_at)
                last[series.name] = manifest
    for series in (cached, new):
        series.note(_described(last[series.name]))
        yield series.row(run, drift=drift, residency=found)


def measure_expert_swap(run: Run) -> Iterator[Row]:
    """The two steps around the experts' boundary with room for one expert, less those with room for both.

    Two engines after each other on the same device, since a GPU has one engine at a time: both, one,
    and both again.
    """
    spec = run.cast.with_swap()
    model = run.engine.model(spec.model)
    peak = run.engine.client.forecast(spec).peak_bytes
    found = residency(model)
    roomy, tight = _Jobs(), _Jobs()
    _run_jobs(run, run.engine, spec, roomy)
    notes = []
    if any(
        part.state != "resident" for part in run.engine.model(spec.model).components if part.name[:3] == "dit"
    ):
        notes.append("with room for both, not both were still there after the decode")
    models, device = run.engine.paths.models.resolve(), run.device_id
    run.engine.close()  # a GPU has one engine at a time
    settings = {
        "TURBOTUI_ENGINE_DEVICE": device,
        "TURBOTUI_ENGINE_MEMORY_BUDGET_BYTES": str(round(peak * SLACK)),
    }
    try:
        with BenchEngine(models, settings) as engine:
            with Watch(engine.client) as watch:
                # Toy experts have room for both in any budget in which the rest runs.
                alone = replace(spec, residency="dit_only") if run.cast.demo else spec
                engine.run(alone)  # the files are registered and the libraries loaded by this one
                before = unloaded(engine)
                _run_jobs(run, engine, alone, tight, warmed=True)
                drift = unloaded(engine).drift_from(before)
                swaps = [receipt for receipt in watch.receipts() if receipt.action == "swap"]
    finally:
        run.engine.ensure()
    if not swaps:
        yield unmeasured(
            "expert_swap",
            f"with a budget of {peak * SLACK / 1e9:.1f} GB no swap took place",
            failed=run.on_gpu,
        )
        return
    if run.on_gpu:  # once more, lest what changes with time be taken for the swap's
        _run_jobs(run, run.engine, spec, roomy)
    series = Series(name="expert_swap")
    for taken in tight.boundary_s:
        series.add(taken - roomy.seconds)
    notes.append(f"{roomy.size}; two steps with room for both {roomy.seconds:.3f} s")
    notes.append(f"with room for one {tight.seconds:.3f} s, budget {peak * SLACK / 1e9:.1f} GB")
    notes.append(swaps[-1].steps[0].name if swaps[-1].steps else "swapped")
    if tight.digests != roomy.digests or len(tight.digests) != 1:
        yield unmeasured("expert_swap", "the frames differ between the two budgets", failed=True)
        return
    notes.append("the frames are the same")
    for text in notes:
        series.note(text)
    row = series.row(run, residency=found)
    yield replace(row, drift_bytes=drift)


class _Jobs:
    """The same job, several times."""

    def __init__(self) -> None:
        self.boundary_s: list[float] = []
        """Of the last step of the first expert and the first of the second, together."""
        self.digests: set[str] = set()
        self.size = ""

    @property
    def seconds(self) -> float:
        return statistics.median(self.boundary_s)

    def add(self, manifest: Manifest) -> None:
        self.boundary_s.append(boundary_s(manifest))
        self.digests.add(manifest.frames_sha256)
        self.size = f"{manifest.width}x{manifest.height}, {manifest.spec.frames} frames"


def _run_jobs(run: Run, engine: BenchEngine, spec: JobSpec, jobs: _Jobs, *, warmed: bool = False) -> None:
    if not warmed:
        engine.run(spec)
    for _ in range(run.cycles):
        jobs.add(engine.run(spec)[1])


def _described(manifest: Manifest) -> str:
    """The video's size, and what the stages took in which the first step waits."""
    stages = ", ".join(f"{record.stage} {record.elapsed_s:.3f} s" for record in manifest.stages)
    return f"{manifest.width}x{manifest.height}, {manifest.spec.frames} frames; the last run: {stages}"


def boundary_s(manifest: Manifest) -> float:
    """Seconds of the two steps around the change of experts.

    Raises:
        WorkFailed: the job had no such change, or its manifest does not tell its steps.
    """
    steps = manifest.timesteps[:-1]
    first_low = next((number for number, t in enumerate(steps) if t < BOUNDARY), 0)
    if first_low == 0 or len(manifest.step_s) != len(steps):
        raise WorkFailed(f"job {manifest.job_id} tells no change of experts: {manifest.timesteps}")
    return manifest.step_s[first_low - 1] + manifest.step_s[first_low]
