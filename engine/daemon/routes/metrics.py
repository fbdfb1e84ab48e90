"""`GET /metrics`: the engine's figures as Prometheus reads them."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from engine.daemon.engine import Engine
from engine.daemon.metrics import metrics_text
from engine.daemon.prometheus import CONTENT_TYPE


def add_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Prometheus text format 0.0.4."""
        text = metrics_text(engine.board.status(), engine.store.count_by_state(), engine.receipt_tally)
        return PlainTextResponse(text, media_type=CONTENT_TYPE)
