"""An engine's traffic without an engine: an hour and more of jobs, receipts, log and memory, sped up.

    python -P -m turbotui.bench.traffic SPEED [UNTIL_S SPEED]

opens the console over it, its clock as fast as the traffic. With `100 3600 10` the first hour
goes at a hundred times and what follows at ten times, so that whatever the console keeps is
full before anybody measures whether it still grows.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.wire import (
    Event,
    Job,
    JobChanged,
    JobProgress,
    JobSpec,
    Logged,
    LogLine,
    MemorySampled,
    Receipt,
    ReceiptIssued,
    Stage,
)
from turbotui.app import TurboApp
from turbotui.client.scenes import LOG, busy, gib, gpu, gpu_balance
from turbotui.client.script import Step
from turbotui.client.scripted import ScriptedClient

HZ = 10
JOB_S = 24
"""Length of a made-up job: many more of them in an hour than the console keeps."""
FIRST_ID = 100
STAGES: tuple[Stage, ...] = ("load", "text", "denoise", "decode", "write")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Speeds by traffic time."""

    first: float
    """Times real time, from the start."""
    until_s: float = math.inf
    """Traffic's seconds after which `then` holds."""
    then: float = 1.0

    def passed(self, real_s: float) -> float:
        """Traffic's seconds after so many real ones."""
        turn_s = self.until_s / self.first
        return real_s * self.first if real_s < turn_s else self.until_s + (real_s - turn_s) * self.then


def traffic(began: float) -> Iterator[tuple[float, Event]]:
    """Seconds since `began` and what happens then, without end."""
    yield 0.0, replace(busy(began), jobs=())
    seq = len(LOG)
    for tick in itertools.count(1):
        at_s = tick / HZ
        at = began + at_s
        number, within = divmod(tick, JOB_S * HZ)
        live = 3.1 + 2.4 * abs(math.sin(tick / 17)) + (1.5 if tick % 40 < 3 else 0.0)
        yield at_s, MemorySampled(device=replace(gpu(at), balance=gpu_balance(at, live=live)))
        if tick % 5 == 0 or within < 2:
            yield at_s, JobChanged(job=_job(number, within / (JOB_S * HZ), began))
        if within == 0 and number:
            yield at_s, JobChanged(job=_ended(number - 1, began))
            yield at_s, ReceiptIssued(receipt=_receipt(number, at))
        if tick % 12 == 0:
            seq += 1
            text = f"block {tick} {0.31 + tick % 7 / 100:.2f} GiB in {tick % 90} ms, {tick % 50} GiB/s"
            line = LogLine(
                seq=seq, at=at, event="load", text=text, job_id=FIRST_ID + number, memory=tick % 36 != 0
            )
            yield at_s, Logged(line=line)


def _job(number: int, fraction: float, began: float) -> Job:
    stage = STAGES[min(len(STAGES) - 1, int(fraction * len(STAGES)))]
    started = began + number * JOB_S
    return Job(
        id=FIRST_ID + number,
        spec=JobSpec(
            model="wan2.2-a14b", prompt=f"scene {number}: 一只猫在雪地里跑", resolution="720p", steps=4
        ),
        status="running",
        created_at=started - 5,
        started_at=started,
        attempt=1,
        progress=JobProgress(
            stage=stage,
            step=1 + int(fraction * 4) if stage == "denoise" else 0,
            steps=4 if stage == "denoise" else 0,
            fraction=fraction,
            eta_s=JOB_S * (1 - fraction),
        ),
        expected_peak_bytes=gib(19.6),
    )


def _ended(number: int, began: float) -> Job:
    finished = began + (number + 1) * JOB_S
    failed = number % 9 == 8
    return replace(
        _job(number, 1.0, began),
        status="failed" if failed else "done",
        progress=None,
        finished_at=finished,
        error="denoise asked 2.10 GiB and 0.62 GiB was free" if failed else None,
        error_code="out_of_memory" if failed else None,
        output=None if failed else f"/home/me/Videos/turbotui/{number}.mp4",
    )


def _receipt(number: int, at: float) -> Receipt:
    size = gib(2.64 + number % 5)
    return Receipt(
        action="unload", target=f"wan2.1-1.3b/part{number}", ok=True, expected_bytes=size, at=at,
        returned_bytes=size, residue_bytes=0, elapsed_s=0.024, proof="nvml-process",
    )  # fmt: skip


def script(began: float, pace: Pace) -> Iterator[Step]:
    """The traffic at its pace, by the clock: what is late comes at once."""
    start = time.monotonic()
    for at_s, event in traffic(began):
        yield Step(event=event, after_s=max(0.0, _real_s(at_s, pace) - (time.monotonic() - start)))


def _real_s(traffic_s: float, pace: Pace) -> float:
    if traffic_s < pace.until_s:
        return traffic_s / pace.first
    return pace.until_s / pace.first + (traffic_s - pace.until_s) / pace.then


def main(arguments: list[str]) -> int:
    numbers = [float(argument) for argument in arguments] or [10.0]
    pace = Pace(first=numbers[0])
    if len(numbers) == 3:
        pace = Pace(first=numbers[0], until_s=numbers[1], then=numbers[2])
    began, start = time.time(), time.monotonic()

    def wall() -> float:
        return began + pace.passed(time.monotonic() - start)

    app = TurboApp(lambda: ScriptedClient(script(began, pace)), where="me@gpubox01", wall=wall)
    app.run()
    return app.return_code or 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
