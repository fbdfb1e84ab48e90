"""The routes about videos on disk."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, Request

from engine.daemon.engine import Engine
from engine.daemon.outputs import list_outputs, prune_outputs
from engine.daemon.routes.asker import asker_of
from engine.daemon.threads import in_thread
from engine.units import counted, size_text
from engine.wire import OutputList, PruneRequest, PruneResult


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""

    @app.get("/outputs")
    async def outputs() -> OutputList:
        """Videos that manifests of ours name, and what ended writers left."""
        files = engine.full_cleanup
        return await in_thread(partial(list_outputs, files.folders(), busy=files.busy()), name="outputs")

    @app.post("/outputs/prune")
    async def prune(request: PruneRequest, connection: Request) -> PruneResult:
        """Delete what is older, of what is surely ours; without `delete` only say what would go."""
        files = engine.full_cleanup
        target = f"outputs from before {request.before:.0f}"
        asker = asker_of(connection)
        if request.delete:
            await engine.audit.asked("prune", target, asker)
        work = partial(
            prune_outputs, files.folders(), before=request.before, delete=request.delete, busy=files.busy()
        )
        result = await in_thread(work, name="outputs")
        if request.delete:
            told = (
                f"{counted(len(result.videos), 'video')} and {counted(len(result.parts), 'leftover')}, "
                f"{size_text(result.bytes)}"
            )
            engine.audit.write("prune", target, f"deleted {told}; {len(result.problems)} problems", asker)
            engine.logbook.write("outputs", f"deleted {told}")
        return result
