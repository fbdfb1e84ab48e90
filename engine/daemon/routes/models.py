"""The routes about models on disk, and the cache of prompts."""

from __future__ import annotations

from fastapi import FastAPI

from engine.daemon.engine import Engine
from engine.wire import CacheCleared, CacheStatus, ModelStatus


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.get("/models")
    async def models() -> list[ModelStatus]:
        return list(engine.models.statuses())

    @app.post("/models/demo")
    async def make_demo_models() -> list[ModelStatus]:
        return list(await engine.models.make_demo_models())

    @app.get("/cache")
    async def cache() -> CacheStatus:
        return await engine.prompt_cache.status()

    @app.post("/cache/clear")
    async def clear_cache() -> CacheCleared:
        return await engine.prompt_cache.clear()
