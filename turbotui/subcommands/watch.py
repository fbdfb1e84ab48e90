"""The commands that look at the engine as a whole: its status, its queue and its log."""

from __future__ import annotations

from collections.abc import Iterable

import click

from engine.wire import (
    DeviceStatus,
    EventFrame,
    Goodbye,
    HostStatus,
    Logged,
    LogLine,
    NurseryStatus,
    Pressure,
    Snapshot,
    Status,
    WorkerStatus,
)
from turbotui.format import STALE_S, bytes_text, clock, pad, seconds, stale_text
from turbotui.subcommands.oneline import show_one_line
from turbotui.subcommands.output import note, print_json_line, say, table
from turbotui.subcommands.session import demo_option, json_option, open_session
from turbotui.subcommands.watching import watch_status
from turbotui.text import known
from turbotui.text.spoken import listed, spoken, tr, word

EVENT_CELLS = 12
"""As wide as the longest name, `full_cleanup`."""
HOST_PERIOD_S = 1.0
"""How often the host is read beside GPUs."""


@click.command()
@click.option(
    "--watch",
    "watch_s",
    type=click.FloatRange(0.1, 3600),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it every so many seconds, 2 unless told, until Ctrl-C; goes on when the engine restarts.",
)
@click.option("--oneline", is_flag=True, help="One line for a tmux status line; starts no engine.")
@click.option("--device", metavar="GPU", help="With --oneline: of which device, by UUID or index.")
@click.option("--tmux", is_flag=True, help="With --oneline: in tmux's colours, and safe in its formats.")
@json_option
@demo_option
def status(
    watch_s: float | None, oneline: bool, device: str | None, tmux: bool, json: bool, demo: bool
) -> None:
    """Show what the device holds, the engine, its workers, every device's memory, and the models."""
    session = open_session(json=json, demo=demo)
    if oneline:
        if watch_s is not None or json:
            raise click.UsageError("--oneline prints one line once; leave --watch and --json out")
        show_one_line(session, device=device, tmux=tmux)
        return
    if device is not None or tmux:
        raise click.UsageError("--device and --tmux go with --oneline")
    if watch_s is not None:
        watch_status(session, watch_s, status_lines)
        return
    answer = session.client().status()
    session.show(answer, lambda: status_lines(answer))


@click.command()
def metrics() -> None:
    """Print the engine's figures as Prometheus reads them; starts no engine.

    \b
    Straight from the socket, which `turbotui status` shows:
      curl --unix-socket SOCKET http://engine/metrics
    For the textfile collector of node_exporter, from a timer:
      turbotui metrics > DIR/turbotui.prom.new && mv DIR/turbotui.prom.new DIR/turbotui.prom
    """
    for line in open_session(json=False).client(start=False).metrics().splitlines():
        say(line)


@click.command("resume")
@json_option
def resume_queue(json: bool) -> None:
    """Start jobs again after failures have held the queue."""
    session = open_session(json=json)
    client = session.client()
    client.resume_queue()
    queue = client.status().engine.queue
    session.show(queue, lambda: [tr("the queue goes on; {waiting} waiting", waiting=queue.waiting)])


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens next.")
@click.option("--memory", is_flag=True, help="Only the lines about memory.")
@click.option(
    "--limit",
    type=click.IntRange(1, 5000),
    default=200,
    show_default=True,
    help="At most so many of the newest lines.",
)
@json_option
@demo_option
def logs(follow: bool, memory: bool, limit: int, json: bool, demo: bool) -> None:
    """Show the engine's log. With --follow and --json: one line of JSON for each of the log's."""
    session = open_session(json=json, demo=demo)
    client = session.client()
    # The engine keeps a bounded ring and gives its oldest lines first.
    lines = [line for line in client.logs(limit=5000) if line.memory or not memory][-limit:]
    if not follow:
        session.show(lines, lambda: map(_log_text, lines))
        return
    shown = 0

    def show(line: LogLine) -> None:
        nonlocal shown
        if line.seq <= shown or (memory and not line.memory):
            return
        shown = line.seq
        print_json_line(line) if json else say(_log_text(line))

    def take(frame: EventFrame) -> None:
        if isinstance(frame.event, Snapshot):
            # What was written between the two requests.
            for line in frame.event.log:
                show(line)
        elif isinstance(frame.event, Logged):
            show(frame.event.line)
        elif isinstance(frame.event, Goodbye):
            note(tr("the engine ends: {reason}", reason=spoken(frame.event.reason)))

    for line in lines:
        show(line)
    client.subscribe(take, on_open=lambda stream: None)


def _log_text(line: LogLine) -> str:
    level = "" if line.level in ("info", "debug") else f"{line.level}: "
    job = tr("  [job {job_id}]", job_id=line.job_id) if line.job_id is not None else ""
    return f"{clock(line.at)} {pad(line.event, EVENT_CELLS)} {level}{line.text}{job}"


def status_lines(status: Status) -> Iterable[str]:
    engine = status.engine
    if status.background is not None:
        yield from map(spoken, status.background.lines)
        used = next((device for device in status.devices if device.in_use), None)
        if used is not None and used.balance is not None and (age := stale_text(used.age_s)):
            yield tr("As it was {age} ago: no newer reading has come", age=age)
        yield ""
    rows = [
        [
            word("engine"),
            tr(
                "{state}, pid {pid}, up {uptime_s}, build {build}",
                state=word(engine.state),
                pid=engine.pid,
                uptime_s=seconds(engine.uptime_s),
                build=engine.build,
            ),
        ],
        ["", tr("home {home}, socket {socket}", home=engine.home, socket=engine.socket)],
        [word("videos"), engine.output_dir],
        [word("nursery"), _nursery_text(engine.nursery)],
        [word("queue"), tr("{waiting} waiting", waiting=engine.queue.waiting)],
    ]
    if engine.problem:
        rows.append([word("problem"), spoken(engine.problem)])
    if engine.queue.held_reason:
        way_on = tr("; `turbotui queue resume` goes on") if engine.queue.resumable else ""
        rows.append(
            [
                "",
                tr(
                    "held: {held_reason}{way_on}", held_reason=spoken(engine.queue.held_reason), way_on=way_on
                ),
            ]
        )
    for worker in status.workers:
        job = tr(" job {job_id}", job_id=worker.job_id) if worker.job_id is not None else ""
        rows.append(
            [
                word("worker"),
                tr(
                    "pid {pid} {state}{job} on {device_id}",
                    pid=worker.pid,
                    state=word(worker.state),
                    job=job,
                    device_id=worker.device_id,
                ),
            ]
        )
        if worker.state == "silent":
            rows.append(["", tr("it says nothing; `turbotui cleanup` ends it and starts another")])
        rows += _worker_rows(worker)
    if status.host is not None:
        rows.append([word("host"), _host_text(status.host)])
    for device in status.devices:
        rows += _device_rows(device)
    rows += [row for pressure in status.pressure for row in _pressure_rows(pressure)]
    for model in status.models:
        if model.active:
            resident = [part for part in model.components if part.state == "resident"]
            size = bytes_text(sum(part.bytes for part in resident))
            rows.append(
                [
                    word("model"),
                    tr(
                        "{name}: {size} of {size2} on the device",
                        name=model.name,
                        size=size,
                        size2=bytes_text(model.bytes),
                    ),
                ]
            )
    yield from table(rows)


def _host_text(host: HostStatus) -> str:
    limit = tr(" (this cgroup's)") if host.limited_by_cgroup else ""
    parts = [
        tr(
            "{available_bytes} of {total_bytes} available{limit}",
            available_bytes=bytes_text(host.available_bytes),
            total_bytes=bytes_text(host.total_bytes),
            limit=limit,
        ),
        tr(
            "{ours_rss_bytes} in our processes (pages that they share count in each)",
            ours_rss_bytes=bytes_text(host.ours_rss_bytes),
        ),
    ]
    if host.registered_bytes:
        parts.append(tr("{registered_bytes} registered", registered_bytes=bytes_text(host.registered_bytes)))
    if host.swapped_bytes:
        parts.append(tr("{swapped_bytes} of ours swapped out", swapped_bytes=bytes_text(host.swapped_bytes)))
    if host.pressure_percent:
        parts.append(
            tr(
                "waiting for memory {pressure_percent:g} % of the time",
                pressure_percent=host.pressure_percent,
            )
        )
    if host.age_s > HOST_PERIOD_S + STALE_S:
        parts.append(tr("as it was {age_s} ago", age_s=seconds(host.age_s)))
    return listed(parts)


def _nursery_text(nursery: NurseryStatus) -> str:
    parts: list[str] = [word(nursery.state)]
    if nursery.elapsed_s is not None:
        took = seconds(nursery.elapsed_s)
        warming = nursery.state == "warming"
        parts.append(tr("for {took}", took=took) if warming else tr("in {took}", took=took))
    return " ".join(parts) + (f": {spoken(nursery.detail)}" if nursery.detail else "")


def _worker_rows(worker: WorkerStatus) -> list[list[str]]:
    """How it allocates, as the allocator itself says, and what it keeps warm."""
    rows = []
    if worker.allocator is not None or worker.allocator_reason is not None:
        why = f"  ({spoken(worker.allocator_reason)})" if worker.allocator_reason else ""
        rows.append([word("allocator"), f"{worker.allocator or tr('tells nothing')}{why}"])
    if worker.warm_refusal:
        rows.append(
            [
                word("warm"),
                tr("no files are registered: {warm_refusal}", warm_refusal=spoken(worker.warm_refusal)),
            ]
        )
    elif worker.warm_bytes is not None:
        rate = (
            tr(", registered at {warm_rate}/s", warm_rate=bytes_text(round(worker.warm_rate)))
            if worker.warm_rate
            else ""
        )
        rows.append(
            [
                word("warm"),
                tr(
                    "{warm_bytes} of weight files in host memory{rate}",
                    warm_bytes=bytes_text(worker.warm_bytes),
                    rate=rate,
                ),
            ]
        )
    return rows


def _pressure_rows(pressure: Pressure) -> list[list[str]]:
    if pressure.level == "none":
        return []
    going = (
        [
            "",
            tr(
                "{size} {target} can go: {command}",
                size=pad(bytes_text(offer.bytes), 9, "right"),
                target=spoken(offer.target),
                command=offer.command,
            ),
        ]
        for offer in pressure.offers
    )
    return [[word("pressure"), f"{word(pressure.level)}: {spoken(pressure.why)}"], *going]


def _device_rows(device: DeviceStatus) -> list[list[str]]:
    index = f" {device.index}" if device.index is not None else ""
    used = tr(" (in use)") if device.in_use else ""
    rows = [
        [
            word("device"),
            listed([f"{device.kind}{index} {device.name}", bytes_text(device.total_bytes)]) + used,
        ]
    ]
    if device.tenant:
        rows.append(["", tr("works for another as well: {tenant}", tenant=spoken(device.tenant))])
    balance = device.balance
    if balance is None:
        return [*rows, ["", tr("not read yet")]]
    if device.fault:
        rows.append(
            [
                "",
                tr(
                    "not read any more: {fault}; as it was {age_s} ago",
                    fault=spoken(device.fault),
                    age_s=seconds(device.age_s or 0),
                ),
            ]
        )
    elif age := stale_text(device.age_s):
        rows.append(["", tr("as it was {age} ago: no newer reading has come", age=age)])
    if device.card is not None and device.card.xid is not None:
        rows.append(
            [
                "",
                tr(
                    "{xid_text}, {xid_age_s} ago",
                    xid_text=spoken(device.card.xid_text or ""),
                    xid_age_s=seconds(device.card.xid_age_s or 0),
                ),
            ]
        )
    if device.card is not None and device.card.recovery_action not in (None, "none"):
        rows.append(
            [
                "",
                tr(
                    "the driver advises: {recovery_action}",
                    recovery_action=spoken(device.card.recovery_action),
                ),
            ]
        )
    moving = "" if balance.coherent else tr(", moving")
    for part in balance.parts:
        # A part that cannot be known says why; one that is empty says nothing.
        if part.bytes is None or part.bytes:
            unknown = f": {spoken(part.reason)}" if part.bytes is None and part.reason else ""
            pid = f" {part.pid}" if part.pid is not None else ""
            told = (
                f"{bytes_text(part.bytes):>9} {known(f'part.{part.kind}', part.kind)} {part.label}".rstrip()
            )
            rows.append(["", f"{told}{pid}{unknown}"])
    rows.append(
        [
            "",
            tr(
                "{unexplained_bytes} unexplained{moving}",
                unexplained_bytes=pad(bytes_text(balance.unexplained_bytes), 9, "right"),
                moving=moving,
            ),
        ]
    )
    return rows
