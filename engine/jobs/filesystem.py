"""Which file system a path lies on, and whether SQLite's WAL may be used there.

WAL needs shared memory that is coherent between all openers, which network file systems do not
give; a rollback journal works everywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "gpfs", "afs", "beegfs", "ncpfs"}
    | {"virtiofs", "glusterfs", "orangefs", "pvfs2", "ocfs2", "gfs2", "davfs", "wekafs"}
)
LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat"})
"""FUSE types with a disk of this host below; `fuseblk` is one by definition."""


def find_type(path: Path, mountinfo: str) -> str | None:
    """Type of the file system that holds `path`, out of the text of /proc/self/mountinfo.

    The longest mount point that contains `path` wins, and of equal ones the last, since a later
    mount covers an earlier one. None when no line fits.
    """
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount_point = Path(_unescape(fields[4]))
        if path.is_relative_to(mount_point):
            depth = len(mount_point.parts)
            if best is None or depth >= best[0]:
                best = (depth, right.split(" ")[0])
    return best[1] if best else None


def is_network(fs_type: str) -> bool:
    """Whether `fs_type` may be shared with another host (or cannot promise not to be)."""
    if fs_type in NETWORK_TYPES:
        return True
    return (fs_type == "fuse" or fs_type.startswith("fuse.")) and fs_type not in LOCAL_FUSE


def why_no_wal(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """One sentence why WAL must not be used for the file `path`, or None when it may."""
    try:
        fs_type = find_type(Path(os.path.realpath(path)), os.fsdecode(mountinfo.read_bytes()))
    except OSError as error:
        return f"no WAL: the file system of {path} is unknown ({error.strerror})"
    if fs_type is None:
        return f"no WAL: the file system of {path} is unknown"
    return (
        f"no WAL: {path} lies on {fs_type}, which may be shared between hosts"
        if is_network(fs_type)
        else None
    )


def _unescape(text: str) -> str:
    """Mount points write blanks, tabs, newlines and backslashes as three octal digits."""
    if "\\" not in text:
        return text
    for code in ("040", "011", "012", "134"):
        text = text.replace("\\" + code, chr(int(code, 8)))
    return text
