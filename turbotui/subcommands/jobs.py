"""The commands that look at jobs and change their place in the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from engine.errors import DoesNotFit, NotFound, OutOfMemory, WorkerNotStarted
from engine.wire import TERMINAL_STATES, Job, JobMove, QueueStatus
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, clock, percent, seconds, time_left
from turbotui.subcommands.output import table, titles
from turbotui.subcommands.quant import quant_text
from turbotui.subcommands.session import demo_option, job_id_argument, json_option, one_of, open_session
from turbotui.text.spoken import listed, spoken, tr, word

OUT_OF_MEMORY = frozenset({OutOfMemory.code, DoesNotFit.code})
"""Codes of jobs that may have a report of their memory."""


@click.command("jobs")
@click.option("--all", is_flag=True, help="Also every job that has ended.")
@json_option
@demo_option
def list_jobs(all: bool, json: bool, demo: bool) -> None:
    """List the jobs that wait, run or ended lately."""
    session = open_session(json=json, demo=demo)
    client = session.client()
    jobs = client.jobs(all=all)
    session.show(jobs, lambda: [*job_table(jobs), *held_line(client, jobs)])


@click.command()
@job_id_argument
@json_option
def show(job_id: int, json: bool) -> None:
    """Show one job whole."""
    session = open_session(json=json)
    client = session.client()
    job = client.job(job_id)
    session.show(job, lambda: [*job_lines(job), *held_line(client, [job]), *memory_lines(client, job)])


@click.command()
@job_id_argument
@json_option
def cancel(job_id: int, json: bool) -> None:
    """Cancel a job; a running one ends at its next step."""
    _change(json, lambda client: client.cancel(job_id))


@click.command()
@job_id_argument
@json_option
def retry(job_id: int, json: bool) -> None:
    """Queue a job again that failed, was cancelled or was interrupted."""
    _change(json, lambda client: client.retry(job_id))


@click.command()
@job_id_argument
@json_option
def duplicate(job_id: int, json: bool) -> None:
    """Queue a new job that asks for the same."""
    _change(json, lambda client: client.duplicate(job_id))


@click.command()
@job_id_argument
@json_option
def hold(job_id: int, json: bool) -> None:
    """Keep a waiting job from starting."""
    _change(json, lambda client: client.hold(job_id, held=True))


@click.command()
@job_id_argument
@json_option
def release(job_id: int, json: bool) -> None:
    """Let a held job start again when its turn comes."""
    _change(json, lambda client: client.hold(job_id, held=False))


@click.command()
@job_id_argument
@click.option("--position", type=click.IntRange(min=1), help="Its new place among those that wait, from 1.")
@click.option("--priority", type=int, help="Its new priority; higher runs first.")
@json_option
def move(job_id: int, position: int | None, priority: int | None, json: bool) -> None:
    """Move a waiting job within the queue."""
    one_of("--position and --priority", position, priority)
    _change(json, lambda client: client.move(job_id, JobMove(position=position, priority=priority)))


def _change(json: bool, act: Callable[[HttpClient], Job]) -> None:
    session = open_session(json=json)
    job = act(session.client())
    session.show(job, lambda: [job_line(job)])


def memory_lines(client: HttpClient, job: Job) -> Iterable[str]:
    """What there was when the job ran out of memory, where it did; else nothing."""
    if job.error_code not in OUT_OF_MEMORY:
        return []
    try:
        report = client.out_of_memory(job.id)
    except NotFound:  # too long ago, or refused before it began
        return []
    return ["", *(spoken(line) for line in report.lines)]


def held_line(client: HttpClient, jobs: Iterable[Job]) -> list[str]:
    """That the queue is held, where one of these jobs waits for it; else nothing."""
    if not any(is_waiting(job) for job in jobs):
        return []
    held = held_text(client.status().engine.queue)
    return [] if held is None else [held]


def is_waiting(job: Job) -> bool:
    return job.status in ("queued", "waiting_memory")


def held_text(queue: QueueStatus) -> str | None:
    """Why the queue starts nothing, and the way on where there is one; None where it goes on."""
    if queue.held_reason is None:
        return None
    way_on = tr("; `turbotui queue resume` goes on") if queue.resumable else ""
    return tr(
        "the queue is held: {held_reason}{way_on}", held_reason=spoken(queue.held_reason), way_on=way_on
    )


def job_line(job: Job) -> str:
    """A job's standing in one sentence."""
    if is_waiting(job):
        place = tr(" at place {position}", position=job.position) if job.position else ""
        held = tr(", held until released") if job.held else ""
        waits = tr(", waits for {waits_for}", waits_for=spoken(job.waits_for)) if job.waits_for else ""
        return tr("job {id} waits{place}{held}{waits}", id=job.id, place=place, held=held, waits=waits)
    if job.status == "done":
        return tr("job {id} is done: {output}", id=job.id, output=job.output or "-")
    why = f": {spoken(job.error)}" if job.error else ""
    return tr("job {id} is {status}{why}", id=job.id, status=word(job.status), why=why)


def job_table(jobs: list[Job]) -> Iterable[str]:
    """Jobs as aligned lines, or a line that says there are none."""
    if not jobs:
        return [tr("no jobs; `turbotui generate` queues one")]
    rows = [titles("ID", "STATE", "MODEL", "AT", "PROGRESS", "PROMPT")]
    for job in jobs:
        state = (
            tr("{status}, held", status=word(job.status))
            if job.held and job.status not in TERMINAL_STATES
            else word(job.status)
        )
        at = clock(job.finished_at or job.started_at or job.created_at)
        rows.append([str(job.id), state, job.spec.model, at, _progress(job), _about(job)])
    return table(rows, right=frozenset({0}))


def job_lines(job: Job) -> Iterable[str]:
    """Everything about one job, a line each."""
    spec = job.spec
    ratio = tr("in the image's shape") if spec.adaptive else spec.aspect_ratio
    shape = (spec.resolution, ratio, spec.frames and tr("{frames} frames", frames=spec.frames))
    facts = {
        "state": job_line(job),
        "model": spec.model,
        "prompt": spec.prompt,
        "image": spec.image,
        "shape": listed(str(part) for part in shape if part) or tr("the model's default"),
        "steps": spec.steps,
        "seed": spec.seed,
        "samples": tr("{count} side by side", count=spec.samples) if spec.samples > 1 else None,
        "priority": spec.priority or None,
        "residency": spec.residency,
        "attention": None if spec.attention == "auto" else spec.attention,
        "top-k": spec.sla_topk,
        "doubt": spoken(job.doubt) if job.doubt else None,
        "quant": quant_text(job),
        "progress": _progress(job) if job.progress else None,
        "created": clock(job.created_at),
        "started": clock(job.started_at) if job.started_at else None,
        "finished": clock(job.finished_at) if job.finished_at else None,
        "took": _took(job),
        "error": spoken(job.error) if job.error and is_waiting(job) else None,
        "attempts": job.attempt if job.attempt > 1 else None,
        "peak": tr("{expected_peak_bytes} expected", expected_peak_bytes=bytes_text(job.expected_peak_bytes))
        if job.expected_peak_bytes
        else None,
        "output": job.output,
        "manifest": job.manifest,
        "copy of": job.duplicate_of,
    }
    return table([[word(name), str(value)] for name, value in facts.items() if value is not None])


def _about(job: Job) -> str:
    """What the job is, or why it ended badly or did not begin."""
    tells = job.status in TERMINAL_STATES or job.error_code == WorkerNotStarted.code
    return spoken(job.error) if job.error and tells else job.spec.prompt


def _progress(job: Job) -> str:
    if job.progress is None:
        return tr("place {position}", position=job.position) if job.position else (_took(job) or "")
    progress = job.progress
    step = f" {progress.step}/{progress.steps}" if progress.steps else ""
    left = tr(", {eta_s} left", eta_s=time_left(progress.eta_s)) if progress.eta_s is not None else ""
    return f"{word(progress.stage)}{step} {percent(progress.fraction)}{left}"


def _took(job: Job) -> str | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return seconds(max(0.0, job.finished_at - job.started_at))
