"""Owns the one line of `turbotui status --oneline`: the device, the model and the job at a glance.

Made for a tmux status line, which asks every few seconds: it starts no engine, waits for none, and
costs two questions over the socket.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import click

from engine.errors import EngineError, EngineUnavailable, NotFound
from engine.wire import DeviceStatus, Job, Status, nobodys_bytes
from turbotui.client.http import HttpClient
from turbotui.client.launch import find_engine
from turbotui.format import STALE_S, cell_width, clip, clip_middle, gib, percent, seconds
from turbotui.sanitize import clean
from turbotui.subcommands.output import say
from turbotui.subcommands.session import Session
from turbotui.text.spoken import tr, word

CELLS = 60
MODEL_CELLS = 18
TIMEOUT_S = 1.0
"""A status line must not hang on an engine that is stopped."""
NO_ENGINE = "turbotui: no engine"

Tone = Literal["plain", "wait", "alarm"]
TMUX = {"plain": "", "wait": "#[fg=yellow]", "alarm": "#[fg=red]"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A few words of the line; `rank` says which go first where there is no room, the highest."""

    text: str
    tone: Tone = "plain"
    rank: int = 0


def show_one_line(session: Session, *, device: str | None, tmux: bool) -> None:
    """Print the line; exits 3 with one that says so where no engine answers.

    Raises:
        NotFound: no such device is known.
    """
    try:
        if session.box is not None:
            client = session.box.connect()
        elif (holder := find_engine(session.paths)) is not None:
            client = HttpClient(holder.socket, timeout=TIMEOUT_S)
        else:
            raise EngineUnavailable(NO_ENGINE)
        status = client.status()
        job = _running_job(client, status)
    except EngineUnavailable as error:
        say(tr(NO_ENGINE))
        raise click.exceptions.Exit(EngineUnavailable.exit_code) from error
    say(one_line(status, job, device=device, tmux=tmux))


def _running_job(client: HttpClient, status: Status) -> Job | None:
    job_id = next((worker.job_id for worker in status.workers if worker.job_id is not None), None)
    if job_id is not None:
        with suppress(EngineError):  # it may have ended since
            return client.job(job_id)
    return None


def one_line(status: Status, job: Job | None, *, device: str | None = None, tmux: bool = False) -> str:
    """The line, at most `CELLS` cells; with `tmux` the colours come on top.

    Raises:
        NotFound: no such device is known.
    """
    chosen = _find_device(status, device)
    pieces = [piece for piece in _pieces(status, chosen, job) if piece.text]
    while len(pieces) > 1 and sum(cell_width(piece.text) + 1 for piece in pieces) - 1 > CELLS:
        pieces.remove(max(pieces, key=lambda piece: piece.rank))
    if not tmux:
        return " ".join(clip(piece.text, CELLS) for piece in pieces)
    return " ".join(_in_tmux(piece) for piece in pieces)


def _in_tmux(piece: Piece) -> str:
    text = clip(piece.text, CELLS).replace("#", "##")  # else tmux takes a name for a format of its own
    return f"{TMUX[piece.tone]}{text}#[default]" if TMUX[piece.tone] else text


def _find_device(status: Status, wanted: str | None) -> DeviceStatus | None:
    if wanted is None:
        return next((device for device in status.devices if device.in_use), None)
    for device in status.devices:
        if wanted in (device.id, str(device.index)) or (
            len(wanted) >= 8 and device.id.startswith((wanted, f"GPU-{wanted}"))
        ):
            return device
    known = ", ".join(device.id for device in status.devices) or "none yet"
    raise NotFound(f"there is no device {wanted!r}; known: {known}")


def _pieces(status: Status, device: DeviceStatus | None, job: Job | None) -> list[Piece]:
    ours = device is None or device.in_use
    pieces = []
    if status.engine.problem:
        pieces.append(Piece(text=f"!{word('engine')}", tone="alarm"))
    if device is None:
        pieces.append(Piece(text=word(status.engine.state), tone="wait"))
    else:
        pieces += _device_pieces(status, device)
    if not ours:
        return pieces
    active = next((model.name for model in status.models if model.active), None)
    if active is not None:
        pieces.append(Piece(text=clip_middle(clean(active), MODEL_CELLS), rank=4))
    if job is not None:
        done = job.progress
        told = f" {percent(done.fraction).replace(' ', '')}" if done is not None else ""
        pieces.append(Piece(text=tr("job {id}{told}", id=job.id, told=told), rank=1))
    elif any(worker.state == "silent" for worker in status.workers):
        pieces.append(Piece(text=word("silent"), tone="wait", rank=1))
    if status.engine.queue.held_reason:
        pieces.append(Piece(text=word("held"), tone="wait", rank=1))
    if status.engine.queue.waiting:
        pieces.append(Piece(text=f"+{status.engine.queue.waiting}", rank=2))
    return pieces


def _device_pieces(status: Status, device: DeviceStatus) -> list[Piece]:
    name = word("host") if device.kind == "cpu" else f"GPU{'' if device.index is None else device.index}"
    total = gib(device.total_bytes, 0)
    if device.balance is None:
        return [Piece(text=f"{name} -/{total}G", tone="wait")]
    free = next((part.bytes or 0 for part in device.balance.parts if part.kind == "free"), 0)
    unseen = nobodys_bytes(device.balance) or 0
    stale = device.age_s is None or device.age_s > STALE_S
    levels = {pressure.device_id: pressure for pressure in status.pressure}
    pressure = levels.get(device.id)
    pressed = pressure is not None and pressure.level != "none"
    used = f"{name} {gib(device.total_bytes - free)}/{total}G"
    pieces = [Piece(text=used, tone="wait" if stale or pressed else "plain")]
    if stale:
        age = word("stale") if device.age_s is None else f"~{_age(device.age_s)}"
        pieces.append(Piece(text=age, tone="wait"))
    if pressure is not None and pressed:
        share = max(pressure.used_share, pressure.predicted_share or 0.0)
        pieces.append(Piece(text=f"{word(pressure.level)} {100 * share:.0f}%", tone="wait"))
    if device.utilisation_percent is not None:
        pieces.append(Piece(text=f"{device.utilisation_percent}%", rank=3))
    if device.temperature_c is not None:
        pieces.append(Piece(text=f"{device.temperature_c}C", rank=5))
    if unseen >= 2**28:
        pieces.append(Piece(text=f"?{gib(unseen)}", tone="alarm", rank=1))
    return pieces


def _age(age_s: float) -> str:
    """Whole seconds, as `4s`: a tenth more says nothing."""
    whole = math.floor(age_s)
    return f"{whole}s" if whole < 60 else seconds(whole)
