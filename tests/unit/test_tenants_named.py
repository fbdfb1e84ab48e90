"""A process on a GPU carries its program's name from the probe's reading on."""

from __future__ import annotations

from engine.config import EngineConfig
from engine.daemon.memory import MemoryView
from engine.telemetry.samples import DeviceReading, ProcessReading


def test_a_reading_becomes_a_named_process() -> None:
    view = MemoryView(EngineConfig(), on_status=lambda status: None, label=lambda pid: None)
    processes = (
        ProcessReading(pid=5, bytes=1, name="python", command="python ComfyUI/main.py"),
        ProcessReading(pid=6, bytes=1, name="python", command="python train.py"),
        ProcessReading(pid=7, bytes=1),
    )
    view.heard(
        DeviceReading(
            taken_at=1.0, device_id="GPU-a", index=0, name="H200", total_bytes=100, used_bytes=3,
            reserved_bytes=0, reserved_inside_used=False, free_bytes=97, processes=processes,
        )
    )  # fmt: skip
    (status,) = view.statuses()
    assert [process.program for process in status.processes] == ["ComfyUI", None, None]
