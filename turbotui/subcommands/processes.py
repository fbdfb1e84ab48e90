"""The commands about processes on the GPUs, anybody's: list them, and end one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import NoReturn

import click

from engine.errors import InvalidRequest, NotNow
from engine.wire import DeviceProcess, DeviceStatus, KillRequest, SpareRequest, Status
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, seconds, stale_text
from turbotui.subcommands.output import note, table, titles
from turbotui.subcommands.receipts import show_receipt
from turbotui.subcommands.session import INTERRUPTED_EXIT, json_option, open_session
from turbotui.subcommands.steps import steps_shown
from turbotui.text.spoken import spoken, tr, word

UNKNOWN = "-"


@click.command()
@json_option
def ps(json: bool) -> None:
    """List every process on a GPU, whoever's: its owner, memory, age, container and command.

    With --json: the processes of each device, by the device's id.
    """
    session = open_session(json=json)
    devices = session.client().status().devices
    session.show({device.id: device.processes for device in devices}, lambda: _lines(devices))


@click.command()
@click.argument("pid", type=int)
@click.option("--yes", "-y", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@click.option("--other-user", is_flag=True, help="Also if it is another user's.")
@click.option(
    "--grace",
    type=click.FloatRange(0, 600),
    default=5.0,
    show_default=True,
    help="Seconds from SIGTERM to SIGKILL.",
)
@json_option
def kill(pid: int, yes: bool, other_user: bool, grace: float, json: bool) -> None:
    """End the process PID, which holds a GPU: SIGTERM, then SIGKILL, and the proof of what came back.

    Only ever that one process, and only if it is still the one that is shown. Ctrl-C under the
    countdown stops that: no SIGKILL is sent. The engine's own
    worker is ended by `turbotui cleanup` or `turbotui park`.
    """
    session = open_session(json=json)
    client = session.client()
    found = _find(client.status(), pid)
    if not found or found[0][1].ours is not None:
        # Without a start time nothing is ever ended: the engine says what stands against it.
        show_receipt(session, client.kill(KillRequest(pid=pid)))
        return
    process = found[0][1]
    if not yes and not sys.stdin.isatty():
        raise InvalidRequest(f"kill ends process {pid} and there is no terminal to ask on; add --yes")
    note(_sentence(found))
    if not yes:
        click.confirm(tr("End it?"), abort=True, err=True)
        others = process.user is not None and process.user != client.hello().user
        if others and not other_user:
            note(tr("it belongs to {user}, who may still need it", user=process.user))
            other_user = click.confirm(tr("End another user's process?"), abort=True, err=True)
    request = KillRequest(pid=pid, start_time=process.start_time, other_user=other_user, grace_s=grace)
    with steps_shown(client, "kill"):
        try:
            receipt = client.kill(request)
        except KeyboardInterrupt:
            _spare(client, pid)
    show_receipt(session, receipt)


def _spare(client: HttpClient, pid: int) -> NoReturn:
    """Ctrl-C under the countdown: no SIGKILL, if it is not too late."""
    try:
        client.spare(SpareRequest(pid=pid))
        note(
            tr(
                "the countdown is stopped: process {pid} got SIGTERM and may still end; SIGKILL is not sent",
                pid=pid,
            )
        )
    except NotNow:
        note(tr("too late to stop: `turbotui ps` shows whether process {pid} has ended", pid=pid))
    raise click.exceptions.Exit(INTERRUPTED_EXIT)


def _find(status: Status, pid: int) -> list[tuple[DeviceStatus, DeviceProcess]]:
    """The process on each GPU that it is on."""
    return [
        (device, process)
        for device in status.devices
        if device.kind == "cuda"
        for process in device.processes
        if process.pid == pid
    ]


def _sentence(found: list[tuple[DeviceStatus, DeviceProcess]]) -> str:
    """What would be ended: who, where, how much, how old."""
    process = found[0][1]
    where = ", ".join(
        tr("{size} on GPU {index}", size=bytes_text(there.bytes), index=device.index)
        for device, there in found
    )
    inside = tr(", in {container}", container=process.container) if process.container else ""
    return tr(
        "ends process {pid} of {user}, {where}, {process} old{inside}: {process2}",
        pid=process.pid,
        user=process.user or tr("an unknown user"),
        where=where,
        process=_age(process),
        inside=inside,
        process2=_command(process),
    )


def _lines(devices: Sequence[DeviceStatus]) -> Iterable[str]:
    rows = [
        [
            device.id if device.index is None else str(device.index),
            str(process.pid),
            process.user or UNKNOWN,
            bytes_text(process.bytes),
            _age(process),
            process.container or UNKNOWN,
            _command(process),
        ]
        for device in devices
        for process in device.processes
    ]
    if not rows:
        yield tr("no process is on a GPU that the engine reads")
    else:
        heading = titles("gpu", "pid", "owner", "memory", "age", "container", "command")
        yield from table([heading, *rows], right=frozenset({1, 3, 4}))
    for device in devices:
        name = word("host") if device.kind == "cpu" else tr("GPU {index}", index=device.index)
        if device.processes_fault:
            yield tr(
                "{name}: its processes are not known: {processes_fault}",
                name=name,
                processes_fault=spoken(device.processes_fault),
            )
        if age := stale_text(device.age_s):
            yield tr("{name}: as it was {age} ago; no newer reading has come", name=name, age=age)


def _age(process: DeviceProcess) -> str:
    return seconds(None if process.started_at is None else max(0.0, time.time() - process.started_at))


def _command(process: DeviceProcess) -> str:
    known = (
        f"turbotui {word(process.ours)}" if process.ours else spoken(process.tenant or process.program or "")
    )
    mark = f"[{known}] " if known else ""
    return mark + (process.command or process.name or UNKNOWN)
