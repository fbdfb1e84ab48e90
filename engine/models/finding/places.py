"""Where to look for models: the hub's caches, other tools' folders, and the places where people put files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.models.getting.cache import find_cache

REAL_DISKS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "ntfs", "ntfs3", "exfat", "vfat", "fuseblk"}
    | {"nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "beegfs", "virtiofs", "9p", "gpfs", "wekafs"}
)
"""Types of file systems that somebody keeps files on; mounts of others hold none."""
COMMON = (
    "/workspace",
    "/data",
    "/models",
    "/mnt",
    "/media",
    "/srv",
    "/opt",
    "/root/autodl-tmp",
    "/root/autodl-fs",
)
"""Where images and providers of rented GPUs put what is to stay."""
SYSTEM = ("/boot", "/efi", "/proc", "/sys", "/dev", "/run", "/etc", "/usr", "/snap", "/var/lib/docker")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder to look through."""

    path: Path
    depth: int
    """How many levels below it; folders that look like a tool's are followed further."""
    given: bool = False
    """Whether the person named it: then everything in it is told."""


def find_places(
    given: tuple[Path, ...],
    environ: Mapping[str, str],
    *,
    cwd: Path,
    mounts: Path = Path("/proc/self/mounts"),
    common: tuple[str, ...] = COMMON,
) -> Iterator[Place]:
    """In the order in which they are looked through, the likeliest first; some may lie in others."""
    for path in given:
        yield Place(path=path.absolute(), depth=6, given=True)
    yield Place(path=find_cache(environ), depth=1)
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    standard = home / ".cache" / "huggingface" / "hub"
    yield Place(path=standard, depth=1)
    for name in ("TURBODIFFUSION_HOME", "COMFYUI_PATH", "COMFYUI_HOME"):
        if environ.get(name):
            yield Place(path=Path(environ[name]), depth=3)
    yield Place(path=cwd, depth=2)
    yield Place(path=home, depth=2)
    yield from (Place(path=Path(path), depth=3) for path in common)
    yield from (Place(path=path, depth=2) for path in _mounted(mounts))


def _mounted(mounts: Path) -> Iterator[Path]:
    """Where disks are mounted besides the system's own."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3 or fields[2] not in REAL_DISKS:
            continue
        path = Path(fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # A container's own files such as /etc/hosts are mounts too.
        if path != Path("/") and not any(path.is_relative_to(one) for one in SYSTEM) and path.is_dir():
            yield path
