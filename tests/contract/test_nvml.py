"""What the probe may expect of NVML, from the fake and from this host's driver alike."""

from __future__ import annotations

import os
import re
import threading
import time

import pytest

from engine.telemetry.nvml import DriverNvml, NvmlFault, is_reserved_inside_used
from engine.telemetry.nvml_card import RECOVERY_ACTIONS
from tests.fake_nvml import GIB, FakeNvml, card


def open_fake():
    return FakeNvml(card(0, processes={os.getpid(): 3 * GIB}), card(1, reserved_bytes=None))


def open_driver():
    try:
        return DriverNvml()
    except NvmlFault as fault:
        pytest.skip(f"no driver answers NVML here: {fault.detail}")


@pytest.fixture(params=[open_fake, open_driver], ids=["fake", "driver"])
def nvml(request):
    opened = request.param()
    yield opened
    opened.close()


def test_devices_are_known_by_uuid_and_each_only_once(nvml):
    devices = nvml.list_devices()
    assert devices
    assert all(re.fullmatch(r"(GPU|MIG)-[0-9a-f-]{36}", device.device_id) for device in devices)
    assert len({device.device_id for device in devices}) == len(devices)
    assert all(device.name for device in devices)


def test_memory_adds_up_to_the_total_under_one_of_the_two_identities(nvml):
    for device in nvml.list_devices():
        memory = nvml.read_memory(device)
        inside = is_reserved_inside_used(memory)
        reserve = 0 if inside else memory.reserved_bytes
        remainder = memory.total_bytes - memory.used_bytes - memory.free_bytes - reserve
        assert abs(remainder) <= memory.total_bytes // 1000
        assert 0 <= memory.used_bytes <= memory.total_bytes


def test_processes_have_positive_pids_and_bytes_or_none(nvml):
    for device in nvml.list_devices():
        for pid, num_bytes in nvml.read_processes(device).items():
            assert pid > 0
            assert num_bytes is None or 0 <= num_bytes <= nvml.read_memory(device).total_bytes


def test_what_moves_slowly_is_plausible_or_unknown(nvml):
    for device in nvml.list_devices():
        utilisation = nvml.read_utilisation_percent(device)
        temperature = nvml.read_temperature_c(device)
        power = nvml.read_power_w(device)
        assert utilisation is None or 0 <= utilisation <= 100
        assert temperature is None or 0 < temperature < 130
        assert power is None or 0 < power < 3000


def test_processes_that_are_listed_are_named_in_no_refused_list(nvml):
    for device in nvml.list_devices():
        nvml.read_processes(device)
        assert set(nvml.refused_lists(device)) <= {"compute", "graphics", "MPS"}


def test_clocks_are_plausible_or_unknown_and_their_limits_are_words(nvml):
    for device in nvml.list_devices():
        clocks = nvml.read_clocks(device)
        for mhz in (clocks.graphics_mhz, clocks.memory_mhz):
            assert mhz is None or 0 <= mhz < 20_000
        assert clocks.limits is None or all(isinstance(word, str) and word for word in clocks.limits)


def test_a_condition_is_known_by_value_or_not_at_all(nvml):
    for device in nvml.list_devices():
        found = nvml.read_condition(device)
        assert found.ecc_uncorrected is None or found.ecc_uncorrected >= 0
        for flag in (found.persistence_mode, found.mig_mode, found.display_active):
            assert flag in (None, True, False)
        known = {*RECOVERY_ACTIONS.values(), None}
        assert found.recovery_action in known or found.recovery_action.startswith("action ")


def test_a_card_has_a_place_on_the_bus_and_a_driver_its_version(nvml):
    versions = nvml.read_versions()
    assert versions.driver is None or re.match(r"\d+\.\d+", versions.driver)
    for device in nvml.list_devices():
        identity = nvml.read_identity(device)
        assert identity.pci_bus_id is None or re.fullmatch(
            r"[0-9A-F]{4,8}:[0-9A-F]{2}:[0-9A-F]{2}\.\d", identity.pci_bus_id, re.IGNORECASE
        )
        assert identity.coherent_memory in (None, True, False)
        assert identity.virtual in (None, True, False)


def test_waiting_for_news_ends_in_time_with_none_and_blocks_no_reading(nvml):
    devices = nvml.list_devices()
    try:
        events = nvml.open_events()
    except NvmlFault as fault:
        pytest.skip(f"this driver announces nothing: {fault.detail}")
    assert events.device_ids <= {device.device_id for device in devices}
    read: list[float] = []

    def read_on():
        for _ in range(10):
            nvml.read_memory(devices[0])
            read.append(time.monotonic())

    if events.device_ids:
        reader = threading.Thread(target=read_on)
        began = time.monotonic()
        reader.start()
        assert events.wait(0.5) is None
        waited = time.monotonic() - began
        reader.join()
        assert 0.3 < waited < 5
        assert read[-1] - began < 0.4, "a wait for news must not hold up the readings"
    events.close()


def test_closing_twice_is_harmless(nvml):
    nvml.close()
    nvml.close()
