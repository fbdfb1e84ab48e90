"""`turbotui models scan` and `turbotui models get`, each with its process and a hub on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.hub_server import HubServer, serve
from tests.unit.test_finding import TEXT, VAE, dit, put, tokenizer
from tests.unit.test_getting import NAME, hub_of_released
from turbotui.cli import main
from turbotui.subcommands import getting


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TURBOTUI_CONSOLE_LANGUAGE", "en")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve(hub_of_released()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run at the end, which are not run here."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(getting.subprocess, "run", run)
    return commands


def test_a_scan_prints_one_verdict_a_find_and_the_command_that_imports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "given"
    put(folder, TurboWan=dit(), vae=VAE, t5=TEXT, old=dit(distilled=False))
    tokenizer(folder / "umt5-xxl")
    assert main(["models", "scan", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["usable"] * 4 + ["parts"]
    assert lines[-2].endswith("import it with") and lines[-1].startswith(
        f"  turbotui import {folder}/TurboWan"
    )
    assert any(line.startswith("old.safetensors: its DiT has no proj_l") for line in lines)
    assert main(["models", "scan", "given", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in told["models"]] == ["TurboWan"] and len(told["parts"]) == 5


def test_getting_tells_size_and_licence_and_asks_for_a_yes(
    hub: HubServer, imported: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["models", "get", NAME]) == 2  # there is no terminal to ask on
    told = capsys.readouterr().err
    assert "licence of Wan-AI/Wan2.1-T2V-1.3B: apache-2.0" in told and "16.0 MiB to fetch" in told
    assert hub.downloads() == []
    assert main(["models", "get", NAME, "--yes"]) == 0
    (command,) = imported
    assert command[:5] == [sys.executable, "-P", "-m", "turbotui", "import"]
    assert [Path(path).name for path in command[5:]] == [
        f"{NAME}.pth",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "Wan2.1_VAE.pth",
        "umt5-xxl",
        *("--lang", "en"),
    ]
    capsys.readouterr()
    assert main(["models", "get", NAME, "--yes", "--json", "--lang", "zh"]) == 0
    assert imported[1][-3:] == ["--lang", "zh", "--json"], "it speaks on as it was asked to"
    assert len(json.loads(capsys.readouterr().out)["fetched"]) == 4
    assert main(["models", "get", "--json"]) == 0
    here = {model["name"]: model["presence"] for model in json.loads(capsys.readouterr().out)}
    assert here[NAME] == "fetched"


def test_without_the_hub_the_commands_are_printed_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["models", "get", NAME, "--yes"]) == 4
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].startswith("turbotui import ")
    assert "HF_HUB_OFFLINE forbids" in output.err
    assert main(["models", "get", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problem"]["code"] == "not_now"
    assert main(["models", "get", "nonsense"]) == 4 and "lists them all" in capsys.readouterr().err
