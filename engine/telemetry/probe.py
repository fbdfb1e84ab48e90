"""The probe process: reads host memory and GPUs ten times a second and answers traces, as JSON lines.

    python -P -m engine.telemetry.probe

Questions (ToProbe) come on standard input, readings and answers (FromProbe) go to standard
output. It ends when its input closes or its parent is gone. NVML is read in a thread of its
own: a call that hangs in the kernel silences the whole probe after `HANG_S`, so that its parent
abandons it, and never stops it from noticing that it should end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import NoReturn

import msgspec

from engine.telemetry.devices import DeviceReader
from engine.telemetry.host import HostProbe, read_rss, read_swapped
from engine.telemetry.nvml import Device, DriverNvml, Nvml, NvmlFault
from engine.telemetry.nvml_events import NvmlEvents, xid_text
from engine.telemetry.outbox import Outbox
from engine.telemetry.pace import Beat
from engine.telemetry.samples import (
    DeviceNews,
    HostReading,
    Pace,
    ProbeFault,
    ReadNow,
    ToProbe,
    Trace,
    Traced,
    Watch,
)
from engine.telemetry.tracing import UNKNOWN, Held, follow
from engine.tether import tether

PERIOD_S = 0.1
HOST_PERIOD_S = 1.0
"""Of the host beside GPUs, where its memory is not what a balance is made of."""
LIMITS_S = 1.0
"""How often cgroup limits, pressure and swap are looked up again."""
EVENTS_S = 1.0
"""How long one wait for the driver's announcements lasts; they themselves come at once."""
EVENTS_RETRY_S = 30.0
NVML_RETRY_S = 30.0
"""A driver that does not answer may be loaded later."""
NVML_PATIENCE_S = 2.0
"""The first host reading waits so long for the GPUs, so that a reader hears of those first."""
HANG_S = 5.0
OPEN_HANG_S = 60.0
"""Opening the driver of a host without persistence mode takes seconds for each GPU."""
TRACE_LIMIT = 16
"""Traces at one time; each is a thread."""
QUESTION_LIMIT_BYTES = 2**20
PARENT_VARIABLE = "_TURBOTUI_PARENT"


class ProbeProcess:
    """One run of the probe, from its first reading to its end."""

    def __init__(self, questions: int = 0, answers: int = 1) -> None:
        """`questions` and `answers` are file descriptors."""
        self._questions = questions
        self._outbox = Outbox(answers, on_broken=lambda: _leave(0))
        self._decoder: msgspec.json.Decoder[ToProbe] = msgspec.json.Decoder(ToProbe)
        self._host = HostProbe()
        self._watched: tuple[int, ...] = ()
        self._nvml: Nvml | None = None
        self._reader: DeviceReader | None = None
        self._devices: dict[str, Device] = {}
        self._gpus_known = threading.Event()
        self._busy_since: float | None = None
        self._opening = False
        self._traces = threading.Semaphore(TRACE_LIMIT)
        self._parent = os.getppid()
        self._gpu_beat = Beat(PERIOD_S)
        self._host_beat = Beat(PERIOD_S)

    def run(self) -> NoReturn:
        """Until the input closes; ends the process itself, since a hanging thread could not be joined."""
        threading.excepthook = _leave_with_trace
        self._outbox.start()
        for loop in (self._read_gpus, self._read_host):
            threading.Thread(target=loop, name=loop.__name__, daemon=True).start()
        try:
            with open(self._questions, "rb", closefd=False) as lines:
                while line := lines.readline(QUESTION_LIMIT_BYTES):
                    self._hear(line)
        except OSError:
            pass  # an input that cannot be read is one that has closed
        self._outbox.close(0.3)
        _leave(0)

    # ----------------------------------------------------------------- questions

    def _hear(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            question = self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._outbox.put(ProbeFault(kind="bad_question", detail=str(error)))
            return
        if isinstance(question, Watch):
            self._watched = tuple(question.pids.values())
        elif isinstance(question, ReadNow):
            self._gpu_beat.now()
        elif isinstance(question, Pace):
            for beat in (self._gpu_beat, self._host_beat):
                beat.hurry(question.period_s, question.for_s)
        elif self._traces.acquire(blocking=False):
            threading.Thread(target=self._trace, args=(question,), daemon=True).start()
        else:
            self._outbox.put(_untraced(question))

    def _trace(self, trace: Trace) -> None:
        try:
            self._outbox.put(follow(trace, lambda: self._held(trace)))
        finally:
            self._traces.release()

    def _held(self, trace: Trace) -> Held:
        """What the traced process holds now: its RSS on cpu, else its NVML entry."""
        rss = read_rss(trace.pid)
        if trace.device_id == "cpu":
            return Held(num_bytes=rss, listed=rss is not None, alive=rss is not None)
        device, nvml = self._devices.get(trace.device_id), self._nvml
        if device is None or nvml is None:
            return UNKNOWN
        try:
            processes = nvml.read_processes(device)
        except NvmlFault:
            return UNKNOWN
        # A zombie, whose parent has not waited for it yet, has no pages and holds nothing.
        return Held(num_bytes=processes.get(trace.pid), listed=trace.pid in processes, alive=bool(rss))

    # ----------------------------------------------------------------- host

    def _read_host(self) -> None:
        self._gpus_known.wait(NVML_PATIENCE_S)
        limits_at = float("-inf")
        pressure: float | None = None
        swapped: dict[int, int] = {}
        while True:
            now = time.monotonic()
            if os.getppid() != self._parent:
                _leave(0)
            self._check_hang(now)
            try:
                if now - limits_at >= LIMITS_S:
                    self._host.refresh_limits()
                    pressure = self._host.read_pressure()
                    swapped = {pid: size for pid in self._watched if (size := read_swapped(pid)) is not None}
                    limits_at = now
                memory = self._host.read()
            except (OSError, ValueError, KeyError) as error:
                self._outbox.put(ProbeFault(kind="host_unreadable", detail=f"/proc/meminfo: {error}"))
                time.sleep(LIMITS_S)
                continue
            rss = {pid: found for pid in self._watched if (found := read_rss(pid)) is not None}
            self._outbox.put(
                HostReading(
                    taken_at=now,
                    total_bytes=memory.total_bytes,
                    available_bytes=memory.available_bytes,
                    limited_by_cgroup=memory.limited_by_cgroup,
                    rss_bytes=rss,
                    swapped_bytes=swapped,
                    pressure_percent=pressure,
                )
            )
            self._host_beat.wait()

    def _check_hang(self, now: float) -> None:
        since = self._busy_since
        if since is None or now - since < (OPEN_HANG_S if self._opening else HANG_S):
            return
        detail = f"NVML has not answered for {now - since:.0f} s; the driver hangs in the kernel"
        self._outbox.put(ProbeFault(kind="nvml_hang", detail=detail))
        self._outbox.close(0.3)
        _leave(3)

    # ----------------------------------------------------------------- GPUs

    def _read_gpus(self) -> None:
        self._reader = reader = self._open_gpus()
        if reader.devices:
            self._host_beat.slow_down(HOST_PERIOD_S)
            threading.Thread(target=self._hear_driver, name="events", daemon=True).start()
        while True:
            self._busy_since = time.monotonic()
            for reading in reader.read():
                self._outbox.put(reading)
            self._busy_since = None
            self._gpus_known.set()
            if not reader.devices:
                return
            self._gpu_beat.wait()

    def _open_gpus(self) -> DeviceReader:
        """Try until the driver answers; says once for each reason why it does not."""
        said: set[str] = set()
        while True:
            self._opening, self._busy_since = True, time.monotonic()
            try:
                nvml = DriverNvml()
                reader = DeviceReader(nvml, self._outbox.put)
            except NvmlFault as fault:
                if fault.kind not in said:
                    said.add(fault.kind)
                    self._outbox.put(ProbeFault(kind=fault.kind, detail=fault.detail))
            else:
                self._nvml = nvml
                self._devices = {device.device_id: device for device in reader.devices}
                return reader
            finally:
                self._opening, self._busy_since = False, None
            self._gpus_known.set()
            time.sleep(NVML_RETRY_S)

    # ----------------------------------------------------------------- what the driver announces

    def _hear_driver(self) -> None:
        """Xids and recovery actions as they happen; a driver without events is left alone."""
        nvml, reader = self._nvml, self._reader
        assert nvml is not None and reader is not None
        while True:
            relisted = reader.relisted
            try:
                events = nvml.open_events()
            except NvmlFault as fault:
                self._outbox.put(ProbeFault(kind="events_unknown", detail=fault.detail))
                return
            if not events.device_ids:
                return
            try:
                while reader.relisted == relisted:
                    self._announce(events)
            except NvmlFault:
                time.sleep(EVENTS_RETRY_S)  # a card was lost: its reading says so
            finally:
                events.close()

    def _announce(self, events: NvmlEvents) -> None:
        event = events.wait(EVENTS_S)
        if event is None:
            return
        if event.kind == "xid":
            news = DeviceNews(
                device_id=event.device_id, kind="xid", detail=xid_text(event.number), number=event.number
            )
            self._outbox.put(news)
        # An Xid is what most often changes the advice, also on drivers that do not announce that.
        if self._reader is not None:
            self._reader.condition_changed(event.device_id)


def _untraced(trace: Trace) -> Traced:
    """The answer to a trace that was not even begun."""
    return Traced(
        trace_id=trace.trace_id,
        start_bytes=None,
        end_bytes=None,
        elapsed_s=0.0,
        reached=False,
    )


def _leave(code: int) -> NoReturn:
    """End at once: threads may hang in the driver, and there is nothing to tidy up."""
    os._exit(code)


def _leave_with_trace(hook: threading.ExceptHookArgs) -> None:
    """A thread that failed would leave half a probe behind; the parent starts a whole one."""
    traceback.print_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)
    _leave(4)


def main() -> NoReturn:
    if parent := os.environ.get(PARENT_VARIABLE):
        tether(int(parent), "tt-probe")
    ProbeProcess().run()


if __name__ == "__main__":
    sys.exit(main())
