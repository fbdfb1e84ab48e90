"""The routes about what is loaded, and about the processes that hold it."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request

from engine.daemon.engine import Engine
from engine.daemon.routes.asker import asker_of
from engine.wire import (
    CancelAsked,
    CancelRequest,
    CleanupRequest,
    Explanation,
    JobSpec,
    KillRequest,
    Receipt,
    SpareRequest,
    SwitchRequest,
    UnloadRequest,
    WarmRequest,
)


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""
    requests = engine.memory_requests

    @app.post("/switch")
    async def switch(request: SwitchRequest) -> Receipt:
        return await requests.switch(request.model)

    @app.post("/switch/cancel", status_code=HTTPStatus.ACCEPTED)
    async def cancel_switch(request: CancelRequest) -> CancelAsked:
        """Give up switches or a reload; each tells in its own receipt what came back."""
        return requests.cancel_switch(request)

    @app.post("/unload")
    async def unload(request: UnloadRequest) -> Receipt:
        return await requests.unload(request)

    @app.post("/free")
    async def free() -> Receipt:
        return await engine.actions.free()

    @app.post("/park")
    async def park(connection: Request) -> Receipt:
        """Give everything back, the worker's context too."""
        return await requests.park(asker=asker_of(connection))

    @app.post("/cleanup")
    async def cleanup(request: CleanupRequest, connection: Request) -> Receipt:
        """End the worker, whatever it does, and start a fresh one."""
        return await requests.cleanup(request, asker=asker_of(connection))

    @app.post("/kill")
    async def kill(request: KillRequest, connection: Request) -> Receipt:
        """End one process that holds a GPU; `pid` and `start_time` as /status shows them."""
        return await requests.kill(request, asker=asker_of(connection))

    @app.post("/kill/spare", status_code=HTTPStatus.ACCEPTED)
    async def spare(request: SpareRequest, connection: Request) -> SpareRequest:
        """Stop the countdown of a kill: no SIGKILL is sent."""
        requests.spare(request, asker=asker_of(connection))
        return request

    @app.post("/warm")
    async def warm(request: WarmRequest) -> Receipt:
        return await requests.warm(request)

    @app.post("/warm/drop")
    async def drop_warm(request: WarmRequest) -> Receipt:
        return await requests.drop_warm(request)

    @app.post("/explain/job")
    async def explain(spec: JobSpec) -> Explanation:
        return await requests.explain_job(spec)

    @app.post("/explain/switch")
    async def explain_switch(request: SwitchRequest) -> Explanation:
        return await requests.explain_switch(request.model)
