"""The routes of the baseline check."""

from __future__ import annotations

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import CheckReport


def add_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/check")
    async def last_check() -> CheckReport:
        """The newest check's report; the first to ask has one made."""
        return engine.checks.report or await engine.checks.check()

    @app.post("/check")
    async def check() -> CheckReport:
        """Look now; within a second."""
        return await engine.checks.check()
