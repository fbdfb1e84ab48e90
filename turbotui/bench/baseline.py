"""Plain diffusers beside ours, in children that hold nothing of ours: equally warm, run by run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turbotui.bench.plain_child import plain_command, run_plain
from turbotui.bench.rows import Plain

SECONDS = {
    "unload": (("to_cpu",), '.to("cpu") and empty_cache of the DiT'),
    "switch_small_large": (("switch_small_large",), '.to("cpu") of the small DiT, .to("cuda") of the large'),
    "switch_large_small": (("switch_large_small",), '.to("cpu") of the large DiT, .to("cuda") of the small'),
    "expert_swap": (("to_cpu", "to_cuda"), '.to("cpu") of a 14B DiT and .to("cuda") of another'),
    "cleanup": (("ready",), "a new process: imports, from_pretrained, .to of the DiT"),
}
"""Row to what its baseline is made of: the children's figures, summed, and how that is called."""
RATES = {
    "load_registered": ("to_cuda", '.to("cuda") of the DiT in host memory'),
    "load_page_cache": ("load", "from_pretrained and .to of the DiT, files in the page cache"),
}
"""The same for rows in GB/s."""

LAZY = "; on cpu that maps the files and has read nothing of them yet"


class Baseline:
    """Runs children until it has as many runs as were asked for, and keeps what they said."""

    def __init__(self, large: Path, small: Path, *, runs: int, say: Callable[[str], None]) -> None:
        """`large` and `small` are the models' folders."""
        self._command = plain_command(
            "engine.models.plain", str(large / "transformer"), str(small / "transformer")
        )
        self._left = runs
        self._lazy = False
        self._say = say
        self._found: dict[str, list[tuple[float, int | None]]] = {}

    @property
    def due(self) -> bool:
        return self._left > 0

    def give_up(self) -> None:
        """No more runs."""
        self._left = 0

    def run(self, device_id: str) -> None:
        """One child on the engine's device, from which ours has been unloaded.

        Raises:
            WorkFailed: the child failed; its last words.
        """
        self._left -= 1
        self._say(f"plain diffusers, {self._left} runs left after this")
        self._lazy = device_id == "cpu"
        began = time.perf_counter()

        def hear(told: dict[str, Any]) -> None:
            self._found.setdefault(told["name"], []).append((told["seconds"], told["bytes"]))
            if told["name"] == "load":
                self._found.setdefault("ready", []).append((time.perf_counter() - began, None))

        run_plain(self._command, device_id, hear)

    def of(self, row: str) -> Plain | None:
        """The baseline of a row, or None where there is none."""
        if row in RATES:
            name, way = RATES[row]
            way += LAZY if self._lazy else ""
            rates = [size / taken / 1e9 for taken, size in self._found.get(name, ()) if size]
            return Plain(value=statistics.median(rates), way=way) if rates else None
        if row not in SECONDS:
            return None
        names, way = SECONDS[row]
        way += LAZY if self._lazy else ""
        if any(name not in self._found for name in names):
            return None
        value = sum(statistics.median(taken for taken, _ in self._found[name]) for name in names)
        return Plain(value=value, way=way)
