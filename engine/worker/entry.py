"""Where a worker process begins: forked from the nursery, or started by itself the slow way.

The daemon names these functions when it asks for a fork, so this module imports no torch; the
process that runs them does.

    python -P -m engine.worker.entry --fd N --device GPU-... --parent PID     (the slow way)
"""

from __future__ import annotations

import argparse
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from engine.tether import offer_to_oom_killer, tether

EXPECTED_IMPORTS = ("torch", "diffusers", "transformers", "imageio", "engine.worker.loop")


class NurseryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a child of the nursery found in itself."""

    missing: list[str]
    fault: str | None
    threads: int
    """Of the nursery; more than one means that a fork may inherit a locked lock."""
    rss_bytes: int
    device_files: list[str]


def report_imports(connection: Connection[Any, Any]) -> None:
    """Say what the nursery has imported; runs in a child of it and ends."""
    nursery = os.getppid()
    missing = [name for name in EXPECTED_IMPORTS if name not in sys.modules]
    report = NurseryReport(
        missing=missing,
        fault=_import_fault(missing[0]) if missing else None,
        threads=_status_field(nursery, "Threads"),
        rss_bytes=_status_field(nursery, "VmRSS") * 1024,
        device_files=_device_files(nursery),
    )
    connection.send_bytes(msgspec.json.encode(report))


def run_forked(
    connection: Connection[Any, Any], nursery: int, device_id: str, log_path: str, settings: str
) -> None:
    """Be a worker in a process that the nursery, whose pid is given, just forked.

    `settings` are `engine.worker.channel.WorkerSettings` as JSON.
    """
    tether(nursery, "tt-worker")
    _work(connection, device_id, log_path, settings)


def make_demo_models(connection: Connection[Any, Any], nursery: int, folder: str) -> None:
    """Make the demo models in a process of its own; sends its progress as text, and ends."""
    tether(nursery, "tt-demo-maker")
    from engine.models.demo import make_demo_models as make  # imports torch where the nursery has not

    make(Path(folder), lambda text: connection.send_bytes(text.encode("utf-8", "replace")))


def main() -> None:
    """Be a worker in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--settings", required=True)
    options = parser.parse_args()
    tether(options.parent, "tt-worker")
    _work(Connection(options.fd), options.device, options.log, options.settings)


def _work(connection: Connection[Any, Any], device_id: str, log_path: str, settings: str) -> None:
    offer_to_oom_killer()
    # Libraries print what they like; it belongs beside the engine's log, not into it.
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Before the first CUDA call, and by UUID: an index means another card to NVML than to CUDA.
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if device_id == "cpu" else device_id
    os.environ["TORCH_COMPILE_DEBUG"] = "0"  # it writes gigabytes and keeps graphs alive
    from engine.worker.channel import WorkerSettings
    from engine.worker.loop import run_worker  # imports torch where the nursery has not

    run_worker(connection, device_id, msgspec.json.decode(settings, type=WorkerSettings))


def _import_fault(name: str) -> str | None:
    try:
        __import__(name)
    except Exception as error:  # whatever a broken installation raises is the answer here
        return f"{type(error).__name__}: {error}"
    return None


def _status_field(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def _device_files(pid: int) -> list[str]:
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("/dev/nvidia"):
            found.add(target)
    return sorted(found)


if __name__ == "__main__":
    main()
