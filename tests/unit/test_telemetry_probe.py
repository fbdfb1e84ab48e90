"""The probe as a process: what it says, how it ends, and that no reader can block it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from engine.telemetry.outbox import Outbox
from engine.telemetry.probe import ProbeProcess
from engine.telemetry.samples import (
    DeviceNews,
    DeviceReading,
    FromProbe,
    HostReading,
    Pace,
    ProbeFault,
    ReadNow,
    Trace,
    Traced,
    Watch,
)
from tests.fake_nvml import FakeNvml, card

DECODER = msgspec.json.Decoder(FromProbe)
ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-P", "-m", "engine.telemetry.probe"]


class Running:
    """A real probe with its pipes."""

    def __init__(self, command: list[str] = COMMAND, cwd: str | Path = "/") -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
        )

    def ask(self, question: object) -> None:
        self.process.stdin.write(msgspec.json.encode(question) + b"\n")
        self.process.stdin.flush()

    def say(self, line: bytes) -> None:
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def hear(self, kind: type, where=lambda message: True, within_s: float = 10.0):
        """The next message of that kind that fits."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            line = self.process.stdout.readline()
            assert line, f"the probe ended: {self.process.stderr.read().decode()}"
            message = DECODER.decode(line)
            if isinstance(message, kind) and where(message):
                return message
        raise AssertionError(f"no {kind.__name__} within {within_s} s")

    def end(self, within_s: float = 2.0) -> int:
        return self.process.wait(within_s)

    def close(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()
        self.process.wait()


@pytest.fixture
def probe():
    running = Running()
    yield running
    running.close()


FAKE_DRIVER = """
import os, sys, time
from engine.telemetry import probe
from engine.telemetry.nvml_events import NvmlEvent
from tests.fake_nvml import GIB, FakeNvml, card

class Driver(FakeNvml):
    def __init__(self):
        time.sleep({opening_s})
        super().__init__(card(0, processes={{os.getpid(): 2 * GIB}}))
        self.started = time.monotonic()
        if {xid}:
            device_id = next(iter(self.cards))
            self.announced.put(NvmlEvent(device_id=device_id, kind="xid", number={xid}))

    def read_memory(self, device):
        if time.monotonic() > self.started + {hangs_after_s}:
            time.sleep(3600)
        return super().read_memory(device)

    def read_processes(self, device, **options):
        found = super().read_processes(device, **options)
        if time.monotonic() > self.started + {frees_after_s}:
            found = {{pid: 0 for pid in found}}
        return found

probe.DriverNvml = Driver
probe.HANG_S = 0.5
probe.main()
"""


@pytest.fixture
def probe_with_gpu():
    """Starts a probe whose driver is a fake with one card."""
    started = []

    def start(*, opening_s: float = 0.0, hangs_after_s: float = 3600.0, frees_after_s: float = 3600.0, xid=0):
        script = FAKE_DRIVER.format(
            opening_s=opening_s, hangs_after_s=hangs_after_s, frees_after_s=frees_after_s, xid=xid
        )
        started.append(Running([sys.executable, "-c", script], cwd=ROOT))
        return started[-1]

    yield start
    for running in started:
        running.close()


def test_it_reads_the_host_ten_times_a_second(probe):
    first = probe.hear(HostReading)
    for _ in range(5):
        last = probe.hear(HostReading)
    assert last.taken_at - first.taken_at == pytest.approx(0.5, abs=0.2)
    assert 0 < last.available_bytes <= last.total_bytes


def test_it_reads_the_resident_set_of_watched_processes_and_leaves_gone_ones_out(probe):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        probe.ask(Watch(pids={"daemon": os.getpid(), "worker:cpu": child.pid}))
        reading = probe.hear(HostReading, lambda found: child.pid in found.rss_bytes)
        assert reading.rss_bytes[os.getpid()] > 10 * 2**20
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
    gone = probe.hear(HostReading, lambda found: child.pid not in found.rss_bytes)
    assert os.getpid() in gone.rss_bytes


def test_a_trace_proves_when_memory_came_back(probe):
    script = "import sys; block = b'x' * (80 * 2**20); print(flush=True); input(); del block; input()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        with open(f"/proc/{child.pid}/statm") as statm:
            rss = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        question = Trace(
            trace_id=9, pid=child.pid, device_id="cpu", until_bytes=rss - 70 * 2**20, timeout_s=10
        )
        probe.ask(question)
        # It is answered at once, and after the probe has begun with the question before it.
        probe.ask(Trace(trace_id=8, pid=child.pid, device_id="GPU-none", until_bytes=0, timeout_s=10))
        assert probe.hear(Traced).trace_id == 8
        time.sleep(0.15)
        child.stdin.write(b"\n")
        child.stdin.flush()
        traced = probe.hear(Traced)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    assert traced.reached and traced.trace_id == 9
    assert traced.start_bytes - traced.end_bytes >= 70 * 2**20
    assert 0.05 < traced.elapsed_s < 5


def test_a_trace_on_an_unknown_device_is_answered_and_proves_nothing(probe):
    probe.ask(Trace(trace_id=4, pid=os.getpid(), device_id="GPU-none", until_bytes=0, timeout_s=30))
    traced = probe.hear(Traced)
    assert (traced.reached, traced.end_bytes) == (False, None)
    assert traced.elapsed_s < 1


def test_a_question_that_it_does_not_understand_is_named_and_the_next_one_answered(probe):
    probe.say(b'{"type":"Dance"}\nnot json\n\n\xff\xfe\n')
    for _ in range(3):
        assert probe.hear(ProbeFault, lambda fault: fault.kind == "bad_question").detail
    probe.ask(Trace(trace_id=5, pid=10**9, device_id="cpu", until_bytes=0, timeout_s=1))
    assert probe.hear(Traced).reached


def test_it_says_once_why_there_are_no_gpus_before_the_first_host_reading(probe):
    if any(name.startswith("nvidia") for name in os.listdir("/dev")):
        pytest.skip("this host has a GPU")
    messages = [DECODER.decode(probe.process.stdout.readline()) for _ in range(4)]
    assert [type(message).__name__ for message in messages] == ["ProbeFault"] + ["HostReading"] * 3
    assert messages[0].kind in ("nvml_missing", "nvml_driver")


def test_it_ends_when_its_input_closes(probe):
    probe.hear(HostReading)
    probe.process.stdin.close()
    assert probe.end() == 0


def test_it_ends_when_nobody_can_read_it(probe):
    probe.hear(HostReading)
    probe.process.stdout.close()
    assert probe.end() == 0


def test_it_ends_within_a_second_of_its_parents_death_although_its_input_stays_open():
    read_end, write_end = os.pipe()
    # The parent passes on a pipe whose other end we hold, so the probe's input never closes.
    script = (
        "import subprocess, sys, time;"
        f"child = subprocess.Popen({COMMAND!r}, stdin={read_end}, stdout=subprocess.DEVNULL);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, pass_fds=[read_end])
    try:
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        time.sleep(0.5)
        assert not select.select([pidfd], [], [], 0)[0]
        parent.send_signal(signal.SIGKILL)
        assert select.select([pidfd], [], [], 1.5)[0], "the probe outlived its parent"
        os.close(pidfd)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        os.close(read_end)
        os.close(write_end)


def test_gpus_are_heard_of_before_the_host_although_opening_the_driver_takes_a_while(probe_with_gpu):
    probe = probe_with_gpu(opening_s=0.4)
    first = DECODER.decode(probe.process.stdout.readline())
    assert isinstance(first, DeviceReading)
    assert (first.used_bytes, first.index) == (2 * 2**30, 0)
    probe.hear(HostReading)


def test_beside_gpus_the_host_is_read_less_often_than_they(probe_with_gpu):
    probe = probe_with_gpu()
    for _ in range(3):  # the first ones may still follow the old beat
        probe.hear(HostReading)
    of_gpus = 0

    def count(message: object) -> bool:
        nonlocal of_gpus
        of_gpus += isinstance(message, DeviceReading)
        return isinstance(message, HostReading)

    probe.hear(object, count)
    assert of_gpus >= 4


def test_a_trace_on_a_gpu_follows_the_drivers_entry_of_the_process(probe_with_gpu):
    probe = probe_with_gpu(frees_after_s=0.5)
    device_id = probe.hear(DeviceReading).device_id
    probe.ask(Trace(trace_id=1, pid=probe.process.pid, device_id=device_id, until_bytes=2**20, timeout_s=5))
    traced = probe.hear(Traced)
    assert (traced.start_bytes, traced.end_bytes, traced.reached) == (2 * 2**30, 0, True)


def test_a_driver_that_hangs_is_named_and_ends_the_probe(probe_with_gpu):
    probe = probe_with_gpu(hangs_after_s=0.3)
    probe.hear(DeviceReading)
    fault = probe.hear(ProbeFault)
    assert fault.kind == "nvml_hang" and "not answered" in fault.detail
    assert probe.end() == 3


def test_a_driver_that_takes_long_to_open_does_not_count_as_hanging(probe_with_gpu):
    probe = probe_with_gpu(opening_s=1.0)
    assert probe.hear(DeviceReading)
    assert probe.process.poll() is None


def test_an_xid_is_told_as_it_comes(probe_with_gpu):
    probe = probe_with_gpu(xid=79)
    news = probe.hear(DeviceNews)
    assert (news.kind, news.number) == ("xid", 79) and "off the bus" in news.detail
    assert probe.hear(DeviceReading).device_id == news.device_id


def test_a_reading_that_is_asked_for_comes_at_once_and_leaves_the_beat_alone(probe_with_gpu):
    probe = probe_with_gpu()
    for _ in range(3):
        probe.hear(DeviceReading)
    asked = time.monotonic()
    probe.ask(ReadNow())
    extra = probe.hear(DeviceReading, lambda reading: reading.taken_at > asked)
    following = [probe.hear(DeviceReading).taken_at for _ in range(10)]
    assert extra.taken_at - asked < 0.08
    assert following[-1] - following[0] == pytest.approx(0.9, abs=0.25)


def test_a_faster_rate_lasts_as_long_as_it_was_asked_for(probe_with_gpu):
    probe = probe_with_gpu()
    probe.hear(DeviceReading)
    probe.ask(Pace(period_s=0.01, for_s=1.0))
    ends = time.monotonic() + 0.9
    fast = 0
    while time.monotonic() < ends:
        probe.hear(DeviceReading)
        fast += 1
    assert fast > 30
    time.sleep(0.3)
    slow = [probe.hear(DeviceReading, lambda reading: reading.taken_at > ends + 0.3) for _ in range(4)]
    assert slow[-1].taken_at - slow[0].taken_at == pytest.approx(0.3, abs=0.15)


def test_it_imports_nothing_heavy():
    code = (
        "import sys, engine.telemetry.probe;"
        "print([name for name in ('torch', 'fastapi', 'pydantic', 'asyncio') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_composing_balances_imports_neither_pynvml_nor_psutil():
    code = (
        "import sys, engine.telemetry.balance, engine.telemetry.recorder, engine.telemetry.samples;"
        "print([name for name in ('pynvml', 'psutil', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# ------------------------------------------------------------------------- the way out


def host(at: float) -> HostReading:
    return HostReading(
        taken_at=at, total_bytes=1, available_bytes=1, limited_by_cgroup=False, rss_bytes={7: 2**40}
    )


def device(at: float) -> DeviceReading:
    return DeviceReading(
        taken_at=at,
        device_id="GPU-1",
        index=0,
        name="x" * 2000,
        total_bytes=1,
        used_bytes=0,
        reserved_bytes=None,
        reserved_inside_used=True,
        free_bytes=1,
        processes=(),
    )


def answer(number: int) -> Traced:
    return Traced(trace_id=number, start_bytes=1, end_bytes=0, elapsed_s=0.1, reached=True)


def test_a_slow_reader_gets_every_answer_and_only_the_newest_readings():
    read_end, write_end = os.pipe()
    outbox = Outbox(write_end, on_broken=lambda: None)
    outbox.start()
    try:
        started = time.monotonic()
        for number in range(500):
            outbox.put(host(number))
            outbox.put(device(number))
            if number % 100 == 0:
                outbox.put(answer(number))
        assert time.monotonic() - started < 1.0
        closer = threading.Thread(target=lambda: (outbox.close(5), os.close(write_end)))
        closer.start()
        with open(read_end, "rb") as file:
            messages = [DECODER.decode(line) for line in file]
        closer.join()
    except BaseException:
        os.close(read_end)
        raise
    assert [m.trace_id for m in messages if isinstance(m, Traced)] == [0, 100, 200, 300, 400]
    readings = [m.taken_at for m in messages if isinstance(m, DeviceReading)]
    assert len(readings) < 100
    assert readings == sorted(readings) and readings[-1] == 499
    assert [m.taken_at for m in messages if isinstance(m, HostReading)][-1] == 499


def test_what_the_pipe_takes_is_written_before_the_call_returns_and_keeps_its_order():
    read_end, write_end = os.pipe()
    outbox = Outbox(write_end, on_broken=lambda: None)
    outbox.start()
    try:
        for number in range(20):
            outbox.put(answer(number))
            assert select.select([read_end], [], [], 0)[0], "it waits for the other thread"
            assert DECODER.decode(os.read(read_end, 4096)).trace_id == number
        fault = ProbeFault(kind="k", detail="x" * 6000)
        outbox.put(fault)  # more than a pipe takes for certain: the thread writes it
        outbox.put(answer(99))
        with open(read_end, "rb", closefd=False) as file:
            assert DECODER.decode(file.readline()) == fault
            assert DECODER.decode(file.readline()) == answer(99)
    finally:
        outbox.close(5)
        os.close(write_end)
        os.close(read_end)


def test_a_broken_pipe_is_told_once():
    read_end, write_end = os.pipe()
    os.close(read_end)
    broken = threading.Event()
    outbox = Outbox(write_end, on_broken=broken.set)
    outbox.start()
    outbox.put(answer(1))
    assert broken.wait(5)
    outbox.close(5)
    os.close(write_end)


def test_a_zombie_that_nobody_waits_for_holds_nothing() -> None:
    card_ = card(0)
    probe = ProbeProcess()
    probe._nvml, probe._devices = FakeNvml(card_), {card_.device.device_id: card_.device}
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    asked = Trace(trace_id=1, pid=child.pid, device_id=card_.device.device_id, until_bytes=0, timeout_s=0.0)
    held = probe._held(asked)
    assert not held.listed and not held.alive
    child.wait()
