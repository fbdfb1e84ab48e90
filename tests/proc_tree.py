"""A made-up /proc of processes, for what looks at them one by one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KERNEL_THREAD = 0x00200000


class ProcTree:
    """Processes below a temporary folder; each starts as an ordinary one that holds a GPU."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.proc.mkdir()

    def add(
        self,
        pid: int,
        *,
        name: str = "python",
        state: str = "S",
        parent: int = 1,
        flags: int = 0x400000,
        start_time: float = 100.0,
        uid: int = 1000,
        files: tuple[str, ...] = ("/dev/null", "/dev/nvidia0"),
        cgroup: str = "0::/user.slice",
    ) -> None:
        """Put `pid` there, or another one in its place."""
        folder = self.proc / str(pid)
        self.remove(pid)
        (folder / "fd").mkdir(parents=True)
        ticks = round(start_time * TICKS)
        zeros = " ".join("0" for _ in range(12))
        (folder / "stat").write_text(
            f"{pid} ({name}) {state} {parent} 1 1 0 -1 {flags} {zeros} {ticks} 0 0\n", "utf-8"
        )
        (folder / "status").write_text(f"Name:\t{name}\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (folder / "cgroup").write_text(cgroup + "\n", "utf-8")
        for number, file in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(file)

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid), ignore_errors=True)

    def hide_files(self, pid: int) -> None:
        """As another user's: its open files may not be looked at."""
        shutil.rmtree(self.proc / str(pid) / "fd")
