"""What workers measured of their devices once, kept for the workers after them."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import msgspec


class Rates:
    """Bytes a second through pinned buffers (the ring) of each device, in memory and in a file.

    By the GPU's UUID, or `cpu@host`: hosts that share a home must not take each other's. Event loop's
    thread only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._by_device = _read(file)

    def ring(self, device_id: str) -> float | None:
        """Of this device; None where none was measured."""
        return self._by_device.get(_key(device_id), {}).get("ring_rate")

    def measured(self, device_id: str, ring_rate: float | None) -> None:
        """A worker tells its rate, if it has one; the first is kept."""
        if ring_rate is None or self.ring(device_id) is not None:
            return
        self._by_device[_key(device_id)] = {"ring_rate": ring_rate}
        kept = _read(self._file) | {_key(device_id): {"ring_rate": round(ring_rate)}}
        with suppress(OSError):  # it is measured again, then
            self._file.write_bytes(msgspec.json.encode(kept))


def _key(device_id: str) -> str:
    return f"cpu@{socket.gethostname()}" if device_id == "cpu" else device_id


def _read(file: Path) -> dict[str, dict[str, float]]:
    """Nothing of a file of another form, such as that of a build that kept one rate for all devices."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, float]])
    except (OSError, msgspec.MsgspecError):
        return {}
