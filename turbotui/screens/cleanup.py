"""Owns the dialog before a hard cleanup: whose worker ends, what is lost and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text
from turbotui.screens.confirm import ConfirmPanel, ConfirmScreen
from turbotui.text import t
from turbotui.text.spoken import word
from turbotui.widgets.lines import View
from turbotui.widgets.log import began
from turbotui.widgets.models import resident_bytes
from turbotui.workers import held_bytes

if TYPE_CHECKING:
    from engine.wire import DeviceStatus, WorkerStatus

RELOAD = "reload"
EMPTY = "empty"
"""How the person wants the fresh worker."""
RESIDENT_ROWS = 4


def cleanup_dialog(view: View, worker: WorkerStatus, where: str | None) -> ConfirmScreen:
    """Before `worker` is ended; dismissed with RELOAD, EMPTY or False."""
    state = view.state
    device = next((found for found in state.devices if found.id == worker.device_id), None)
    facts = [
        (t("restart.where"), where or (state.hello.host if state.hello else "")),
        (t("cleanup.device"), _device_text(worker, device)),
        (t("restart.worker"), f"pid {worker.pid}  {word(worker.state)}"),
        (t("restart.since"), began(worker.started_at, view.wall)),
    ]
    resident = [
        (f"{model.name}/{part.name}", part.bytes)
        for model in state.models
        for part in model.components
        if part.state == "resident"
    ]
    for place, (label, size) in enumerate(resident[:RESIDENT_ROWS]):
        facts.append((t("cleanup.resident") if place == 0 else "", f"{bytes_text(size):>9}  {label}"))
    if len(resident) > RESIDENT_ROWS:
        facts.append(("", t("list.more", count=len(resident) - RESIDENT_ROWS)))
    back = held_bytes(worker, state.devices)
    facts.append((t("cleanup.back"), t("cleanup.unknown") if back is None else f"{bytes_text(back):>9}"))
    loss = t("cleanup.loses") if worker.job_id is None else t("cleanup.loses_job", id=worker.job_id)
    if state.waiting:
        loss += t("cleanup.waiting", count=len(state.waiting))
    answers: list[tuple[str, object]] = [(t("cleanup.yes"), EMPTY)]
    if resident:
        again = bytes_text(sum(map(resident_bytes, state.models)))
        answers = [(t("cleanup.reload", size=again), RELOAD), (t("cleanup.empty"), EMPTY)]
    panel = ConfirmPanel(title=t("cleanup.title"), facts=tuple(facts), loss=loss, answers=tuple(answers))
    return ConfirmScreen(panel)


def _device_text(worker: WorkerStatus, device: DeviceStatus | None) -> str:
    """The identity that no other card has, and the number that people say."""
    if device is None or device.kind == "cpu":
        return worker.device_id
    index = "" if device.index is None else f"  ({t('cleanup.gpu', index=device.index)})"
    return f"{worker.device_id}{index}"
