"""The rows about many switches: none fails, nothing grows, and the videos stay what they were."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from engine.errors import EngineError
from turbotui.bench.drift import Held, read_held, residency, unloaded
from turbotui.bench.roles import Role
from turbotui.bench.rows import MIB, Row, measured, unmeasured
from turbotui.bench.run import Run
from turbotui.bench.watch import Watch

SEED = 20
HISTORY_COLUMN_S = 0.05
NO_GPU = "no GPU: VRAM is what is counted"


def measure_cycles(run: Run) -> Iterator[Row]:
    """The first job of each kind, then switches between all pairs of models and at random."""
    client = run.engine.client
    client.park()
    run.switch(run.roles[0])
    floor = unloaded(run.engine)
    before: dict[Role, str] = {}
    grown: list[str] = []
    last = floor
    for role in run.roles:
        run.say(f"first job of {run.cast.name(role)}")
        before[role] = _digest(run, role)
        held = unloaded(run.engine)
        grown.append(f"{run.cast.name(role)} {_grown(held, last)}")
        last = held
    if run.on_gpu and last.vram_bytes is not None and floor.vram_bytes is not None:
        yield measured(
            "growth_first_jobs",
            [last.vram_bytes - floor.vram_bytes],
            judged=run.judged,
            note="; ".join(grown) + f"; left: {_parts(last)}",
        )
    else:
        yield unmeasured("growth_first_jobs", NO_GPU if not run.on_gpu else "the driver does not tell")

    order = _order(run)
    for role in run.roles:  # so that all files are registered before the first reading
        run.switch(role)
    found = residency(*(run.engine.model(run.cast.name(role)) for role in run.roles))
    start = unloaded(run.engine)
    run.say(f"{len(order)} switches")
    failures: list[str] = []
    peaks: list[float] = []
    with Watch(client) as watch:
        peaks = _switches(run, order, watch, failures)
    end = unloaded(run.engine)
    drift = end.drift_from(start)
    scope = f"{run.rounds} times each pair of {len(run.roles)} models, then {run.at_random} at random"
    if len(run.roles) < 3:
        scope += "; not all three models are there"
    yield measured(
        "failures",
        [len(failures)],
        judged=run.judged,
        drift_bytes=drift,
        residency=found,
        note=f"{scope}{': ' + failures[0] if failures else ''}",
    )
    if not run.on_gpu:
        yield unmeasured("switch_peak", NO_GPU)
    elif peaks:
        yield measured("switch_peak", peaks, judged=run.judged, note=_peak_note(run, len(peaks)))
    else:
        yield unmeasured(
            "switch_peak", "no reading fell into a switch, or the driver tells none", failed=True
        )
    yield from _drifts(run, start, end, scope)
    yield measured("weights_left", [end.weights_bytes], judged=run.judged, note=f"left: {_parts(end)}")

    run.say("the same jobs again")
    after = {role: _digest(run, role) for role in run.roles}
    unloaded(run.engine)
    changed = [run.cast.name(role) for role in run.roles if after[role] != before[role]]
    yield measured("outputs_changed", [len(changed)], judged=run.judged, note=", ".join(changed))
    alike = len(before) - len(set(before.values()))
    yield measured("outputs_alike", [alike], judged=run.judged)


def _order(run: Run) -> list[Role]:
    """Targets one after the other, so that each pair comes `rounds` times, a model to itself included."""
    roles = run.roles
    pairs = [role for first in roles for second in roles for role in (first, second)]
    order = pairs * run.rounds
    dice = random.Random(SEED)
    return order + [dice.choice(roles) for _ in range(run.at_random)]


def _switches(run: Run, order: list[Role], watch: Watch, failures: list[str]) -> list[float]:
    """Switch in this order; bytes of each peak beyond the larger of what was there before and after."""
    peaks: list[float] = []
    watched = len(run.roles) ** 2 * 2 * run.rounds
    for number, role in enumerate(order):
        rest = run.on_gpu and number < watched
        old = read_held(run.engine.client) if rest else None
        began = time.time()
        try:
            run.switch(role)
        except EngineError as error:
            failures.append(f"switch {number + 1} to {run.cast.name(role)}: {error}")
            run.engine.ensure()
            continue
        ended = time.time()
        if old is not None:
            peak = _peak(run, watch, began, ended, old)
            if peak is not None:
                peaks.append(peak)
    return peaks


def _peak(run: Run, watch: Watch, began: float, ended: float, old: Held) -> float | None:
    new = read_held(run.engine.client)
    if old.vram_bytes is not None and new.vram_bytes is not None:
        seen = [at.worker_bytes for at in watch.between(began, ended) if at.worker_bytes is not None]
        rest = max(old.vram_bytes, new.vram_bytes)
    else:  # where the driver tells nothing of processes, our own counters stand for it
        seen = [at.ours_bytes for at in watch.between(began, ended)]
        seen += _by_history(run, time.time() - began)
        rest = max(sum(old.parts.values()), sum(new.parts.values()))
    return max(0, max(seen) - rest) if seen else None


def _by_history(run: Run, seconds: float) -> list[int]:
    """Highest sums of our parts in the last `seconds`, as the engine recorded them."""
    columns = max(1, round(seconds / HISTORY_COLUMN_S))
    history = run.engine.client.history(run.device_id, seconds=max(seconds, 0.1), columns=min(columns, 2000))
    ours = ("weights", "live", "rounding", "awaiting_free", "releasable", "fragmented", "context")
    return [
        sum(high for kind, (_, high) in column.parts.items() if kind in ours)
        for column in history.columns
        if column.samples
    ]


def _peak_note(run: Run, count: int) -> str:
    highest = max(_by_history(run, 3600.0), default=0)
    most = f"highest of our parts in the last hour {highest / 1e9:.2f} GB"
    return f"{count} switches read ten times a second; {most}"


def _drifts(run: Run, start: Held, end: Held, scope: str) -> Iterator[Row]:
    if not run.on_gpu:
        yield unmeasured("drift_vram", NO_GPU)
    elif start.vram_bytes is None or end.vram_bytes is None:
        yield unmeasured("drift_vram", "the driver does not tell the bytes of processes")
    else:
        grown = end.vram_bytes - start.vram_bytes
        yield measured("drift_vram", [grown], judged=run.judged, drift_bytes=grown, note=scope)
    if start.host_bytes is None or end.host_bytes is None:
        yield unmeasured("drift_rss", "the worker's memory could not be read", failed=True)
    else:
        grown = end.host_bytes - start.host_bytes
        note = f"without mapped files; from {start.host_bytes / MIB:.0f} MiB"
        yield measured("drift_rss", [grown], judged=run.judged, drift_bytes=grown, note=note)


def _digest(run: Run, role: Role) -> str:
    return run.engine.run(run.cast.quickest(role))[1].frames_sha256


def _grown(held: Held, last: Held) -> str:
    vram = None if held.vram_bytes is None or last.vram_bytes is None else held.vram_bytes - last.vram_bytes
    libraries = (held.context_bytes or 0) - (last.context_bytes or 0)
    return f"{'?' if vram is None else f'{vram / MIB:+.1f}'} MiB, libraries {libraries / MIB:+.1f} MiB of it"


def _parts(held: Held) -> str:
    return ", ".join(f"{kind} {size / MIB:.1f} MiB" for kind, size in held.parts.items() if size) or "nothing"
