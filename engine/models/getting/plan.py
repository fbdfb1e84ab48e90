"""What fetching a released model would do: its files with sizes, what is here already, licences, the disk."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NotFound, StorageUnusable, from_code
from engine.models.getting.cache import CachedRepository, free_bytes
from engine.models.getting.hub import Hub, Repository, Unreachable
from engine.models.getting.released import RELEASED, SHARED_BYTES, Released, ReleasedFile
from engine.units import size_text
from engine.wire import ErrorBody, FileToGet, GetPlan, Licence, Presence, ReleasedModel

SPARE_BYTES = 64 << 20
"""Left free beside what is fetched: a disk that is filled to the last byte stops others."""
CARRIED = "turbowan"
"""The folder that files are gathered in on another machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Errand:
    """A plan, and what is needed to carry it out."""

    plan: GetPlan
    repositories: Mapping[str, Repository]
    """Empty where the Hub was not asked, since all files are here or it does not answer."""


def list_released(cache: Path, models: Path) -> tuple[ReleasedModel, ...]:
    """All of them, with whether they are here already; asks nobody."""
    return tuple(
        ReleasedModel(
            name=model.name,
            kind=model.kind,
            int8=model.int8,
            repository=model.repository,
            about_bytes=model.about_bytes,
            shared_bytes=SHARED_BYTES,
            presence=_presence(model, cache, models),
        )
        for model in RELEASED
    )


def _presence(model: Released, cache: Path, models: Path) -> Presence:
    if (models / model.name).is_dir():
        return "imported"
    own = [file for file in model.files if file.repository == model.repository]
    there = [file for file in model.files if CachedRepository.of(cache, file.repository).find(file.path)]
    if all(file in there or file.optional for file in model.files):
        return "fetched"
    parts = any((CachedRepository.of(cache, model.repository).folder / "blobs").glob("*.incomplete"))
    return "partly" if parts or any(file in there for file in own) else "absent"


def plan_get(model: Released, cache: Path, hub: Hub) -> Errand:
    """What fetching `model` into `cache` would do. Asks the Hub only where a file is not here.

    Raises:
        Refused, WorkFailed: the Hub shows a repository to nobody, or lacks a file of it.
    """
    found = {file: CachedRepository.of(cache, file.repository).find(file.path) for file in model.files}
    if all(path or file.optional for file, path in found.items()):
        files = [_file_here(file, path) for file, path in found.items() if path is not None]
        return Errand(plan=_plan(model, cache, hub, files, {}), repositories={})
    names = dict.fromkeys(file.repository for file in model.files)
    try:
        repositories = {name: hub.repository(name) for name in names}
    except Unreachable as error:
        files = [_file_here(file, path) for file, path in found.items()]
        body = ErrorBody(code=error.code, message=str(error))
        return Errand(plan=_plan(model, cache, hub, files, {}, body), repositories={})
    files = [
        _file(file, cache, repositories[file.repository], found[file])
        for file in model.files
        if not file.optional or file.path in repositories[file.repository].files
    ]
    return Errand(plan=_plan(model, cache, hub, files, repositories), repositories=repositories)


def _file_here(file: ReleasedFile, path: Path | None) -> FileToGet:
    """What is known of `file` without asking."""
    size = None if path is None else path.stat().st_size
    return FileToGet(
        role=file.role,
        repository=file.repository,
        path=file.path,
        bytes=size,
        have_bytes=size or 0,
        local=None if path is None else str(path),
    )


def _file(file: ReleasedFile, cache: Path, repository: Repository, found: Path | None) -> FileToGet:
    remote = repository.files.get(file.path)
    if remote is None:
        raise NotFound(
            f"{file.repository} no longer holds {file.path}; look at its page for what took its place, and "
            "import that"
        )
    cached = CachedRepository.of(cache, file.repository)
    pointer = cached.snapshot(repository.commit, file.path)
    whole = next(
        (path for path in (pointer, cached.blob(remote.digest)) if _size(path) == remote.bytes), None
    )
    # An older commit's file of another content is not what would be fetched now.
    same = found is not None and os.path.realpath(found) == os.path.realpath(cached.blob(remote.digest))
    local = pointer if whole == pointer or whole is not None else found if same else None
    have = remote.bytes if whole is not None else min(_size(cached.part(remote.digest)) or 0, remote.bytes)
    return FileToGet(
        role=file.role,
        repository=file.repository,
        path=file.path,
        bytes=remote.bytes,
        have_bytes=have,
        digest=remote.digest,
        local=str(local) if whole is not None else None,
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _plan(
    model: Released,
    cache: Path,
    hub: Hub,
    files: list[FileToGet],
    repositories: Mapping[str, Repository],
    problem: ErrorBody | None = None,
) -> GetPlan:
    sizes = [file.bytes for file in files]
    missing = None if None in sizes else sum((file.bytes or 0) - file.have_bytes for file in files)
    free = free_bytes(cache)
    network = problem is not None
    if problem is None and missing and free is not None and missing + SPARE_BYTES > free:
        refusal = StorageUnusable(
            f"{model.name} needs {size_text(missing)} more in {cache}, whose disk has {size_text(free)} "
            "free; make room, or set HF_HOME to a folder on another disk"
        )
        problem = ErrorBody(code=refusal.code, message=str(refusal))
    elsewhere, here = _commands(hub.endpoint, [file for file in files if file.local is None])
    return GetPlan(
        name=model.name,
        endpoint=hub.endpoint,
        folder=str(cache),
        files=tuple(files),
        licences=tuple(
            Licence(repository=name, name=repositories[name].licence if name in repositories else None)
            for name in dict.fromkeys(file.repository for file in files)
        ),
        missing_bytes=missing,
        free_bytes=free,
        problem=problem,
        elsewhere=elsewhere if network else (),
        here=here if network else (),
    )


def _commands(endpoint: str, files: list[FileToGet]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to run on a machine that reaches the Hub, and here after it."""
    elsewhere = [f"mkdir -p {CARRIED} && cd {CARRIED}"]
    for file in files:
        url = f"{endpoint}/{file.repository}/resolve/main/{file.path}"
        # Folders stay: a tokenizer is found by the name of its own.
        elsewhere.append(f"curl -fL -C - --create-dirs -o {shlex.quote(file.path)} {shlex.quote(url)}")
    place = Path.home() / CARRIED
    elsewhere.append(f"rsync -aP ./ {shlex.quote(f'{_user()}@{socket.gethostname()}:{place}/')}")
    return tuple(elsewhere), (f"turbotui import {shlex.quote(str(place))}",)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "root" if os.geteuid() == 0 else str(os.geteuid())


def check_plan(plan: GetPlan) -> None:
    """Raises: what the plan's problem is."""
    if plan.problem is not None:
        raise from_code(plan.problem.code, plan.problem.message)
