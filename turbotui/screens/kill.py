"""Owns the dialogs before a process on the card is ended: who it is, whose, and what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import UNKNOWN, bytes_text
from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.text import t
from turbotui.widgets.lines import View, wrapped
from turbotui.widgets.log import began

if TYPE_CHECKING:
    from engine.wire import DeviceProcess

COMMAND_CELLS = 52
COMMAND_ROWS = 3


def kill_dialog(view: View, process: DeviceProcess, where: str | None) -> ConfirmScreen:
    """Before `process` gets its SIGTERM; dismissed with True or False."""
    others = is_others(view, process)
    answer = t("kill.theirs", user=process.user or UNKNOWN) if others else t("kill.yes")
    return ConfirmScreen(
        ConfirmPanel(
            title=t("kill.title"),
            facts=_facts(view, process, where),
            loss=t("kill.loses", grace=t("kill.grace")),
            answers=((answer, True),),
        )
    )


def other_user_dialog(view: View, process: DeviceProcess, where: str | None) -> ConfirmScreen:
    """The second question, where it is another user's; dismissed with True or False."""
    return ConfirmScreen(
        ConfirmPanel(
            title=t("kill.other_title", user=process.user or UNKNOWN),
            facts=_facts(view, process, where),
            loss=t("kill.other_loses", user=process.user or UNKNOWN),
            answers=((t("kill.other_yes"), True),),
        )
    )


def is_others(view: View, process: DeviceProcess) -> bool:
    """Whether it belongs to somebody else, as far as is known."""
    hello = view.state.hello
    return process.user is None or hello is None or process.user != hello.user


def _facts(view: View, process: DeviceProcess, where: str | None) -> tuple[tuple[str, str], ...]:
    state = view.state
    facts = [(t("restart.where"), where or (state.hello.host if state.hello else ""))]
    facts += [
        (t("kill.holds"), f"{bytes_text(held.bytes)}  GPU {device.index}  {device.id}")
        for device in state.devices
        for held in device.processes
        if device.kind == "cuda" and (held.pid, held.start_time) == (process.pid, process.start_time)
    ]
    since = UNKNOWN
    if process.started_at is not None:
        since = began(process.started_at, view.wall)
    facts += [
        (t("kill.process"), f"pid {process.pid}  {process.name}"),
        (t("kill.owner"), process.user or UNKNOWN),
        (t("restart.since"), since),
    ]
    if process.container:
        facts.append((t("kill.container"), process.container))
    lines = wrapped(process.command or UNKNOWN, COMMAND_CELLS)[:COMMAND_ROWS]
    facts += [(t("kill.command") if place == 0 else "", line) for place, line in enumerate(lines)]
    return tuple(facts)
