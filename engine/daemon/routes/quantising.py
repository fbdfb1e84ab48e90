"""The routes about quantising a model."""

from __future__ import annotations

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import QuantisePlan, QuantiseRequest, QuantiseStopped


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.post("/models/quantise/plan")
    async def plan_quantising(request: QuantiseRequest) -> QuantisePlan:
        return await engine.quantising.plan(request.model)

    @app.post("/models/quantise")
    async def quantise(request: QuantiseRequest) -> QuantisePlan:
        engine.life.refuse_when_stopping()
        return await engine.quantising.start(request.model)

    @app.post("/models/quantise/stop")
    async def stop_quantising() -> QuantiseStopped:
        return QuantiseStopped(model=engine.quantising.cancel())
