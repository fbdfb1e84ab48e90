"""The route that reads the memory ledger."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query

from engine.daemon.engine import Engine
from engine.wire import LedgerKind, LedgerPage


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add it to `app`."""

    @app.get("/ledger")
    async def ledger(
        limit: Annotated[int, Query(ge=1, le=5000)] = 100,
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        job: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        kind: Annotated[tuple[LedgerKind, ...], Query()] = (),
        model: Annotated[str | None, Query(max_length=200)] = None,
    ) -> LedgerPage:
        """What loads, unloads, switches, jobs and stages held, the newest first, and how floors move.

        `before` goes on after the line of that number.
        """
        return await engine.ledger.page(limit, before=before, job_id=job, kinds=kind, model=model)
