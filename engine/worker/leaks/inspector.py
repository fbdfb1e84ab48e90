"""Answers what the daemon asks of the worker's memory: looks, the trace mode, exports.

Served by the thread that computes, between two steps; where that is in a long call, by one of its own.
Lock order: that for late looks, then that for looking.
"""

from __future__ import annotations

import json
import pickle
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from engine.errors import EngineError, NotNow
from engine.whole_file import write_whole
from engine.worker.backend import Backend
from engine.worker.leaks.facts import Findings, Inspect, Inspected, Trace
from engine.worker.leaks.look import look
from engine.worker.leaks.tracing import Tracer, has_context
from engine.worker.store import ComponentStore

PATIENCE_S = 0.3
"""How long the thread that computes has to serve a look before another does."""
UNDISTURBED_S = 5.0
"""Between two turns of Python's threads while another than the computing one looks: what that one drops
meanwhile would stay in memory until the look ends, so it does not run."""


class Inspector:
    """Of one worker. `serve` is for the thread that computes, `ask` for the one that listens."""

    def __init__(
        self,
        backend: Backend,
        store: ComponentStore,
        *,
        root: object,
        send: Callable[[Inspected], None],
    ) -> None:
        """`root` is the object by which the worker holds all that it keeps: what it leads to lasts."""
        self.tracer = Tracer(backend.kind)
        self.job_id: int | None = None
        self._tracing_then = self.tracer.began_job()
        self._backend = backend
        self._store = store
        self._roots = {"the worker": root}
        self._send = send
        self._asked: queue.SimpleQueue[Inspect] = queue.SimpleQueue()
        self._looking = threading.Lock()
        self._late = threading.Lock()

    @contextmanager
    def job(self, job_id: int) -> Iterator[None]:
        """Around a job, on the thread that computes and outside of any inference mode."""
        self.job_id, self._tracing_then = job_id, self.tracer.began_job()
        try:
            with self.tracer.job():
                yield
        finally:
            self.job_id = None

    def stepped(self, shape: tuple[object, ...], step_s: Iterable[float]) -> None:
        """What the denoise steps of the job took in seconds, for the cost of tracing."""
        self.tracer.ended_job(self._tracing_then, shape, step_s)

    def ask(self, message: Inspect | Trace) -> None:
        """Have it answered; never waits for a look."""
        if isinstance(message, Trace):
            # Here, since a job may be in a long call: it needs no look.
            self._send(self._switched(message))
            return
        self._asked.put(message)
        threading.Thread(target=self._serve_late, name="inspector", daemon=True).start()

    def serve(self) -> None:
        """Answer what was asked since the last call."""
        while True:
            try:
                message = self._asked.get_nowait()
            except queue.Empty:
                return
            with self._looking:
                answer = self._answered(message)
            self._send(answer)

    def _serve_late(self) -> None:
        threading.Event().wait(PATIENCE_S)
        # One at a time: another would take this one's interval for the usual one, and leave it so.
        with self._late:
            if self._asked.empty():
                return
            interval = sys.getswitchinterval()
            sys.setswitchinterval(UNDISTURBED_S)
            try:
                self.serve()
            finally:
                sys.setswitchinterval(interval)

    def _switched(self, message: Trace) -> Inspected:
        refusal = None
        try:
            self.tracer.switch(message.on)
        except RuntimeError as error:
            refusal = f"{self._backend.kind} cannot trace its memory: {error}"
        return Inspected(inspection_id=message.inspection_id, tracing=self.tracer.state(), refusal=refusal)

    def _answered(self, message: Inspect) -> Inspected:
        findings: Findings | None = None
        exported: int | None = None
        refusal: str | None = None
        try:
            if message.export is None or (message.export_format == "json" and self._backend.kind == "cpu"):
                findings = look(
                    backend=self._backend,
                    store=self._store,
                    tracer=self.tracer,
                    roots=self._roots,
                    job_id=self.job_id,
                )
            if message.export is not None:
                exported = self._export(Path(message.export), message, findings)
                findings = None
        except EngineError as error:
            refusal = str(error)
        except Exception as error:  # a look must not end a job: it is told, and only the look is lost
            refusal = f"the worker could not be looked into: {type(error).__name__}: {error}"
        return Inspected(
            inspection_id=message.inspection_id,
            tracing=self.tracer.state(),
            findings=findings,
            exported_bytes=exported,
            refusal=refusal,
        )

    def _export(self, path: Path, message: Inspect, findings: Findings | None) -> int:
        """Write the snapshot; its length in bytes.

        Raises:
            NotNow: there is none of that kind here, or the file cannot be written.
        """
        if findings is not None:
            data = msgspec.json.format(msgspec.json.encode(findings))
        elif self._backend.kind == "cpu":
            raise NotNow(
                "only the allocator of a GPU has a snapshot that memory_viz reads; on cpu export JSON instead"
            )
        elif not has_context():
            raise NotNow("there is no context on the device yet; export when the worker is ready")
        else:
            snapshot: Any = torch.cuda.memory._snapshot()
            data = pickle.dumps(snapshot) if message.export_format == "pickle" else _as_json(snapshot)
        try:
            write_whole(path, data)
        except OSError as error:
            raise NotNow(f"{path} cannot be written: {error.strerror}; choose another place") from error
        return len(data)


def _as_json(snapshot: Any) -> bytes:
    return json.dumps(snapshot, default=str, ensure_ascii=False).encode("utf-8", "replace")
