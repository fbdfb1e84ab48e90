"""What the console costs: first picture, share of a core, bytes to the terminal, memory, key to screen.

Everything runs in pseudo terminals of its own, over scripted traffic and over a demo engine in a
folder of its own. Percentages are of one core, of the console and all its children, utime and
stime by /proc; bytes are those written to the terminal; both from five seconds after the start on.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from engine.errors import EngineError
from engine.wire import JobSpec
from turbotui.bench.session import BenchEngine
from turbotui.bench.slope import slope_of
from turbotui.bench.start import Measured
from turbotui.bench.terminal import Cost, Terminal, usage

MIB = 2**20
PYTHON = [sys.executable, "-P", "-m"]
CONSOLE = [*PYTHON, "turbotui"]
SCRIPTED = [*PYTHON, "turbotui.client.scene_console"]
TRAFFIC = [*PYTHON, "turbotui.bench.traffic"]
SIZES = ((120, 36), (80, 24), (200, 50))
"""The first one is what the limits are for."""
SETTLE_S = 5.0
BLUR = b"\x1b[O"
"""What a terminal says that loses the focus."""
FOCUS_KEYS = ((b"3", b"Models"), (b"4", b"Queue"))
"""A key that puts a panel into focus, and what is then drawn that is not drawn otherwise."""
KEY_TIMEOUT_S = 2.0
WARM_UP_SPEED = 100.0
SOAK_SPEED = 10.0
HOUR_S = 3600.0
WARM_UP_HOURS = 3
"""Until then what is kept still fills up: 57.8 MiB in one hour, 62.0 in 3.4, 62.3 in 4.7."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How thoroughly."""

    quick: bool = False
    engine: bool = True
    """Over a demo engine, too."""
    soak: bool = True

    @property
    def stretch_s(self) -> float:
        return 5.0 if self.quick else 20.0

    @property
    def paints(self) -> int:
        return 3 if self.quick else 9

    @property
    def keys(self) -> int:
        return 60 if self.quick else 400

    @property
    def soak_s(self) -> float:
        """Real seconds; an hour of traffic takes six minutes."""
        return 30.0 if self.quick else HOUR_S / SOAK_SPEED


def measure_console(options: Options) -> Iterator[Measured]:
    """Measure one after the other; an iterator, so that each shows as soon as it is known."""
    with tempfile.TemporaryDirectory(prefix="turbotui-bench-") as folder:
        environ = {**os.environ, "TURBOTUI_HOME": folder}
        yield _paint("first picture", [*SCRIPTED, "idle"], environ, options, limit=0.45)
        for columns, rows in SIZES:
            judged = (columns, rows) == SIZES[0]
            yield from _costs(
                f"scripted, job running, 10 Hz, {columns}x{rows}",
                [*SCRIPTED, "busy"],
                environ,
                options,
                size=(columns, rows),
                limits=(7.0, 16_000) if judged else None,
            )
        yield from _costs("scripted, at rest", [*SCRIPTED, "idle"], environ, options, limits=(1.5, 2_000))
        yield from _costs(
            "scripted, job running, nobody looks",
            [*SCRIPTED, "busy"],
            environ,
            options,
            limits=(1.5, 2_000),
            first=BLUR,
        )
        for columns, rows in SIZES:
            yield from _keys(environ, options, size=(columns, rows))
        yield from _in_tmux(environ, options)
        yield from _alternatives(environ, options)
        if options.engine:
            yield from _over_an_engine(options)
        if options.soak:
            yield from _soak(environ, options)


def _paint(
    name: str, command: list[str], environ: dict[str, str], options: Options, *, limit: float | None
) -> Measured:
    """The median of several starts."""
    found = []
    for _ in range(options.paints):
        with Terminal(command, environ) as terminal:
            while terminal.first_paint_s is None and time.perf_counter() - terminal.began < 20:
                if terminal.read(0.5) is None:
                    break
            if terminal.first_paint_s is not None:
                found.append(terminal.first_paint_s)
    if not found:
        return Measured(name=name, value=None, unit="s", limit=limit)
    note = f"{min(found):.3g} to {max(found):.3g}, {_load()}"
    return Measured(
        name=name, value=statistics.median(found), unit="s", limit=limit, runs=len(found), note=note
    )


def _costs(
    name: str,
    command: list[str],
    environ: dict[str, str],
    options: Options,
    *,
    size: tuple[int, int] = SIZES[0],
    limits: tuple[float, float] | None = None,
    first: bytes = b"",
) -> Iterator[Measured]:
    """Share of a core, bytes a second and memory of one program at one size."""
    with Terminal(command, environ, columns=size[0], rows=size[1]) as terminal:
        alive = terminal.pump(SETTLE_S)
        if alive and first:
            terminal.press(first)
            alive = terminal.pump(1.0)
        cost = terminal.cost(options.stretch_s) if alive else None
    yield from _cost_rows(name, cost, limits)


def _cost_rows(name: str, cost: Cost | None, limits: tuple[float, float] | None) -> Iterator[Measured]:
    cpu, wire = limits or (None, None)
    yield Measured(
        name=f"{name}: of a core", value=None if cost is None else cost.cpu_percent, unit="%", limit=cpu
    )
    yield Measured(
        name=f"{name}: to the terminal",
        value=None if cost is None else cost.bytes_per_s / 1000,
        unit="KB/s",
        limit=None if wire is None else wire / 1000,
    )
    yield Measured(
        name=f"{name}: resident",
        value=None if cost is None else cost.rss_bytes / MIB,
        unit="MiB",
        limit=None if limits is None else 90,
    )


def key_times(terminal: Terminal, count: int) -> list[float]:
    """Seconds from a key to its effect, for `count` keys at moments of their own.

    A key without effect in time counts as `KEY_TIMEOUT_S`.
    """
    moments = random.Random(7)
    found = []
    for number in range(count):
        terminal.pump(0.08 + moments.random() * 0.13)
        key, drawn = FOCUS_KEYS[number % len(FOCUS_KEYS)]
        terminal.press(key)
        waited = terminal.wait_for(drawn, KEY_TIMEOUT_S)
        found.append(KEY_TIMEOUT_S if waited is None else waited)
    return found


def _load() -> str:
    """What else the host did: times, unlike shares of a core and bytes, grow with it."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _keys(environ: dict[str, str], options: Options, *, size: tuple[int, int]) -> Iterator[Measured]:
    columns, rows = size
    with Terminal([*SCRIPTED, "busy"], environ, columns=columns, rows=rows) as terminal:
        terminal.pump(SETTLE_S)
        found = sorted(key_times(terminal, options.keys))
    note = f"median {statistics.median(found) * 1000:.3g}, worst {found[-1] * 1000:.3g} ms, {_load()}"
    yield Measured(
        name=f"key to screen at p99, job running, {columns}x{rows}",
        value=found[min(len(found) - 1, int(len(found) * 0.99))] * 1000,
        unit="ms",
        limit=50 if size == SIZES[0] else None,
        runs=len(found),
        note=note,
    )


def _in_tmux(environ: dict[str, str], options: Options) -> Iterator[Measured]:
    """The same as seen by tmux: the console's own cost, and what tmux sends on to the terminal."""
    if shutil.which("tmux") is None:
        return
    tmux = ["tmux", "-L", f"turbotui-bench-{os.getpid()}", "-f", os.devnull]
    try:
        with Terminal([*tmux, "new-session", *SCRIPTED, "busy"], environ) as terminal:
            terminal.pump(SETTLE_S)
            told = subprocess.run(
                [*tmux, "display-message", "-p", "#{pane_pid}"], capture_output=True, text=True, check=False
            ).stdout.strip()
            if not told.isdecimal():
                return
            cost = terminal.cost(options.stretch_s, pid=int(told))
            yield from _cost_rows("in tmux, job running, 10 Hz", cost, None)
            found = sorted(key_times(terminal, options.keys))
            yield Measured(
                name="in tmux, key to screen at p99",
                value=found[int(len(found) * 0.99)] * 1000,
                unit="ms",
                runs=len(found),
                note=f"median {statistics.median(found) * 1000:.3g} ms",
            )
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)


ALTERNATIVES = {"nvitop": ["nvitop"], "nvtop": ["nvtop"], "btop": ["btop"], "htop": ["htop"]}
"""What people keep open instead, where it is installed."""


def _alternatives(environ: dict[str, str], options: Options) -> Iterator[Measured]:
    for name, command in ALTERNATIVES.items():
        if shutil.which(command[0]) is None:
            continue
        with Terminal(command, environ) as terminal:
            if terminal.pump(SETTLE_S):
                cost = terminal.cost(options.stretch_s)
                yield Measured(name=f"{name}: first picture", value=terminal.first_paint_s, unit="s")
                yield from _cost_rows(name, cost, None)


def _over_an_engine(options: Options) -> Iterator[Measured]:
    """The real console over a real demo engine, at rest and with jobs in its queue."""
    with BenchEngine(models=None) as bench:
        environ = {**os.environ, "TURBOTUI_HOME": str(bench.home)}
        client = bench.client
        client.make_demo_models()
        yield _paint("first picture over a demo engine", CONSOLE, environ, options, limit=0.45)
        yield from _costs("demo engine, at rest", CONSOLE, environ, options, limits=(1.5, 2_000))
        spec = JobSpec(model="wan-demo-large", prompt="a harbour at dawn", frames=33, steps=4)
        for _ in range(40 if not options.quick else 10):
            client.submit(spec)
        yield from _costs("demo engine, job running", CONSOLE, environ, options, limits=(7.0, 16_000))
        with suppress(EngineError):
            for job in client.jobs():
                if job.status in ("queued", "running", "waiting_memory"):
                    client.cancel(job.id)


def _soak(environ: dict[str, str], options: Options) -> Iterator[Measured]:
    """Whether memory grows over an hour of traffic, after some that have filled what is kept."""
    warm_s = WARM_UP_HOURS * HOUR_S / WARM_UP_SPEED
    pace = [f"{WARM_UP_SPEED:g}", f"{warm_s * WARM_UP_SPEED:g}", f"{SOAK_SPEED:g}"]
    with Terminal([*TRAFFIC, *pace], environ) as terminal:
        alive = terminal.pump(SETTLE_S + warm_s)
        points: list[tuple[float, float]] = []
        began = time.perf_counter()
        while alive and (passed := time.perf_counter() - began) < options.soak_s:
            points.append((passed * SOAK_SPEED / HOUR_S, usage(terminal.pid).rss_bytes / MIB))
            alive = terminal.pump(0.5)
    yield from soak_rows(points if alive else [])


MOST_GROWTH_MIB_H = 1.0
"""Also the most that the slope may be uncertain by: what a noisy run says less exactly is not known."""


def soak_rows(points: Sequence[tuple[float, float]]) -> Iterator[Measured]:
    """From hours of traffic and MiB resident."""
    name = "growth in an hour of traffic at 10x, at least"
    try:
        slope = slope_of(points)
    except ValueError:
        yield Measured(name=name, value=None, unit="MiB/h", limit=MOST_GROWTH_MIB_H)
        return
    hours = points[-1][0] - points[0][0]
    known = slope.uncertainty <= MOST_GROWTH_MIB_H
    yield Measured(
        name=name,
        value=slope.value - slope.uncertainty if known else None,
        unit="MiB/h",
        limit=MOST_GROWTH_MIB_H,
        note=f"{'' if known else 'not known: '}{slope.value:.2g} ± {slope.uncertainty:.2g}, "
        f"over {hours:.2g} h, {points[0][1]:.1f} to {points[-1][1]:.1f} MiB",
    )
    yield Measured(name="most resident in it", value=max(size for _at, size in points), unit="MiB", limit=90)
