"""What the probe may expect of NVML, from the fake and from this host's driver alike."""

from __future__ import annotations

import os
import re

import pytest

from engine.telemetry.nvml import DriverNvml, NvmlFault, is_reserved_inside_used
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


def test_closing_twice_is_harmless(nvml):
    nvml.close()
    nvml.close()
