"""How the driver's answers and errors are read, with the driver's library replaced call by call."""

from __future__ import annotations

import ctypes
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
from engine.telemetry.nvml_card import (
    CLOCK_LIMITS,
    CardIdentity,
    Clocks,
    Condition,
    Versions,
    limits_in_words,
)
from engine.telemetry.nvml_events import NvmlEvent, xid_text

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


# ------------------------------------------------------------------------- a card beside its memory


def test_clocks_and_what_limits_them_are_told_in_words(driver):
    clocks = {pynvml.NVML_CLOCK_GRAPHICS: 1980, pynvml.NVML_CLOCK_MEM: 3201}
    driver(
        nvmlDeviceGetClockInfo=lambda handle, kind: clocks[kind],
        nvmlDeviceGetCurrentClocksEventReasons=lambda handle: 0x1 | 0x4 | 0x40,
    )
    nvml, device = opened()
    found = nvml.read_clocks(device)
    assert (found.graphics_mhz, found.memory_mhz) == (1980, 3201)
    assert found.limits == ("power cap", "thermal, by hardware")


def test_an_older_driver_has_the_limits_by_their_older_name(driver):
    driver(
        nvmlDeviceGetClockInfo=raising(pynvml.NVML_ERROR_NOT_SUPPORTED),
        nvmlDeviceGetCurrentClocksEventReasons=raising(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0,
    )
    nvml, device = opened()
    assert nvml.read_clocks(device).limits == ()


def test_a_limit_that_is_new_is_told_by_its_number():
    assert limits_in_words(0x1000) == ("reason 0x1000",)
    every = sum(bit for bit, _ in CLOCK_LIMITS)
    known = (pynvml.nvmlClocksEventReasonAll | pynvml.nvmlClocksThrottleReasonAll) & ~1
    assert every == known, "every bit of the binding has its word"


def field(value, result=pynvml.NVML_SUCCESS):
    return [SimpleNamespace(nvmlReturn=result, value=SimpleNamespace(uiVal=value))]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda handle, fields: field(0), "none"),
        (lambda handle, fields: field(1), "reset the GPU"),
        (lambda handle, fields: field(99), "action 99"),
        (lambda handle, fields: field(0, pynvml.NVML_ERROR_NOT_SUPPORTED), None),
        (raising(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND), None),
    ],
)
def test_the_recovery_action_is_the_drivers_own_or_unknown(driver, answer, said):
    driver(nvmlDeviceGetFieldValues=answer)
    nvml, device = opened()
    assert nvml.read_condition(device).recovery_action == said


def test_the_condition_of_a_card(driver):
    driver(
        nvmlDeviceGetTotalEccErrors=lambda handle, kind, counter: 3,
        nvmlDeviceGetPersistenceMode=lambda handle: 1,
        nvmlDeviceGetMigMode=lambda handle: [1, 0],
        nvmlDeviceGetDisplayActive=lambda handle: 0,
        nvmlDeviceGetFieldValues=lambda handle, fields: field(0),
    )
    nvml, device = opened()
    found = nvml.read_condition(device)
    assert (found.ecc_uncorrected, found.persistence_mode) == (3, True)
    assert (found.mig_mode, found.display_active) == (True, False)


def test_a_card_that_tells_nothing_beside_its_memory_has_nothing_but_none(driver):
    refused = raising(pynvml.NVML_ERROR_NOT_SUPPORTED)
    names = (
        "nvmlDeviceGetClockInfo nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetTotalEccErrors "
        "nvmlDeviceGetCurrentClocksThrottleReasons nvmlDeviceGetPersistenceMode nvmlDeviceGetMigMode "
        "nvmlDeviceGetDisplayActive nvmlDeviceGetFieldValues nvmlDeviceGetPciInfo "
        "nvmlDeviceGetVirtualizationMode nvmlDeviceGetAddressingMode nvmlSystemGetDriverVersion "
        "nvmlSystemGetNVMLVersion"
    )
    driver(**dict.fromkeys(names.split(), refused))
    nvml, device = opened()
    assert nvml.read_clocks(device) == Clocks()
    assert nvml.read_condition(device) == Condition()
    assert nvml.read_identity(device) == CardIdentity()
    assert nvml.read_versions() == Versions()


def test_a_card_whose_memory_is_the_hosts_or_a_machines_among_several_is_known(driver):
    driver(
        nvmlDeviceGetPciInfo=lambda handle: SimpleNamespace(busId=b"00000000:1A:00.0"),
        nvmlDeviceGetVirtualizationMode=lambda handle: pynvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU,
        nvmlDeviceGetAddressingMode=lambda handle: pynvml.NVML_DEVICE_ADDRESSING_MODE_ATS,
    )
    nvml, device = opened()
    assert nvml.read_identity(device) == CardIdentity(
        pci_bus_id="00000000:1A:00.0", coherent_memory=True, virtual=True
    )


def test_a_list_that_is_refused_is_named_and_one_that_does_not_exist_is_not(driver):
    driver(
        nvmlDeviceGetGraphicsRunningProcesses=raising(pynvml.NVML_ERROR_NO_PERMISSION),
        nvmlDeviceGetMPSComputeRunningProcesses=raising(pynvml.NVML_ERROR_NOT_SUPPORTED),
    )
    nvml, device = opened()
    assert nvml.read_processes(device) == {}
    assert nvml.refused_lists(device) == ("graphics",)


# ------------------------------------------------------------------------- events


class EventSet:
    """The driver's side of an event set: what is registered, and what comes."""

    def __init__(self, driver, supported, *coming) -> None:
        self.handle = ctypes.pointer(pynvml.struct_c_nvmlDevice_t())
        self.registered = []
        self.coming = list(coming)
        driver(
            nvmlDeviceGetHandleByIndex=lambda index: self.handle,
            nvmlEventSetCreate=lambda: "set",
            nvmlEventSetFree=lambda events: self.registered.clear(),
            nvmlDeviceGetSupportedEventTypes=supported,
            nvmlDeviceRegisterEvents=lambda handle, types, events: self.registered.append(types),
            nvmlEventSetWait_v2=self.wait,
        )

    def wait(self, events, timeout_ms):
        kind, number = self.coming.pop(0) if self.coming else raising(pynvml.NVML_ERROR_TIMEOUT)()
        if kind == "raise":
            raising(number)()
        return SimpleNamespace(device=self.handle, eventType=kind, eventData=number)


XID, RECOVERY = pynvml.nvmlEventTypeXidCriticalError, pynvml.nvmlEventTypeGpuRecoveryAction


def test_events_are_asked_for_only_as_far_as_the_card_has_them(driver):
    for supported, asked in ((XID | 0x10, [XID]), (XID | RECOVERY, [XID | RECOVERY]), (0x10, [])):
        events = EventSet(driver, lambda handle, supported=supported: supported)
        nvml, device = opened()
        found = nvml.open_events()
        assert events.registered == asked
        assert found.device_ids == (frozenset({device.device_id}) if asked else frozenset())


def test_an_xid_names_its_card_and_silence_is_no_fault(driver):
    EventSet(driver, lambda handle: XID | RECOVERY, (XID, 79), (RECOVERY, 0))
    nvml, device = opened()
    events = nvml.open_events()
    assert events.wait(0.1) == NvmlEvent(device_id=device.device_id, kind="xid", number=79)
    assert events.wait(0.1) == NvmlEvent(device_id=device.device_id, kind="recovery_action", number=0)
    assert events.wait(0.1) is None
    assert xid_text(79) == "Xid 79: the GPU has fallen off the bus"
    assert "catalog" in xid_text(9999)


def test_a_wait_on_a_lost_card_is_a_fault(driver):
    EventSet(driver, lambda handle: XID, ("raise", pynvml.NVML_ERROR_GPU_IS_LOST))
    nvml, _device = opened()
    with pytest.raises(NvmlFault) as fault:
        nvml.open_events().wait(0.1)
    assert fault.value.kind == "gpu_lost"


def test_a_container_that_may_not_listen_hears_nothing_and_reads_on(driver):
    EventSet(driver, lambda handle: XID)
    driver(nvmlDeviceRegisterEvents=raising(pynvml.NVML_ERROR_NO_PERMISSION))
    nvml, _device = opened()
    assert nvml.open_events().device_ids == frozenset()


def test_the_lists_beside_the_compute_list_are_kept_where_they_need_not_be_read(driver):
    asked = []

    def listing(name, *entries):
        def call(handle):
            asked.append(name)
            return list(entries)

        return call

    driver(
        nvmlDeviceGetComputeRunningProcesses=listing("compute", entry(7, 100)),
        nvmlDeviceGetGraphicsRunningProcesses=listing("graphics", entry(8, 50)),
        nvmlDeviceGetMPSComputeRunningProcesses=raising(pynvml.NVML_ERROR_NO_PERMISSION),
    )
    nvml, device = opened()
    # The first time nothing is known of them.
    assert nvml.read_processes(device, every_list=False) == {7: 100, 8: 50}
    assert sorted(asked) == ["compute", "graphics"]
    assert nvml.read_processes(device, every_list=False) == {7: 100, 8: 50}
    assert nvml.refused_lists(device) == ("MPS",)
    assert asked.count("graphics") == 1 and asked.count("compute") == 2
    assert nvml.read_processes(device) == {7: 100, 8: 50} and asked.count("graphics") == 2
