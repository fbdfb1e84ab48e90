"""How long things take from nothing: the engine, the console, a command, the demo job.

Everything runs in a folder of its own with an engine of its own, which is ended after; the
person's engine, queue and models are not touched. Where the project claims to be quicker than
the usual way, that way is measured in the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WorkFailed
from engine.paths import Paths, find_paths
from engine.wire import JobSpec
from turbotui.bench.session import environment, stop
from turbotui.bench.terminal import first_paint_s
from turbotui.client.http import HttpClient
from turbotui.client.launch import connect

DEMO_JOB = JobSpec(model="wan-demo-small", prompt="a cat in snow", frames=17, steps=4)
CONSOLE = [sys.executable, "-P", "-m", "turbotui"]
FORBIDDEN_MAPS = ("libtorch", "libcuda", "libnvidia-ml")
FORBIDDEN_MODULES = ("torch", "textual", "pydantic", "diffusers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One figure beside what it must reach."""

    name: str
    value: float | None
    """None when it could not be measured."""
    unit: str
    limit: float | None = None
    """None for a figure that is only shown beside another."""
    runs: int = 1
    """The value is their median."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value is not None and self.value <= self.limit


def measure_start() -> Iterator[Measured]:
    """Measure one after the other; an iterator, so that each shows as soon as it is known."""
    with tempfile.TemporaryDirectory(prefix="turbotui-bench-") as folder:
        environ = {**os.environ, "TURBOTUI_HOME": folder}
        paths = find_paths(environ)
        with environment(environ):
            yield from _starts(paths, environ)
            client = connect(paths)
            try:
                yield from _with_engine(paths, client, environ)
            finally:
                stop(client)


def _starts(paths: Paths, environ: dict[str, str]) -> Iterator[Measured]:
    answers: list[float] = []
    stops: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        client = connect(paths)
        answers.append(time.perf_counter() - began)
        stops.append(stop(client))
    yield _median("engine answers after its start", answers, limit=1.0)
    yield _median("engine and its children gone after a stop", stops, limit=2.0)
    paint = first_paint_s(CONSOLE, environ)
    yield Measured(
        name="console's first picture, while it starts the engine", value=paint, unit="s", limit=0.6
    )


def _with_engine(paths: Paths, client: HttpClient, environ: dict[str, str]) -> Iterator[Measured]:
    client.make_demo_models()
    while client.status().engine.nursery.state == "warming":
        time.sleep(0.05)
    paints = [first_paint_s(CONSOLE, environ) for _ in range(5)]
    yield _median("console's first picture, engine running", paints, limit=0.6)
    command = [*CONSOLE, "status", "--json"]
    yield _median("turbotui status --json", [_run_s(command, environ) for _ in range(5)], limit=0.4)
    imported = subprocess.run(
        [sys.executable, "-P", "-c", "import sys, turbotui.cli; print(*sys.modules)"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = sum(name in imported for name in FORBIDDEN_MODULES)
    yield Measured(name="heavy modules that the CLI imports", value=heavy, unit="", limit=0)
    yield Measured(name="demo job, 17 frames 128x80 4 steps, first", value=_job_s(client), unit="s", limit=20)
    yield Measured(name="the same again", value=_job_s(client), unit="s", limit=20)
    yield Measured(name="worker ready out of the nursery", value=client.status().workers[0].ready_s, unit="s")
    slow = [sys.executable, "-P", "-c", "import torch, diffusers, transformers, engine.worker.loop"]
    yield Measured(
        name="the usual way: a process that imports all of that", value=_run_s(slow, environ), unit="s"
    )
    maps = Path(f"/proc/{client.hello().pid}/maps").read_text("utf-8", "replace")
    yield Measured(
        name="driver and torch libraries mapped by the daemon",
        value=sum(name in maps for name in FORBIDDEN_MAPS),
        unit="",
        limit=0,
    )


def _job_s(client: HttpClient) -> float:
    """From the request to the finished video.

    Raises:
        WorkFailed: the job did not end as done.
    """
    began = time.perf_counter()
    job = client.submit(DEMO_JOB)
    while job.status in ("queued", "waiting_memory", "running"):
        time.sleep(0.02)
        job = client.job(job.id)
    if job.status != "done":
        raise WorkFailed(f"the demo job ended as {job.status}: {job.error}")
    return time.perf_counter() - began


def _run_s(command: list[str], environ: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return time.perf_counter() - began


def _median(name: str, values: list[float] | list[float | None], *, limit: float) -> Measured:
    known = [value for value in values if value is not None]
    value = statistics.median(known) if len(known) == len(values) else None
    return Measured(name=name, value=value, unit="s", limit=limit, runs=len(values))
