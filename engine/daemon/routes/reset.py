"""The routes of the GPU reset."""

from __future__ import annotations

from fastapi import FastAPI, Request

from engine.daemon.engine import Engine
from engine.daemon.reset_helper import HELPER, describe_helper
from engine.daemon.routes.asker import asker_of
from engine.paths import user_name
from engine.wire import Receipt, ResetHelper, ResetPlan, ResetRequest


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.get("/reset-helper")
    async def helper() -> ResetHelper:
        """The program that resets GPUs as root for this user, and how to install it."""
        return describe_helper(user_name(), HELPER)

    @app.get("/reset/{device}")
    async def plan(device: str) -> ResetPlan:
        """What a reset of a GPU (UUID, its beginning, or index) would do now; changes nothing."""
        return await engine.reset.plan(device)

    @app.post("/reset")
    async def reset(request: ResetRequest, connection: Request) -> Receipt:
        """Reset one GPU by the driver; all that is on it is lost."""
        return await engine.reset.run(request, asker=asker_of(connection))
