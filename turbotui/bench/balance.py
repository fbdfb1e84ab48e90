"""Whether the parts of a device's memory add up: thousands of balances, at rest and under a job.

The engine is the benchmark's own. It reads faster than usual while samples are taken; what reading
costs is measured at the usual rate.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from engine.errors import EngineError, EngineUnavailable, InvalidRequest, WorkFailed
from engine.wire import (
    TERMINAL_STATES,
    Balance,
    EventFrame,
    JobChanged,
    JobSpec,
    MemorySampled,
    SamplingRequest,
    SwitchRequest,
)
from turbotui.bench.drift import device_in_use
from turbotui.bench.session import BenchEngine
from turbotui.client.base import Stream
from turbotui.client.http import HttpClient

MIB = 2**20
COST_S = 10.0
"""How long the cost of reading at the usual rate is measured."""
SETTLED_S = 1.0
"""After a job, until the device counts as at rest."""
OPEN_TIMEOUT_S = 10.0
DEMO_MODEL = "wan-demo-small"
PROMPT = "a cat in snow"

Phase: TypeAlias = Literal["rest", "denoise", "other"]
"""`other`: stages around the denoising, loads, and what lies between."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """One call of the command."""

    demo: bool
    models: Path | None
    model: str | None
    """Whose job runs; None with `demo`."""
    samples: int
    """Of the device, half of them at rest and half while a job denoises."""
    seconds: float
    """Each half ends after so long, however many samples there are."""
    hz: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure beside what it must reach."""

    name: str
    title: str
    value: float | None
    """None where it could not be measured, which `note` explains."""
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    judged: bool = True
    """False where the aim is none of this device's."""
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """None for a figure that is only shown."""
        if not self.judged or (self.at_least is None and self.at_most is None):
            return None
        if self.value is None:
            return False
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)


@dataclass(kw_only=True, slots=True)
class Tally:
    """What the balances of one phase came to."""

    samples: int = 0
    coherent: int = 0
    lowest_part: int | None = None
    wrong_sums: int = 0
    unknown_parts: int = 0
    """Balances with a part that could not be known."""
    unexplained: int = 0
    """The largest of the coherent ones, without its sign."""
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, balance: Balance) -> None:
        known = [part.bytes for part in balance.parts if part.bytes is not None]
        self.samples += 1
        self.unknown_parts += len(known) < len(balance.parts)
        self.wrong_sums += sum(known) + balance.unexplained_bytes != balance.total_bytes
        if not balance.coherent:
            self.reasons[balance.moving or "no reason told"] += 1
            return
        self.coherent += 1
        lowest = min(known, default=0)
        self.lowest_part = lowest if self.lowest_part is None else min(self.lowest_part, lowest)
        self.unexplained = max(self.unexplained, abs(balance.unexplained_bytes))

    @property
    def share(self) -> float | None:
        return self.coherent / self.samples if self.samples else None

    def why_not(self) -> str:
        return ", ".join(f"{count} times {reason}" for reason, count in self.reasons.most_common(3))


class Collector:
    """Counts the balances of the device in use by what happens meanwhile, for the length of a `with`."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._stream: Stream | None = None
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._resting = False
        self._denoising = False
        self._last_at = 0.0
        self.tallies: dict[Phase, Tally] = {"rest": Tally(), "denoise": Tally(), "other": Tally()}
        self._thread = threading.Thread(target=self._run, name="bench-balance", daemon=True)

    def __enter__(self) -> Collector:
        self._thread.start()
        self._open.wait(OPEN_TIMEOUT_S)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._stream is not None:
            self._stream.close()
        self._thread.join(OPEN_TIMEOUT_S)

    def rest(self, resting: bool) -> None:
        """Whether samples from now on are taken at rest."""
        with self._lock:
            self._resting = resting

    def take(self, frame: EventFrame) -> None:
        self._open.set()
        event = frame.event
        with self._lock:
            if isinstance(event, JobChanged):
                progress = event.job.progress
                running = event.job.status == "running" and progress is not None
                self._denoising = running and progress is not None and progress.stage == "denoise"
            elif isinstance(event, MemorySampled) and event.device.in_use:
                balance = event.device.balance
                if balance is None or balance.taken_at <= self._last_at:
                    return  # told again with a fault, and nothing new
                self._last_at = balance.taken_at
                phase: Phase = "rest" if self._resting else "denoise" if self._denoising else "other"
                self.tallies[phase].add(balance)

    def _run(self) -> None:
        with suppress(EngineUnavailable):  # whoever measures meets that by itself
            self._client.subscribe(self.take, on_open=self._opened)

    def _opened(self, stream: Stream) -> None:
        self._stream = stream


def measure_balance(options: Options) -> Iterator[Figure]:
    """Measure, and give each figure.

    Raises:
        InvalidRequest: there is no such model, or its jobs need more than a prompt.
        WorkFailed: a job failed, or no device is in use.
    """
    with BenchEngine(options.models) as engine:
        client = engine.client
        if options.demo:
            client.make_demo_models()
        model = DEMO_MODEL if options.model is None else options.model
        spec = _spec(engine, model)
        client.switch(SwitchRequest(model=model))
        engine.run(spec)  # libraries are loaded by a first job, and the context measured after it
        time.sleep(SETTLED_S)
        yield from _costs(client)
        device = device_in_use(client)
        with Collector(client) as collector:
            rates = SamplingRequest(hz=options.hz, seconds=2 * options.seconds + 60)
            client.sample(rates)
            half = max(1, options.samples // 2)
            collector.rest(True)
            _until(lambda: collector.tallies["rest"].samples >= half, options.seconds)
            collector.rest(False)
            jobs = _run_jobs(engine, spec, collector.tallies["denoise"], half, options.seconds)
            client.sample(SamplingRequest(hz=options.hz, seconds=0))
        yield from figures(collector.tallies, half=half, jobs=jobs, on_gpu=device.kind == "cuda")


def figures(tallies: dict[Phase, Tally], *, half: int, jobs: int, on_gpu: bool) -> Iterator[Figure]:
    """What the tallies come to, beside what they must."""
    rest, denoise, every = tallies["rest"], tallies["denoise"], tallies.values()
    note = "" if on_gpu else "host memory: there is no GPU to judge"
    yield Figure(name="samples_rest", title="samples at rest", value=rest.samples, at_least=half)
    yield Figure(
        name="samples_denoise",
        title="samples while a job denoises",
        value=denoise.samples,
        at_least=half,
        note=f"in {jobs} jobs; {tallies['other'].samples} more between their denoising",
    )
    for name, title, tally, aim in (
        ("coherent_rest", "coherent at rest", rest, 0.99),
        ("coherent_denoise", "coherent while a job denoises", denoise, 0.90),
    ):
        yield Figure(
            name=name,
            title=title,
            value=tally.share,
            at_least=aim,
            judged=on_gpu,
            note="; ".join(text for text in (note, tally.why_not()) if text),
        )
    other = tallies["other"]
    yield Figure(
        name="coherent_other",
        title="coherent in loads and other stages",
        value=other.share,
        note=other.why_not() or ("" if other.samples else "there were none"),
    )
    lowest = [tally.lowest_part for tally in every if tally.lowest_part is not None]
    yield Figure(
        name="lowest_part",
        title="smallest part of a coherent sample",
        value=min(lowest) if lowest else None,
        unit="B",
        at_least=0,
    )
    yield Figure(
        name="wrong_sums",
        title="samples whose parts and remainder are not the total",
        value=sum(tally.wrong_sums for tally in every),
        at_most=0,
    )
    yield Figure(
        name="unknown_parts",
        title="samples with a part that could not be known",
        value=sum(tally.unknown_parts for tally in every),
    )
    for name, title, tally, most in (
        ("unexplained_rest", "largest unexplained at rest", rest, 2 * MIB),
        ("unexplained_denoise", "largest unexplained while a job denoises", denoise, 32 * MIB),
    ):
        known = tally.unexplained if tally.coherent else None
        yield Figure(name=name, title=title, value=known, unit="B", at_most=most, judged=on_gpu, note=note)


def _spec(engine: BenchEngine, model: str) -> JobSpec:
    if engine.model(model).kind == "i2v":
        raise InvalidRequest(f"{model} makes videos from an image; choose one that needs only a prompt")
    frames = 17 if model == DEMO_MODEL else None
    return JobSpec(model=model, prompt=PROMPT, frames=frames)


def _run_jobs(engine: BenchEngine, spec: JobSpec, tally: Tally, wanted: int, seconds: float) -> int:
    """Run jobs until enough samples were taken under them; how many."""
    client, deadline, jobs = engine.client, time.monotonic() + seconds, 0
    while tally.samples < wanted and time.monotonic() < deadline:
        job = client.submit(spec)
        while job.status not in TERMINAL_STATES:
            if tally.samples >= wanted or time.monotonic() >= deadline:
                with suppress(EngineError):  # it may have ended by itself
                    client.cancel(job.id)
                return jobs + 1
            time.sleep(0.05)
            job = client.job(job.id)
        if job.status != "done":
            raise WorkFailed(f"job {job.id} of {spec.model} ended as {job.status}: {job.error}")
        jobs += 1
    return jobs


def _costs(client: HttpClient) -> Iterator[Figure]:
    """What reading ten times a second costs, at rest: no stream is open, no job runs."""
    daemon = client.hello().pid
    probe = _child(daemon, "tt-probe")
    before = {pid: _cpu_s(pid) for pid in (daemon, probe) if pid is not None}
    began = time.monotonic()
    time.sleep(COST_S)
    took = time.monotonic() - began
    shares = {}
    for pid, start in before.items():
        end = _cpu_s(pid)
        shares[pid] = None if start is None or end is None else (end - start) / took
    yield Figure(
        name="probe_share",
        title="the probe's share of a core, at its usual rate",
        value=shares.get(probe) if probe is not None else None,
        at_most=0.01,
    )
    yield Figure(name="daemon_share", title="the daemon's share of a core, at rest", value=shares.get(daemon))


def _child(parent: int, name: str) -> int | None:
    """The process of that name which `parent` has started."""
    for folder in Path("/proc").iterdir():
        fields = _stat(int(folder.name)) if folder.name.isdecimal() else None
        if fields is not None and fields[0] == name and int(fields[2]) == parent:
            return int(folder.name)
    return None


def _cpu_s(pid: int) -> float | None:
    """Processor time that it has used: user and system."""
    fields = _stat(pid)
    return None if fields is None else (int(fields[12]) + int(fields[13])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """Its name, and the fields of /proc/<pid>/stat from the state on."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
    except OSError:
        return None
    return [before.partition("(")[2], *after.split()]


def _until(reached: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.02)
