"""The commands that give back more than weights, and those about files kept warm in host memory."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from engine.errors import InvalidRequest
from engine.wire import CleanupRequest, Status, WarmRequest
from turbotui.format import bytes_text
from turbotui.subcommands.full_cleanup import NO_WISHES, Wishes, clean_up_all
from turbotui.subcommands.output import note
from turbotui.subcommands.receipts import show_receipt
from turbotui.subcommands.session import INTERRUPTED_EXIT, demo_option, json_option, open_session
from turbotui.subcommands.steps import steps_shown
from turbotui.subcommands.targets import split_target
from turbotui.text.spoken import tr
from turbotui.workers import held_bytes


@click.command()
@json_option
@demo_option
def park(json: bool, demo: bool) -> None:
    """Take everything off the device, the worker and its driver context too; refused under a job."""
    session = open_session(json=json, demo=demo)
    show_receipt(session, session.client().park())


@click.command()
@click.option("--no-reload", is_flag=True, help="Leave the device empty; else what was resident is loaded.")
@click.option("--all", "everything", is_flag=True, help="Everything of ours, and start no worker again.")
@click.option("--also", multiple=True, type=int, metavar="PID", help="With --all: end this process too.")
@click.option("--other-user", is_flag=True, help="With --all: also other users' that you pick.")
@click.option("--reset", is_flag=True, help="With --all: reset the GPU in use after.")
@click.option("--confirm", type=int, metavar="INDEX", help="With --reset: the index of that GPU.")
@click.option("--move-outputs", metavar="DIR", help="With --all: move videos into a new folder below DIR.")
@click.option("--move-logs", metavar="DIR", help="With --all: move logs into a new folder below DIR.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@json_option
@demo_option
def cleanup(
    no_reload: bool,
    everything: bool,
    also: tuple[int, ...],
    other_user: bool,
    reset: bool,
    confirm: int | None,
    move_outputs: str | None,
    move_logs: str | None,
    yes: bool,
    json: bool,
    demo: bool,
) -> None:
    """End the worker, prove that all of it is gone, and start a fresh one.

    Helps where the worker hangs, too. A running job is interrupted; `turbotui job retry` runs it again.
    With --all back to the baseline: shows first what would be done, and deletes nothing.
    """
    session = open_session(json=json, demo=demo)
    wishes = Wishes(
        also=also, other_user=other_user, reset=reset, confirm=confirm, move_outputs=move_outputs,
        move_logs=move_logs, yes=yes,
    )  # fmt: skip
    if everything:
        if no_reload:
            raise InvalidRequest("--all starts no worker, so there is nothing to leave out by --no-reload")
        clean_up_all(session, wishes)
        return
    if replace(wishes, yes=False) != NO_WISHES:
        raise InvalidRequest("these options belong to `turbotui cleanup --all`; add --all, or leave them out")
    if not yes and not sys.stdin.isatty():
        raise InvalidRequest("cleanup ends the worker and there is no terminal to ask on; add --yes")
    client = session.client()
    for line in _ended_by_cleanup(client.status()):
        note(line)
    if not yes:
        click.confirm(tr("End it?"), abort=True, err=True)
    with steps_shown(client, "cleanup"):
        try:
            receipt = client.cleanup(CleanupRequest(reload=not no_reload))
        except KeyboardInterrupt:
            note(tr("the cleanup goes on; `turbotui cancel-switch` gives up its reload"))
            raise click.exceptions.Exit(INTERRUPTED_EXIT) from None
    show_receipt(session, receipt)


def _ended_by_cleanup(status: Status) -> list[str]:
    """What a cleanup costs, a line for each worker."""
    lines = []
    for worker in status.workers:
        back = held_bytes(worker, status.devices)
        size = tr("bytes unknown") if back is None else tr("{back} come back", back=bytes_text(back))
        job = tr("; job {job_id} is interrupted", job_id=worker.job_id) if worker.job_id is not None else ""
        lines.append(
            tr(
                "ends worker {pid} on {device_id}: {size}{job}",
                pid=worker.pid,
                device_id=worker.device_id,
                size=size,
                job=job,
            )
        )
    # A worker that is being started may have no process yet, which a cleanup waits for.
    return lines or [tr("no worker runs; one that is starting would be ended once it is there")]


@click.command()
@click.argument("target", metavar="MODEL[/COMPONENT]")
@json_option
@demo_option
def warm(target: str, json: bool, demo: bool) -> None:
    """Keep the files of a model or component in host memory, from where they load at the bus's rate."""
    session = open_session(json=json, demo=demo)
    try:
        receipt = session.client().warm(_request(target))
    except KeyboardInterrupt:
        note(tr("the engine goes on with it; `turbotui drop-warm {target}` lets go of it", target=target))
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None
    show_receipt(session, receipt)


@click.command("drop-warm")
@click.argument("target", metavar="[MODEL[/COMPONENT]]", default="")
@json_option
@demo_option
def drop_warm(target: str, json: bool, demo: bool) -> None:
    """Let go of weight files in host memory, and say what really went."""
    session = open_session(json=json, demo=demo)
    show_receipt(session, session.client().drop_warm(_request(target)))


def _request(target: str) -> WarmRequest:
    model, component = split_target(target)
    return WarmRequest(model=model, component=component)
