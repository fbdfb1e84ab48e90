"""How a video and its manifest get their names: whole, both, and never in the place of another file.

Each is written under a temporary name in the folder where it will lie, and gets its own when it
is complete, so that whoever sees the video's name sees all of it. Several engines may share one
folder: a name that is taken makes the next free one (`clip.mp4`, `clip-2.mp4`, ...), and what a
killed worker left is removed only where that worker is known to be dead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import msgspec

from engine.errors import StorageUnusable
from engine.jobs.files import manifest_path
from engine.units import size_text
from engine.wire import Manifest

PART = ".part"
"""Ends every temporary name: `.<name>.<host>.<pid>.<random>.part`."""
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""What file systems without hard links answer."""


def create_part(path: Path) -> Path:
    """A new empty file beside `path`, to be filled and published.

    Raises:
        StorageUnusable: the folder cannot be written, or its disk is full.
    """
    part = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}{PART}")
    with writing(path):
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    return part


def discard(part: Path) -> None:
    """Remove `part`, where it still is."""
    with suppress(OSError):
        part.unlink()


def remove_leftovers(video: Path) -> None:
    """Delete what killed workers of this host left of earlier attempts at `video` and its manifest.

    Another engine may be writing its own `video` at this moment: a part whose writer lives, or
    whose writer is on another host and cannot be looked for, stays.
    """
    # A pattern without their names: each job's own would stay in the module's cache.
    parts = re.compile(rf"\.(.+)\.{_host()}\.(\d+)\.[0-9a-f]+{re.escape(PART)}")
    names = {video.name, Path(manifest_path(str(video))).name}
    with suppress(OSError), os.scandir(video.parent) as entries:  # the write that follows says what is wrong
        for entry in entries:
            found = parts.fullmatch(entry.name)
            if found and found[1] in names and _is_dead(int(found[2])):
                discard(Path(entry.path))


def find_leftovers(folder: Path) -> list[Path]:
    """What killed workers of ours on this host left of any video of a job's, or of its manifest, there."""
    parts = re.compile(rf"\.\d{{6}}.*\.(?:mp4|json)\.{_host()}\.(\d+)\.[0-9a-f]+{re.escape(PART)}")
    with suppress(OSError), os.scandir(folder) as entries:
        return [
            folder / entry.name
            for entry in entries
            if (found := parts.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)
            if _is_dead(int(found[1])) and entry.stat(follow_symlinks=False).st_uid == os.getuid()
        ]
    return []


def publish(part: Path, manifest: Manifest) -> tuple[Manifest, Path]:
    """Give the complete, synced video in `part` and its manifest their names, in one go.

    `manifest.output` says where the video should lie; where that name or its manifest's is taken,
    both get the next free one. Returns the manifest as written, naming the real video, and its path.

    Raises:
        StorageUnusable: the folder cannot be written, or its disk is full; neither name stays.
    """
    for video in _names(Path(manifest.output)):
        path = Path(manifest_path(str(video)))
        if os.path.lexists(video) or os.path.lexists(path):
            continue
        found = replace(manifest, output=str(video))
        # Before the video has its name: killed in between, the job would have one without the other.
        manifest_part = create_part(path)
        try:
            with writing(path):
                manifest_part.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
            sync(manifest_part, path)
            if _publish_pair(part, video, manifest_part, path):
                return found, path
        finally:
            discard(manifest_part)
    raise AssertionError("the names never end")


def sync(part: Path, path: Path) -> None:
    """Wait until `part`, which will be `path`, is on the disk.

    Raises:
        StorageUnusable: the disk did not take it.
    """
    with writing(path):
        _sync(part)


def _publish_pair(video_part: Path, video: Path, manifest_part: Path, manifest: Path) -> bool:
    """Name both, or neither: False when another writer was first with one of the names."""
    with ExitStack() as undo, writing(video):
        if not _name(video_part, video):
            return False
        # A video without its manifest could not be told from somebody else's.
        undo.callback(_unname, video, video_part)
        if not _name(manifest_part, manifest):
            return False
        undo.callback(_unname, manifest, manifest_part)
        _sync_folder(video.parent)
        undo.pop_all()
    discard(video_part)
    return True


def _name(part: Path, path: Path) -> bool:
    """Let `path` be the file in `part`; False when there is such a name already.

    Where the file system has hard links `part` stays, else it is moved.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _move(part, path)
    return True


def _move(part: Path, path: Path) -> bool:
    """As `_name` without hard links: an empty file keeps the name until the whole one takes its place."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    except FileExistsError:
        return False
    try:
        os.replace(part, path)
    except OSError:
        discard(path)
        raise
    return True


def _unname(path: Path, part: Path) -> None:
    """Take a name back that `_name` gave, so that `part` is the file's only one."""
    if os.path.lexists(part):
        discard(path)
    else:
        with suppress(OSError):
            os.replace(path, part)


def _names(wanted: Path) -> Iterator[Path]:
    yield wanted
    for number in count(2):
        yield wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")


def _host() -> str:
    """Tells apart where pids mean different processes: hosts and containers that share a folder."""
    place = platform.node()
    with suppress(OSError):
        place += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False  # another user's
    return False


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system on which folders cannot be synced
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as our error.

    Raises:
        StorageUnusable: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(path, error.strerror or str(error)) from error


def storage_error(path: Path, reason: str) -> StorageUnusable:
    """That `path` cannot be written for `reason`, with the bytes that are free there."""
    try:
        free = f"{size_text(shutil.disk_usage(path.parent).free)} free there"
    except OSError:
        free = "its folder cannot be looked at"
    return StorageUnusable(
        f"{path} cannot be written: {reason} ({free}); make room or choose another output folder"
    )
