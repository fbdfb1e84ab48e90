"""What the worker holds, read before and after the runs, and where its weight files are meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WorkFailed
from engine.wire import DeviceStatus, ModelStatus, UnloadRequest
from turbotui.bench.rows import Residency
from turbotui.bench.session import BenchEngine
from turbotui.client.http import HttpClient

FRESH_TIMEOUT_S = 5.0
FOLDERS = {
    "dit": "transformer",
    "dit.high": "transformer",
    "dit.low": "transformer_2",
    "text": "text_encoder",
    "vae": "vae",
}
"""Component to its folder in diffusers layout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the worker holds at one moment, with everything at rest."""

    vram_bytes: int | None
    """Its process's own entry on the GPU; None without one, or where the driver does not tell."""
    host_bytes: int | None
    """Host memory of its own: without mapped files, which the kernel shares and takes back."""
    weights_bytes: int
    context_bytes: int | None
    """Driver context and libraries, as last measured."""
    parts: dict[str, int]
    """All of ours on the device by kind."""

    def drift_from(self, before: Held) -> int | None:
        """Bytes more than `before`: on the GPU, or without one of the host."""
        if self.vram_bytes is not None and before.vram_bytes is not None:
            return self.vram_bytes - before.vram_bytes
        if self.host_bytes is not None and before.host_bytes is not None:
            return self.host_bytes - before.host_bytes
        return None


def unloaded(engine: BenchEngine) -> Held:
    """Unload everything, and read what the worker still holds.

    Raises:
        WorkFailed: it was not unloaded, or the device is not read any more.
    """
    receipt = engine.client.unload(UnloadRequest())
    if not receipt.ok:
        raise WorkFailed(f"unload of everything failed: {receipt.error}")
    return read_held(engine.client)


def read_held(client: HttpClient) -> Held:
    """What the worker holds, by a reading of its device that began after the call.

    Raises:
        WorkFailed: the device was not read within 5 s.
    """
    device = fresh_device(client)
    assert device.balance is not None, "a fresh device has one"
    parts: dict[str, int] = {}
    for part in device.balance.parts:
        # With a pid it is one of our other processes, which come and go.
        if part.owner == "ours" and part.bytes is not None and part.pid is None:
            parts[part.kind] = parts.get(part.kind, 0) + part.bytes
    workers = [process for process in device.processes if process.ours == "worker"]
    on_gpu = device.kind == "cuda"
    return Held(
        vram_bytes=workers[0].bytes if on_gpu and workers else None,
        host_bytes=_own_bytes(workers[0].pid) if workers else None,
        weights_bytes=parts.get("weights", 0),
        context_bytes=parts.get("context" if on_gpu else "runtime"),
        parts=parts,
    )


def fresh_device(client: HttpClient) -> DeviceStatus:
    """The device in use, read twice since the call: the first reading may have begun before.

    A reading that memory moved under is taken only when no better one comes.

    Raises:
        WorkFailed: as `read_held`.
    """
    asked, deadline = time.time(), time.monotonic() + FRESH_TIMEOUT_S
    seen: set[float] = set()
    moving: DeviceStatus | None = None
    while time.monotonic() < deadline:
        device = device_in_use(client)
        if device.balance is not None and device.balance.taken_at > asked:
            if device.balance.coherent:
                seen.add(device.balance.taken_at)
                if len(seen) >= 2:
                    return device
            moving = device
        time.sleep(0.03)
    if moving is None:
        raise WorkFailed(f"the device was not read within {FRESH_TIMEOUT_S:g} s")
    return moving


def device_in_use(client: HttpClient) -> DeviceStatus:
    """The device that the engine works on.

    Raises:
        WorkFailed: it has none.
    """
    status = client.status()
    for device in status.devices:
        if device.in_use:
            return device
    raise WorkFailed(status.engine.problem or "the engine works on no device")


def residency(*models: ModelStatus) -> Residency:
    """Where the weight files of these models are now."""
    files = sorted({file for model in models for name in _components(model) for file in _files(model, name)})
    total = sum(file.stat().st_size for file in files)
    cached = _cached_bytes(files)
    registered = [component.warm_bytes for model in models for component in model.components]
    weights = sum(component.bytes for model in models for component in model.components)
    known = [size for size in registered if size is not None]
    return Residency(
        cached_share=None if cached is None or not total else round(cached / total, 4),
        registered_share=round(sum(known) / weights, 4)
        if len(known) == len(registered) and weights
        else None,
    )


def component_residency(model: ModelStatus, component: str) -> Residency:
    """The same of one component."""
    files = _files(model, component)
    total = sum(file.stat().st_size for file in files)
    cached = _cached_bytes(files)
    found = next(item for item in model.components if item.name == component)
    return Residency(
        cached_share=None if cached is None or not total else round(cached / total, 4),
        registered_share=None if found.warm_bytes is None else round(found.warm_bytes / found.bytes, 4),
    )


def _components(model: ModelStatus) -> list[str]:
    return [component.name for component in model.components]


def _files(model: ModelStatus, component: str) -> list[Path]:
    return sorted((Path(model.path) / FOLDERS[component]).glob("*.safetensors"))


def _cached_bytes(files: list[Path]) -> int | None:
    """By a child, since the engine's module is none that the console may import."""
    command = [sys.executable, "-P", "-m", "engine.models.page_cache", *map(str, files)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return None
    found: dict[str, int | None] = json.loads(answer.stdout)
    sizes = [size for size in found.values() if size is not None]
    return sum(sizes) if len(sizes) == len(found) else None


def _own_bytes(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    # In kB as the kernel writes it, which are KiB.
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")]
    return found[0] if found else None
