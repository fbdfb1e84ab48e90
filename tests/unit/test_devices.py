"""Which device an engine works on."""

from __future__ import annotations

from engine.daemon.claims import claim_gpu
from engine.daemon.devices import choose_device
from engine.telemetry.samples import DeviceReading


def reading(index: int, free: int) -> DeviceReading:
    return DeviceReading(
        taken_at=0.0,
        device_id=f"GPU-{index}abc",
        index=index,
        name="H200",
        total_bytes=100,
        used_bytes=100 - free,
        reserved_bytes=0,
        reserved_inside_used=False,
        free_bytes=free,
        processes=(),
    )


GPUS = [reading(0, 10), reading(1, 90), reading(2, 50)]


Chosen = tuple[str | None, str | None]


def choose(setting: str = "auto", granted: str | None = None, **changes: object) -> Chosen:
    known = {"gpu_files_present": True, "nvml_fault": None, **changes}
    readings = known.pop("readings", GPUS)
    choice = choose_device(setting, granted, readings, **known)  # type: ignore[arg-type]
    return choice.device_id, choice.problem


def test_the_emptiest_gpu_is_taken_when_nobody_says_otherwise() -> None:
    assert choose() == ("GPU-1abc", None)


def test_a_grant_limits_the_choice_by_index_or_by_uuid() -> None:
    assert choose(granted="0,2") == ("GPU-2abc", None)
    assert choose(granted="GPU-0abc") == ("GPU-0abc", None)


def test_the_setting_wins_over_the_grant() -> None:
    assert choose("GPU-0abc", granted="2") == ("GPU-0abc", None)
    assert choose("cpu", granted="2") == ("cpu", None)


def test_an_unknown_gpu_is_a_problem_that_names_those_there_are() -> None:
    device, problem = choose("7")
    assert device is None
    assert problem is not None and "'7'" in problem and "GPU-1abc" in problem


def test_without_any_gpu_the_host_is_used() -> None:
    assert choose(readings=[], gpu_files_present=False) == ("cpu", None)


def test_a_gpu_that_cannot_be_used_is_never_replaced_by_the_host_silently() -> None:
    device, problem = choose(readings=[], nvml_fault="driver/library version mismatch")
    assert device is None
    assert problem is not None and "driver/library version mismatch" in problem


def test_an_empty_grant_gives_no_gpu() -> None:
    device, problem = choose(granted="")
    assert device is None and problem is not None


def test_a_gpu_of_another_engine_is_left_alone() -> None:
    assert choose(claimed_elsewhere=frozenset({"GPU-1abc"})) == ("GPU-2abc", None)
    everything = frozenset(gpu.device_id for gpu in GPUS)
    assert "another turbotui engine" in (choose(claimed_elsewhere=everything)[1] or "")


def test_a_gpu_is_claimed_once_on_a_host_until_it_is_let_go() -> None:
    first = claim_gpu("GPU-test-of-claims")
    assert first is not None
    assert claim_gpu("GPU-test-of-claims") is None
    first.close()
    second = claim_gpu("GPU-test-of-claims")
    assert second is not None
    second.close()
