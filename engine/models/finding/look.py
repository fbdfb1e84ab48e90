"""Walks through places and says what every weight file, tokenizer and repository in them is.

Bounded in time and in entries, and says what it left out.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.models.finding.places import Place
from engine.models.importing.identify import Found, identify, identify_group
from engine.models.importing.weights import groups_in
from engine.models.model import MODEL_INDEX, TOKENIZER_FILES

TIME_S = 30.0
"""For all places together; a cold network disk answers hundreds of folders a second."""
FOLDER_ENTRIES = 4096
MOST_FOLDERS = 20_000
LEAST_BYTES = 8 << 20
"""In places that nobody named, smaller weight files are those of other things."""
WEIGHT_FOLDERS = frozenset(
    {"checkpoints", "ckpts", "weights", "diffusion_models", "unet", "vae", "text_encoders", "clip"}
)
"""Folders that TurboDiffusion, ComfyUI and the like keep weights in, and people folders in those."""
TOOL_FOLDERS = WEIGHT_FOLDERS | {
    *("models", "ComfyUI", "comfyui", "TurboDiffusion", "turbodiffusion", "google", "umt5-xxl", "tokenizer"),
}
"""Folders that lead to those, which are followed beyond the depth of a place."""
TOOL_DEPTH = 3
NEVER = frozenset(
    {"node_modules", "__pycache__", "site-packages", "dist-packages", "lost+found", "proc", "sys", "dev"}
    | {"venv", ".git", "snap", "$RECYCLE.BIN"}
)
SNAPSHOTS = "snapshots"
OTHER_NET = ["another", "net"]
"""How the title ends that `identify` gives weights which have nothing to do with these models."""
GGUF = ".gguf"


@dataclass(slots=True)
class Look:
    """What was found so far."""

    found: list[Found] = field(default_factory=list)
    others: int = 0
    num_folders: int = 0
    skipped: list[str] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)


def look_through(
    places: Iterable[Place],
    *,
    own: Path,
    on_folder: Callable[[Path, Look], None] = lambda folder, look: None,
    clock: Callable[[], float] = time.monotonic,
    time_s: float = TIME_S,
) -> Look:
    """Look through `places`, but not through `own`, where our models are."""
    look, seen, files = Look(), set[tuple[int, int]](), set[tuple[int, int]]()
    until = clock() + time_s
    own = Path(os.path.realpath(own))
    late: list[Path] = []
    for place in places:
        if not place.path.exists():
            if place.given:
                look.skipped.append(f"{place.path} is not there")
            continue
        if place.given and not place.path.is_dir():
            _take(look, [identify(place.path)], place, files)
            look.places.append(place.path)
            continue
        if clock() >= until or look.num_folders >= MOST_FOLDERS:
            late.append(place.path)
            continue
        before = look.num_folders
        for folder in _folders(place, look, seen, own):
            on_folder(folder, look)
            _take(look, _found_in(folder, place, look), place, files)
            if clock() >= until or look.num_folders >= MOST_FOLDERS:
                late.append(place.path)
                break
        if look.num_folders > before:
            look.places.append(place.path)
    if late:
        names = ", ".join(map(str, dict.fromkeys(late)))
        look.skipped.append(
            f"after {time_s:g} s or {MOST_FOLDERS} folders it was enough, and not all was looked at of "
            f"{names}; name a folder to look there"
        )
    return look


def _folders(place: Place, look: Look, seen: set[tuple[int, int]], own: Path) -> Iterator[Path]:
    """Folders of `place`, level by level; a repository's insides are its own affair."""
    pending: deque[tuple[Path, int]] = deque([(place.path, place.depth)])
    while pending:
        folder, depth = pending.popleft()
        try:
            info = os.stat(folder)
            if (info.st_dev, info.st_ino) in seen or Path(os.path.realpath(folder)) == own:
                continue
            with os.scandir(folder) as entries:
                below = []
                for number, entry in enumerate(entries):
                    if number >= FOLDER_ENTRIES:
                        look.skipped.append(
                            f"{folder} has more than {FOLDER_ENTRIES} entries; the others were not looked at"
                        )
                        break
                    if _is_folder(entry):
                        below.append(entry.name)
        except OSError as error:
            if place.given or folder == place.path:
                look.skipped.append(f"{folder} cannot be read: {error.strerror}")
            continue
        seen.add((info.st_dev, info.st_ino))
        look.num_folders += 1
        yield folder
        if (folder / MODEL_INDEX).is_file() or "pyvenv.cfg" in below:
            continue
        for name in sorted(below):
            if name.startswith("models--"):
                pending.extend((one, 2) for one in _snapshots(folder / name))
            elif name in TOOL_FOLDERS and depth > -TOOL_DEPTH:
                # The tools' own folders come before what else lies beside them.
                least = 1 if name in WEIGHT_FOLDERS and folder.name not in WEIGHT_FOLDERS else -TOOL_DEPTH
                pending.appendleft((folder / name, max(depth - 1, least)))
            elif depth > 0 and not name.startswith(".") and name not in NEVER:
                pending.append((folder / name, depth - 1))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _snapshots(repository: Path) -> Iterator[Path]:
    """The newest commit of a repository in the hub's cache; all of them where it names none."""
    try:
        commit = (repository / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    if commit and (repository / SNAPSHOTS / commit).is_dir():
        yield repository / SNAPSHOTS / commit
        return
    try:
        yield from sorted(one for one in (repository / SNAPSHOTS).iterdir() if one.is_dir())
    except OSError:
        return


def _found_in(folder: Path, place: Place, look: Look) -> list[Found]:
    """What lies in `folder` itself."""
    if (folder / MODEL_INDEX).is_file():
        return [identify(folder)]
    found = []
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if tokenizer and (place.given or "umt5" in str(folder).lower()):
        found += [
            part for part in _flat(identify(folder)) if part.kind == "tokenizer" and part.path == folder
        ]
    try:
        groups = list(groups_in(folder))
    except OSError:
        return found
    groups += [(path,) for path in _files(folder, (GGUF,))]
    for group in groups:
        if place.given or _bytes(group) >= LEAST_BYTES:
            found.append(identify_group(group))
    return found


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(endings))
    except OSError:
        return []


def _bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _flat(found: Found) -> Iterator[Found]:
    yield found
    for part in found.parts:
        yield from _flat(part)


def _take(look: Look, found: Iterable[Found], place: Place, files: set[tuple[int, int]]) -> None:
    """Keep what is new: a file has many names where links lead to it."""
    for one in found:
        if one.kind == "unsupported" and one.title.split()[-2:] == OTHER_NET and not place.given:
            look.others += 1
            continue
        mark = _mark(one.files[0] if one.files else one.path)
        if mark is None or mark not in files:
            look.found.append(one)
            if mark is not None:
                files.add(mark)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
