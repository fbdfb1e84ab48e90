"""Opens the video of a finished job, and nothing else: the file that the job's own manifest names.

Neither a link in its place nor a file of another size is opened. Blocks; called from a thread.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import NotFound, NotNow
from engine.jobs.files import find_proof
from engine.wire import Job, Manifest, VideoFile

CHUNK_BYTES = 2**20


def manifest_of(job: Job) -> Manifest:
    """What lies beside the job's video.

    Raises:
        NotNow: the job has no video.
        NotFound: its video or manifest is gone or was replaced.
    """
    if job.status != "done" or not job.output or not job.manifest:
        raise NotNow(f"job {job.id} has no video: it is {job.status}")
    found = find_proof(job_id=job.id, attempt=job.attempt, output=job.output, manifest=job.manifest)
    if found is None:
        raise NotFound(f"the video of job {job.id} is not at {job.output} any more: it was moved or deleted")
    return found


@contextmanager
def open_video(job: Job) -> Iterator[tuple[io.BufferedReader, int, str]]:
    """The job's video, its bytes and its ETag.

    Raises:
        NotNow, NotFound: as `manifest_of`.
    """
    told = manifest_of(job)
    try:
        handle = os.open(told.output, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"the video of job {job.id} cannot be read: {error.strerror}") from error
    with open(handle, "rb") as file:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_size != told.output_bytes:
            raise NotFound(f"{told.output} is not the video of job {job.id} any more")
        yield file, info.st_size, f'"{info.st_ino:x}-{info.st_size:x}-{info.st_mtime_ns:x}"'


def describe_video(job: Job) -> VideoFile:
    """The file with its digest, which is made anew each time."""
    with open_video(job) as (file, size, etag):
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return VideoFile(job_id=job.id, path=str(job.output), bytes=size, sha256=digest, etag=etag)


def read_video(job: Job, first: int, if_range: str | None) -> tuple[Iterator[bytes], int, int, str]:
    """The bytes from `first` on, where they begin, the file's bytes and its ETag.

    They begin at 0 where `if_range` is another file's ETag.
    """
    opened = open_video(job)
    file, size, etag = opened.__enter__()
    if if_range is not None and if_range != etag:
        first = 0

    def chunks() -> Iterator[bytes]:
        try:
            file.seek(first)
            left = size - first
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk
        finally:
            opened.__exit__(None, None, None)

    return chunks(), first, size, etag
