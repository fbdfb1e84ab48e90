"""`turbotui bench switch` without an engine: statistics, targets, merging, and what it makes of readings."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from engine.errors import InvalidRequest, StorageUnusable, WorkFailed
from engine.wire import JobSpec, Manifest, Receipt, ReceiptStep
from turbotui.bench import cycles, drift
from turbotui.bench.baseline import Baseline
from turbotui.bench.drift import Held
from turbotui.bench.roles import Cast, write_image
from turbotui.bench.rows import (
    TARGETS,
    Plain,
    Residency,
    Row,
    measured,
    merged,
    read_rows,
    unmeasured,
    write_rows,
)
from turbotui.bench.run import Run, load_step
from turbotui.bench.session import BenchEngine
from turbotui.bench.steps import boundary_s
from turbotui.bench.switch import GROUPS, Options, chosen_rows, measure_switch
from turbotui.bench.watch import Seen, Watch
from turbotui.cli import main
from turbotui.subcommands.bench import row_line

GB = 10**9
MIB = 2**20


def held(vram_bytes: int | None, host_bytes: int | None = 300 * MIB) -> Held:
    return Held(
        vram_bytes=vram_bytes,
        host_bytes=host_bytes,
        weights_bytes=0,
        context_bytes=0,
        parts={"weights": 28 * GB, "context": GB},
    )


# --------------------------------------------------------------------------- rows


def test_a_row_is_the_median_of_its_runs_with_the_worst_of_them() -> None:
    row = measured(
        "unload",
        [0.02, 0.03, 0.09],
        judged=True,
        receipts=[0.01, 0.02, 0.08],
        plain=Plain(value=22.0, way="a copy"),
        drift_bytes=512,
        residency=Residency(cached_share=1.0, registered_share=0.5),
    )
    assert (row.value, row.worst, row.receipt, row.runs) == (0.03, 0.09, 0.02, 3)
    assert (row.target, row.ok) == (0.035, True)
    assert (row.baseline, row.baseline_note, row.drift_bytes) == (22.0, "a copy", 512)
    assert (row.cached_share, row.registered_share) == (1.0, 0.5)


def test_the_worst_of_a_rate_is_the_lowest_and_its_target_is_a_least() -> None:
    row = measured("load_registered", [52.0, 49.0, 51.0], judged=True)
    assert (row.value, row.worst, row.ok) == (51.0, 49.0, True)
    assert measured("load_registered", [49.9], judged=True).ok is False


def test_a_value_at_its_target_reaches_it_and_one_above_misses() -> None:
    assert measured("switch_peak", [256 * MIB], judged=True).ok is True
    assert measured("switch_peak", [256 * MIB + 1], judged=True).ok is False


def test_targets_of_speed_do_not_bind_toys_but_those_of_correctness_do() -> None:
    slow = measured("unload", [9.0], judged=False)
    assert (slow.target, slow.ok) == (None, None)
    assert measured("outputs_changed", [1], judged=False).ok is False
    assert measured("weights_left", [0], judged=False).ok is True


def test_what_was_not_measured_misses_only_when_that_is_an_error() -> None:
    assert (unmeasured("drift_vram", "no GPU").ok, unmeasured("unload", "it died", failed=True).ok) == (
        None,
        False,
    )
    with pytest.raises(ValueError, match="no runs"):
        measured("unload", [], judged=True)


def test_rows_of_a_later_run_take_the_place_of_earlier_ones_of_their_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert read_rows(path) == []
    old = [measured("switch_peak", [3], judged=True), measured("unload", [1.0], judged=True)]
    write_rows(path, old)
    both = merged(read_rows(path), [measured("unload", [0.02], judged=True), unmeasured("cleanup", "no")])
    assert [row.name for row in both] == ["unload", "cleanup", "switch_peak"]
    assert both[0].value == 0.02 and both[2] == old[0]
    write_rows(path, both)
    assert read_rows(path) == both
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_something_else_and_one_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    other.write_text("{}")
    with pytest.raises(InvalidRequest, match=r"notes\.json does not hold rows"):
        read_rows(other)
    with pytest.raises(StorageUnusable, match="cannot be written"):
        write_rows(tmp_path / "nowhere" / "rows.json", [])


def test_every_row_belongs_to_one_group() -> None:
    assert Counter(row for group in GROUPS for row in group.rows) == dict.fromkeys(TARGETS, 1)


def test_rows_are_chosen_by_their_names_and_those_of_groups() -> None:
    assert chosen_rows(()) == set(TARGETS)
    assert chosen_rows(("unload", "switches")) == {"unload", "switch_small_large", "switch_large_small"}
    with pytest.raises(InvalidRequest, match="no row 'unlod'"):
        chosen_rows(("unlod",))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            measured("unload", [0.021], judged=True, plain=Plain(value=22, way="copy")),
            ["ok", "21 ms", "35 ms", "22 s"],
        ),
        (measured("load_registered", [30.0], judged=True), ["MISS", "30 GB/s", "50 GB/s"]),
        (measured("switch_peak", [0], judged=True), ["ok", "0 B", "256 MiB"]),
        (unmeasured("drift_vram", "no GPU"), [" - "]),
        (unmeasured("unload", "it died", failed=True), ["MISS", " - "]),
    ],
)
def test_a_line_shows_mark_value_target_and_the_usual_way(row: Row, words: list[str]) -> None:
    line = row_line(row)
    assert all(word in line for word in words)
    assert row.title in line


# --------------------------------------------------------------------------- models and jobs


def test_missing_models_are_told_with_the_commands_that_make_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"make-random wan2\.2-i2v-a14b --dtype int8"):
        next(measure_switch(Options(models=tmp_path, dtype="int8"), say=print))
    (tmp_path / "wan2.1-t2v-14b-random").mkdir()
    cast_ = Cast(demo=False, dtype="bf16", image=tmp_path / "x.png")
    assert cast_.missing(tmp_path) == ["small", "two"]
    assert cast_.maker("small") == "turbotui models make-random wan2.1-t2v-1.3b"


def test_the_command_refuses_what_cannot_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    assert main(["bench", "switch", "--demo", "--dtype", "int8"]) == 2
    assert main(["bench", "switch", "--models", str(tmp_path), "--json"]) == 2
    assert "make-random" in capsys.readouterr().err


def test_the_picture_is_a_png_that_others_read(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    write_image(path, 20, 10)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()
        assert (image.size, image.mode) == ((20, 10), "RGB")
        assert len(set(image.convert("L").tobytes())) > 10


def manifest(timesteps: tuple[float, ...], step_s: tuple[float, ...]) -> Manifest:
    return Manifest(
        job_id=3,
        spec=JobSpec(model="m", prompt="p"),
        kind="i2v",
        width=128,
        height=80,
        fps=16,
        timesteps=timesteps,
        device="cuda",
        device_name="H200",
        output="/v.mp4",
        output_bytes=1,
        frames_sha256="0",
        elapsed_s=1.0,
        stages=(),
        weights={},
        versions={},
        created_at=0.0,
        step_s=step_s,
    )


def test_the_steps_around_the_boundary_are_the_last_high_and_the_first_low_one() -> None:
    assert boundary_s(manifest((0.99, 0.93, 0.85, 0.6, 0.0), (1.0, 2.0, 4.0, 8.0))) == 6.0
    with pytest.raises(WorkFailed, match="no change of experts"):
        boundary_s(manifest((0.99, 0.93, 0.0), (1.0, 2.0)))
    with pytest.raises(WorkFailed, match="no change of experts"):
        boundary_s(manifest((0.99, 0.93, 0.85, 0.6, 0.0), ()))


def test_a_load_is_found_among_the_steps_of_a_switch() -> None:
    step = ReceiptStep(name="load big/dit", bytes=28 * GB, elapsed_s=0.5)
    receipt = Receipt(
        action="switch",
        target="big",
        ok=True,
        elapsed_s=0.6,
        proof="nvml-process",
        steps=(ReceiptStep(name="fits", bytes=GB, elapsed_s=0.0), step),
    )
    assert load_step(receipt, "big/dit") == step
    with pytest.raises(WorkFailed, match="did not load big/vae; its steps: fits, load big/dit"):
        load_step(receipt, "big/vae")


# --------------------------------------------------------------------------- readings


def gpu_run(**changes: Any) -> Run:
    run = Run(
        engine=cast(BenchEngine, None),
        cast=Cast(demo=False, dtype="bf16", image=Path("/x.png")),
        roles=("small", "large", "two"),
        cycles=5,
        rounds=3,
        at_random=100,
        say=lambda text: None,
        judged=True,
        on_gpu=True,
        device_id="GPU-1",
    )
    return replace(run, **changes)


def test_each_pair_of_models_is_switched_as_often_as_was_asked() -> None:
    run = gpu_run()
    order = cycles._order(run)
    pairs = order[: 9 * 2 * 3]
    assert set(Counter(zip(pairs[::2], pairs[1::2], strict=True)).values()) == {3}
    assert len(order) == 54 + 100 and order == cycles._order(run)


def test_a_peak_is_counted_over_the_larger_of_what_was_there_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cycles, "read_held", lambda client: held(30 * GB))
    run = gpu_run(engine=cast(BenchEngine, type("Engine", (), {"client": None})()))
    watch = Watch(cast(Any, None))
    watch._seen += [
        Seen(at=9.0, worker_bytes=90 * GB, ours_bytes=0),  # before the switch
        Seen(at=10.5, worker_bytes=31 * GB, ours_bytes=0),
        Seen(at=11.0, worker_bytes=None, ours_bytes=0),
    ]
    assert cycles._peak(run, watch, 10.0, 12.0, held(4 * GB)) == GB
    assert cycles._peak(run, watch, 12.5, 13.0, held(4 * GB)) is None
    watch._seen.append(Seen(at=14.0, worker_bytes=GB, ours_bytes=0))
    assert cycles._peak(run, watch, 13.5, 15.0, held(4 * GB)) == 0


def test_drift_is_of_the_device_or_without_one_of_the_host() -> None:
    assert held(5 * MIB).drift_from(held(3 * MIB)) == 2 * MIB
    assert held(None, 7).drift_from(held(None, 4)) == 3
    assert held(None, None).drift_from(held(None, 4)) is None
    rows = list(cycles._drifts(gpu_run(), held(GB), held(GB + 3 * MIB, 400 * MIB), "scope"))
    assert [(row.name, row.ok) for row in rows] == [("drift_vram", False), ("drift_rss", False)]
    assert [row.drift_bytes for row in rows] == [3 * MIB, 100 * MIB]


def test_a_child_tells_what_the_page_cache_holds(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"x" * 100_000)
    command = [sys.executable, "-P", "-m", "engine.models.page_cache", str(path), str(tmp_path / "gone")]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer == {str(path): 100_000, str(tmp_path / "gone"): None}
    assert drift._cached_bytes([path]) == 100_000


# --------------------------------------------------------------------------- the usual way


def test_a_baseline_is_the_median_of_the_childs_figures() -> None:
    baseline = Baseline(Path("/large"), Path("/small"), runs=2, say=lambda text: None)
    baseline._found = {
        "to_cpu": [(20.0, 28 * GB), (28.0, 28 * GB), (22.0, 28 * GB)],
        "to_cuda": [(5.6, 28 * GB)],
    }
    assert baseline.of("unload") is not None and baseline.of("unload").value == 22.0  # type: ignore[union-attr]
    assert baseline.of("expert_swap").value == 27.6  # type: ignore[union-attr]
    assert baseline.of("load_registered").value == pytest.approx(5.0)  # type: ignore[union-attr]
    assert baseline.of("load_page_cache") is None
    assert baseline.of("drift_rss") is None


def test_a_child_that_fails_is_told_by_its_last_words(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, tmp_path, runs=2, say=lambda text: None)
    baseline._command = [sys.executable, "-c", "import sys; sys.exit('no room')"]
    with pytest.raises(WorkFailed, match="no room"):
        baseline.run("cpu")
    baseline._command = [sys.executable, "-c", """print('{"name": "load", "seconds": 2, "bytes": 4}')"""]
    baseline.run("cpu")
    assert not baseline.due
    assert baseline.of("load_page_cache") is not None and baseline.of("cleanup") is not None
