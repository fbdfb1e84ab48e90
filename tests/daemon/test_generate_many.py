"""`turbotui generate --from FILE`, on a real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.wire import JobSpec
from tests.daemon.live import LiveEngine
from tests.daemon.test_commands import run

SMALL = ("--model", "wan-demo-small", "--frames", "5", "--steps", "1")


@pytest.fixture
def busy(live: LiveEngine, long: JobSpec) -> LiveEngine:
    """A job runs, so that others wait."""
    live.client.submit(long)
    return live


def cancel_all(live: LiveEngine) -> None:
    jobs = [job for job in live.client.jobs() if job.status in ("queued", "running", "waiting_memory")]
    for job in reversed(jobs):
        live.client.cancel(job.id)
    for job in jobs:
        live.settle(job.id)


def test_every_line_is_queued_once_however_often_it_is_asked_for(busy: LiveEngine, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("# 夜\n一只猫在雪地里跑\r\n\na lighthouse\n".encode("gbk"))
    many = ("generate", "--from", "prompts.txt", *SMALL)
    code, out, err = run(busy, tmp_path, *many, "--dry-run")
    assert (code, err) == (0, "") and "2 jobs would be queued" in out
    before = len(busy.client.jobs())
    code, out, err = run(busy, tmp_path, *many)
    assert (code, err) == (0, "") and "2 jobs queued" in out and "一只猫在雪地里跑" in out
    code, out, err = run(busy, tmp_path, *many)
    assert code == 0 and "0 jobs queued, 2 there already" in out and out.count("was there") == 2
    assert len(busy.client.jobs()) == before + 2
    code, out, err = run(busy, tmp_path, *many, "--again", "--samples", "2", "--json")
    answer = json.loads(out)
    assert answer["queued"] == 4 and len(set(answer["job_ids"])) == 4
    seeds = [busy.client.job(job_id).spec.seed for job_id in answer["job_ids"]]
    assert seeds == [0, 1, 0, 1]
    cancel_all(busy)


def test_a_bad_line_is_named_and_nothing_is_queued(live: LiveEngine, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "model": "wan-demo-small"}, {"prompt": "b", "frames": 6}, {"promt": "c"}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\x1b[2J\n")
    before = len(live.client.jobs(all=True))
    code, out, err = run(live, tmp_path, "generate", "--from", "jobs.jsonl", "--model", "wan-demo-small")
    assert (code, out) == (2, "") and "\x1b" not in err
    for said in (
        "line 2: frames is 6",
        "line 3: a job has no field promt",
        "line 4: it is no JSON",
        "3 lines",
    ):
        assert said in err
    assert len(live.client.jobs(all=True)) == before
    code, _out, err = run(live, tmp_path, "generate", "--from", "jobs.jsonl")
    assert code == 2 and "line 2: no model is named" in err


@pytest.mark.parametrize(
    "arguments",
    [
        "--from x --prompt y",
        "--from x --wait",
        "--prompt x --again",
        "--prompt x --dry-run",
        "--prompt x --samples 2 --wait",
        "--prompt x --together",
        "--prompt x --samples 9 --together",
        "--from nowhere.txt",
    ],
)
def test_options_that_contradict_each_other_are_refused(
    live: LiveEngine, tmp_path: Path, arguments: str
) -> None:
    code, out, err = run(live, tmp_path, "generate", *arguments.split(), *SMALL)
    assert (code, out) == (2, "") and err


def test_samples_of_one_prompt_are_jobs_with_seeds_in_a_row(busy: LiveEngine, tmp_path: Path) -> None:
    code, out, _err = run(
        busy, tmp_path, "generate", "-p", "x", *SMALL, "--seed", "3", "--samples", "2", "--json"
    )
    assert code == 0
    assert [busy.client.job(job_id).spec.seed for job_id in json.loads(out)["job_ids"]] == [3, 4]
    cancel_all(busy)


def test_samples_together_are_one_job(busy: LiveEngine, tmp_path: Path) -> None:
    code, out, _err = run(
        busy, tmp_path, "generate", "-p", "x", *SMALL, "--seed", "3", "--samples", "2", "--together", "--json"
    )
    assert code == 0
    job = json.loads(out)
    assert (job["spec"]["seed"], job["spec"]["samples"]) == (3, 2)
    cancel_all(busy)
