"""Which processes may be ended: every reason against one, each with its own sentence and way out.

What is asked here is asked anew before each signal, and nothing is awaited between the answer and
the signal. Only a process that NVML lists on a GPU, that has a GPU's file open in our own /proc and
that started when the person was told it did can be a victim; a pid alone may be anybody.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NotFound, NotNow, Refused
from engine.paths import user_name
from engine.telemetry.procfs import (
    PROC,
    Stat,
    clean,
    holds_gpu_file,
    read_stat,
    read_uid,
    read_wait,
    same_start,
)
from engine.units import size_text
from engine.wire import DeviceProcess, DeviceStatus, KillRequest

STALE_S = 2.0
"""A list of processes that is older proves nothing: the probe reads ten times a second."""
NAME_CHARS = 64
LIST = "`turbotui ps` lists what is on the GPUs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Victim:
    """A process that may be ended at this moment."""

    process: DeviceProcess
    device_ids: tuple[str, ...]
    """All GPUs that it is listed on."""
    bytes: int | None
    """What it holds on them together; None where the driver does not tell."""

    @property
    def target(self) -> str:
        """As receipts name it."""
        return f"{self.process.pid} {self.process.name}".strip()

    def sentence(self) -> str:
        """As the log names it."""
        process = self.process
        inside = f" in {process.container}" if process.container else ""
        return f"process {process.pid} of {process.user or 'an unknown user'}{inside}: {process.command}"


class Victims:
    """Looks at processes on the GPUs. Event loop's thread only; no look waits for anything."""

    def __init__(
        self,
        *,
        devices: Callable[[], Sequence[DeviceStatus]],
        ours: Callable[[], Mapping[str, int]],
        holds_file: Callable[[int], bool | None] | None = None,
        proc: Path = PROC,
        uid: int | None = None,
    ) -> None:
        """`devices` gives the newest readings, `ours` our processes by role, the `daemon` among them;
        `holds_file` says whether a pid has a GPU's file open, None where we may not look.
        """
        self._devices = devices
        self._ours = ours
        self._holds_file = holds_file or (lambda pid: holds_gpu_file(pid, proc))
        self._proc = proc
        self._uid = os.getuid() if uid is None else uid

    def check(self, request: KillRequest) -> Victim:
        """The process that `request` means, if it may be ended.

        Raises:
            Refused: it may not, or cannot be proved to be the one that is meant.
        """
        pid = request.pid
        if pid <= 1:
            raise Refused(f"process {pid} is the system's first or no single process; it is never ended")
        stat = self._running(pid)
        self._refuse_ours(pid, stat)
        if stat.kernel_thread:
            raise Refused(f"process {pid} ({stat.name}) is a thread of the kernel and cannot be ended")
        if stat.ended:
            parent = read_stat(stat.parent, self._proc)
            by = f"{stat.parent} ({parent.name})" if parent is not None else str(stat.parent)
            raise Refused(
                f"process {pid} has ended already and is a zombie until its parent, process {by}, "
                "waits for it; if its memory is still counted, look at that parent"
            )
        victim = self._listed(pid)
        self._refuse_another(request, stat, victim)
        self._refuse_other_user(request, victim)
        self._refuse_unproved(pid)
        return victim

    def named(self, request: KillRequest) -> str:
        """The process that `request` means as the audit names it: whose, what it runs and what it holds."""
        pid = request.pid
        found = [
            (device, process)
            for device in self._devices()
            for process in device.processes
            if process.pid == pid and _same(process.start_time, request.start_time)
        ]
        name = f"process {pid}"
        if request.start_time is not None:
            name = f"process {pid}, started at {request.start_time}"
        if not found:
            uid = read_uid(pid, self._proc)
            owner = "an unknown user" if uid is None else clean(user_name(uid), NAME_CHARS)
            return f"{name}, of {owner}, on no GPU: {self._command(pid)}"
        process = found[0][1]
        held = ", ".join(
            f"{'unknown bytes' if there.bytes is None else size_text(there.bytes)} of {device.id}"
            for device, there in found
        )
        owner = process.user or "an unknown user"
        return f"{name}, of {owner}, holds {held}: {process.command or process.name or '?'}"

    def _command(self, pid: int) -> str:
        stat = read_stat(pid, self._proc)
        return "no such process" if stat is None else stat.name

    def stuck_in(self, pid: int) -> str | None:
        """Where in the kernel a thread of it waits that no signal reaches (state D); None if none does.

        Any thread: of a process that is half ended the first is a zombie, while another one hangs.
        """
        threads = self._proc / str(pid) / "task"
        for folder, number in ((self._proc, pid), *((threads, number) for number in _numbers(threads))):
            stat = read_stat(number, folder)
            if stat is not None and stat.state == "D":
                return read_wait(number, folder) or "an unknown place"
        return None

    def _running(self, pid: int) -> Stat:
        stat = read_stat(pid, self._proc)
        if stat is None:
            raise NotFound(
                f"no process {pid} can be seen here: it has ended, or is of another PID namespace; {LIST}"
            )
        return stat

    def _refuse_ours(self, pid: int, stat: Stat) -> None:
        ours = self._ours()
        role = next((role for role, number in ours.items() if number == pid), None)
        if role in ("daemon", "probe", "nursery"):
            raise Refused(f"process {pid} is the engine's own {role}; `turbotui engine stop` ends it")
        if role is not None or stat.parent in (ours.get("daemon"), ours.get("nursery")):
            raise Refused(
                f"process {pid} is the engine's own, a worker or one that it is ending; `turbotui cleanup` "
                "ends the worker and starts another, `turbotui park` leaves the GPU empty"
            )
        if "daemon" in ours and pid in self._ancestors(ours["daemon"]):
            raise Refused(f"the engine itself runs below process {pid} ({stat.name}), which it does not end")

    def _ancestors(self, pid: int) -> set[int]:
        found: set[int] = set()
        while (stat := read_stat(pid, self._proc)) is not None and stat.parent not in found:
            pid = stat.parent
            found.add(pid)
        return found

    def _listed(self, pid: int) -> Victim:
        gpus = [device for device in self._devices() if device.kind == "cuda"]
        if not gpus:
            raise Refused(
                f"no GPU is read here, so process {pid} cannot be proved to hold one; "
                "`turbotui status` says what is read"
            )
        found = [(device, process) for device in gpus for process in device.processes if process.pid == pid]
        if not found:
            raise Refused(f"process {pid} is on no GPU by NVML's lists; {LIST}")
        ages = [device.age_s for device, _process in found]
        if any(age is None or age > STALE_S for age in ages):
            raise NotNow(
                f"the GPU's list of processes is older than {STALE_S:g} s and proves nothing of process "
                f"{pid}; try again once the probe reads it"
            )
        sizes = [process.bytes for _device, process in found]
        return Victim(
            process=found[0][1],
            device_ids=tuple(device.id for device, _process in found),
            bytes=None if None in sizes else sum(size or 0 for size in sizes),
        )

    def _refuse_another(self, request: KillRequest, stat: Stat, victim: Victim) -> None:
        pid, listed = request.pid, victim.process.start_time
        if listed is None:
            raise Refused(
                f"process {pid} on the GPU cannot be found under that number here: it runs in another PID "
                "namespace; end it from there"
            )
        if request.start_time is None:
            raise NotNow(f"process {pid} was not on a GPU when it was looked up; look again: {LIST}")
        if not same_start(request.start_time, stat.start_time) or not same_start(listed, stat.start_time):
            raise NotNow(
                f"process {pid} is not the one that was shown: that one has ended, and its number belongs "
                f"to another; {LIST}"
            )

    def _refuse_other_user(self, request: KillRequest, victim: Victim) -> None:
        pid = request.pid
        uid = read_uid(pid, self._proc)
        if uid is None:
            raise NotFound(f"process {pid} ended while it was looked at; {LIST}")
        if uid == self._uid:
            return
        name = victim.process.user or f"uid {uid}"
        if not request.other_user:
            raise Refused(
                f"process {pid} belongs to {name}, another user; add --other-user if you mean it all the same"
            )
        if self._uid != 0 and self._holds_file(pid) is None:
            raise Refused(
                f"process {pid} belongs to {name}, and only {name} or root may look at it and end it"
            )

    def _refuse_unproved(self, pid: int) -> None:
        holds = self._holds_file(pid)
        if holds is None:
            raise Refused(
                f"the open files of process {pid} may not be looked at, so it cannot be proved to hold a "
                "GPU; who started it, or root, may end it"
            )
        if not holds:
            raise Refused(
                f"process {pid} has no GPU's file open here; if NVML lists that number, it means a process "
                "of another PID namespace: end it from there"
            )


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and same_start(one, other)


def _numbers(folder: Path) -> list[int]:
    try:
        return sorted(int(entry.name) for entry in folder.iterdir())
    except (OSError, ValueError):
        return []
