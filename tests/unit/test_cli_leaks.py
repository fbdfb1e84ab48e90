"""`turbotui leaks` against a server that answers as an engine would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import StandIn, engine, no_engine, printed

from engine.wire import (
    ExportedSnapshot,
    Grown,
    Holder,
    Job,
    JobSpec,
    LeakReport,
    Mark,
    OomReport,
    Receipt,
    Remedy,
    RemedyResult,
    SinceMark,
    Site,
    Tracing,
    Trend,
    Verdict,
)
from turbotui.cli import main
from turbotui.subcommands.leaks import _all, _is_news

__all__ = ["engine", "no_engine"]

MIB = 2**20
KEPT = Verdict(
    kind="tensor", leak=True, title="plants.KEPT holds 64.0 MiB of tensors on GPU 0 (a module's variable).",
    evidence=("It is reached by module plants\x1b[31m > KEPT.",), bytes=64 * MIB,
    site=Site(file="/srv/plants.py", line=12, function="keep"),
    holder=Holder(path=("module plants", "KEPT"), kind="global", file="/srv/plants.py", line=7),
    remedy=Remedy(action="cleanup", text="End the worker.", predicted_bytes=64 * MIB),
)  # fmt: skip
CYCLE = replace(
    KEPT, title="A cycle.", site=None, site_reason="nothing was traced then",
    remedy=Remedy(action="collect", text="Have Python look for cycles.", predicted_bytes=32 * MIB),
)  # fmt: skip
CACHE = Verdict(
    kind="cache", leak=False, title="5.00 GiB on GPU 0 are cache, which is no leak.", evidence=("why",),
    bytes=5 * 2**30, remedy=Remedy(action="free", text="Leave it.", predicted_bytes=5 * 2**30),
)  # fmt: skip
DONE = Receipt(
    action="collect", target="cycles and cache", ok=True, expected_bytes=32 * MIB, returned_bytes=33 * MIB,
    elapsed_s=0.2, proof="nvml-process",
)  # fmt: skip


def report(*verdicts: Verdict, **changes: Any) -> LeakReport:
    whole: dict[str, Any] = {
        "at": 2.0, "elapsed_s": 0.4, "verdicts": verdicts, "trends": (), "tracing": Tracing(on=False),
        **changes,
    }  # fmt: skip
    return LeakReport(**whole)


def result(**changes: Any) -> RemedyResult:
    whole: dict[str, Any] = {
        "remedy": CYCLE.remedy, "predicted_bytes": 32 * MIB, "returned_bytes": 33 * MIB, "kept": True,
        "receipt": DONE, **changes,
    }  # fmt: skip
    return RemedyResult(**whole)


def test_each_verdict_is_told_with_its_evidence_and_a_numbered_remedy_and_a_leak_exits_with_7(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    grows = Trend(what="device", over="jobs", count=9, bytes_each=2e6, grows=True, text="device floor +2 MB")
    engine.answers["/leaks"] = (
        200,
        report(KEPT, CYCLE, CACHE, trends=(grows,), unknown=("the worker: it is slow",)),
    )
    assert main(["leaks"]) == 7
    output = capsys.readouterr().out
    for words in (
        "1. leak, tensor: plants.KEPT holds 64.0 MiB", "3. no leak, cache: 5.00 GiB",
        "turbotui leaks --fix 2",
        "Held by: module plants > KEPT", "        /srv/plants.py:7", "Made in: /srv/plants.py:12 in keep",
        "`turbotui leaks --fix all` runs", "Gives back at least 32.0 MiB.", "  Gives back 5.00 GiB.",
        "not known: nothing was traced then", "! device floor +2 MB",
        "unknown: the worker: it is slow", "2 leaks, 128 MiB; 1 other holder is no leak; in 0.40 s",
    ):  # fmt: skip
        assert words in output, (words, output)
    assert "\x1b" not in output
    assert "It is reached by" not in output, "which is said by who holds it"


def test_why_several_leaks_have_no_site_is_said_once(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/leaks"] = (200, report(CYCLE, CYCLE, replace(CYCLE, site_reason="another reason")))
    assert main(["leaks"]) == 7
    output = capsys.readouterr().out
    assert output.count("nothing was traced then") == 1
    assert "Where several leaks came from is not known: nothing was traced then" in output
    assert "    Where it came from is not known: another reason" in output


def test_without_a_leak_it_exits_with_0_and_json_has_the_whole(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/leaks"] = (200, report(CACHE))
    assert main(["leaks", "--json"]) == 0
    assert printed(capsys)["verdicts"][0]["kind"] == "cache"
    assert main(["leaks"]) == 0
    assert "no leak among 1 holder; in 0.40 s" in capsys.readouterr().out
    engine.answers["/leaks"] = (200, report())
    assert main(["leaks"]) == 0
    assert "no leak found; in 0.40 s" in capsys.readouterr().out
    silent, gone = (
        "the worker: it has not told what it holds within 1.7 s",
        "the worker: none runs, so nothing",
    )
    for unknown, seen in (((silent,), False), ((gone,), True), ((silent, gone), True)):
        engine.answers["/leaks"] = (200, replace(report(), unknown=unknown))
        assert main(["leaks"]) == 0
        assert ("the worker could not be looked into" in capsys.readouterr().out) != seen


def test_a_mark_is_set_and_what_came_since_is_told(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/leaks/mark"] = (200, Mark(at=2.0))
    assert main(["leaks", "--mark", "on"]) == 0
    assert engine.asked[-1][2] == {"on": True} and "marked at" in capsys.readouterr().out
    by_line = Grown(bytes=64 * MIB, count=2, site=KEPT.site)
    by_holder = Grown(bytes=-32 * MIB, count=-1, holder=KEPT.holder)
    engine.answers["/leaks"] = (
        200,
        report(since=SinceMark(at=2.0, sites=(by_line,), holders=(by_holder,))),
    )
    assert main(["leaks"]) == 0
    output = capsys.readouterr().out
    assert "+64.0 MiB from /srv/plants.py:12 in keep" in output
    assert "-32.0 MiB held by module plants > KEPT" in output
    engine.answers["/leaks"] = (200, report(since=SinceMark(at=2.0, lost="the worker has ended")))
    assert main(["leaks"]) == 0 and "the worker has ended" in capsys.readouterr().out


def test_a_remedy_is_run_by_its_number_and_told_with_what_it_promised(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/leaks"] = (200, report(KEPT, CYCLE))
    engine.answers["/leaks/remedy"] = (200, result())
    assert main(["leaks", "--fix", "2", "--yes"]) == 0
    assert engine.asked[-1][2]["remedy"]["action"] == "collect"
    output = capsys.readouterr().out
    assert "predicted 32.0 MiB, 33.0 MiB came back" in output and "by NVML" in output
    engine.answers["/leaks/remedy"] = (200, result(returned_bytes=MIB, kept=False))
    assert main(["leaks", "--fix", "2", "--yes"]) == 7, "what did not come back is held still"
    assert "predicted 32.0 MiB, only 1.00 MiB came back" in capsys.readouterr().out
    assert main(["leaks", "--fix", "2", "--yes", "--json"]) == 7
    assert printed(capsys)[0]["kept"] is False
    engine.answers["/leaks/remedy"] = (200, result(predicted_bytes=None, kept=None))
    assert main(["leaks", "--fix", "2", "--yes"]) == 0, "nothing was promised"
    failed = replace(DONE, ok=False, error="it would not")
    engine.answers["/leaks/remedy"] = (200, result(kept=False, receipt=failed))
    assert main(["leaks", "--fix", "2", "--yes"]) == 5
    assert "it would not" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--fix", "9", "--yes"], ["--fix", "x", "--yes"], ["--fix", "1"]])
def test_what_cannot_be_fixed_is_refused_and_nothing_is_done(engine: StandIn, words: list[str]) -> None:
    engine.answers["/leaks"] = (200, report(KEPT))
    assert main(["leaks", *words]) == 2
    assert not [asked for asked in engine.asked if asked[1] == "/leaks/remedy"]


def test_all_leaks_are_fixed_by_the_mildest_first_and_the_worker_is_ended_once() -> None:
    unload = Remedy(action="unload", text="", target="wan/dit", predicted_bytes=MIB)
    park = Remedy(action="park", text="", predicted_bytes=None)
    verdicts = [KEPT, CYCLE, CACHE, KEPT, replace(CYCLE, remedy=unload), replace(KEPT, remedy=None)]
    chosen = _all(verdicts)
    assert [(one.action, one.predicted_bytes) for one in chosen] == [
        ("collect", 32 * MIB), ("unload", MIB), ("cleanup", 128 * MIB),
    ]  # fmt: skip
    assert _all([KEPT, replace(KEPT, remedy=park)])[-1].predicted_bytes is None, "a sum needs all of them"


def test_tracing_is_switched_and_told_with_its_cost(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    on = Tracing(on=True, since=1.0, entries=12, limit=20_000, cost_share=0.03)
    engine.answers["/leaks/trace"] = (200, on)
    assert main(["leaks", "--trace", "on"]) == 0
    assert engine.asked[-1][2] == {"on": True}
    output = capsys.readouterr().out
    assert "12 of 20000 entries" in output and "costs 3 % of a denoise step" in output


@pytest.mark.parametrize(
    ("tracing", "told"),
    [
        (Tracing(on=True, since=1.0, device="cpu"), "a step may take three times as long on a CPU"),
        (Tracing(on=True, since=1.0, device="cuda"), "its cost is not measured yet"),
        (Tracing(on=False, device="cpu"), "is off; on, a step takes up to three times as long on a CPU"),
        (Tracing(on=False, device="cuda"), "is off; on, a step takes about 2 % longer on a GPU"),
        (Tracing(on=False, device="cpu", cost_share=0.9), "is off; on, it cost 90 % of a denoise step here"),
        (Tracing(on=False), "tracing is off; it costs nothing\n"),
    ],
)
def test_what_tracing_costs_is_told_before_it_is_measured(
    engine: StandIn, capsys: pytest.CaptureFixture[str], tracing: Tracing, told: str
) -> None:
    engine.answers["/leaks/trace"] = (200, tracing)
    assert main(["leaks", "--trace", "on" if tracing.on else "off"]) == 0
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x.txt", "x", "json"])
def test_a_snapshot_of_no_known_form_is_refused_and_the_forms_are_named(
    engine: StandIn, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["leaks", "--export", name]) == 2
    said = capsys.readouterr().err
    assert ".json" in said and ".pickle" in said and engine.asked == []


def test_a_snapshot_goes_to_the_file_that_this_shell_means(
    engine: StandIn, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "m.pickle")
    engine.answers["/leaks/export"] = (200, ExportedSnapshot(path=path, bytes=MIB, format="pickle"))
    assert main(["leaks", "--export", "m.pickle"]) == 0
    assert engine.asked[-1][2] == {"path": path, "format": "pickle"}
    assert main(["leaks", "--export", "m.json", "--watch"]) == 2


def test_a_job_that_ran_out_of_memory_tells_what_there_was(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(
        id=12, spec=JobSpec(model="wan", prompt="a cat"), status="failed", created_at=1.0,
        error="no memory", error_code="out_of_memory",
    )  # fmt: skip
    engine.answers["/jobs/12"] = (200, job)
    told = OomReport(
        job_id=12, attempt=1, at=1.0, device_id="GPU-0", device_name="H200", stage="denoise", step=1, steps=4,
        component="wan/dit", asked_bytes=MIB, free_bytes=0, total_bytes=MIB, held_bytes=MIB, budget_bytes=MIB,
        estimated_bytes=MIB, parts=(), freeable=(), fits=(), lines=("Job 12 asked for 1.0 MiB.",), message="",
    )  # fmt: skip
    engine.answers["/jobs/12/oom"] = (200, told)
    assert main(["job", "show", "12"]) == 0
    assert "Job 12 asked for 1.0 MiB." in capsys.readouterr().out
    engine.answers["/jobs/12"] = (200, replace(job, error_code="work_failed"))
    assert main(["job", "show", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == 12


def test_a_remedy_is_that_of_the_number_and_not_of_the_place(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person saw may stand elsewhere by now."""
    engine.answers["/leaks"] = (200, report(replace(KEPT, number=7), replace(CYCLE, number=3)))
    engine.answers["/leaks/remedy"] = (200, result())
    assert main(["leaks"]) == 7
    assert "3. leak, tensor: A cycle." in capsys.readouterr().out
    assert main(["leaks", "--fix", "3", "--yes"]) == 0
    assert engine.asked[-1][2]["remedy"]["action"] == "collect"
    before = len(engine.asked)
    assert main(["leaks", "--fix", "1"]) == 2, "and not that there is no terminal to ask on"
    assert "there is no verdict 1 now" in capsys.readouterr().err and len(engine.asked) == before + 1


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        (CACHE, replace(CACHE, bytes=5.2 * 2**30), False),
        (CACHE, replace(CACHE, bytes=6 * 2**30), True),
        (CACHE, replace(CACHE, leak=True), True),
        (replace(CACHE, kind="host_heap"), replace(CACHE, kind="host_heap", bytes=9 * 2**30), False),
        (replace(CACHE, kind="host_heap"), None, False),
        (CACHE, None, True),
    ],
)
def test_what_moves_by_itself_is_no_news(before: Verdict, after: Verdict | None, news: bool) -> None:
    assert _is_news({1: before}, {} if after is None else {1: after}) is news
