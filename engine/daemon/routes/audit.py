"""The route that reads the audit log."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import FastAPI, Query

from engine.daemon.audit_reading import read_audit
from engine.daemon.engine import Engine
from engine.daemon.threads import in_thread
from engine.wire import AuditPage


def add_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/audit")
    async def audit(
        limit: Annotated[int, Query(ge=1, le=5000)] = 200,
        before: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    ) -> AuditPage:
        """The newest deeds first; `before` goes on after those that one has."""
        await engine.audit.kept()
        return await in_thread(
            partial(read_audit, engine.paths.audit, limit=limit, before=before), name="audit-read"
        )
