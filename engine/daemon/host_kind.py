"""What kind of host this is, as far as it decides what may be done to a GPU.

What can be seen is another question: a container may share the host's pid namespace, which
`engine.telemetry.view` looks at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

HostKind: TypeAlias = Literal["bare", "wsl", "container"]


def read_host_kind(root: Path = Path("/")) -> HostKind:
    """`wsl`, `container`, or `bare`."""
    try:
        kernel = (root / "proc/sys/kernel/osrelease").read_text("utf-8", "replace").lower()
    except OSError:
        kernel = ""
    if "microsoft" in kernel or (root / "dev/dxg").exists():
        return "wsl"
    try:
        groups = (root / "proc/1/cgroup").read_text("utf-8", "replace")
    except OSError:
        groups = ""
    marks = (root / ".dockerenv", root / "run/.containerenv")
    if any(mark.exists() for mark in marks) or any(
        word in groups for word in ("docker", "kubepods", "libpod", "lxc")
    ):
        return "container"
    return "bare"
