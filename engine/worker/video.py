"""Writes finished frames as an mp4, and its manifest beside it: whole, or not at all.

Both are written under a temporary name in their own folder, synced, and renamed when complete,
so that whoever sees the video's name sees all of it. Frames go to ffmpeg as they are decoded.

Source: TurboDiffusion writes 16 frames a second with imageio at quality 5, which is libx264 at
a constant rate factor of 25.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg  # type: ignore[import-untyped]
import msgspec

from engine.errors import StorageUnusable, WorkFailed
from engine.planning.shapes import FPS
from engine.units import size_text
from engine.wire import Manifest
from engine.worker.autoencoder import Frames

CONSTANT_RATE_FACTOR = 25
PART = ".part"
"""Ends every temporary name: `.<name>.<pid>.part`."""


class VideoWriter:
    """Encodes frames into `path`; the file appears there when `finish` returns.

    A context manager: leaving it without `finish` ends the encoder and removes what it wrote.

    Raises:
        StorageUnusable: the folder cannot be written, or its disk is full.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._path = path
        self._frame_bytes = width * height * 3
        self._digest = hashlib.sha256()
        self.num_frames = 0
        remove_leftovers(path)
        self._part = _part_of(path)
        _touch(self._part, path)
        # In memory: the disk may be what is about to fail.
        self._log = os.fdopen(os.memfd_create("ffmpeg"), "w+b")
        size_text = f"{width}x{height}"
        try:
            self._encoder = self._start(size_text)
        except BaseException:
            self._log.close()
            _remove(self._part)
            raise

    def _start(self, size_text: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"),
                *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size_text, "-r", str(FPS), "-i", "-"),
                *("-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(CONSTANT_RATE_FACTOR)),
                *("-f", "mp4", str(self._part)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            # A Ctrl-C meant for the terminal's job must not cut a video short.
            start_new_session=True,
        )

    def append(self, frames_THWC: Frames) -> None:
        """Encode more frames, uint8 RGB.

        Raises:
            StorageUnusable: the disk is full.
            WorkFailed: the encoder ended by itself.
        """
        data = frames_THWC.reshape(-1).data
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(data)
        except OSError as error:
            raise self._encoder_failed() from error
        self._digest.update(data)
        self.num_frames += len(data) // self._frame_bytes

    def finish(self) -> str:
        """Complete the file under its name; the sha256 of all raw frames.

        Raises:
            StorageUnusable, WorkFailed: as `append`.
        """
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.close()
        except OSError as error:
            raise self._encoder_failed() from error
        if self._encoder.wait() != 0:
            raise self._encoder_failed()
        _publish(self._part, self._path)
        return self._digest.hexdigest()

    def _encoder_failed(self) -> StorageUnusable | WorkFailed:
        """What the encoder said before it ended, as our error."""
        self._encoder.kill()
        status = self._encoder.wait()
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        if status == -signal.SIGXFSZ:
            return _storage(self._path, os.strerror(errno.EFBIG))
        for line in said:
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO):
                if os.strerror(code) in line:
                    return _storage(self._path, os.strerror(code))
        last = said[-1] if said else f"it ended with status {status}"
        return WorkFailed(f"{self._path} could not be encoded: {last}")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoder.poll() is None:
            self._encoder.kill()
            self._encoder.wait()
        if self._encoder.stdin is not None:
            with contextlib.suppress(OSError):  # frames that the dead encoder never read
                self._encoder.stdin.close()
        self._log.close()
        _remove(self._part)


def manifest_path_of(video: Path) -> Path:
    """Where the manifest of `video` lies: `clip.mp4` -> `clip.json`."""
    return video.with_suffix(".json")


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` to `path` whole.

    Raises:
        StorageUnusable: the folder cannot be written, or its disk is full.
    """
    part = _part_of(path)
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    try:
        _attempt(path, lambda: part.write_bytes(data + b"\n"))
        _publish(part, path)
    finally:
        _remove(part)


def remove_leftovers(path: Path) -> None:
    """Delete what a killed worker left of an earlier attempt at `path`."""
    try:
        with os.scandir(path.parent) as entries:
            stale = [
                entry.path
                for entry in entries
                if entry.name.startswith(f".{path.name}.") and entry.name.endswith(PART)
            ]
        for name in stale:
            os.unlink(name)
    except OSError:
        pass  # the write that follows says what is wrong with the folder


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{PART}")


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):  # there is none, or its folder is gone
        part.unlink()


def _touch(part: Path, path: Path) -> None:
    def make() -> None:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))

    _attempt(path, make)


def _publish(part: Path, path: Path) -> None:
    """Sync `part`, rename it to `path`, sync the folder."""

    def publish() -> None:
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)

    _attempt(path, publish)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _attempt(path: Path, act: Callable[[], object]) -> None:
    try:
        act()
    except OSError as error:
        raise _storage(path, error.strerror or str(error)) from error


def _storage(path: Path, reason: str) -> StorageUnusable:
    try:
        free = f"{size_text(shutil.disk_usage(path.parent).free)} free there"
    except OSError:
        free = "its folder cannot be looked at"
    return StorageUnusable(
        f"{path} cannot be written: {reason} ({free}); make room or choose another output folder"
    )
