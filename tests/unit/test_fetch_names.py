"""What another machine says of a video names nothing here but a video."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import EngineUnavailable, InvalidRequest
from engine.wire import JobSpec, VideoFile
from turbotui.client.files import fetch_video, put_image
from turbotui.job_file import read_job_file

DATA = b"video"
DIGEST = "0f" * 32


class Remote:
    """An engine that says of its video what it likes."""

    where = "box"

    def __init__(self, path: str, sha256: str) -> None:
        self.file = VideoFile(job_id=7, path=path, bytes=len(DATA), sha256=sha256, etag="e")

    def ask(self, *_: Any) -> VideoFile:
        return self.file

    @contextmanager
    def receive_file(self, *_: Any) -> Any:
        yield SimpleNamespace(status=200, etag="e", length=len(DATA), chunks=iter([DATA]))


def fetch(tmp_path: Path, path: str, sha256: str) -> Path:
    remote: Any = Remote(path, sha256)
    return fetch_video(lambda: remote, 7, tmp_path).path


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("/out/20260101-1 猫 (2).mp4", "20260101-1 猫 (2).mp4"),
        ("/out/.bashrc", "job-7.mp4"),
        ("/out/.mp4", "job-7.mp4"),
        ("/out/conftest.py", "job-7.mp4"),
        ("/out/a\x1b[2J.mp4", "job-7.mp4"),
        ("/out/..", "job-7.mp4"),
        ("", "job-7.mp4"),
    ],
)
def test_a_fetched_video_gets_a_videos_name(tmp_path: Path, there: str, here: str) -> None:
    assert fetch(tmp_path, there, hashlib.sha256(DATA).hexdigest()) == tmp_path / here
    assert [entry.name for entry in tmp_path.iterdir()] == [here]


@pytest.mark.parametrize("sha256", ["../../../../x", "a/b", "", "\0", DIGEST.upper(), DIGEST + "0"])
def test_a_digest_that_is_none_is_no_part_of_a_name(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(EngineUnavailable, match="names no digest"):
        fetch(tmp_path, "/out/a.mp4", sha256)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(20)
def test_a_pipe_that_nobody_writes_to_holds_nobody_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    client: Any = None  # nobody is asked
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(InvalidRequest, match="no regular file"):
            put_image(client, path)
        with pytest.raises(InvalidRequest, match="no regular file"):
            read_job_file(str(path), JobSpec(model="m", prompt=""))
