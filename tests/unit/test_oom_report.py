"""What the report of a job that ran out of memory says, over made-up moments of a 14B model on an H200."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from facts import GPU, foreign, gpu
from test_footprint import released

from engine.config import EngineConfig
from engine.leaks.oom import OomFacts, report_of
from engine.planning.admission import check_request
from engine.planning.footprint import estimate_footprint
from engine.units import GIB, MIB
from engine.wire import Job, JobSpec, OomReport
from engine.worker.oom_facts import OomBound, OomMoment

MODEL = released(large=True)
DIT, TEXT = f"{MODEL.name}/dit", f"{MODEL.name}/text"
WEIGHTS = {DIT: MODEL.component("dit").bytes, TEXT: MODEL.component("text").bytes}


def facts(
    folder: Path, *, free: int = GIB, live: int = 8 * GIB, budget: int | None = None, **changes: Any
) -> OomFacts:
    """720p with 81 frames, in its second step, beside a text encoder that it does not need any more."""
    spec = JobSpec(model=MODEL.name, prompt="a cat", resolution="720p", frames=81, residency="keep_text")
    held = sum(WEIGHTS.values()) + live + 2 * GIB
    moment = OomMoment(
        at=2.0, message="CUDA out of memory.", stage="denoise", step=1, steps=4, component=DIT,
        asked_bytes=3 * GIB, held_bytes=held, total_bytes=140 * GIB, free_bytes=free, weights=WEIGHTS,
        live_bytes=live, releasable_bytes=MIB, fragmented_bytes=2 * GIB, awaiting_bytes=0,
        bound=OomBound(kind="device", limit_bytes=140 * GIB),
    )  # fmt: skip
    return OomFacts(
        job=Job(id=12, spec=spec, status="running", created_at=1.0, attempt=1),
        model=MODEL,
        admitted=check_request(spec, MODEL, EngineConfig(), folder),
        budget_bytes=held + free if budget is None else budget,
        moment=msgspec.structs.replace(moment, **changes),
        device=gpu(foreign(), foreign(4243, user="liwei", bytes=40 * GIB)),
        user="me",
    )


def test_it_tells_what_was_asked_where_and_what_was_there(tmp_path: Path) -> None:
    report = report_of(facts(tmp_path))
    assert report.device_id == GPU and report.job_id == 12
    assert report.lines[0] == f"Job 12 asked for 3.00 GiB in the stage denoise at step 2 of 4 with {DIT}."
    assert report.lines[1] == "Of 140.00 GiB then 1.00 GiB were free."
    assert {(part.kind, part.label): part.bytes for part in report.parts}["weights", DIT] == WEIGHTS[DIT]
    assert {part.kind for part in report.parts} >= {"live", "fragmented", "releasable", "driver", "free"}
    assert msgspec.json.decode(msgspec.json.encode(report), type=OomReport) == report


def test_what_could_have_been_freed_comes_cheapest_first_and_nobody_elses_gets_a_command(
    tmp_path: Path,
) -> None:
    freeable = report_of(facts(tmp_path)).freeable
    assert [item.what for item in freeable] == ["component", "fragmented", "process", "process"]
    assert freeable[0].command == f"turbotui unload {TEXT}", "the DiT was in use"
    assert (freeable[2].bytes, freeable[2].command) == (40 * GIB, None), "liwei's"
    assert (freeable[3].bytes, freeable[3].command) == (6 * GIB, "turbotui kill 4242")


def test_what_would_have_fitted_fits_by_the_estimate_as_the_failure_corrects_it(tmp_path: Path) -> None:
    told = facts(tmp_path)
    report = report_of(told)
    room = told.moment.held_bytes + GIB
    needed = WEIGHTS[DIT] + 8 * GIB + 3 * GIB
    share = max(1.0, needed / report.estimated_bytes)
    assert report.fits and all(fit.peak_bytes <= room for fit in report.fits)
    for fit in report.fits:
        row = next(
            row for row in MODEL.card.table
            if (row.name, row.aspect_ratio) == (fit.resolution, fit.aspect_ratio)
        )  # fmt: skip
        plain = estimate_footprint(MODEL, row.width, row.height, fit.frames, device_kind="cuda").peak_bytes
        assert fit.peak_bytes == pytest.approx(plain * share, rel=1e-6)
        smaller = row.width * row.height < 1280 * 720 or fit.frames < 81 or fit.residency == "dit_only"
        assert smaller, "what has just failed is no way out"


def test_where_nothing_would_have_fitted_that_is_said(tmp_path: Path) -> None:
    told = facts(tmp_path, budget=4 * GIB)
    report = report_of(told)
    assert report.fits == () and "nothing in the model's table would have fit" in report.lines[-1]


def test_without_a_figure_none_is_invented(tmp_path: Path) -> None:
    told = facts(tmp_path, asked_bytes=None, free_bytes=None, component=None, steps=0, weights={})
    report = report_of(replace(told, device=None))
    assert report.lines[0] == "Job 12 asked for memory in the stage denoise."
    assert report.asked_bytes is None and not any(part.kind == "free" for part in report.parts)


def test_a_cache_is_named_and_on_a_card_no_pinned_block(tmp_path: Path) -> None:
    told = facts(tmp_path, releasable_bytes=3 * GIB, pinned_bytes=4 * GIB, pinned_used_bytes=GIB)
    first = report_of(told).freeable[0]
    assert (first.what, first.bytes, first.command) == ("cache", 3 * GIB, "turbotui free")
    assert not any(item.what == "pinned" for item in report_of(told).freeable), "the card has none of them"


def test_what_would_have_fitted_keeps_less_shows_fewer_frames_or_a_smaller_picture(tmp_path: Path) -> None:
    told = facts(tmp_path)
    keeping, fewer, smaller = report_of(told).fits
    assert (keeping.residency, keeping.frames, keeping.resolution) == ("dit_only", 81, "720p")
    assert fewer.frames < 81 and (fewer.residency, fewer.resolution) == ("keep_text", "720p")
    assert (smaller.frames, smaller.resolution) == (81, "480p")


LIMITED = OomBound(kind="address_space", limit_bytes=GIB, free_bytes=20 * MIB)


def test_a_limit_of_the_address_space_is_named_first_and_nobody_elses_memory_is_a_way_out(
    tmp_path: Path,
) -> None:
    """As a worker on the host met it under `ulimit -v`, on a machine with room."""
    told = facts(
        tmp_path, free=21 * GIB, bound=LIMITED, releasable_bytes=None, fragmented_bytes=None
    )  # fmt: skip
    for device in (None, told.device):
        report = report_of(replace(told, device=device))
        assert (report.bound, report.bound_bytes, report.bound_free_bytes) == (
            "address_space", GIB, 20 * MIB
        )  # fmt: skip
        assert report.lines[1] == (
            "The system limits the worker's address space to 1.00 GiB, of which 20.0 MiB were left: that is "
            "what ran out. Raise it (`ulimit -v`) where the engine is started."
        )
        assert report.lines[2] == "The host still had 21.00 GiB available."
        assert report.freeable == () and "an unload keeps the addresses" in report.lines[5]
        assert {part.owner for part in report.parts} == {"ours"}, "who else holds memory has no part in it"
        assert not any("Process" in line or "free other memory" in line for line in report.lines)


def test_a_cgroup_is_named_with_what_is_left_of_it_and_what_of_ours_counts_against_it(
    tmp_path: Path,
) -> None:
    bound = OomBound(kind="cgroup", limit_bytes=4 * GIB, free_bytes=0)
    told = facts(tmp_path, free=0, bound=bound, releasable_bytes=None, fragmented_bytes=None)
    report = report_of(replace(told, device=None))
    assert report.lines[1].startswith(
        "The system limits the worker's cgroup to 4.00 GiB, of which 0 B were left"
    )
    assert [item.command for item in report.freeable] == [f"turbotui unload {TEXT}"]


def test_where_a_gpu_worker_met_the_hosts_limit_nothing_of_the_card_is_a_way_out(tmp_path: Path) -> None:
    bound = OomBound(kind="host", limit_bytes=64 * GIB, free_bytes=MIB)
    pinned = {"pinned_bytes": 3 * GIB, "pinned_used_bytes": GIB}
    report = report_of(facts(tmp_path, bound=bound, **pinned))
    assert report.lines[1] == (
        "It was the host's memory that ran out: of 64.00 GiB then 1.0 MiB were available."
    )
    assert [(item.what, item.bytes) for item in report.freeable] == [("pinned", 2 * GIB)]
    assert report.fits == () and "model's table" not in report.lines[-1], (
        "the estimate is of the card's memory"
    )


def test_pinned_memory_of_which_it_is_not_known_what_is_in_use_has_no_figure(tmp_path: Path) -> None:
    bound = OomBound(kind="host", limit_bytes=64 * GIB, free_bytes=MIB)
    told = facts(tmp_path, bound=bound, pinned_bytes=3 * GIB, pinned_reason="it was not looked")
    (item,) = report_of(told).freeable
    assert (item.what, item.bytes) == ("pinned", None) and "not known: it was not looked." in item.text
