"""`turbotui cleanup --all`: back to the baseline, shown and asked first, process by process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import click

from engine.errors import InvalidRequest, NotFound, Refused
from engine.wire import (
    CleanupCandidate,
    FullCleanupPlan,
    FullCleanupRequest,
    KillRequest,
    ResetRequest,
)
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, seconds
from turbotui.subcommands.output import note
from turbotui.subcommands.receipts import show_receipt
from turbotui.subcommands.reset import plan_lines as reset_lines
from turbotui.subcommands.session import Session
from turbotui.subcommands.steps import steps_shown
from turbotui.text.spoken import counted, spoken, tr

GRACE_S = 2.0
"""From SIGTERM to SIGKILL: the whole shall take less than 10 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """The command's options."""

    also: tuple[int, ...]
    other_user: bool
    reset: bool
    confirm: int | None
    move_outputs: str | None
    move_logs: str | None
    yes: bool


NO_WISHES = Wishes(
    also=(), other_user=False, reset=False, confirm=None, move_outputs=None, move_logs=None, yes=False
)


def clean_up_all(session: Session, wishes: Wishes) -> None:
    """Show, ask, do, and tell what is still held."""
    if not wishes.yes and not sys.stdin.isatty():
        raise InvalidRequest(
            "cleanup --all ends processes and there is no terminal to ask on; add --yes, and --also PID for "
            "each process that is not the engine's"
        )
    if session.demo and wishes.reset:
        raise InvalidRequest("a demonstration resets no GPU; leave --reset out")
    wishes = replace(
        wishes, move_outputs=_absolute(wishes.move_outputs), move_logs=_absolute(wishes.move_logs)
    )
    client = session.client()
    plan = client.full_cleanup_plan()
    for line in plan_lines(plan, wishes):
        note(line)
    also = _picked(plan, wishes)
    reset = _reset(client, plan, wishes) if wishes.reset else None
    expected = (plan.worker_bytes or 0) + sum(candidate.bytes or 0 for candidate in also)
    if not wishes.yes:
        click.confirm(
            tr("Do it? About {expected} come back.", expected=bytes_text(expected)), abort=True, err=True
        )
    request = FullCleanupRequest(
        also=tuple(map(_kill, also)),
        reset=reset,
        move_outputs=wishes.move_outputs,
        move_logs=wishes.move_logs,
    )
    with steps_shown(client, "full_cleanup"):
        receipt = client.full_cleanup(request)
    show_receipt(session, receipt)


def plan_lines(plan: FullCleanupPlan, wishes: Wishes) -> Iterable[str]:
    """What it would do, a line each."""
    if plan.worker_pid is None:
        yield tr("no worker runs")
    else:
        job = tr("; job {job_id} is interrupted", job_id=plan.job_id) if plan.job_id is not None else ""
        yield tr(
            "ends worker {worker_pid}: {worker_bytes} come back{job}",
            worker_pid=plan.worker_pid,
            worker_bytes=bytes_text(plan.worker_bytes),
            job=job,
        )
    if plan.waiting:
        yield tr(
            "holds the queue of {waiting}; `turbotui queue resume` goes on with it",
            waiting=counted(plan.waiting, "job"),
        )
    if plan.nursery_pid is not None:
        yield tr(
            "replaces nursery {nursery_pid}, {nursery_bytes} of host memory",
            nursery_pid=plan.nursery_pid,
            nursery_bytes=bytes_text(plan.nursery_bytes),
        )
    yield tr("the engine itself stays, with its queue, drafts and settings")
    for candidate in plan.candidates:
        yield _candidate_text(candidate)
    if wishes.move_outputs is not None:
        videos = counted(plan.videos, "video")
        yield tr(
            "moves {videos}, {videos_bytes}, below {move_outputs}",
            videos=videos,
            videos_bytes=bytes_text(plan.videos_bytes),
            move_outputs=wishes.move_outputs,
        )
    if wishes.move_logs is not None:
        yield tr(
            "moves {logs}, {logs_bytes}, below {move_logs}",
            logs=counted(plan.logs, "log"),
            logs_bytes=bytes_text(plan.logs_bytes),
            move_logs=wishes.move_logs,
        )


def _absolute(folder: str | None) -> str | None:
    """A folder as the caller means it: the engine runs in another one."""
    return None if folder is None else os.path.abspath(os.path.expanduser(folder))


def _candidate_text(candidate: CleanupCandidate) -> str:
    process = candidate.process
    age = seconds(None if process.started_at is None else max(0.0, time.time() - process.started_at))
    inside = tr(", in {container}", container=process.container) if process.container else ""
    inside += f", {spoken(process.tenant)}" if process.tenant else ""
    why = (
        tr("; it would not be ended: {refusal}", refusal=spoken(candidate.refusal))
        if candidate.refusal
        else ""
    )
    return tr(
        "on the GPU: process {pid} of {user}, {size}, {age} old{inside}: {command}{why}",
        pid=process.pid,
        user=process.user or tr("an unknown user"),
        size=bytes_text(candidate.bytes),
        age=age,
        inside=inside,
        command=process.command or process.name or "?",
        why=why,
    )


def _picked(plan: FullCleanupPlan, wishes: Wishes) -> list[CleanupCandidate]:
    """Those that --also names, and those that the person says yes to; another user's only as he insists."""
    by_pid = {candidate.process.pid: candidate for candidate in plan.candidates}
    picked = []
    for pid in dict.fromkeys(wishes.also):
        candidate = by_pid.get(pid)
        if candidate is None:
            raise NotFound(f"process {pid} is on no GPU, or is the engine's own; `turbotui ps` lists them")
        if not candidate.mine and not wishes.other_user:
            owner = candidate.process.user or tr("an unknown user")
            raise Refused(f"process {pid} belongs to {owner}; add --other-user if you mean it all the same")
        if candidate.refusal:
            raise Refused(candidate.refusal)
        picked.append(candidate)
    if wishes.yes:
        return picked
    for pid, candidate in by_pid.items():
        may = candidate.refusal is None and (candidate.mine or wishes.other_user)
        if may and pid not in wishes.also:
            owner = "" if candidate.mine else f" of {candidate.process.user or 'an unknown user'}"
            if click.confirm(
                tr("End process {pid}{owner} too?", pid=pid, owner=owner), default=False, err=True
            ):
                picked.append(candidate)
    return picked


def _kill(candidate: CleanupCandidate) -> KillRequest:
    process = candidate.process
    return KillRequest(
        pid=process.pid, start_time=process.start_time, other_user=not candidate.mine, grace_s=GRACE_S
    )


def _reset(client: HttpClient, plan: FullCleanupPlan, wishes: Wishes) -> ResetRequest:
    """The reset of the GPU in use, confirmed by its index."""
    found = client.reset_plan(plan.device_id or "cpu")
    for line in reset_lines(found):
        note(line)
    # Those who hold it now are what the cleanup may end: the reset itself looks again.
    blocked = [condition.name for condition in found.blocked_by if condition.name != "holders"]
    if blocked:
        raise Refused(f"GPU {found.index} cannot be reset, see above: {', '.join(blocked)}; nothing was done")
    confirm = wishes.confirm
    if confirm is None and not wishes.yes:
        question = tr(
            "A reset loses everything on GPU {index}. Type its index to reset it as well", index=found.index
        )
        confirm = click.prompt(question, type=int, err=True)
    if confirm != found.index:
        raise InvalidRequest(
            f"--reset needs --confirm {found.index}, the index of the GPU; got {confirm}; nothing was done"
        )
    return ResetRequest(device_id=found.device_id, index=found.index)
