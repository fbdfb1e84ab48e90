"""What the probe makes of a driver's answers: readings, names, faults said once, and traces."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from engine.jobs.liveness import read_start_time
from engine.telemetry import processes
from engine.telemetry.devices import DeviceReader
from engine.telemetry.nvml import NvmlFault
from engine.telemetry.processes import ProcessTable, clean, holds_gpu_file
from engine.telemetry.samples import DeviceNews, ProbeFault, Trace
from engine.telemetry.tracing import UNKNOWN, Held, follow
from engine.telemetry.view import HostView
from tests.fake_nvml import GIB, IDENTITY, WELL, FakeNvml, card


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reader_of(*cards):
    faults: list[ProbeFault] = []
    clock = Clock()
    nvml = FakeNvml(*cards)
    return DeviceReader(nvml, faults.append, clock=clock), nvml, clock, faults


def test_each_card_gives_a_reading_with_its_processes(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: True)
    reader, _nvml, clock, faults = reader_of(card(0, processes={os.getpid(): 3 * GIB}), card(1))
    first, second = reader.read()
    assert (first.index, first.used_bytes, first.reserved_inside_used) == (0, 3 * GIB, False)
    assert first.taken_at == clock.now
    (process,) = first.processes
    assert (process.pid, process.bytes) == (os.getpid(), 3 * GIB)
    assert "pytest" in process.command
    assert process.started_at is not None and process.user
    assert process.start_time == read_start_time(os.getpid())
    assert (second.processes, faults) == ((), [])


def test_what_moves_slowly_is_read_once_a_second_and_kept_between():
    reader, nvml, clock, _faults = reader_of(card(0))
    for _ in range(10):
        (reading,) = reader.read()
        assert (reading.temperature_c, reading.power_w, reading.utilisation_percent) == (40, 300.5, 50)
        clock.now += 0.1
    assert nvml.slow_reads == 1
    nvml.cards[reading.device_id].temperature_c = None
    clock.now += 1
    assert reader.read()[0].temperature_c is None
    assert nvml.slow_reads == 2


def test_a_new_process_has_its_name_at_once(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: True)
    reader, nvml, clock, _faults = reader_of(card(0))
    reader.read()
    clock.now += 0.1
    next(iter(nvml.cards.values())).processes[os.getpid()] = GIB
    assert reader.read()[0].processes[0].name


def test_a_lost_card_is_said_once_and_the_others_go_on():
    reader, nvml, _clock, faults = reader_of(card(0), card(1))
    lost = next(iter(nvml.cards.values()))
    lost.fault = NvmlFault("gpu_lost", "GPU is lost")
    for _ in range(5):
        assert [reading.index for reading in reader.read()] == [1]
    assert sorted(fault.kind for fault in faults) == ["gpu_lost"]
    assert faults[0].device_id == lost.device.device_id and lost.device.device_id in faults[0].detail
    lost.fault = None
    assert [reading.index for reading in reader.read()] == [0, 1]


def test_a_process_in_another_namespace_has_no_name(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: False)
    table = ProcessTable()
    table.refresh([os.getpid()])
    assert table.get(os.getpid()).name == ""


def test_a_process_that_is_gone_has_no_name():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    table = ProcessTable()
    table.refresh([child.pid])
    assert table.get(child.pid) == table.get(10**9)


def test_a_name_is_read_once_while_the_process_is_the_same(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: True)
    read = []
    monkeypatch.setattr(processes, "_read_command", lambda process: read.append(process.pid) or "command")
    table = ProcessTable()
    for _ in range(3):
        table.refresh([os.getpid()])
    assert read == [os.getpid()]


def test_this_process_holds_no_gpu_file_and_others_cannot_be_looked_at(tmp_path):
    assert holds_gpu_file(os.getpid()) is False
    assert holds_gpu_file(5, tmp_path) is None
    (tmp_path / "5/fd").mkdir(parents=True)
    (tmp_path / "5/fd/3").symlink_to("/dev/nvidia0")
    assert holds_gpu_file(5, tmp_path) is True


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b1m", "\u202e", "\n", "\u2028", "\ud800", "\x00"])
def test_hostile_characters_of_a_command_line_are_replaced(hostile):
    cleaned = clean(f"python {hostile}x", 300)
    assert hostile[0] not in cleaned and "\ufffd" in cleaned
    cleaned.encode()


def test_a_long_command_line_is_cut_and_says_so():
    assert clean("x" * 300, 300) == "x" * 300
    assert clean("x" * 10**6, 300) == "x" * 299 + "…"


# ------------------------------------------------------------------------- traces


def trace(until_bytes: int, timeout_s: float = 1.0) -> Trace:
    return Trace(trace_id=3, pid=7, device_id="GPU-1", until_bytes=until_bytes, timeout_s=timeout_s)


def run(question: Trace, *readings: Held):
    """Follow with these readings in turn, the last one for ever."""
    clock = Clock()
    remaining = list(readings)
    return follow(
        question,
        lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0],
        clock=clock,
        sleep=clock.sleep,
    )


def held(num_bytes: int) -> Held:
    return Held(num_bytes=num_bytes, listed=True, alive=True)


ABSENT = Held(num_bytes=None, listed=False, alive=True)
ENDED = Held(num_bytes=None, listed=False, alive=False)


def test_a_trace_ends_as_soon_as_the_process_holds_few_enough():
    traced = run(trace(100), held(500), held(500), held(300), held(90), held(500))
    assert (traced.start_bytes, traced.end_bytes, traced.reached) == (500, 90, True)
    assert traced.elapsed_s == pytest.approx(0.003)
    assert traced.trace_id == 3


def test_a_trace_that_does_not_get_there_ends_at_its_time_with_what_is_there_then():
    traced = run(trace(100, timeout_s=0.5), held(500), held(200), held(400))
    assert (traced.end_bytes, traced.reached) == (400, False)
    assert traced.elapsed_s == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize("last", [ABSENT, ENDED])
def test_a_process_that_left_the_list_holds_nothing(last):
    traced = run(trace(0), held(500), last)
    assert (traced.start_bytes, traced.end_bytes, traced.reached) == (500, 0, True)


def test_a_process_that_had_ended_before_holds_nothing():
    traced = run(trace(0), ENDED)
    assert (traced.start_bytes, traced.end_bytes, traced.reached) == (None, 0, True)


def test_a_living_process_that_was_never_listed_proves_nothing():
    traced = run(trace(0), ABSENT)
    assert (traced.start_bytes, traced.end_bytes, traced.reached) == (None, None, False)


def test_a_driver_that_stops_answering_does_not_look_like_memory_given_back():
    traced = run(trace(0), held(500), UNKNOWN)
    assert (traced.end_bytes, traced.reached) == (None, False)


# ------------------------------------------------------------------------- faults and news


def test_a_card_that_was_lost_is_looked_for_and_told_when_it_is_back():
    reader, nvml, clock, said = reader_of(card(0), card(1))
    lost = next(iter(nvml.cards.values()))
    lost.fault = NvmlFault("gpu_lost", "GPU is lost")
    for _ in range(250):
        reader.read()
        clock.now += 0.1
    assert nvml.listings == 1 + 2, "every ten seconds"
    assert [fault.kind for fault in said] == ["gpu_lost"]
    lost.fault = None
    assert len(reader.read()) == 2
    assert isinstance(said[-1], DeviceNews)
    assert (said[-1].kind, said[-1].device_id) == ("back", lost.device.device_id)
    assert "25 s" in said[-1].detail
    lost.fault = NvmlFault("gpu_lost", "GPU is lost")
    reader.read()
    assert said[-1].kind == "gpu_lost", "a second loss is said again"


def test_a_list_of_processes_that_cannot_be_read_is_unknown_and_not_empty():
    reader, nvml, _clock, faults = reader_of(card(0, processes={7: GIB}))
    only = next(iter(nvml.cards.values()))
    only.processes_fault = NvmlFault("no_permission", "Insufficient Permissions")
    for _ in range(3):
        (reading,) = reader.read()
    assert (reading.processes, reading.processes_fault) == ((), "Insufficient Permissions")
    assert "Insufficient Permissions" in reading.view_gap
    assert [fault.kind for fault in faults] == ["processes_unknown"]
    only.processes_fault = None
    (reading,) = reader.read()
    assert reading.processes_fault is None and reading.processes[0].bytes == GIB


def test_a_condition_is_read_every_ten_seconds_and_at_once_when_the_driver_announces_a_change():
    reader, nvml, clock, said = reader_of(card(0))
    only = next(iter(nvml.cards.values()))
    for _ in range(50):
        (reading,) = reader.read()
        clock.now += 0.1
    assert nvml.condition_reads == 1
    assert (reading.card.recovery_action, reading.card.ecc_uncorrected) == ("none", 0)
    assert reading.card.condition_at < reading.slow_at <= reading.taken_at
    only.condition = replace(WELL, recovery_action="reset the GPU", ecc_uncorrected=2)
    assert reader.read()[0].card.recovery_action == "none"
    reader.condition_changed(only.device.device_id)
    assert reader.read()[0].card.recovery_action == "reset the GPU"
    assert [(news.kind, news.detail) for news in said] == [
        ("recovery_action", "the driver advises: reset the GPU")
    ]


def test_a_card_that_needs_a_reset_from_the_start_is_news():
    _reader, _nvml, _clock, said = reader_of(card(0, condition=replace(WELL, recovery_action="drain")))
    _reader.read()
    assert [news.kind for news in said] == ["recovery_action"]


def test_what_a_card_tells_beside_its_memory_is_in_the_reading():
    reader, _nvml, _clock, _said = reader_of(card(0))
    found = reader.read()[0].card
    assert (found.driver_version, found.pci_bus_id) == ("580.159.04", "00000000:1A:00.0")
    assert (found.graphics_clock_mhz, found.memory_clock_mhz, found.clock_limits) == (
        1980,
        3201,
        ("power cap",),
    )
    assert (found.persistence_mode, found.mig_mode, found.display_active) == (True, False, False)


def test_memory_that_moves_while_processes_are_listed_is_read_again_and_then_marked():
    reader, nvml, _clock, _faults = reader_of(card(0))
    only = next(iter(nvml.cards.values()))
    moves = [GIB]

    def list_and_move(device, **_options):
        if moves:
            only.unseen_bytes += moves.pop()
        return {}

    nvml.read_processes = list_and_move
    (reading,) = reader.read()
    assert reading.still and reading.used_bytes == GIB
    moves = [GIB] * 10
    (reading,) = reader.read()
    assert not reading.still and len(moves) == 7


def test_a_reading_says_from_when_to_when_it_was_taken():
    clock = Clock()
    nvml = FakeNvml(card(0))
    listed = nvml.read_processes

    def slow_list(device, **_options):
        clock.now += 0.02
        return listed(device)

    nvml.read_processes = slow_list
    (reading,) = DeviceReader(nvml, lambda said: None, clock=clock).read()
    assert (reading.began_at, reading.taken_at) == (100.0, 100.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"condition": replace(WELL, mig_mode=True)}, "MIG"),
        ({"refused_lists": ("compute",)}, "compute"),
        ({"identity": replace(IDENTITY, coherent_memory=True)}, "kernel"),
        ({}, None),
    ],
)
def test_a_view_that_is_not_complete_says_why(changes, said):
    whole = HostView(host_namespace=True, proc_is_ours=True, init_shown=True, hidden=False, wsl=False)
    reader = DeviceReader(FakeNvml(card(0, **changes)), lambda news: None, host_view=lambda: whole)
    gap = reader.read()[0].view_gap
    assert gap is None if said is None else said in gap


def test_a_process_that_dies_while_it_is_read_has_no_name(monkeypatch):
    def vanish(self):
        raise processes.psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: True)
    monkeypatch.setattr(processes.psutil.Process, "username", vanish)
    table = ProcessTable()
    table.refresh([os.getpid()])
    assert table.get(os.getpid()) == table.get(10**9)


def test_a_pid_that_became_somebody_else_while_it_was_read_has_no_name(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: True)
    starts = iter((1.0, 2.0))
    stat = processes.read_stat(os.getpid())
    monkeypatch.setattr(processes, "read_stat", lambda pid: replace(stat, start_time=next(starts)))
    table = ProcessTable()
    table.refresh([os.getpid()])
    assert table.get(os.getpid()) == table.get(10**9)


def test_a_zombie_on_the_card_is_named_by_the_kernel_and_breaks_nothing(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: None)
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    table = ProcessTable()
    table.refresh([child.pid])
    assert table.get(child.pid).command == ""
    child.wait()


def test_every_list_is_read_once_a_second_and_at_once_when_memory_moved():
    """Whoever draws or goes through MPS comes and goes with memory: what did not move is not asked again."""
    only = card(0, processes={os.getpid(): 3 * GIB})
    reader, nvml, clock, _faults = reader_of(only)
    for beat in range(30):
        reader.read()
        assert nvml.whole_listings == 1 + beat // 10
        clock.now += 0.1000001
    only.processes = {os.getpid(): 3 * GIB, 1: GIB}
    (reading,) = reader.read()
    assert nvml.whole_listings == 4 and {process.pid for process in reading.processes} == {1, os.getpid()}
    clock.now += 0.1
    reader.read()
    only.processes = {os.getpid(): 3 * GIB}
    clock.now += 0.1
    (reading,) = reader.read()
    assert nvml.whole_listings == 5 and len(reading.processes) == 1


def test_what_is_told_again_is_told_as_it_is_now(monkeypatch):
    monkeypatch.setattr(processes, "holds_gpu_file", lambda pid: True)
    only = card(0, processes={os.getpid(): 3 * GIB})
    reader, _nvml, clock, _faults = reader_of(only)
    (first,) = reader.read()
    clock.now += 0.1
    only.processes = {os.getpid(): 5 * GIB}
    only.refused_lists = ("MPS",)
    only.clocks = replace(only.clocks, graphics_mhz=345)
    (second,) = reader.read()
    assert (first.processes[0].bytes, second.processes[0].bytes) == (3 * GIB, 5 * GIB)
    assert first.processes[0].start_time == second.processes[0].start_time
    assert second.view_gap is not None and second.card.graphics_clock_mhz == first.card.graphics_clock_mhz
    clock.now += 1.0
    only.condition = replace(only.condition, mig_mode=True)
    reader.condition_changed(only.device.device_id)
    (third,) = reader.read()
    assert third.card.graphics_clock_mhz == 345 and third.card.mig_mode is True
