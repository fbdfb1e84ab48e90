"""Leaks that no plant in one job makes: what is forgotten over many, and a worker without its engine."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from engine.jobs.liveness import read_start_time
from tests.daemon.live import is_gone, stop_process, wait_for
from tests.leaks.field import SHORT, Field

FORGOTTEN = "wan-demo-large"


@contextmanager
def a_forgotten_component(field: Field) -> Iterator[None]:
    """One model stays resident while only jobs of another come."""
    assert field.live.run(replace(SHORT, model=FORGOTTEN)).status == "done"
    field.grow(jobs=20)
    yield


@contextmanager
def an_orphaned_worker(field: Field) -> Iterator[None]:
    """The worker of a second engine, over the same models, outlives it."""
    with tempfile.TemporaryDirectory() as home:
        other = Field(Path(home))
        other.live.paths.data.mkdir(parents=True)
        other.live.paths.models.symlink_to(field.live.paths.models)
        worker = start_time = None
        try:
            other.start()
            (job,) = other.grow("untethered")
            assert job.status == "done", job.error
            worker = other.live.worker_pid()
            assert worker is not None
            start_time = read_start_time(worker)
            # It would see that its engine has hung up; one that hangs in a call sees nothing.
            stop_process(worker)
            nursery = other.live.nursery_pid()
            assert nursery is not None
            other.live.kill()
            wait_for(lambda: is_gone(nursery), 2, "the nursery's end")
            assert not is_gone(worker)
            yield
            assert is_gone(worker)
        finally:
            other.live.close()
            if worker is not None and start_time is not None and read_start_time(worker) == start_time:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
