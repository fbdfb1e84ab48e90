"""The routes about many jobs at once."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import BatchForecast, BatchQueued, JobBatch


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""
    batches = engine.job_batches

    @app.post("/jobs/many", status_code=HTTPStatus.CREATED)
    async def submit(batch: JobBatch) -> BatchQueued:
        return await batches.submit(batch)

    @app.post("/jobs/many/forecast")
    async def forecast(batch: JobBatch) -> BatchForecast:
        return await batches.forecast(batch)
