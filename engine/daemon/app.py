"""The HTTP application: the routes of `engine.daemon.routes`, behind one gate.

Every refusal is an ErrorBody with one sentence, whatever raised it. Long actions (a switch, the
demo models) hold their request open; their steps travel on the event stream.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.daemon.engine import Engine
from engine.daemon.openapi import describe_api
from engine.daemon.routes import (
    audit,
    checks,
    files,
    finding,
    full_cleanup,
    job_batches,
    jobs,
    leaks,
    ledger,
    memory,
    metrics,
    models,
    outputs,
    previews,
    quantising,
    recordings,
    reset,
    sampling,
    status,
)
from engine.errors import EngineError, InvalidRequest, NotFound
from engine.wire import ErrorBody

MAX_BODY_BYTES = 1 << 20
"""No request of ours comes near it; a prompt of 100 kB is refused with its own sentence."""
ROUTES = (
    *(status, models, jobs, job_batches, previews, memory, sampling, checks, leaks, reset),
    *(full_cleanup, outputs, metrics, files, recordings, audit, finding, quantising, ledger),
)
"""Each adds its own, in the order of the API's document."""
UNAUDITED = frozenset(
    {
        "/check",
        "/jobs/forecast",
        "/jobs/many/forecast",
        "/explain/job",
        "/explain/switch",
        "/models/scan",
        "/models/quantise/plan",
    }
)
"""Posts that change nothing."""


def create_app(engine: Engine) -> FastAPI:
    """The application that serves `engine`."""
    app = FastAPI(
        title="turbotui engine",
        version=engine.life.build,
        description="Local API of the turbotui engine, on its Unix socket only.",
        docs_url=None,
        redoc_url=None,
    )
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_middleware(Gate, engine=engine)
    _answer_errors(app, engine)
    for noun in ROUTES:
        noun.add_routes(app, engine)
    return app


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
