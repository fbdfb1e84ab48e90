"""The benchmark of whole videos, for real, on a demo model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("wan-demo-small", []),
        pytest.param("wan-demo-i2v", ["--baseline"], marks=pytest.mark.long),
    ],
)
def test_a_demo_model_has_every_figure_or_its_reason(model: str, options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    command = [sys.executable, "-P", "-m", "turbotui", "bench", "generate", "--demo", "--json"]
    (tmp_path / "temporary").mkdir()
    run = subprocess.run(
        [*command, "--model", model, "--frames", "5", "--runs", "1", "--out", str(out), *options],
        env={
            **os.environ,
            "TURBOTUI_HOME": str(tmp_path / "home"),
            "TURBOTUI_ENGINE_DEVICE": "cpu",
            "TMPDIR": str(tmp_path / "temporary"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (case,) = json.loads(run.stdout)
    assert (case["problem"], case["frames"], case["steps"], case["ok"]) == ("", 5, 4, True)
    found = {one["name"]: one for one in case["figures"]}
    images = ["image"] if model == "wan-demo-i2v" else []
    for name in (*images, "text", "step", "dit", "decode", "video", "end_to_end", "peak", "peak_least"):
        assert found[name]["value"] > 0 and found[name]["target"] is None, name
    # By more than the sum of the steps: text, image and VAE take their time too.
    assert found["end_to_end"]["value"] > found["dit"]["value"] > 3 * found["step"]["value"]
    assert found["frames_changed"]["value"] == 0
    for name in ("units", "decode_bytes"):
        assert found[name]["value"] is None and "no GPU" in found[name]["note"]
    for name in ("text", "step", "dit", "decode"):
        assert (found[name]["baseline"] or 0) > 0 if options else found[name]["baseline"] is None
    table = out.read_text("utf-8")
    assert ("| - plain diffusers |" in table) == bool(options) and "0, <= 0: met" in table
    assert not list((tmp_path / "temporary").glob("turbotui*"))
