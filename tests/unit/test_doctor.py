"""The lines of `turbotui doctor` over made-up installations, and the small readers beneath them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.checks.doctor import examine, satisfies
from engine.checks.installation import (
    Caller,
    Installation,
    Place,
    Torch,
    ask_nvml,
    ask_torch,
    look_at,
    read_driver,
    shadows,
)
from engine.units import GIB, MIB
from engine.wire import InstallationLine

CALLER = Caller(
    engine_file="/app/engine/wire/__init__.py", cwd="/nowhere", path=["/nowhere/lib"], term="xterm-256color",
    is_terminal=True, encoding="utf-8", colour="truecolor",
)  # fmt: skip
TORCH = Torch(version="2.11.0+cu130", cuda="13.0", cudnn=91900, uuids=["GPU-a"])
SOUND = Installation(
    caller=CALLER, python="3.12.3", executable="/v/bin/python", engine_file="/app/engine/paths.py",
    requirements=["torch>=2.10", "textual<9,>=8.2", "imageio[ffmpeg]>=2.37"],
    installed={"torch": "2.11.0+cu130", "textual": "8.2.8", "imageio": "2.38.1"}, tested={"textual": "8.2.8"},
    torch=TORCH, nvml_gpus=[("GPU-a", "NVIDIA H200")], driver="580.95.05", ffmpeg="ffmpeg version 7.1",
    memlock_bytes=None, open_files=65536, host_bytes=128 * GIB, host_available_bytes=90 * GIB,
    has_logind=True, lingers=True, runtime_dir="/run/user/1000/turbotui", user="me",
    places=[Place(name="state", path="/s", fs_type="ext4", free_bytes=99 * GIB, writable=True)],
    sudo="/usr/bin/sudo", nvidia_smi="/opt/nvidia-smi", persistence=True,
)  # fmt: skip


def with_(**changes: Any) -> Installation:
    return msgspec.structs.replace(SOUND, **changes)


def line(name: str, **changes: Any) -> InstallationLine:
    """The line of that name which says most against it."""
    found = [line for line in examine(with_(**changes)) if line.name == name]
    return max(found, key=lambda line: ("ok", "note", "problem").index(line.state))


def test_a_sound_installation_has_nothing_but_ok() -> None:
    assert {line.state for line in examine(SOUND)} == {"ok"}


def caller(**changes: Any) -> Caller:
    return msgspec.structs.replace(CALLER, **changes)


def torch(**changes: Any) -> Torch:
    return msgspec.structs.replace(TORCH, **changes)


def place(**changes: Any) -> list[Place]:
    return [msgspec.structs.replace(SOUND.places[0], **changes)]


@pytest.mark.parametrize(
    ("name", "state", "words", "changes"),
    [
        ("python", "problem", "3.10", {"python": "3.10.2"}),
        ("engine", "problem", "its children from", {"engine_file": "/other/engine/paths.py"}),
        ("packages", "problem", "textual is missing", {"installed": {"torch": "2.11", "imageio": "2.38"}}),
        ("packages", "problem", "textual is 9.0", {"installed": {**SOUND.installed, "textual": "9.0"}}),
        ("packages", "note", "tested 8.2.8", {"installed": {**SOUND.installed, "textual": "8.3.0"}}),
        ("packages", "note", "not installed", {"requirements": None}),
        ("torch", "problem", "no module", {"torch": Torch(error="no module named torch")}),
        ("torch", "problem", "2.10 is needed", {"torch": torch(version="2.9.1")}),
        ("torch", "problem", "without CUDA", {"torch": torch(version="2.11.0+cpu", cuda=None, uuids=[])}),
        ("cudnn", "problem", "three times", {"torch": torch(cudnn=91002)}),
        ("gpu", "problem", "does not see", {"nvml_gpus": [("GPU-a", "H200"), ("GPU-b", "H200")]}),
        ("gpu", "problem", "NVML does not list", {"torch": torch(uuids=["GPU-a", "GPU-c"])}),
        ("gpu", "problem", "illegal", {"torch": torch(uuids=[], error="RuntimeError: illegal")}),
        ("gpu", "note", "hides", {"torch": torch(uuids=[]), "visible_devices": ""}),
        ("gpu", "note", "no NVML", {"nvml_gpus": [], "nvml_fault": "no NVML", "driver": None}),
        ("gpu", "problem", "is loaded, but", {"nvml_gpus": [], "nvml_fault": "no NVML"}),
        ("driver", "problem", "580", {"driver": "570.124.06"}),
        ("driver", "note", "WSL", {"driver": None}),
        ("persistence", "note", "seconds", {"persistence": False}),
        ("ffmpeg", "problem", "gone", {"ffmpeg": None, "ffmpeg_error": "OSError: gone"}),
        ("memlock", "note", "1.0 MiB", {"memlock_bytes": MIB}),
        ("files", "note", "256", {"open_files": 256}),
        ("memory", "note", "cgroup", {"host_bytes": 8 * GIB, "limited_by_cgroup": True}),
        ("linger", "note", "logind", {"lingers": False}),
        ("state", "note", "WAL", {"places": place(fs_type="nfs4", network=True)}),
        ("state", "problem", "cannot be written", {"places": place(writable=False)}),
        ("state", "problem", "too little", {"places": place(free_bytes=MIB)}),
        ("models", "note", "28 GB", {"places": place(name="models", free_bytes=5 * GIB)}),
        ("models", "note", "network's time", {"places": place(name="models", fs_type="nfs", network=True)}),
        ("reset", "note", "nvidia-smi", {"nvidia_smi": None}),
        ("reset", "note", "sudo", {"sudo": None}),
        ("terminal", "problem", "cannot draw", {"caller": caller(term="dumb")}),
        ("terminal", "problem", "no TERM", {"caller": caller(term=None)}),
        ("terminal", "note", "ASCII", {"caller": caller(encoding="ANSI_X3.4-1968")}),
        ("terminal", "note", "16 colours", {"caller": caller(term="xterm", colour=None)}),
    ],
)
def test_each_doubt_is_told_with_its_reason(
    name: str, state: str, words: str, changes: dict[str, Any]
) -> None:
    found = line(name, **changes)
    assert found.state == state and words in found.text


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpu", {"visible_devices": "GPU-a", "nvml_gpus": [("GPU-a", "H200"), ("GPU-b", "H200")]}),
        ("driver", {"driver": "525.60.13", "torch": torch(cuda="12.8")}),
        ("driver", {"torch": torch(cuda="99.0")}),  # of a CUDA that is not known nothing is claimed
        ("memlock", {"memlock_bytes": 8 * MIB}),
        ("linger", {"lingers": False, "has_logind": False}),
        ("linger", {"lingers": False, "runtime_dir": "/tmp/turbotui-1000"}),
        ("reset", {"sudo": None, "is_root": True}),
        ("terminal", {"caller": caller(is_terminal=False, term=None)}),
        ("torch", {"torch": Torch(version="2.11.0+cpu"), "nvml_gpus": [], "driver": None}),
        ("state", {"places": place(free_bytes=None)}),
    ],
)
def test_what_only_looks_doubtful_is_ok(name: str, changes: dict[str, Any]) -> None:
    assert line(name, **changes).state == "ok"


def test_fixes_can_be_pasted_whatever_a_folder_is_called() -> None:
    found = line("state", places=place(path="/a b; rm -rf ~", free_bytes=MIB))
    assert found.fix == "df -h '/a b; rm -rf ~'"


@pytest.mark.parametrize(
    ("version", "requirement", "held"),
    [
        ("2.10.0+cu130", "torch>=2.10", True),
        ("2.9.1", "torch>=2.10", False),
        ("8.2.8", "textual<9,>=8.2", True),
        ("9", "textual<9,>=8.2", False),
        ("2.37", "imageio[ffmpeg]>=2.37.0", True),
        ("1.2", "x==1.2.0 ; python_version < '3'", True),
        ("1.2", "x==1.3", False),
        ("1.2", "x!=1.2", False),
        ("1.2", "x~=1.0", True),
        ("1.2", "x", True),
    ],
)
def test_a_version_is_held_against_a_requirement(version: str, requirement: str, held: bool) -> None:
    assert satisfies(version, requirement) is held


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue\nGCC version: 13.2", "580.159.04"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.71.05  Release Build", "595.71.05"),
        ("NVRM version: something else 1.2.3", None),
        ("", None),
    ],
)
def test_the_kernels_driver_is_read(tmp_path: Path, text: str, version: str | None) -> None:
    file = tmp_path / "version"
    file.write_text(text)
    assert read_driver(file) == version
    assert read_driver(tmp_path / "none") is None


def test_another_engine_on_the_way_is_seen_and_ours_is_not(tmp_path: Path) -> None:
    ours = tmp_path / "app" / "engine"
    ours.mkdir(parents=True)
    (ours / "paths.py").touch()
    project = tmp_path / "project"
    (project / "engine").mkdir(parents=True)
    library = tmp_path / "library"
    library.mkdir()
    (library / "engine.py").touch()
    (tmp_path / "link").symlink_to(tmp_path / "app")
    path = [str(tmp_path / "app"), str(library), str(tmp_path / "link"), "/none"]
    assert shadows(path, str(project), str(ours / "paths.py")) == [
        str(project / "engine"), str(library / "engine.py")
    ]  # fmt: skip
    assert shadows([""], str(tmp_path / "app"), str(ours / "paths.py")) == []


def test_the_fix_takes_out_only_what_shadows_and_keeps_what_the_installation_needs(tmp_path: Path) -> None:
    ours, other = tmp_path / "app", tmp_path / "project"
    (ours / "engine").mkdir(parents=True)
    (other / "engine").mkdir(parents=True)

    def fix(cwd: Path, *pythonpath: Path) -> str | None:
        found = caller(
            cwd=str(cwd),
            path=[str(entry) for entry in (other, ours)],
            pythonpath=":".join(map(str, pythonpath)),
            engine_file=str(ours / "engine/wire/__init__.py"),
        )
        told = line("engine", caller=found, engine_file=str(ours / "engine/paths.py"))
        assert told.state == "note" and str(other / "engine") in told.text
        return told.fix

    assert fix(tmp_path, other, ours) == f"export PYTHONPATH={ours}"
    assert fix(tmp_path, other) == "unset PYTHONPATH"  # with nothing else in it that is needed
    assert fix(other, ours) == "cd ~"
    assert str(other) in (fix(tmp_path, ours) or "") and "PYTHONPATH" not in (fix(tmp_path, ours) or "")


def test_a_place_that_is_not_there_yet_is_judged_by_what_will_hold_it(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/x rw\n")
    found = look_at("models", tmp_path / "not" / "yet", mounts)
    assert (found.fs_type, found.network, found.writable) == ("nfs4", True, True) and found.free_bytes
    assert not look_at("models", Path("/etc"), mounts).network


def test_a_torch_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open \\x1b[31m')")
    found = ask_torch({"PYTHONPATH": str(tmp_path)})
    assert found.version == "" and found.error is not None and "libcudart" in found.error
    assert "\x1b" not in found.error
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert ask_torch({}).error and ask_nvml({})[1]
