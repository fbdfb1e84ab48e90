"""An engine in whose worker plants can be grown, seen by its public API only."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.leaks.facts import Facts
from engine.wire import (
    CleanupRequest,
    Job,
    JobSpec,
    LeakReport,
    Remedy,
    RemedyRequest,
    RemedyResult,
    TraceRequest,
    Tracing,
    UnloadRequest,
    Verdict,
)
from tests.daemon.live import LiveEngine, wait_for

HERE = Path(__file__).parent
MIB = 2**20
SHORT = JobSpec(model="wan-demo-small", prompt="a cat in snow", frames=1, steps=1, seed=7)
"""The quickest job there is: one picture."""
LARGE = replace(SHORT, frames=17, steps=2)


class Field:
    """One engine; what is planted in it is gone when its worker has ended."""

    def __init__(self, home: Path, **settings: str) -> None:
        self._plants = home / "plants"
        self._plants.write_text("")
        self._facts = home / "facts.json"
        self._unused: int | None = None
        """A worker in which nothing has run yet."""
        paths = [str(HERE / "inside"), os.environ.get("PYTHONPATH", "")]
        self.live = LiveEngine(
            home,
            PYTHONPATH=os.pathsep.join(path for path in paths if path),
            TURBOTUI_TEST_PLANTS=str(self._plants),
            TURBOTUI_TEST_FACTS=str(self._facts),
            **settings,
        )

    def start(self) -> None:
        self.live.start()
        self.live.client.make_demo_models()
        wait_for(lambda: self.live.status().engine.nursery.state == "ready", 60, "the nursery")

    def grow(self, *names: str, jobs: int = 1, spec: JobSpec = SHORT) -> list[Job]:
        """Run `jobs`, each with these plants; none afterwards."""
        self._plants.write_text("\n".join(names))
        try:
            queued = [self.live.client.submit(replace(spec, seed=number)) for number in range(jobs)]
            return [self.live.settle(job.id) for job in queued]
        finally:
            self._plants.write_text("")

    def report(self) -> LeakReport:
        return self.live.client.leaks()

    def trace(self, on: bool) -> Tracing:
        """Note in the worker that runs now where memory is allocated, or no more."""
        return self.live.client.trace(TraceRequest(on=on))

    def remedy(self, remedy: Remedy) -> RemedyResult:
        """Run it as the console would."""
        result = self.live.client.remedy(RemedyRequest(remedy=remedy))
        if remedy.action == "cleanup":
            self._unused = self.live.worker_pid()
        return result

    def empty_cache(self) -> None:
        """So that what comes back afterwards is something else."""
        assert self.remedy(Remedy(action="free", text="")).receipt.ok

    def facts(self) -> Facts:
        """What the newest report rested on."""
        return msgspec.json.decode(self._facts.read_bytes(), type=Facts)

    def fresh_worker(self) -> None:
        """End the worker with all that was planted, and run a first job on the next one."""
        if (pid := self.live.worker_pid()) is not None and pid != self._unused:
            for model in self._others():
                self.live.client.unload(UnloadRequest(model=model))  # else a cleanup brings them back
            receipt = self.live.client.cleanup(CleanupRequest())
            assert receipt.ok, receipt
        self._unused = None
        assert self.live.run(SHORT).status == "done"

    def _others(self) -> list[str]:
        """Models with something resident beside the one that is planted in."""
        return [
            model.name
            for model in self.live.client.models()
            if model.name != SHORT.model and any(part.state == "resident" for part in model.components)
        ]


def line_of(plant: str, mark: str) -> tuple[str, int]:
    """File and line of a plant that end with `# mark`."""
    path = HERE / "plants" / f"{plant}.py"
    (line,) = (
        number
        for number, text in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if text.endswith(f"# {mark}")
    )
    return str(path), line


def leaks(report: LeakReport) -> list[Verdict]:
    """All but workers of other engines, which other tests on this host may have left for a moment."""
    return [verdict for verdict in report.verdicts if verdict.leak and verdict.kind != "orphan"]
