"""The routes of the full cleanup."""

from __future__ import annotations

from fastapi import FastAPI, Request

from engine.daemon.engine import Engine
from engine.daemon.routes.asker import asker_of
from engine.wire import FullCleanupPlan, FullCleanupRequest, Receipt


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.get("/cleanup/all")
    async def plan() -> FullCleanupPlan:
        """What a full cleanup would do now; changes nothing."""
        return await engine.full_cleanup.plan()

    @app.post("/cleanup/all")
    async def run(request: FullCleanupRequest, connection: Request) -> Receipt:
        """End everything of ours, and the processes that are named; deletes nothing."""
        return await engine.full_cleanup.run(request, asker=asker_of(connection))
