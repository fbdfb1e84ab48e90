"""How often memory is read: faster for a while, for a benchmark that wants thousands of samples."""

from __future__ import annotations

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.errors import InvalidRequest
from engine.wire import SamplingRequest

MOST_HZ = 500.0
MOST_SECONDS = 3600.0


def add_routes(app: FastAPI, engine: Engine) -> None:
    @app.post("/sampling")
    async def sample(request: SamplingRequest) -> SamplingRequest:
        """Read memory `hz` times a second for `seconds`; the answer is what was asked for."""
        if not 1 <= request.hz <= MOST_HZ or not 0 <= request.seconds <= MOST_SECONDS:
            raise InvalidRequest(
                f"{request.hz:g} readings a second for {request.seconds:g} s is not possible; "
                f"hz is 1 to {MOST_HZ:g}, seconds 0 to {MOST_SECONDS:g}"
            )
        engine.probe.pace(period_s=1 / request.hz, for_s=request.seconds)
        return request
