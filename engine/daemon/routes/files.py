"""The routes that carry whole files: a job's video and manifest, an image, a stretch of the recording.

Only what a manifest of ours names can be read, and only into a folder of ours is written.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from engine.daemon.engine import Engine
from engine.daemon.images import ImageStore
from engine.daemon.routes.asker import asker_of
from engine.daemon.threads import in_thread
from engine.daemon.videos import CHUNK_BYTES, describe_video, manifest_of, read_video
from engine.errors import InvalidRequest, StorageUnusable
from engine.paths import private_dir
from engine.recording.export import export
from engine.recording.reader import Recording
from engine.units import size_text
from engine.wire import TERMINAL_STATES, Manifest, StoredImage, VideoFile


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Add them to `app`."""
    requests = engine.job_requests

    def needed() -> frozenset[str]:
        jobs = engine.store.list_jobs(None)
        return frozenset(
            job.spec.image for job in jobs if job.spec.image and job.status not in TERMINAL_STATES
        )

    images = ImageStore(engine.paths.data / "images", needed=needed)

    @app.get("/jobs/{job_id}/manifest")
    async def manifest(job_id: int) -> Manifest:
        return await in_thread(partial(manifest_of, requests.get(job_id)), name="video")

    @app.get("/jobs/{job_id}/video/about")
    async def about(job_id: int) -> VideoFile:
        """Reads the whole file for its digest."""
        return await in_thread(partial(describe_video, requests.get(job_id)), name="video")

    @app.get("/jobs/{job_id}/video", response_class=StreamingResponse)
    async def video(job_id: int, request: Request) -> StreamingResponse:
        """The file, or with `Range: bytes=N-` from its byte N on, unless `If-Range` names another one."""
        asked = _first_byte(request.headers.get("range"))
        job = requests.get(job_id)
        chunks, first, size, etag = await in_thread(
            partial(read_video, job, asked, request.headers.get("if-range")), name="video"
        )
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Length": str(max(0, size - first))}
        status = HTTPStatus.OK
        if first:
            if first >= size:
                raise InvalidRequest(f"the video has {size} bytes, and none from {first} on")
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        return StreamingResponse(chunks, status_code=status, headers=headers, media_type="video/mp4")

    @app.put("/images", status_code=HTTPStatus.CREATED)
    async def put_image(
        request: Request, name: Annotated[str, Query(max_length=500)], sha256: str
    ) -> StoredImage:
        """The body is the file. It is kept where jobs here can name it."""
        declared = request.headers.get("content-length", "")
        if not declared.isdecimal():
            raise InvalidRequest("an image of unknown length is not taken; declare Content-Length")
        stored = await images.receive(request.stream(), name=name, size=int(declared), sha256=sha256)
        engine.audit.write("put image", stored.path, size_text(stored.bytes), asker_of(request))
        return stored

    @app.get("/recordings/export", response_class=StreamingResponse)
    async def recording(
        since: Annotated[float | None, Query(ge=0, le=1e11)] = None,
        until: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    ) -> StreamingResponse:
        """A stretch of the recording, or all, as one file that `turbotui report` and `replay` read."""

        def pack(recording: Recording) -> tuple[Iterator[bytes], int]:
            return _packed(recording, engine.paths.cache, since, until)

        chunks, size = await engine.recorder.ask(pack)
        return StreamingResponse(
            chunks, headers={"Content-Length": str(size)}, media_type="application/octet-stream"
        )


def _first_byte(header: str | None) -> int:
    if header is None:
        return 0
    match = re.fullmatch(r"bytes=(\d{1,18})-", header.strip())
    if match is None:
        raise InvalidRequest(f"the range {header[:80]!r} is not known here; ask for bytes=N-")
    return int(match[1])


def _packed(
    recording: Recording, folder: Path, since: float | None, until: float | None
) -> tuple[Iterator[bytes], int]:
    """The stretch's bytes, from a file that has no name any more, and how many they are."""
    try:
        with tempfile.TemporaryDirectory(prefix="export-", dir=private_dir(folder)) as place:
            target = Path(place) / "recording"
            size = export(recording, target, since=since, until=until)
            file = open(target, "rb")  # closed by whoever reads it
    except OSError as error:
        raise StorageUnusable(f"the recording cannot be packed in {folder}: {error.strerror}") from error

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    return chunks(), size
