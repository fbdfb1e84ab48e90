"""The hub's cache on this host, as huggingface_hub lays it out, so that other tools share what lies in it.

models--ORG--NAME/refs/main              the commit
models--ORG--NAME/snapshots/COMMIT/PATH  a link to
models--ORG--NAME/blobs/DIGEST           the bytes
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import StorageUnusable

BRANCH = "main"
PART_ENDING = ".incomplete"


def find_cache(environ: Mapping[str, str]) -> Path:
    """The folder that the hub's cache is, by the variables that huggingface_hub reads, in its order."""
    for name, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if environ.get(name):
            return _expanded(environ[name], environ) / below
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(base, environ) / "huggingface" / "hub"


def _expanded(text: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        text = home + text[1:]
    return Path(os.path.expandvars(os.path.expanduser(text)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedRepository:
    """One repository's folder in the cache, which may not exist yet."""

    folder: Path

    @classmethod
    def of(cls, cache: Path, repository: str) -> CachedRepository:
        return cls(folder=cache / ("models--" + repository.replace("/", "--")))

    def commit(self) -> str | None:
        """The newest that was fetched; None where none was."""
        try:
            return (self.folder / "refs" / BRANCH).read_text("utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def snapshot(self, commit: str, path: str) -> Path:
        return self.folder / "snapshots" / commit / path

    def find(self, path: str) -> Path | None:
        """A whole file of the newest snapshot that has it; None where none has."""
        commit = self.commit()
        snapshots = [self.folder / "snapshots" / commit] if commit else []
        try:
            others = sorted((self.folder / "snapshots").iterdir(), key=lambda one: one.stat().st_mtime)
        except OSError:
            others = []
        for snapshot in (*snapshots, *reversed(others)):
            if (snapshot / path).is_file():
                return snapshot / path
        return None

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.rpartition(":")[2]

    def part(self, digest: str) -> Path:
        """What of the blob has come so far."""
        blob = self.blob(digest)
        return blob.with_name(blob.name + PART_ENDING)

    def keep(self, commit: str, path: str, digest: str) -> Path:
        """Give the blob its name in the snapshot, and the branch its commit; the name.

        Raises:
            OSError: the disk refused.
        """
        pointer, blob = self.snapshot(commit, path), self.blob(digest)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        making = pointer.with_name(f".{pointer.name}.{os.getpid()}")
        making.unlink(missing_ok=True)
        try:
            os.symlink(os.path.relpath(blob, pointer.parent), making)
        except OSError:
            # A file system without links: huggingface_hub keeps the file itself there, too.
            try:
                os.link(blob, making)
            except OSError:
                shutil.copyfile(blob, making)
        os.replace(making, pointer)
        reference = self.folder / "refs" / BRANCH
        reference.parent.mkdir(parents=True, exist_ok=True)
        fresh = reference.with_name(f".{BRANCH}.{os.getpid()}")
        fresh.write_text(commit, "utf-8")
        os.replace(fresh, reference)
        return pointer


def free_bytes(folder: Path) -> int | None:
    """On the disk that `folder` lies on, or will; None where that cannot be known."""
    for place in (folder, *folder.parents):
        try:
            info = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return info.f_bavail * info.f_frsize
    return None


def make_folder(folder: Path) -> None:
    """Raises: StorageUnusable: it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnusable(
            f"{folder} cannot be made: {error.strerror}; set HF_HOME to a folder that can be written"
        ) from error
