"""Runs plain diffusers in a process of its own, and hears its figures line by line as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import WorkFailed


def plain_command(module: str, *arguments: str) -> list[str]:
    """What runs `module` of ours, but for its last argument."""
    return [sys.executable, "-P", "-m", module, *arguments]


def run_plain(command: Sequence[str], device_id: str, hear: Callable[[dict[str, Any]], None]) -> None:
    """Run `command cuda|cpu` on the device of that id; `hear` gets each JSON line.

    Raises:
        WorkFailed: it failed; its last words.
    """
    cuda = device_id != "cpu"
    # A file and not a pipe for what it complains of: nobody reads it before the end.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        child = subprocess.Popen(
            [*command, "cuda" if cuda else "cpu"],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": device_id if cuda else ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        try:
            assert child.stdout is not None
            with child.stdout as lines:
                for line in lines:
                    hear(json.loads(line))
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        complaints.seek(0)
        words = complaints.read().strip().splitlines()
    if code != 0:
        raise WorkFailed(f"plain diffusers failed: {words[-1] if words else f'exit code {code}'}")
