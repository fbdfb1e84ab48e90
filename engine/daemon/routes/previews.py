"""The routes about what a job shows of itself while it runs."""

from __future__ import annotations

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import JobCourse, JobPreview


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""
    previews = engine.supervisor.previews

    @app.get("/jobs/{job_id}/preview")
    async def preview(job_id: int, step: int | None = None) -> JobPreview:
        return previews.picture(job_id, step)

    @app.get("/jobs/{job_id}/course")
    async def course(job_id: int) -> JobCourse:
        return previews.course(job_id)
