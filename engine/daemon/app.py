"""The HTTP routes: thin, typed, and all through `Engine`.

Every refusal is an ErrorBody with one sentence, whatever raised it. Long actions (a switch, the
demo models) hold their request open; their steps travel on the event stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.daemon.engine import Engine
from engine.daemon.openapi import describe_api
from engine.daemon.routes import checks, full_cleanup, metrics, outputs, recordings, reset, sampling
from engine.daemon.routes.asker import asker_of
from engine.errors import EngineError, InvalidRequest, NotFound
from engine.wire import (
    CacheCleared,
    CacheStatus,
    CancelAsked,
    CancelRequest,
    CleanupRequest,
    EngineStatus,
    ErrorBody,
    Explanation,
    Hello,
    Job,
    JobForecast,
    JobMove,
    JobSpec,
    KillRequest,
    LogLine,
    MemoryHistory,
    ModelStatus,
    QueueStatus,
    Receipt,
    Status,
    StopRequest,
    SwitchRequest,
    UnloadRequest,
    WarmRequest,
)

MAX_BODY_BYTES = 1 << 20
"""No request of ours comes near it; a prompt of 100 kB is refused with its own sentence."""
UNAUDITED = frozenset({"/check", "/jobs/forecast", "/explain/job", "/explain/switch"})
"""Posts that change nothing."""


def create_app(engine: Engine) -> FastAPI:
    """The application that serves `engine`."""
    app = FastAPI(
        title="turbotui engine",
        version=engine.build,
        description="Local API of the turbotui engine, on its Unix socket only.",
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_middleware(Gate, engine=engine)
    _answer_errors(app, engine)
    _add_reading_routes(app, engine)
    _add_job_routes(app, engine)
    _add_memory_routes(app, engine)
    sampling.add_routes(app, engine)
    checks.add_routes(app, engine)
    reset.add_routes(app, engine)
    full_cleanup.add_routes(app, engine)
    outputs.add_routes(app, engine)
    metrics.add_routes(app, engine)
    recordings.add_routes(app, engine)
    return app


def _add_reading_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/hello")
    async def hello() -> Hello:
        return engine.hello()

    @app.get("/status")
    async def status() -> Status:
        return engine.status()

    @app.get("/models")
    async def models() -> list[ModelStatus]:
        return list(engine.models())

    @app.get("/history")
    async def history(
        device_id: str,
        seconds: Annotated[float, Query(gt=0, le=2_592_000)] = 600,
        columns: Annotated[int, Query(ge=1, le=2000)] = 600,
    ) -> MemoryHistory:
        return await engine.history(device_id, seconds, columns)

    @app.get("/cache")
    async def cache() -> CacheStatus:
        return await engine.cache()

    @app.get("/logs")
    async def logs(
        after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=5000)] = 1000
    ) -> list[LogLine]:
        return engine.logbook.after(after, limit)

    @app.get("/events", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """Server-sent events: a snapshot, then every change, and a heartbeat in silence."""
        frames: AsyncIterator[bytes] = engine.hub.stream(engine.snapshot)
        return StreamingResponse(
            frames, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    @app.post("/engine/stop", status_code=HTTPStatus.ACCEPTED)
    async def stop(request: StopRequest) -> EngineStatus:
        engine.request_stop(after_job=request.after_job)
        return engine.status().engine


def _add_job_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/jobs")
    async def jobs(all: bool = False) -> list[Job]:
        return engine.jobs(all=all)

    @app.post("/jobs", status_code=HTTPStatus.CREATED)
    async def submit(spec: JobSpec) -> Job:
        return engine.submit(spec)

    @app.post("/jobs/forecast")
    async def forecast(spec: JobSpec) -> JobForecast:
        return engine.forecast(spec)

    @app.get("/jobs/{job_id}")
    async def job(job_id: int) -> Job:
        return engine.job(job_id)

    @app.post("/jobs/{job_id}/cancel")
    async def cancel(job_id: int) -> Job:
        return engine.cancel(job_id)

    @app.post("/jobs/{job_id}/retry")
    async def retry(job_id: int) -> Job:
        return engine.retry(job_id)

    @app.post("/jobs/{job_id}/duplicate", status_code=HTTPStatus.CREATED)
    async def duplicate(job_id: int) -> Job:
        return engine.duplicate(job_id)

    @app.post("/jobs/{job_id}/hold")
    async def hold(job_id: int) -> Job:
        return engine.hold(job_id, held=True)

    @app.post("/jobs/{job_id}/release")
    async def release(job_id: int) -> Job:
        return engine.hold(job_id, held=False)

    @app.post("/jobs/{job_id}/move")
    async def move(job_id: int, request: JobMove) -> Job:
        return engine.move(job_id, request)

    @app.post("/queue/resume")
    async def resume() -> QueueStatus:
        return engine.resume_queue()


def _add_memory_routes(app: FastAPI, engine: Engine) -> None:
    @app.post("/models/demo")
    async def make_demo_models() -> list[ModelStatus]:
        return list(await engine.make_demo_models())

    @app.post("/switch")
    async def switch(request: SwitchRequest) -> Receipt:
        return await engine.switch(request.model)

    @app.post("/switch/cancel", status_code=HTTPStatus.ACCEPTED)
    async def cancel_switch(request: CancelRequest) -> CancelAsked:
        """Give up switches or a reload; each tells in its own receipt what came back."""
        return engine.cancel_switch(request)

    @app.post("/unload")
    async def unload(request: UnloadRequest) -> Receipt:
        return await engine.unload(request)

    @app.post("/free")
    async def free() -> Receipt:
        return await engine.free()

    @app.post("/park")
    async def park(connection: Request) -> Receipt:
        """Give everything back, the worker's context too."""
        return await engine.park(asker=asker_of(connection))

    @app.post("/cleanup")
    async def cleanup(request: CleanupRequest, connection: Request) -> Receipt:
        """End the worker, whatever it does, and start a fresh one."""
        return await engine.cleanup(request, asker=asker_of(connection))

    @app.post("/kill")
    async def kill(request: KillRequest, connection: Request) -> Receipt:
        """End one process that holds a GPU; `pid` and `start_time` as /status shows them."""
        return await engine.kill(request, asker=asker_of(connection))

    @app.post("/warm")
    async def warm(request: WarmRequest) -> Receipt:
        return await engine.warm(request)

    @app.post("/warm/drop")
    async def drop_warm(request: WarmRequest) -> Receipt:
        return await engine.drop_warm(request)

    @app.post("/explain/job")
    async def explain(spec: JobSpec) -> Explanation:
        return await engine.explain(spec)

    @app.post("/explain/switch")
    async def explain_switch(request: SwitchRequest) -> Explanation:
        return await engine.explain_switch(request.model)

    @app.post("/cache/clear")
    async def clear_cache() -> CacheCleared:
        return await engine.clear_cache()


class Gate:
    """Bounds request bodies and writes the audit's line for everything that changes something.

    Plain ASGI: Starlette's function middleware would put a task and a queue around every stream.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            declared = Headers(scope=scope).get("content-length", "chunked")
            if not declared.isdecimal() or int(declared) > MAX_BODY_BYTES:
                refusal = _answer(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    InvalidRequest.code,
                    f"a request of {declared} bytes is not taken; declare at most {MAX_BODY_BYTES}",
                )
                await refusal(scope, receive, send)
                return
            if scope["path"] not in UNAUDITED:
                who = scope["client"][0] if scope.get("client") else "?"
                self._engine.logbook.write("audit", f"{scope['path']} by {who}", level="debug")
        await self._app(scope, receive, send)


def _answer_errors(app: FastAPI, engine: Engine) -> None:
    @app.exception_handler(EngineError)
    async def refused(_request: Request, error: EngineError) -> Response:
        return _answer(error.http_status, error.code, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the request"
        given = repr(first.get("input"))[:80]
        return _answer(
            InvalidRequest.http_status, InvalidRequest.code, f"{where}: {first['msg']}, got {given}"
        )

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> Response:
        return _answer(error.status_code, NotFound.code, str(error.detail))

    @app.exception_handler(Exception)  # the process edge: logged here, once
    async def bug(request: Request, error: Exception) -> Response:
        engine.logbook.write("bug", f"{request.url.path}: {type(error).__name__}: {error}", level="error")
        return _answer(
            500, EngineError.code, f"the engine met a bug of its own: {type(error).__name__}: {error}"
        )


def _answer(status: int, code: str, message: str) -> Response:
    body = msgspec.json.encode(ErrorBody(code=code, message=message))
    return Response(body, status_code=status, media_type="application/json")
