"""Whole files over an engine's socket: a video or a recording from it, an image to it.

A fetch that breaks goes on where it was, also in another run: what has arrived lies in a part named by
the file's digest, and only a whole file with that digest gets its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from engine.errors import EngineUnavailable, InvalidRequest, NotNow, StorageUnusable
from engine.wire import StoredImage, VideoFile
from turbotui.client.http import HttpClient
from turbotui.plain_file import open_plain

FILE_TIMEOUT_S = 60.0
"""Without a byte; also what the engine may need to read a large file for its digest."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between attempts of a fetch that broke; one that brought something begins with the first again."""
COPY_BYTES = 2**20
IMAGE_LIMIT_BYTES = 64 * 2**20
"""As `engine.planning.image_file`; refused here before it is sent."""

BEGINNINGS = (
    *(b"\x89PNG\r\n", b"\xff\xd8", b"BM", b"GIF87a", b"GIF89a"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF, and that of 64 bits
)
DIGEST = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"\w[\w .,()+@~=-]*\.mp4")
"""A video's, as it may be written into a folder here: never hidden, never another kind of file."""

Progress = Callable[[int, int], None]
"""Bytes that are there, and of how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A file that is here now."""

    path: Path
    bytes: int
    sha256: str
    resumed_bytes: int = 0
    """What an earlier attempt had brought."""
    was_there: bool = False


def fetch_video(
    connect: Callable[[], HttpClient],
    job_id: int,
    destination: Path,
    *,
    force: bool = False,
    progress: Progress = lambda _have, _of: None,
    wait: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring the video of a job to `destination`, a folder or a new file's name.

    Asks `connect` for a client again when the connection breaks. Never replaces another file unless
    `force`.

    Raises:
        EngineUnavailable: what is said of the video makes no sense.
        NotNow, NotFound: the job has no video, or it is gone; somebody else fetches it just now.
        InvalidRequest: another file is there.
        StorageUnusable: it cannot be written here.
        EngineUnavailable: the connection breaks again and again; what has arrived is kept.
    """
    client = connect()
    file = _about(client, job_id)
    if not DIGEST.fullmatch(file.sha256):
        raise EngineUnavailable(
            f"the engine on {client.where} names no digest of the video of job {job_id}; "
            "it is of another build, or no engine"
        )
    target = destination / _name_here(file) if destination.is_dir() else destination
    if target.exists() and not force:
        if target.is_file() and target.stat().st_size == file.bytes and _digest(target) == file.sha256:
            return Fetched(path=target, bytes=file.bytes, sha256=file.sha256, was_there=True)
        raise InvalidRequest(f"{target} is another file; name another place, or replace it with --force")
    part = target.with_name(f".{target.name}.{file.sha256[:12]}.part")
    try:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with open(handle, "r+b") as out:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NotNow(f"{target} is being fetched already") from error
            resumed = out.seek(0, os.SEEK_END)
            failures = 0
            while True:
                before = out.seek(0, os.SEEK_END)
                try:
                    _bring(client, file, out, progress)
                    break
                except EngineUnavailable as error:
                    failures = 0 if out.tell() > before else failures + 1
                    if failures == len(WAITS_S):
                        raise EngineUnavailable(
                            f"{error}; {out.tell()} of {file.bytes} bytes are in {part}, and the same "
                            "command goes on from there"
                        ) from error
                    wait(WAITS_S[failures])
                    client = _again(connect, client)
            out.flush()
            os.fsync(handle)
            out.seek(0)
            if hashlib.file_digest(out, "sha256").hexdigest() != file.sha256:
                part.unlink()
                raise EngineUnavailable(
                    f"{target} arrived with another digest; it was removed, fetch it again"
                )
            os.replace(part, target)
    except OSError as error:
        raise StorageUnusable(f"{target} cannot be written: {error.strerror}") from error
    return Fetched(path=target, bytes=file.bytes, sha256=file.sha256, resumed_bytes=min(resumed, file.bytes))


def put_image(client: HttpClient, path: Path, *, progress: Progress = lambda _have, _of: None) -> StoredImage:
    """Send the image `path` of this machine; the engine keeps it and says where.

    Raises:
        InvalidRequest: no such file here, too large, or no image.
        StorageUnusable: it cannot be kept there.
    """
    try:
        file, size = open_plain(path)
        with file:
            if not 0 < size <= IMAGE_LIMIT_BYTES:
                raise InvalidRequest(f"{path} is no file of 1 byte to {IMAGE_LIMIT_BYTES >> 20} MiB")
            # What is none stays here: a path that is being typed passes other files' names.
            if not _is_image(file.read(16)):
                raise InvalidRequest(f"{path} is no PNG, JPEG, WEBP, BMP, TIFF or GIF image")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            where = f"/images?name={quote(path.name, safe='')}&sha256={digest}"
            body = _Told(file, size, progress)
            return client.send_file(where, body, size, StoredImage, FILE_TIMEOUT_S)
    except OSError as error:
        raise InvalidRequest(f"the image {path} cannot be read: {error.strerror}") from error


def fetch_recording(client: HttpClient, since: float | None, until: float | None, target: Path) -> int:
    """Bring a stretch of the recording into the new file `target`, 0600; its bytes.

    Raises:
        NotFound: nothing is recorded there.
        StorageUnusable: it cannot be written here, or is there already.
    """
    span = {"since": since, "until": until}
    query = "&".join(f"{name}={at:.3f}" for name, at in span.items() if at is not None)
    written = 0
    with client.receive_file(f"/recordings/export?{query}", {}, FILE_TIMEOUT_S) as answer:
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "wb") as out:
                for chunk in answer.chunks:
                    written += out.write(chunk)
        except OSError as error:
            raise StorageUnusable(f"{target} cannot be written: {error.strerror}") from error
    if answer.length is not None and written != answer.length:
        target.unlink()
        raise EngineUnavailable(f"the recording broke off after {written} of {answer.length} bytes")
    return written


def _is_image(head: bytes) -> bool:
    """Whether a file that begins so may be one; the engine looks at all of it."""
    return head.startswith(BEGINNINGS) or (head[:4], head[8:12]) == (
        b"RIFF",
        b"WEBP",
    )


class _Told(io.RawIOBase):
    """A file whose reader is followed."""

    def __init__(self, file: io.BufferedReader, size: int, progress: Progress) -> None:
        super().__init__()
        self._file = file
        self._size = size
        self._progress = progress

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        self._progress(self._file.tell(), self._size)
        return data


def _about(client: HttpClient, job_id: int) -> VideoFile:
    return client.ask(f"/jobs/{job_id:d}/video/about", VideoFile, FILE_TIMEOUT_S)


def _name_here(file: VideoFile) -> str:
    """The name that it has there, which are the other machine's words, or one of ours."""
    name = Path(file.path).name
    return name if NAME.fullmatch(name) else f"job-{file.job_id:d}.mp4"


def _bring(client: HttpClient, file: VideoFile, out: io.BufferedRandom, progress: Progress) -> None:
    """Append what is missing."""
    have = out.seek(0, os.SEEK_END)
    if have > file.bytes:
        have = out.truncate(0)
        out.seek(0)
    headers = {"Range": f"bytes={have}-", "If-Range": file.etag} if have else {}
    progress(have, file.bytes)
    if have == file.bytes:
        return
    with client.receive_file(f"/jobs/{file.job_id:d}/video", headers, FILE_TIMEOUT_S) as answer:
        if answer.etag != file.etag:
            raise InvalidRequest(f"the video of job {file.job_id} was replaced meanwhile; fetch it again")
        if have and answer.status != 206:
            have = out.truncate(0)
            out.seek(0)
        for chunk in answer.chunks:
            have += out.write(chunk)
            progress(have, file.bytes)
    if have != file.bytes:
        raise EngineUnavailable(f"the video broke off after {have} of {file.bytes} bytes")


def _again(connect: Callable[[], HttpClient], client: HttpClient) -> HttpClient:
    try:
        return connect()
    except EngineUnavailable:
        return client  # the next attempt fails, and counts


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
