"""The videos on disk: found by the manifests of ours that name them, deleted or moved by nothing less.

A file that no manifest names is somebody's own and is never touched; nor is one that was replaced by a
link, or whose size is not the manifest's. Blocks; called from a thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.daemon.aside import Aside
from engine.jobs.files import MANIFEST_LIMIT_BYTES, manifest_path
from engine.wire import Manifest, OutputList, OutputPart, OutputVideo, PruneResult
from engine.worker.publishing import find_leftovers


def list_outputs(folders: Iterable[Path], *, busy: frozenset[str] = frozenset()) -> OutputList:
    """Everything of ours in `folders`, oldest first; `busy` are videos that are being written."""
    videos: list[OutputVideo] = []
    parts: list[OutputPart] = []
    others = 0
    folders = sorted(set(folders))
    for folder in folders:
        leftovers = set(find_leftovers(folder))
        found = [video for path in _files(folder, ".json") if (video := _video(path, busy)) is not None]
        known = {path for video in found for path in (video.path, video.manifest)}
        others += sum(str(path) not in known and path not in leftovers for path in _files(folder, ""))
        videos += found
        for path in leftovers:
            with suppress(OSError):
                info = path.lstat()
                parts.append(OutputPart(path=str(path), bytes=info.st_size, at=info.st_mtime))
    return OutputList(
        folders=tuple(map(str, folders)),
        videos=tuple(sorted(videos, key=lambda video: (video.at, video.path))),
        parts=tuple(sorted(parts, key=lambda part: (part.at, part.path))),
        others=others,
    )


def prune_outputs(
    folders: Iterable[Path], *, before: float, delete: bool, busy: frozenset[str] = frozenset()
) -> PruneResult:
    """Delete, or with `delete` False only name, what is from before `before` (wall clock)."""
    found = list_outputs(folders, busy=busy)
    videos = [video for video in found.videos if video.at < before]
    parts = [part for part in found.parts if part.at < before]
    problems: list[str] = []
    if delete:
        # The video first: a manifest alone names nothing, a video alone could never be told from others'.
        videos = [v for v in videos if _delete(v.path, problems) and _delete(v.manifest, problems)]
        parts = [part for part in parts if _delete(part.path, problems)]
    return PruneResult(
        deleted=delete,
        videos=tuple(videos),
        parts=tuple(parts),
        bytes=sum(video.bytes for video in videos) + sum(part.bytes for part in parts),
        problems=tuple(problems),
    )


def move_outputs(folders: Iterable[Path], aside: Aside, *, busy: frozenset[str] = frozenset()) -> None:
    """Move all of it aside."""
    found = list_outputs(folders, busy=busy)
    for video in found.videos:
        aside.move(Path(video.path))
        aside.move(Path(video.manifest))
    for part in found.parts:
        aside.move(Path(part.path))


def _files(folder: Path, suffix: str) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(
            folder / entry.name
            for entry in entries
            if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False)
        )
    return []


def _video(manifest: Path, busy: frozenset[str]) -> OutputVideo | None:
    """The video that this manifest names, where both lie there, whole and ours; else None."""
    try:
        with open(os.open(manifest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            info = os.fstat(file.fileno())
            text = file.read(MANIFEST_LIMIT_BYTES)
        told = msgspec.json.decode(text, type=Manifest)
        video = manifest.parent / Path(told.output).name
        data = video.lstat()
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    ours = (
        str(video) not in busy
        and manifest_path(str(video)) == str(manifest)
        and told.manifest == 1
        and told.frames_sha256 != ""
        and stat.S_ISREG(info.st_mode)
        and stat.S_ISREG(data.st_mode)
        and data.st_size == told.output_bytes > 0
        and data.st_uid == info.st_uid == os.getuid()
    )
    if not ours:
        return None
    return OutputVideo(
        job_id=told.job_id,
        model=told.spec.model,
        path=str(video),
        manifest=str(manifest),
        bytes=data.st_size + info.st_size,
        at=min(time.time(), max(told.created_at, data.st_mtime)),
    )


def _delete(path: str, problems: list[str]) -> bool:
    """Unlink it in its real folder: one that became a link since is not followed."""
    place = Path(path)
    try:
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.lstat(place.name, dir_fd=folder).st_mode):
                problems.append(f"{path} is no regular file any more; it stays")
                return False
            os.unlink(place.name, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        problems.append(f"{path} cannot be deleted: {error.strerror}")
        return False
    return True
