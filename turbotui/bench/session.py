"""An engine of the benchmark's own, in a folder of its own, which is ended after.

The person's engine, queue, settings and videos are not touched; a models folder may be theirs and
is only read.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from engine.errors import EngineError, EngineUnavailable, WorkFailed
from engine.paths import find_paths
from engine.wire import TERMINAL_STATES, JobSpec, Manifest, ModelStatus, StopRequest
from turbotui.client.http import HttpClient
from turbotui.client.launch import connect

NURSERY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
NO_RESET = "/nonexistent/no-reset-in-a-benchmark"
CLIENT_TIMEOUT_S = 60.0
"""A host whose bus and cores are busy answers later than in a day's use."""
_POLL_S = 0.01


class BenchEngine:
    """One engine that runs for the length of a `with`."""

    def __init__(self, models: Path | None, settings: Mapping[str, str] | None = None) -> None:
        """`models` is the folder to read models from; None: an empty one of its own.

        `settings` are variables such as `TURBOTUI_ENGINE_DEVICE`.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="turbotui-bench-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        # A benchmark measures no reset, and its engine must not even be able to ask for one.
        never = {"TURBOTUI_HOME": str(self.home), "TURBOTUI_ENGINE_RESET_PROGRAM": NO_RESET}
        self._environ = {**os.environ, **(settings or {}), **never}
        self.paths = find_paths(self._environ)
        self._models = models
        self._started: set[tuple[int, float]] = set()
        self.client: HttpClient = HttpClient(self.paths.socket)

    def __enter__(self) -> BenchEngine:
        try:
            if self._models is not None:
                self.paths.data.mkdir(parents=True)
                self.paths.models.symlink_to(self._models.absolute(), target_is_directory=True)
            self.ensure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
        self._folder.cleanup()

    def close(self) -> None:
        """End the engine; `ensure` starts another one in the same folder."""
        for pid, start_time in self._started:
            _end(self.client, pid, start_time)
        self._started.clear()

    def pin(self, device_id: str) -> None:
        """Every engine started from here on works on this device."""
        self._environ["TURBOTUI_ENGINE_DEVICE"] = device_id

    def ensure(self) -> HttpClient:
        """A client of the engine, which is started if it does not run, once workers can be forked.

        Raises:
            EngineUnavailable: it cannot be started.
        """
        with environment(self._environ):
            found = connect(self.paths)
        self.client = HttpClient(found.socket_path, timeout=CLIENT_TIMEOUT_S)
        hello = self.client.hello()
        self._started.add((hello.pid, hello.start_time))
        deadline = time.monotonic() + NURSERY_TIMEOUT_S
        while self.client.status().engine.nursery.state in ("cold", "warming"):
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"the nursery was not ready within {NURSERY_TIMEOUT_S:g} s")
            time.sleep(0.05)
        return self.client

    def model(self, name: str) -> ModelStatus:
        """The model as the engine sees it now.

        Raises:
            WorkFailed: the engine does not know it, or cannot use it.
        """
        found = next((model for model in self.client.models() if model.name == name), None)
        if found is None or found.problem is not None:
            raise WorkFailed(f"{name} cannot be used: {found.problem if found else 'the engine has none'}")
        return found

    def run(self, spec: JobSpec) -> tuple[float, Manifest]:
        """Submit a job and wait for its end: the wall clock just before the request, and its manifest.

        Raises:
            WorkFailed: it did not end as done, or its manifest cannot be read.
        """
        asked_at, _, manifest = self.run_timed(spec)
        return asked_at, manifest

    def run_timed(self, spec: JobSpec) -> tuple[float, float, Manifest]:
        """As `run`, with the wall clock when the engine had the job as done between the two."""
        asked_at = time.time()
        job = self.client.submit(spec)
        while job.status not in TERMINAL_STATES:
            time.sleep(_POLL_S)
            job = self.client.job(job.id)
        if job.status != "done" or job.manifest is None:
            raise WorkFailed(f"job {job.id} of {spec.model} ended as {job.status}: {job.error}")
        try:
            manifest = msgspec.json.decode(Path(job.manifest).read_bytes(), type=Manifest)
            Path(manifest.output).unlink()  # only what the manifest says is wanted
        except (OSError, msgspec.MsgspecError) as error:
            raise WorkFailed(f"the manifest of job {job.id} cannot be read: {error}") from error
        return asked_at, job.finished_at or time.time(), manifest


def stop(client: HttpClient) -> float:
    """Tell the engine to end; seconds until its process has."""
    pid = client.hello().pid
    began = time.perf_counter()
    client.stop(StopRequest())
    while Path(f"/proc/{pid}").exists() and time.perf_counter() - began < STOP_TIMEOUT_S:
        time.sleep(0.005)
    return time.perf_counter() - began


@contextmanager
def environment(environ: Mapping[str, str]) -> Iterator[None]:
    """`connect` starts engines with our own environment, so that has to be the benchmark's."""
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end(client: HttpClient, pid: int, start_time: float) -> None:
    """End an engine that we started: asked first, then killed, its children following by themselves."""
    with suppress(EngineError):
        if client.hello().pid == pid:
            stop(client)
    if _start_time(pid) == start_time:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _start_time(pid: int) -> float | None:
    """When the process began, in seconds since boot: with its pid, an identity."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
