"""The balance of a real card, held to its word by memory that the tests put there themselves.

This process plays the worker: the real backend counts, the real driver is read, and what is told of
both is composed as the daemon does it. Needs a card that nobody else uses.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from os import getpid

import msgspec
import pytest
import torch

from engine.telemetry.balance import gpu_balance, why_moving
from engine.telemetry.devices import DeviceReader
from engine.telemetry.nvml import Device, DriverNvml
from engine.telemetry.samples import DeviceReading
from engine.wire import Balance, EventFrame, MemorySampled, SwitchRequest
from engine.worker.channel import AllocatorSample
from tests.daemon.live import LiveEngine
from tests.gpu.backends import connected
from tests.plants import GIB, MIB, UNEXPLAINED, assert_only_moved

SETTLE_S = 0.2
"""More than the driver's figures lag behind what was done."""
TRIES = 50
WEIGHTS_BYTES = 256 * MIB
HOLDER = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
assert cuda.cuCtxSetCurrent(context) == 0
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "take":
        assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(2**30)) == 0
    else:
        assert cuda.cuMemFree_v2(memory) == 0
    print("done", flush=True)
"""


class Foreign:
    """A process of another program on the first GPU, which takes and gives back 1 GiB when told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        self._expect("ready")

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        self._expect("done")

    def _expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    started = Foreign()
    yield started
    started.end()


class Card:
    """The first GPU as the driver tells it and as our own allocator does."""

    def __init__(self) -> None:
        self.backend = connected()
        self.backend.warm_up()
        self.weights = torch.empty(WEIGHTS_BYTES, dtype=torch.uint8, device=self.backend.device)
        torch.cuda.synchronize()
        self.backend.free_cache()
        self.nvml = DriverNvml()
        self.faults: list[object] = []
        self.reader = DeviceReader(self.nvml, self.faults.append)
        self.device_id = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        assert self.device_id in {device.device_id for device in self.reader.devices}
        self.context_bytes: int | None = None
        self.context_bytes = self._measure_context()

    @property
    def device(self) -> Device:
        return next(device for device in self.reader.devices if device.device_id == self.device_id)

    def count(self) -> AllocatorSample:
        return self.backend.sample({"test/weights": WEIGHTS_BYTES})

    def read(self) -> DeviceReading:
        return next(found for found in self.reader.read() if found.device_id == self.device_id)

    def sample(self, counted: Callable[[AllocatorSample], AllocatorSample] = lambda found: found) -> Balance:
        """A coherent balance of now; `counted` may falsify the counters."""
        time.sleep(SETTLE_S)
        for _ in range(TRIES):
            before, reading, after = counted(self.count()), self.read(), counted(self.count())
            balance = gpu_balance(reading, before, after, self.context_bytes, {getpid()})
            if balance.coherent:
                return balance
        raise AssertionError(f"no coherent sample in {TRIES}: {balance.moving}")

    def _measure_context(self) -> int:
        time.sleep(SETTLE_S)
        for _ in range(TRIES):
            before, reading, after = self.count(), self.read(), self.count()
            held = next((found.bytes for found in reading.processes if found.pid == getpid()), None)
            assert held is not None and after.reserved_bytes is not None, reading
            if why_moving(reading, before, after) is None:
                return held - after.reserved_bytes
        raise AssertionError("the card never rested")


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    card = Card()
    yield card
    card.nvml.close()


@pytest.fixture
def cuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def test_a_card_at_rest_is_explained_to_2_mib_in_every_coherent_sample(card: Card) -> None:
    samples = [card.sample() for _ in range(5)]
    time.sleep(SETTLE_S)
    coherent = 0
    for _ in range(200):
        before, reading, after = card.count(), card.read(), card.count()
        coherent += why_moving(reading, before, after) is None
    print(samples[-1], coherent)
    assert coherent >= 198
    for balance in samples:
        assert abs(balance.unexplained_bytes) <= 2 * MIB, balance
        assert all(part.bytes is None or part.bytes >= 0 for part in balance.parts)
    assert card.faults == []


def test_a_raw_allocation_in_the_worker_is_the_remainder(card: Card, cuda: ctypes.CDLL) -> None:
    before = card.sample()
    memory = ctypes.c_void_p()
    assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(GIB)) == 0
    try:
        assert_only_moved(before, card.sample(), UNEXPLAINED, GIB)
    finally:
        assert cuda.cuMemFree_v2(memory) == 0
    assert_only_moved(before, card.sample(), UNEXPLAINED, 0)


def test_a_foreign_allocation_is_its_process_own_part(card: Card, foreign: Foreign) -> None:
    before = card.sample()
    foreign.tell("take")
    assert_only_moved(before, card.sample(), ("process", "", foreign.pid), GIB)
    foreign.tell("give")
    assert_only_moved(before, card.sample(), ("process", "", foreign.pid), 0)


def test_cached_blocks_are_releasable(card: Card) -> None:
    before = card.sample()
    block = torch.empty(GIB, dtype=torch.uint8, device=card.backend.device)
    assert_only_moved(before, card.sample(), ("live", "", None), GIB)
    del block
    assert_only_moved(before, card.sample(), ("releasable", "", None), GIB)
    card.backend.free_cache()
    assert_only_moved(before, card.sample(), ("releasable", "", None), 0)


@pytest.mark.parametrize("counter", ["reserved_bytes", "active_bytes", "allocated_bytes"])
def test_a_counter_that_is_off_by_64_mib_turns_a_plant_red(card: Card, counter: str) -> None:
    def off(sample: AllocatorSample) -> AllocatorSample:
        return msgspec.structs.replace(sample, **{counter: getattr(sample, counter) + 64 * MIB})

    before = card.sample()
    block = torch.empty(GIB, dtype=torch.uint8, device=card.backend.device)
    try:
        with pytest.raises(AssertionError):
            assert_only_moved(before, card.sample(off), ("live", "", None), GIB)
    finally:
        del block
        card.backend.free_cache()


def test_what_the_driver_tells_beside_memory_is_there_on_a_card_of_today(card: Card) -> None:
    reading = card.read()
    print(msgspec.json.format(msgspec.json.encode(reading)).decode())
    assert reading.slow_at is not None and reading.card.condition_at is not None
    assert reading.card.driver_version and reading.card.pci_bus_id
    assert reading.card.graphics_clock_mhz and reading.card.memory_clock_mhz
    assert reading.card.recovery_action in ("none", None)


def test_reading_a_card_costs_a_probe_less_than_a_hundredth_of_a_core(card: Card) -> None:
    began = time.process_time()
    for _ in range(100):
        card.read()
    cost_s = (time.process_time() - began) / 100
    print(f"{cost_s * 1e6:.0f} us of processor time a reading")
    assert cost_s * 10 <= 0.01 * len(card.reader.devices), "ten a second, for each card of the host"


@pytest.mark.parametrize("with_worker", [False, True])
def test_a_killed_process_is_told_within_250_ms_of_nvml_showing_it(
    live: LiveEngine, card: Card, foreign: Foreign, with_worker: bool
) -> None:
    if with_worker:
        live.client.switch(SwitchRequest(model="wan-demo-small"))
    seen, gone = threading.Event(), threading.Event()
    told_at: list[float] = []

    def take(frame: EventFrame) -> None:
        event = frame.event
        if not isinstance(event, MemorySampled) or event.device.id != card.device_id:
            return
        if any(process.pid == foreign.pid for process in event.device.processes):
            seen.set()
        elif seen.is_set() and not gone.is_set():
            told_at.append(time.monotonic())
            gone.set()

    streams: list[object] = []
    client = live.client
    listener = threading.Thread(
        target=lambda: client.subscribe(take, on_open=streams.append), name="listener", daemon=True
    )
    listener.start()
    try:
        assert seen.wait(10), "the process was not seen on the card"
        foreign.process.kill()
        deadline = time.monotonic() + 10
        while foreign.pid in card.nvml.read_processes(card.device):
            assert time.monotonic() < deadline, "NVML never showed its end"
            time.sleep(0.001)
        shown_at = time.monotonic()
        assert gone.wait(5)
    finally:
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]
        listener.join(5)
    print(f"told {(told_at[0] - shown_at) * 1000:.0f} ms after NVML showed it")
    assert told_at[0] - shown_at <= 0.25
