"""Owns the panel of processes: who holds memory on the device, ours and others'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.findings import about_device, about_process, severity_style, unattributed_word
from turbotui.format import UNKNOWN, cell_width, short_bytes
from turbotui.history import parts_of
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from engine.wire import DeviceProcess


def short_age(duration: float | None) -> str:
    """`12s`, `5m`, `11h`, `3d`: only the largest unit."""
    if duration is None or duration < 0:
        return UNKNOWN
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if duration >= length:
            return f"{int(duration // length)}{unit}"
    return f"{int(duration)}s"


class CardPanel(ListPanel):
    """Biggest first; below the processes what the driver counts and no process owns."""

    number = 5
    told_by = "probe"

    def inputs(self, view: View) -> tuple[object, ...]:
        device = view.state.device
        return (
            device
            and (
                device.id,
                device.processes,
                device.balance and device.balance.parts,
                device.kind,
                device.tenant,
            ),
            len(view.state.gpus) > 1,
            int(view.wall) // 10,
            view.state.check,
            view.state.own_probe,
        )

    def title(self, view: View) -> str:
        device = view.state.device
        if device is not None and len(view.state.gpus) > 1:
            return t("card.title_gpu", index=device.index)
        return t("card.title_host") if device is not None and device.kind == "cpu" else t("card.title")

    def remark(self, view: View, width: int) -> Row | None:
        device = view.state.device
        if device is None or not device.tenant:
            return None
        return Row(width).add(spoken(device.tenant), view.paint.wait)

    def keys(self, view: View) -> list[Key]:
        device = view.state.device
        if device is None:
            return []
        ordered = sorted(device.processes, key=lambda process: -(process.bytes or 0))
        keys: list[Key] = [process.pid for process in ordered]
        if device.balance is not None and device.kind == "cuda":
            parts = parts_of(device.balance)
            keys += [name for name in ("unseen", "driver") if name in parts and parts[name] != 0]
        return keys

    def heading(self, view: View, width: int) -> list[Row]:
        muted = view.paint.muted
        pid, who = self._columns(view)
        row = Row(width).field("PID", pid, muted, right=True).add(" ", muted)
        row.field(t("card.who"), who, muted).field("GiB", 6, muted, right=True)
        return [row.field(t("card.age"), 5, muted, right=True).add("  " + t("card.what"), muted)]

    @property
    def chosen_process(self) -> DeviceProcess | None:
        """The process that the cursor is on; None on a row that is no process."""
        device = self.view.state.device if self.view is not None else None
        processes = () if device is None else device.processes
        return next((process for process in processes if process.pid == self.chosen), None)

    def _columns(self, view: View) -> tuple[int, int]:
        """Cells for pid and owner: as wide as they are, the rest is for what it is."""
        processes = view.state.device.processes if view.state.device else ()
        pid = max([5, *(len(str(process.pid)) for process in processes)])
        who = max([cell_width(t("part.unseen")), *(cell_width(process.user or "") for process in processes)])
        return pid, min(who, 8 if self.size.width < 60 else 16)

    def nothing(self, view: View, width: int) -> list[Row]:
        if view.state.device is None:
            return [Row(width).add(t("card.unread"), view.paint.muted)]
        return [Row(width).add(t("card.none"), view.paint.muted)]

    def row(self, view: View, key: Key, width: int) -> Row:
        paint, device = view.paint, view.state.device
        pid_cells, who_cells = self._columns(view)
        assert device is not None
        if isinstance(key, str):
            assert device.balance is not None
            style = paint.alarm if key == "unseen" else paint.muted
            word = unattributed_word(device) if key == "unseen" else key
            found = key == "unseen" and about_device(view.state.check, device.id) is not None
            row = (
                Row(width)
                .field("?" if key == "unseen" else "-", pid_cells, style, right=True)
                .add("!" if found else " ", style)
            )
            row.field(t(f"part.{word}"), who_cells, style)
            row.field(short_bytes(parts_of(device.balance).get(key)), 6, style, right=True)
            return row.add(" " * 7 + t(f"card.{word}"), style)
        process = next(process for process in device.processes if process.pid == key)
        ours = process.ours is not None
        style = paint.text
        age = None if process.started_at is None else view.wall - process.started_at
        row = Row(width).field(str(process.pid), pid_cells, paint.muted, right=True)
        found_here = about_process(view.state.check, process)
        row.add("!" if found_here else " ", severity_style(paint, found_here[0]) if found_here else style)
        row.field(process.user or UNKNOWN, who_cells, style)
        row.field(short_bytes(process.bytes), 6, style, right=True)
        row.field(short_age(age), 5, paint.muted, right=True).add("  ", style)
        if ours:
            return row.add(t(f"card.our_{process.ours}"), paint.ours)
        known = f"{spoken(process.program)} " if process.program else ""
        if process.tenant:
            row.add(f"{spoken(process.tenant)}  ", paint.bold)
        return row.add(known + (process.command or process.name or UNKNOWN), style)
