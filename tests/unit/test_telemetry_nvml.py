"""How the driver's answers and errors are read, with the driver's library replaced call by call."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from engine.telemetry.nvml import (
    DeviceMemory,
    DriverNvml,
    NvmlFault,
    is_reserved_inside_used,
    merge_processes,
)

UUID = "GPU-5f3c2e1a-0000-4000-8000-000000000001"
UNTOLD = pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value


def raising(code):
    def call(*arguments, **options):
        raise pynvml.NVMLError(code)

    return call


def entry(pid, num_bytes):
    return SimpleNamespace(pid=pid, usedGpuMemory=num_bytes)


@pytest.fixture
def driver(monkeypatch):
    """A driver with one card; a test replaces further calls."""
    calls = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
        "nvmlDeviceGetUUID": lambda handle: UUID,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA H200",
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: [],
        "nvmlDeviceGetMPSComputeRunningProcesses": lambda handle: [],
    }

    def replace(**changed):
        for name, call in changed.items():
            monkeypatch.setattr(pynvml, name, call)

    replace(**calls)
    return replace


def opened():
    nvml = DriverNvml()
    return nvml, nvml.list_devices()[0]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "nvml_missing"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "nvml_driver"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "nvml_driver"),
        (pynvml.NVML_ERROR_UNKNOWN, "nvml_error"),
    ],
)
def test_a_host_without_a_usable_driver_is_a_condition_with_a_kind(driver, code, kind):
    driver(nvmlInit=raising(code))
    with pytest.raises(NvmlFault) as fault:
        DriverNvml()
    assert fault.value.kind == kind
    assert fault.value.detail


def test_memory_is_read_by_the_second_version_of_the_call(driver):
    asked = []

    def read(handle, version=None):
        asked.append(version)
        return SimpleNamespace(total=100, used=10, free=85, reserved=5)

    driver(nvmlDeviceGetMemoryInfo=read)
    nvml, device = opened()
    assert nvml.read_memory(device) == DeviceMemory(
        total_bytes=100, used_bytes=10, free_bytes=85, reserved_bytes=5
    )
    assert asked == [pynvml.nvmlMemory_v2]


def test_an_old_driver_is_read_by_the_first_version_with_its_reserve_unknown(driver):
    def read(handle, version=None):
        if version is not None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(total=100, used=15, free=85)

    driver(nvmlDeviceGetMemoryInfo=read)
    nvml, device = opened()
    for _ in range(2):
        assert nvml.read_memory(device).reserved_bytes is None


def test_a_lost_card_is_a_fault_and_not_an_empty_card(driver):
    lost = raising(pynvml.NVML_ERROR_GPU_IS_LOST)
    driver(
        nvmlDeviceGetMemoryInfo=lost, nvmlDeviceGetComputeRunningProcesses=lost, nvmlDeviceGetTemperature=lost
    )
    nvml, device = opened()
    for read in (nvml.read_memory, nvml.read_processes, nvml.read_temperature_c):
        with pytest.raises(NvmlFault) as fault:
            read(device)
        assert fault.value.kind == "gpu_lost"


def test_a_card_that_is_lost_at_the_start_does_not_hide_the_others(driver):
    def handle(index):
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return f"handle {index}"

    driver(nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle)
    assert [device.index for device in DriverNvml().list_devices()] == [1]


def test_a_process_in_several_lists_counts_once_and_an_untold_size_is_none(driver):
    driver(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [entry(7, 100), entry(8, None)],
        nvmlDeviceGetGraphicsRunningProcesses=lambda handle: [entry(7, 100), entry(9, UNTOLD)],
        nvmlDeviceGetMPSComputeRunningProcesses=lambda handle: [entry(8, 50)],
    )
    nvml, device = opened()
    assert nvml.read_processes(device) == {7: 100, 8: 50, 9: None}


def test_a_process_on_two_instances_of_a_card_holds_both(driver):
    driver(nvmlDeviceGetComputeRunningProcesses=lambda handle: [entry(7, 100), entry(7, 30)])
    nvml, device = opened()
    assert nvml.read_processes(device) == {7: 130}


def test_one_list_that_the_driver_does_not_have_leaves_the_others(driver):
    driver(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [entry(7, 100)],
        nvmlDeviceGetMPSComputeRunningProcesses=raising(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
    )
    nvml, device = opened()
    assert nvml.read_processes(device) == {7: 100}


def test_no_list_at_all_is_a_fault_and_not_an_empty_list(driver):
    refused = raising(pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver(
        nvmlDeviceGetComputeRunningProcesses=refused,
        nvmlDeviceGetGraphicsRunningProcesses=refused,
        nvmlDeviceGetMPSComputeRunningProcesses=refused,
    )
    nvml, device = opened()
    with pytest.raises(NvmlFault) as fault:
        nvml.read_processes(device)
    assert fault.value.kind == "not_supported"


def test_what_a_card_does_not_tell_is_none(driver):
    refused = raising(pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver(
        nvmlDeviceGetUtilizationRates=refused,
        nvmlDeviceGetTemperature=refused,
        nvmlDeviceGetPowerUsage=refused,
    )
    nvml, device = opened()
    assert nvml.read_utilisation_percent(device) is None
    assert nvml.read_temperature_c(device) is None
    assert nvml.read_power_w(device) is None


def test_power_is_in_watts(driver):
    driver(nvmlDeviceGetPowerUsage=lambda handle: 123456)
    nvml, device = opened()
    assert nvml.read_power_w(device) == 123.456


@pytest.mark.parametrize(
    ("used", "reserved", "inside"),
    [(739_049_472, 644_939_776, False), (739_049_472 + 644_939_776, 644_939_776, True), (0, None, True)],
)
def test_the_identity_of_used_and_reserved_is_found_out(used, reserved, inside):
    memory = DeviceMemory(
        total_bytes=150_754_820_096,
        used_bytes=used,
        free_bytes=149_370_830_848,
        reserved_bytes=reserved,
    )
    assert is_reserved_inside_used(memory) is inside


def test_merging_keeps_what_any_list_knows():
    assert merge_processes([{1: None}, {1: 5}, {1: None, 2: None}]) == {1: 5, 2: None}
