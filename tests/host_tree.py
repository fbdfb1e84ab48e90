"""A made-up /proc and cgroup mount, for what asks how much host memory there is."""

from __future__ import annotations

from pathlib import Path

from engine.telemetry.host import HostProbe


class HostTree:
    """A machine of 16 GiB with 8 GiB available, below a temporary folder; no cgroup limits it yet."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.mount = root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.mount.mkdir()
        (self.proc / "meminfo").write_text(
            "MemTotal:       16777216 kB\nMemFree:  1048576 kB\nMemAvailable:    8388608 kB\nCached: 2 kB\n"
        )
        self.mounted()

    def mounted(self, root: str = "/", version: int = 2) -> None:
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        (self.proc / "self/mountinfo").write_text(
            f"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:30 {root} {self.mount} rw - {kind}\n"
        )

    def member_of(self, line: str) -> None:
        (self.proc / "self/cgroup").write_text(line + "\n")

    def level(self, path: str, **files: str | int) -> None:
        folder = self.mount / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    def limit(self, limit: int | str, current: int, inactive_file: int = 0) -> None:
        """Put us in a cgroup of so many bytes, of which so many are taken."""
        self.member_of("0::/job")
        self.level(
            "job", memory__max=limit, memory__current=current, memory__stat=f"inactive_file {inactive_file}"
        )

    def probe(self) -> HostProbe:
        return HostProbe(self.proc)
