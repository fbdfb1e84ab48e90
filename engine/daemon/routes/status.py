"""The routes that look at the engine as a whole, and the one that stops it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from engine.daemon.engine import Engine
from engine.daemon.history import past_of
from engine.daemon.routes.asker import asker_of
from engine.wire import EngineStatus, Hello, LogLine, MemoryHistory, Status, StopRequest


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.get("/hello")
    async def hello() -> Hello:
        return engine.life.hello()

    @app.get("/status")
    async def status() -> Status:
        return engine.board.status()

    @app.get("/history")
    async def history(
        device_id: str,
        seconds: Annotated[float, Query(gt=0, le=2_592_000)] = 600,
        columns: Annotated[int, Query(ge=1, le=2000)] = 600,
    ) -> MemoryHistory:
        return await past_of(engine.memory.recorder, engine.recorder, device_id, seconds, columns)

    @app.get("/logs")
    async def logs(
        after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=5000)] = 1000
    ) -> list[LogLine]:
        return engine.logbook.after(after, limit)

    @app.get("/events", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """Server-sent events: a snapshot, then every change, and a heartbeat in silence."""
        frames: AsyncIterator[bytes] = engine.hub.stream(engine.board.snapshot)
        return StreamingResponse(
            frames, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    @app.post("/engine/stop", status_code=HTTPStatus.ACCEPTED)
    async def stop(request: StopRequest, connection: Request) -> EngineStatus:
        told = "it stops, after the running job" if request.after_job else "it stops"
        engine.audit.write("stop", f"engine {engine.life.hello().pid}", told, asker_of(connection))
        engine.life.request_stop(after_job=request.after_job)
        return engine.board.engine()
