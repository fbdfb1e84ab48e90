"""`turbotui bench generate` without an engine: which targets bind, what a table says, and the ballast."""

from __future__ import annotations

import ctypes
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import InvalidRequest, WorkFailed
from engine.wire import JobSpec
from turbotui.bench import generate
from turbotui.bench.ballast import read_room, take
from turbotui.bench.generate import Options, measure_generate
from turbotui.bench.generate_rows import GIB, Case, Setup, figure, markdown, targets
from turbotui.subcommands.bench_generate import TITLE_CELLS

SETUP = Setup(
    width=1536,
    layers=30,
    kind="t2v",
    int8=False,
    resolution="480p",
    aspect_ratio="16:9",
    attention="sla",
    frames=81,
    steps=4,
    on_gpu=True,
)
CASE = Case(
    model="some-random",
    attention="sla",
    quant="bf16",
    resolution="480p",
    width=832,
    height=480,
    frames=81,
    steps=4,
    runs=3,
    device="a card",
    versions={"torch": "2.11"},
    figures=(),
)


def test_the_targets_are_those_of_the_net_the_size_and_the_kernels() -> None:
    small = targets(SETUP)
    assert (small["dit"], small["decode"], small["end_to_end"]) == (0.90, 0.9, 2.5)
    assert targets(replace(SETUP, int8=True, attention="sagesla"))["dit"] == 0.75
    large = replace(SETUP, width=5120, layers=40, resolution="720p")
    assert (targets(large)["dit"], targets(large)["peak_least"]) == (17.0, 33 * GIB)
    assert targets(replace(large, int8=True, attention="sagesla"))["dit"] == 12.0
    assert "peak_least" not in targets(replace(large, int8=True))
    two = replace(large, kind="i2v", int8=True)
    assert targets(two)["peak_least"] == 20 * GIB and "dit" not in targets(two)
    # A mixture of the two has no target of its own, and the dense net none at all.
    assert "dit" not in targets(replace(SETUP, int8=True))
    assert "dit" not in targets(replace(SETUP, attention="dense"))


@pytest.mark.parametrize(
    "other", [{"frames": 5}, {"steps": 1}, {"aspect_ratio": "1:1"}, {"on_gpu": False}, {"layers": 2}]
)
def test_no_speed_binds_elsewhere(other: dict[str, Any]) -> None:
    assert targets(replace(SETUP, **other)) == {"frames_changed": 0.0}


def test_without_a_gpu_what_is_counted_is_the_hosts_memory_and_is_called_so() -> None:
    on_host = [figure(name, [GIB], {}, on_gpu=False) for name in ("step", "peak", "peak_least")]
    assert [one.title for one in on_host] == ["DiT a step", "peak host memory", "host peak, dit_only"]
    assert max(len(one.title) for one in on_host) <= TITLE_CELLS
    heads = markdown([replace(CASE, figures=tuple(on_host))], "x").splitlines()[0]
    assert heads == "|  | DiT a step | peak host memory | host peak, dit_only |"
    assert [figure(name, [1], {}, on_gpu=True).title for name in ("peak", "peak_least")] == [
        "peak VRAM", "peak VRAM, dit_only"
    ]  # fmt: skip


def test_a_figure_is_judged_by_its_median() -> None:
    limits = targets(SETUP)
    met = figure("dit", [0.8, 0.95, 0.85], limits, on_gpu=True)
    assert (met.value, met.worst, met.target, met.ok) == (0.85, 0.95, 0.90, True)
    assert figure("dit", [0.91], limits, on_gpu=True).ok is False
    missing = figure("dit", [], limits, on_gpu=True, note="why")
    assert (missing.value, missing.ok, missing.note) == (None, None, "why")
    assert replace(CASE, figures=(met,)).ok and not replace(CASE, figures=(met,), problem="x").ok
    assert not replace(CASE, figures=(met, figure("dit", [0.91], limits, on_gpu=True))).ok


def test_the_table_has_figures_targets_marks_and_plain_diffusers_beneath() -> None:
    limits = targets(SETUP)
    figures = (
        figure("dit", [0.8, 0.95, 0.85], limits, on_gpu=True, baseline=4.0),
        figure("decode", [1.5], limits, on_gpu=True),
        figure("peak", [13.5 * GIB], limits, on_gpu=True),
        figure("units", [], limits, on_gpu=True, note="no width"),
    )
    cases = [replace(CASE, figures=figures), replace(CASE, model="b", problem="it | broke")]
    lines = markdown(cases, "turbotui bench generate").splitlines()
    assert lines[0] == "|  | DiT | VAE decode | peak VRAM | DiT activations |"
    assert lines[2] == (
        "| some-random 832x480, 81 frames, 4 steps, bf16, sla | 0.85 s (0.95 s), <= 0.9 s: met "
        "| 1.5 s, <= 0.9 s: **missed** | 13.50 GiB | -, <= 6 U: not measured |"
    )
    assert lines[3] == "| - plain diffusers | 4 s | - | - | - |"
    assert lines[4].startswith("| b 480p sla - it \\| broke | - |")
    assert "on a card (torch 2.11)" in lines[6] and "DiT activations: no width." in lines


def test_the_ballast_leaves_the_room_to_within_a_piece() -> None:
    free = 140 * GIB + 123_456_789

    def driver(name: str, place: object, size: ctypes.c_size_t) -> None:
        nonlocal free
        free -= size.value

    room = read_room("24564MiB")
    assert 0 <= take(room, driver, lambda: free) - room < 2 * 2**20
    with pytest.raises(WorkFailed, match="less than the room of 24564 MiB"):
        take(room, driver, lambda: room - 1)
    assert read_room("20 GiB") == 20 * GIB
    for text in ("", "20", "20G", "-1GiB", "1e9GiB"):
        with pytest.raises(InvalidRequest, match="24564MiB"):
            read_room(text)


def _model(folder: Path, name: str, config: dict[str, Any]) -> Any:
    (folder / name / "transformer").mkdir(parents=True)
    (folder / name / "transformer" / "config.json").write_text(json.dumps(config))
    return SimpleNamespace(name=name, kind="t2v", path=str(folder / name), attention="dense")


def test_attention_its_share_and_quant_are_passed_on(tmp_path: Path) -> None:
    model = _model(tmp_path, "a", {})
    run: Any = SimpleNamespace(options=Options(models=None, names=(), sla_topk=0.2, quant="int8"))
    asked = generate._spec(run, model, "480p", "sagesla")
    assert (asked.attention, asked.sla_topk, asked.quant) == ("sagesla", 0.2, "int8")
    dense = generate._spec(run, model, "480p", "dense")
    assert dense.sla_topk is None, "it would be refused"
    run.options = Options(models=None, names=())
    plain = generate._spec(run, model, None, None)
    assert plain == JobSpec(model="a", prompt=plain.prompt, seed=1)


def test_a_case_says_what_ran_and_not_what_was_asked_for(tmp_path: Path) -> None:
    asked = _model(tmp_path, "a", {"num_layers": 30})
    other = _model(tmp_path, "a-int8", {"num_layers": 30, "quantization_config": {}})
    run: Any = SimpleNamespace(
        options=Options(models=None, names=()),
        on_gpu=False,
        engine=SimpleNamespace(model={"a-int8": other}.get),
    )
    manifest: Any = SimpleNamespace(
        spec=JobSpec(model="a", prompt="", frames=5, steps=4),
        width=32, height=16, versions={"torch": "2.11", "numpy": "2"}, stages=(), step_s=(0.5,),
        attention=SimpleNamespace(kind="dense"),
    )  # fmt: skip
    seen = generate._Seen(manifests=[manifest])
    old = generate._told(run, CASE, asked, seen)
    assert (old.model, old.attention, old.quant, old.versions) == ("a", "dense", "bf16", {"torch": "2.11"})
    manifest.attention = SimpleNamespace(kind="sla", topk=0.1, by="torch", note="this GPU has no fp8")
    manifest.spec = JobSpec(model="a-int8", prompt="", frames=5, steps=4, attention="sagesla")
    ran = generate._told(run, replace(CASE, quant="auto"), asked, seen)
    assert (ran.model, ran.attention, ran.quant) == ("a-int8", "sla", "int8")


def test_a_random_model_that_is_missing_is_made_or_told_why_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        made.append(command)
        return subprocess.CompletedProcess(command, 3, stderr="a warning\nno room on the disk")

    monkeypatch.setattr(subprocess, "run", run)
    (tmp_path / "there-random").mkdir()
    options = Options(models=tmp_path, names=("there-random", "my-own", "size-random-int8"))
    with pytest.raises(WorkFailed, match="size-random-int8 could not be made: no room on the disk"):
        next(iter(measure_generate(options, say=lambda text: None)))
    assert [command[-4:] for command in made] == [[str(tmp_path), "size", "--dtype", "int8"]]
