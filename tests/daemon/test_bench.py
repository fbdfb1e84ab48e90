"""The benchmark of switching, whole and for real, on the demo models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from turbotui.bench.rows import MIB, TARGETS, Row, read_rows

pytestmark = pytest.mark.long

NEEDS_GPU = {"load_registered", "growth_first_jobs", "switch_peak", "drift_vram"}
SPEEDS = {
    "unload",
    "load_page_cache",
    "switch_small_large",
    "switch_large_small",
    "switch_large_two",
    "first_step_cached",
    "first_step_new",
    "cleanup",
}


def test_every_row_is_there_with_a_sane_figure_or_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-P", "-m", "turbotui", "bench", "switch"]
    run = subprocess.run(
        [*command, "--demo", "--quick", "--baseline", "--json", "--out", str(out)],
        env={
            **os.environ,
            "TURBOTUI_HOME": str(tmp_path / "home"),
            "TURBOTUI_ENGINE_DEVICE": "cpu",
            "TMPDIR": str(temporary),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = msgspec.json.decode(run.stdout, type=list[Row])
    assert read_rows(out) == rows
    assert [row.name for row in rows] == list(TARGETS)
    by_name = {row.name: row for row in rows}
    for name in NEEDS_GPU:
        assert by_name[name].value is None and "no GPU" in by_name[name].note
    for name in SPEEDS:
        row = by_name[name]
        assert row.value is not None and 0 < row.value < 60, row
        assert row.target is None and row.cached_share == pytest.approx(1.0, abs=0.02), row
        assert row.drift_bytes is not None and abs(row.drift_bytes) < 64 * MIB, row
    assert by_name["unload"].receipt is not None
    cold = by_name["load_cold"]
    assert cold.value is not None and cold.ok is None
    assert "not cold" in cold.note or cold.cached_share == pytest.approx(0.0, abs=0.03)
    swap = by_name["expert_swap"]
    assert swap.value is not None and abs(swap.value) < 5 and "the frames are the same" in swap.note
    for name in ("failures", "weights_left", "outputs_changed", "outputs_alike"):
        assert (by_name[name].value, by_name[name].ok) == (0, True)
    assert by_name["drift_rss"].ok and by_name["drift_rss"].drift_bytes is not None
    assert by_name["failures"].drift_bytes is not None
    for name in ("load_page_cache", "cleanup"):
        assert (by_name[name].baseline or 0) > 0
    assert not list(temporary.glob("turbotui*"))  # torch leaves a folder of its own there
    assert not (tmp_path / "home" / "state").exists()
