"""The command that follows one process on a GPU, anybody's: its bytes as they change, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from engine.errors import NotFound
from engine.wire import DeviceProcess, DeviceStatus, EventFrame, Goodbye, MemorySampled, Snapshot
from turbotui.client.base import Stream
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, clock, seconds
from turbotui.subcommands.output import note, print_json_line, say
from turbotui.subcommands.session import json_option, open_session
from turbotui.text.spoken import spoken, tr

LEAST_CHANGE_BYTES = 2**20
LEAST_PAUSE_S = 0.2
"""Between two lines of one device, so that a load is a few lines and not a hundred."""
BACK_S = 2.0
"""How long after its end the device's free memory is watched for what comes back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """One line: what the process holds on a device, or (`left`) that it holds nothing there any more."""

    at: float
    """Wall clock, of the reading."""
    device_id: str
    pid: int
    program: str | None
    bytes: int | None
    change_bytes: int | None
    """Since the line before; None for the first and where the driver does not tell."""
    rate: float | None
    """Bytes a second over that time."""
    peak_bytes: int | None
    left: bool = False
    came_back_bytes: int | None = None
    """Of a leaving: what the device had more free, where it can be told."""
    elapsed_s: float
    """Since it was first seen."""


@dataclass(kw_only=True, slots=True)
class _Place:
    """One device that the process is on."""

    told: Moved | None = None
    last: DeviceProcess | None = None
    free_before: int | None = None
    gone_at: float | None = None
    gone_bytes: int | None = None


@dataclass(kw_only=True)
class Follower:
    """Takes samples of devices and gives lines; knows nothing of where either goes."""

    pid: int
    tell: Callable[[Moved], None]
    start_time: float | None = None
    first_at: float | None = None
    peak: int | None = None
    program: str | None = None
    _places: dict[str, _Place] = field(default_factory=dict)

    @property
    def seen(self) -> bool:
        """Whether it was on any device."""
        return self.first_at is not None

    @property
    def ended(self) -> bool:
        """Whether it was there, has left every device, and what came back was told."""
        return self.seen and not self._places

    def take(self, device: DeviceStatus) -> None:
        """A device was read."""
        at = device.balance.taken_at if device.balance is not None else time.time()
        process = next((process for process in device.processes if self._is_it(process)), None)
        place = self._places.get(device.id)
        if process is not None:
            if place is None:
                place = self._places[device.id] = _Place()
            place.gone_at = None
            self._holds(device, place, process, at)
        elif place is not None and place.last is not None:
            self._gone(device, place, place.last, at)

    def _is_it(self, process: DeviceProcess) -> bool:
        if process.pid != self.pid:
            return False
        if self.start_time is None and process.start_time is not None:
            self.start_time = process.start_time
        return process.start_time is None or process.start_time == self.start_time

    def _holds(self, device: DeviceStatus, place: _Place, process: DeviceProcess, at: float) -> None:
        if self.first_at is None:
            self.first_at = at
        self.program = process.program or process.name or None
        if process.bytes is not None:
            self.peak = max(self.peak or 0, process.bytes)
        place.last, place.free_before = process, _free(device)
        told = place.told
        if told is None:
            self._say(device, place, process.bytes, at)
            return
        moved = process.bytes != told.bytes
        if process.bytes is not None and told.bytes is not None:
            moved = abs(process.bytes - told.bytes) >= LEAST_CHANGE_BYTES
        if moved and at - told.at >= LEAST_PAUSE_S:
            self._say(device, place, process.bytes, at)

    def _gone(self, device: DeviceStatus, place: _Place, last: DeviceProcess, at: float) -> None:
        """Tell its end once its bytes are back, or after `BACK_S` in which they were not."""
        if place.gone_at is None:
            place.gone_at, place.gone_bytes = at, last.bytes
        free, before = _free(device), place.free_before
        back = None if free is None or before is None else max(0, free - before)
        whole = last.bytes is not None and back is not None and back >= last.bytes - LEAST_CHANGE_BYTES
        if whole or at - place.gone_at >= BACK_S:
            del self._places[device.id]
            self._say(device, place, 0, at, left=True, back=back)

    def _say(
        self,
        device: DeviceStatus,
        place: _Place,
        num_bytes: int | None,
        at: float,
        *,
        left: bool = False,
        back: int | None = None,
    ) -> None:
        told = place.told
        change = None if told is None or told.bytes is None or num_bytes is None else num_bytes - told.bytes
        took = at - told.at if told is not None else 0.0
        place.told = Moved(
            at=at,
            device_id=device.id,
            pid=self.pid,
            program=self.program,
            bytes=num_bytes,
            change_bytes=change,
            rate=round(change / took, 1) if change is not None and took > 0 and not left else None,
            peak_bytes=self.peak,
            left=left,
            came_back_bytes=back,
            elapsed_s=round(at - (self.first_at or at), 3),
        )
        self.tell(place.told)


@click.command()
@click.argument("pid", type=click.IntRange(min=1))
@json_option
def watch(pid: int, json: bool) -> None:
    """Follow what the process PID holds on the GPUs, whoever's it is, until it ends.

    A line for each change of 1 MiB or more, with its rate; at its end what it held and what came
    back. With --json a line of JSON for each. Ctrl-C leaves it; the process is never touched.
    """
    session = open_session(json=json)
    follow(
        session.client(), Follower(pid=pid, tell=print_json_line if json else lambda moved: say(_line(moved)))
    )


def follow(client: HttpClient, follower: Follower) -> None:
    """Feed the engine's samples to `follower` until the process has ended.

    Raises:
        NotFound: the process is on no device that the engine reads.
        EngineUnavailable: the engine went away.
    """
    opened: list[Stream] = []

    def take(frame: EventFrame) -> None:
        event = frame.event
        if isinstance(event, Snapshot):
            for device in event.status.devices:
                follower.take(device)
            if not follower.seen:
                opened[0].close()
        elif isinstance(event, MemorySampled):
            follower.take(event.device)
        elif isinstance(event, Goodbye):
            note(tr("the engine ends: {reason}", reason=spoken(event.reason)))
        if follower.ended:
            opened[0].close()

    client.subscribe(take, on_open=opened.append)
    if not follower.seen:
        raise NotFound(
            f"process {follower.pid} is on no GPU that the engine reads; `turbotui ps` lists what is"
        )


def _free(device: DeviceStatus) -> int | None:
    if device.balance is None:
        return None
    return next((part.bytes for part in device.balance.parts if part.kind == "free"), None)


def _line(moved: Moved) -> str:
    who = f"{moved.pid} {moved.program}" if moved.program else str(moved.pid)
    head = tr("{at} {who} on {device_id}", at=clock(moved.at), who=who, device_id=moved.device_id)
    if moved.left:
        held = bytes_text(-moved.change_bytes) if moved.change_bytes is not None else tr("an unknown size")
        back = tr("what came back is not known")
        if moved.came_back_bytes is not None:
            back = tr("{came_back_bytes} more are free", came_back_bytes=bytes_text(moved.came_back_bytes))
        return tr(
            "{head}: left after {elapsed_s}; held {held}, at most {peak_bytes}; {back}",
            head=head,
            elapsed_s=seconds(moved.elapsed_s),
            held=held,
            peak_bytes=bytes_text(moved.peak_bytes),
            back=back,
        )
    change = ""
    if moved.change_bytes is not None and moved.rate is not None:
        sign = "+" if moved.change_bytes >= 0 else "-"
        change = f"  {sign}{bytes_text(abs(moved.change_bytes))}  {bytes_text(round(moved.rate))}/s"
    return f"{head}  {bytes_text(moved.bytes)}{change}"
