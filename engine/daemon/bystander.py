"""Who looks at the device while no engine runs: the probe's readings as the API tells them.

    python -P -m engine.daemon.bystander [DEVICE]

A console starts it when its engine is gone, so that the memory and the processes stay live. It
reads and does nothing else: no lock, no claim, no worker, no file but the null device. DEVICE is the one that
the engine worked on. Each device's `DeviceStatus` comes as a JSON line on standard output, at
most twice a second; it ends when its standard input closes, as that does with its parent, however
that ends. Without an engine there are no counters of a worker: one that still lives is a process like others.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import msgspec

from engine.config import EngineConfig
from engine.daemon.devices import choose_device
from engine.daemon.memory import MemoryView
from engine.daemon.probe import Probe
from engine.telemetry.samples import FromProbe
from engine.tether import name_process
from engine.wire import DeviceStatus

PERIOD_S = 0.5


class Bystander:
    """Event loop's thread only."""

    def __init__(self, device: str | None) -> None:
        self._memory = MemoryView(EngineConfig(), on_status=self._tell, label=lambda pid: None)
        self._memory.device_id = device
        self._told: dict[str, float] = {}
        self._encoder = msgspec.json.Encoder()
        self._probe = Probe(
            log_path=Path(os.devnull),
            environ=dict(os.environ),
            on_reading=self._heard,
            on_log=lambda event, text, **more: None,
            on_start=lambda: None,
        )

    async def run(self) -> None:
        """Until the input closes."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        threading.Thread(target=_wait_for_end, args=(loop, ended), daemon=True).start()
        self._probe.start()
        await ended.wait()
        await self._probe.stop()

    def _heard(self, message: FromProbe) -> None:
        memory = self._memory
        if memory.device_id is None and memory.heard_host:
            choice = choose_device(
                "auto",
                os.environ.get("CUDA_VISIBLE_DEVICES"),
                memory.gpu_readings,
                gpu_files_present=Path("/dev/nvidia0").exists(),
                nvml_fault=memory.nvml_fault,
            )
            memory.device_id = choice.device_id
        memory.heard(message)

    def _tell(self, status: DeviceStatus) -> None:
        now = time.monotonic()
        if now - self._told.get(status.id, float("-inf")) < PERIOD_S:
            return
        self._told[status.id] = now
        try:
            os.write(1, self._encoder.encode(status) + b"\n")
        except OSError:
            os._exit(0)  # nobody listens any more


def _wait_for_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Read the input to its end; whatever is said there means nothing."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    loop.call_soon_threadsafe(ended.set)


def main() -> int:
    name_process("tt-bystander")
    asyncio.run(Bystander(sys.argv[1] if len(sys.argv) > 1 else None).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
