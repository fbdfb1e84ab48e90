"""`turbotui import`: what it prints, its exit codes, and what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.models.model import read_model
from tests.specification.checkpoints import turbo_wan
from turbotui.cli import main

pytestmark = pytest.mark.usefixtures("no_cache")

Tensors = dict[str, Tensor]
T2V = turbo_wan(dtype=torch.bfloat16)


def save(path: Path, tensors: Tensors) -> Path:
    torch.save(tensors, path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "data" / "models"


def test_the_command_tells_its_plan_and_makes_the_model(
    parts: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(parts / "TurboWan2.1-T2V-1.3B-480P.pth", T2V)
    assert main(["import", str(path), "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "TurboWan T2V DiT, 2 layers of 256" in said and "used where they lie" in said
    assert not (home / "TurboWan2.1-T2V-1.3B-480P").exists()
    assert main(["import", str(path), "--copy", "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["event"] for event in events][:: len(events) - 1] == ["plan", "done"]
    assert {event["component"] for event in events if event["event"] == "progress"} == {"text", "dit", "vae"}
    assert read_model(home / "TurboWan2.1-T2V-1.3B-480P").problem is None


def test_a_name_that_is_taken_is_refused_before_the_plan_is_told(
    parts: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(parts / "turbo.pth", T2V)
    assert main(["import", str(path)]) == 0
    capfd.readouterr()
    assert main(["import", str(path)]) == 4
    said = capfd.readouterr()
    assert said.out == "" and "turbo was imported already; --replace" in said.err
    assert main(["import", str(path), "--dry-run"]) == 4
    assert "TurboWan T2V DiT" in capfd.readouterr().out, "a dry run is asked for the plan"


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["lora.safetensors"], 4, "model_unusable"),
        (["nothing.pth"], 2, "invalid_request"),
        (["Wan2.1_VAE.pth"], 2, "invalid_request"),
        ([], 2, "invalid_request"),
    ],
)
def test_a_refusal_has_its_code(
    arguments: list[str], code: int, kind: str, parts: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_file({"blocks.0.ffn.0.lora_down.weight": torch.ones(4, 4)}, parts / "lora.safetensors")
    assert main(["import", *(str(parts / name) for name in arguments), "--json"]) == code
    assert json.loads(capfd.readouterr().out)["code"] == kind


def test_the_importer_loads_no_torch() -> None:
    program = (
        "import sys; import engine.models.importing.__main__; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
