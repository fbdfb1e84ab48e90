"""A real engine in a folder of its own, as the daemon tests drive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from engine.errors import EngineUnavailable
from engine.jobs.liveness import read_start_time
from engine.paths import Paths, find_paths
from engine.wire import TERMINAL_STATES, Job, JobSpec, Status, StopRequest
from turbotui.client.http import HttpClient

Answer = TypeVar("Answer")


def wait_for(ask: Callable[[], Answer | None], timeout: float, what: str) -> Answer:
    """The first answer that is neither None nor False; fails by name after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if answer := ask():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout} s")
        time.sleep(0.02)


class LiveEngine:
    """Starts, asks, kills and restarts one engine. Touches no process but its own."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.environ = {
            **os.environ,
            "TURBOTUI_HOME": str(home),
            "TURBOTUI_ENGINE_DEVICE": "cpu",
            **settings,
        }
        self.paths: Paths = find_paths(self.environ)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> HttpClient:
        return HttpClient(str(self.paths.socket), timeout=10)

    def start(self) -> float:
        """Start it and return the seconds until it answered."""
        began = time.monotonic()
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        with (self.paths.logs / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.daemon"],
                cwd=self.home,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(self.answers, 20, "an answer of the engine")
        except AssertionError:
            self.kill()
            raise
        return time.monotonic() - began

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, (
            self.paths.logs / "engine.log"
        ).read_text()
        with suppress(EngineUnavailable):
            return self.client.hello().pid == (self.process.pid if self.process else -1)
        return False

    def stop(self) -> float:
        """Ask it to stop and return the seconds until its process was gone."""
        assert self.process is not None
        began = time.monotonic()
        with suppress(EngineUnavailable):
            self.client.stop(StopRequest())
        self.process.wait(timeout=10)
        return time.monotonic() - began

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=5)

    def close(self) -> None:
        """The end of a test: nothing stays."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    # ----------------------------------------------------------------- asking

    def status(self) -> Status:
        return self.client.status()

    def worker_pid(self) -> int | None:
        workers = self.status().workers
        return workers[0].pid if workers else None

    def nursery_pid(self) -> int | None:
        return self.status().engine.nursery.pid

    def settle(self, job_id: int, timeout: float = 90) -> Job:
        """The job once it has ended."""

        def ended() -> Job | None:
            job = self.client.job(job_id)
            return job if job.status in TERMINAL_STATES else None

        return wait_for(ended, timeout, f"the end of job {job_id}")

    def run(self, spec: JobSpec) -> Job:
        return self.settle(self.client.submit(spec).id)

    def until_running(self, job_id: int, stage: str = "denoise") -> Job:
        """The job once it runs in `stage`."""

        def running() -> Job | None:
            job = self.client.job(job_id)
            assert job.status not in TERMINAL_STATES, f"job {job_id} ended as {job.status}: {job.error}"
            return job if job.progress is not None and job.progress.stage == stage else None

        return wait_for(running, 60, f"stage {stage} of job {job_id}")

    def mapped_files(self) -> str:
        """What the daemon has mapped."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/maps").read_text()


def is_gone(pid: int) -> bool:
    return read_start_time(pid) is None


def stop_process(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
