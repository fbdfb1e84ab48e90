"""The commands that start, stop and find the engine itself.

Every other command starts an engine when none runs; of these only `start`, `restart` and `run` do.
"""

from __future__ import annotations

import os
import sys

import click

from engine.errors import EngineError, EngineUnavailable
from engine.paths import find_paths, private_dir
from engine.version import VERSION, build_id
from engine.wire import WIRE_VERSION, LockHolder, StopRequest
from turbotui.client.http import HttpClient
from turbotui.client.launch import (
    connect,
    engine_command,
    find_engine,
    refuse_borrowed_home,
    restart_engine,
    stop_engine,
)
from turbotui.format import seconds
from turbotui.subcommands.output import note
from turbotui.subcommands.session import Session, json_option, open_session
from turbotui.text.spoken import counted, spoken, tr, word

after_job_option = click.option("--after-job", is_flag=True, help="Let the running job finish first.")


@click.command()
@json_option
def start(json: bool) -> None:
    """Start the engine in the background, or say which one runs."""
    session = open_session(json=json)
    began: list[bool] = []
    client = connect(session.paths, on_start=lambda: began.append(True))
    status = client.status().engine
    verb = tr("started") if began else tr("runs already")
    session.show(
        status,
        lambda: [
            tr("engine {verb}: pid {pid}, socket {socket}", verb=verb, pid=status.pid, socket=status.socket)
        ],
    )


@click.command()
@after_job_option
@json_option
def stop(after_job: bool, json: bool) -> None:
    """End the engine; the queue stays on disk. With --after-job this does not wait for the end."""
    session = open_session(json=json)
    holder = _running(session)
    if after_job:
        HttpClient(holder.socket).stop(StopRequest(after_job=True))
        session.show(holder, lambda: [tr("engine {pid} ends after the running job", pid=holder.pid)])
        return
    stop_engine(session.paths, holder)
    session.show(holder, lambda: [tr("engine {pid} has ended", pid=holder.pid)])


@click.command()
@after_job_option
@json_option
def restart(after_job: bool, json: bool) -> None:
    """End the engine if one runs, and start one of this build; the queue, drafts and settings stay."""
    session = open_session(json=json)
    for line in _running_now(session, after_job=after_job):
        note(line)
    status = restart_engine(session.paths, after_job=after_job).status().engine
    session.show(
        status,
        lambda: [tr("engine started: pid {pid}, socket {socket}", pid=status.pid, socket=status.socket)],
    )


@click.command()
@json_option
def status(json: bool) -> None:
    """Show the engine that runs; exits 3 when none does."""
    session = open_session(json=json)
    engine = HttpClient(_running(session).socket).status().engine
    up = seconds(engine.uptime_s)
    session.show(
        engine,
        lambda: [
            tr(
                "engine {state}: pid {pid}, up {up}, socket {socket}",
                state=word(engine.state),
                pid=engine.pid,
                up=up,
                socket=engine.socket,
            )
        ],
    )


@click.command()
def run() -> None:
    """Run the engine in the foreground, until it is stopped or interrupted."""
    paths = find_paths()
    refuse_borrowed_home(paths)
    os.chdir(private_dir(paths.state))
    os.environ["PYTHONSAFEPATH"] = "1"
    command = engine_command()
    os.execv(command[0], command)


@click.command()
@json_option
def version(json: bool) -> None:
    """Show the version of turbotui, and of the engine if one runs."""
    session = open_session(json=json)
    holder = find_engine(session.paths)
    facts = {
        "version": VERSION,
        "build": build_id(),
        "wire": WIRE_VERSION,
        "python": ".".join(map(str, sys.version_info[:3])),
        "engine_build": holder.build if holder else None,
    }
    session.show(
        facts,
        lambda: [
            tr(
                "turbotui {facts}, wire {WIRE_VERSION}, Python {facts2}",
                facts=facts["build"],
                WIRE_VERSION=WIRE_VERSION,
                facts2=facts["python"],
            ),
            tr("engine {build}, pid {pid}", build=holder.build, pid=holder.pid)
            if holder
            else tr("no engine runs"),
        ],
    )


def _running_now(session: Session, *, after_job: bool) -> list[str]:
    """What a restart meets: the engine that ends, its job, those that wait."""
    holder = find_engine(session.paths)
    if holder is None:
        return [tr("no engine runs; one is started")]
    try:
        status = HttpClient(holder.socket).status()
    except EngineError as error:
        return [tr("engine {pid} does not tell what runs: {error}", pid=holder.pid, error=spoken(str(error)))]
    lines = [
        tr(
            "ends engine {pid}, build {build}, up {uptime_s}",
            pid=holder.pid,
            build=holder.build,
            uptime_s=seconds(status.engine.uptime_s),
        )
    ]
    for worker in status.workers:
        if worker.job_id is None:
            lines.append(
                tr("worker {pid} is {state} and ends with it", pid=worker.pid, state=word(worker.state))
            )
        elif after_job:
            lines.append(tr("waiting for job {job_id} to end", job_id=worker.job_id))
        else:
            lines.append(
                tr("job {job_id} is interrupted, and begins anew with the next engine", job_id=worker.job_id)
            )
    if status.engine.queue.waiting:
        waiting = counted(status.engine.queue.waiting, "job waits, and is there", "jobs wait, and are there")
        lines.append(tr("{waiting} after it", waiting=waiting))
    return lines


def _running(session: Session) -> LockHolder:
    holder = find_engine(session.paths)
    if holder is None:
        raise EngineUnavailable("no engine runs; start one with `turbotui engine start`")
    return holder
