"""What the flight recorder keeps: how much, and any stretch of it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from fastapi import FastAPI, Query, Response

from engine.daemon.engine import Engine
from engine.errors import InvalidRequest
from engine.recording.entries import name_of
from engine.recording.reader import Recording
from engine.recording.rows import Row
from engine.recording.tiers import MEMORY
from engine.wire import RecordedEvent, RecordedPart, RecordedSpan, RecordingStatus

MOST_ROWS = 20_000
MOST_EVENTS = 50_000
Resolution: TypeAlias = Literal["readings", "seconds", "spans"]
Moment: TypeAlias = Annotated[float, Query(ge=0, le=1e11)]


def add_routes(app: FastAPI, engine: Engine) -> None:
    recorder = engine.recorder

    @app.get("/recordings")
    async def recordings() -> RecordingStatus:
        return await recorder.status()

    # These answer at length: they are encoded here, past pydantic, and only described by their model.
    @app.get("/recordings/memory", response_model=list[RecordedSpan])
    async def memory(
        since: Moment, until: Moment, resolution: Resolution = "seconds", device_id: str | None = None
    ) -> Response:
        """Each stretch in the finest tier that is kept of it, from `resolution` on."""
        _refuse_backwards(since, until)
        finest = next(tier for tier in MEMORY if tier.name == resolution)

        def read(recording: Recording) -> bytes:
            rows = recording.rows(device_id, since=since, until=until, finest=finest)
            if len(rows) > MOST_ROWS:
                raise InvalidRequest(
                    f"{len(rows)} rows lie there, and {MOST_ROWS} are given at once; ask for a shorter "
                    "stretch, one device, or a coarser resolution"
                )
            return msgspec.json.encode([_span(row) for row in rows])

        return _json(await recorder.ask(read))

    @app.get("/recordings/events", response_model=list[RecordedEvent])
    async def events(
        since: Moment, until: Moment, limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 5000
    ) -> Response:
        """The first `limit` events of the stretch, oldest first."""
        _refuse_backwards(since, until)

        def read(recording: Recording) -> bytes:
            return msgspec.json.encode(
                [
                    RecordedEvent(at=entry.at, kind=name_of(entry.what), data=msgspec.to_builtins(entry.what))
                    for entry in recording.entries(since, until)[:limit]
                ]
            )

        return _json(await recorder.ask(read))


def _span(row: Row) -> RecordedSpan:
    return RecordedSpan(
        device_id=row.device_id,
        at=row.at_ms / 1000,
        width_s=row.width_ms / 1000,
        samples=row.samples,
        parts=tuple(
            RecordedPart(
                kind=kind,
                owner=owner,
                label=label,
                pid=pid,
                low=None if value is None else value[0],
                high=None if value is None else value[1],
            )
            for (kind, owner, label, pid), value in row.values.items()
        ),
    )


def _refuse_backwards(since: float, until: float) -> None:
    if until < since:
        raise InvalidRequest(f"until ({until:g}) lies before since ({since:g})")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
