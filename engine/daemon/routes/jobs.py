"""The routes about jobs and their queue."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import Job, JobForecast, JobMove, JobSpec, QueueStatus


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""
    requests = engine.job_requests

    @app.get("/jobs")
    async def jobs(all: bool = False) -> list[Job]:
        return requests.list(all=all)

    @app.post("/jobs", status_code=HTTPStatus.CREATED)
    async def submit(spec: JobSpec) -> Job:
        return requests.submit(spec)

    @app.post("/jobs/forecast")
    async def forecast(spec: JobSpec) -> JobForecast:
        return engine.plans.forecast(spec)

    @app.get("/jobs/{job_id}")
    async def job(job_id: int) -> Job:
        return requests.get(job_id)

    @app.post("/jobs/{job_id}/cancel")
    async def cancel(job_id: int) -> Job:
        return requests.cancel(job_id)

    @app.post("/jobs/{job_id}/retry")
    async def retry(job_id: int) -> Job:
        return requests.retry(job_id)

    @app.post("/jobs/{job_id}/duplicate", status_code=HTTPStatus.CREATED)
    async def duplicate(job_id: int) -> Job:
        return requests.duplicate(job_id)

    @app.post("/jobs/{job_id}/hold")
    async def hold(job_id: int) -> Job:
        return requests.hold(job_id)

    @app.post("/jobs/{job_id}/release")
    async def release(job_id: int) -> Job:
        return requests.release(job_id)

    @app.post("/jobs/{job_id}/move")
    async def move(job_id: int, request: JobMove) -> Job:
        return requests.move(job_id, request)

    @app.post("/queue/resume")
    async def resume() -> QueueStatus:
        return requests.resume_queue()
