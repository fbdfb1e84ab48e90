"""The routes of the search for leaks."""

from __future__ import annotations

from fastapi import FastAPI, Request

from engine.daemon.engine import Engine
from engine.daemon.routes.asker import asker_of
from engine.wire import (
    ExportedSnapshot,
    ExportRequest,
    LeakReport,
    Mark,
    MarkRequest,
    OomReport,
    RemedyRequest,
    RemedyResult,
    TraceRequest,
    Tracing,
)


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.get("/leaks")
    async def leaks() -> LeakReport:
        """Look now for what holds memory; within two seconds, also under a job."""
        return await engine.leaks.report()

    @app.get("/jobs/{job_id}/oom")
    async def out_of_memory(job_id: int) -> OomReport:
        """What there was when this job ran out of memory."""
        return await engine.oom_reports.of_job(job_id)

    @app.post("/leaks/trace")
    async def trace(request: TraceRequest) -> Tracing:
        """Have the worker note where memory is allocated, or no more."""
        return await engine.leaks.trace(request.on)

    @app.post("/leaks/mark")
    async def mark(request: MarkRequest) -> Mark:
        """Remember what is live now, with which later reports compare; or forget it."""
        return await engine.leaks.mark(request)

    @app.post("/leaks/export")
    async def export(request: ExportRequest) -> ExportedSnapshot:
        """Write the allocator's snapshot to a file on the engine's machine."""
        return await engine.leaks.export(request)

    @app.post("/leaks/remedy")
    async def remedy(request: RemedyRequest, connection: Request) -> RemedyResult:
        """Run a remedy of the report, and tell what came back of what it predicted."""
        return await engine.remedies.run(request, asker=asker_of(connection))
