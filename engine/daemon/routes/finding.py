"""The routes that look for models on this host's disks, fetch released ones and import them."""

from __future__ import annotations

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import (
    ErrandStatus,
    GetPlan,
    GetRequest,
    ImportRequest,
    ModelScan,
    ReleasedModel,
    ScanRequest,
)


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.post("/models/scan")
    async def scan(request: ScanRequest) -> ModelScan:
        """Look through the disks, for half a minute at most; changes nothing."""
        return await engine.finder.scan(request.paths)

    @app.get("/models/released")
    async def released() -> list[ReleasedModel]:
        """What can be fetched, and what of it is here; asks nobody."""
        return list(await engine.finder.released())

    @app.get("/models/released/{name}")
    async def plan(name: str) -> GetPlan:
        """What fetching it would do: asks the Hub for sizes and licences."""
        return await engine.finder.plan(name)

    @app.get("/models/errand")
    async def errand() -> ErrandStatus:
        """The fetching or importing under way, or the last one."""
        return engine.finder.status()

    @app.post("/models/get")
    async def get(request: GetRequest) -> ErrandStatus:
        """Begin to fetch a released model, and to import it after."""
        return engine.finder.get(request.name)

    @app.post("/models/import")
    async def import_found(request: ImportRequest) -> ErrandStatus:
        """Begin to make a model of files on this host, where they lie."""
        return engine.finder.import_found(request.name, request.paths)

    @app.post("/models/errand/cancel")
    async def cancel() -> ErrandStatus:
        """End what is under way; what came stays."""
        return engine.finder.cancel()
