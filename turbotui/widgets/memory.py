"""Owns the memory bar: the whole device in one row, to scale, and its legend in bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.findings import headline
from turbotui.format import UNKNOWN, bytes_text, gib, short_bytes
from turbotui.history import OURS, parts_of
from turbotui.text import t
from turbotui.theme import GLYPHS
from turbotui.widgets.lines import Row, View, width_of
from turbotui.widgets.panels import Panel

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.wire import Balance, PartKind

BAR_ORDER = ("weights", "live", "fragmented", "cache", "context", "driver", "others", "unseen")
"""Left to right: ours first, then whose it is not, then what nobody can name."""


def bar_cells(parts: dict[str, int | None], total: int, width: int) -> list[tuple[str, int]]:
    """How many of `width` cells each part takes, `free` last.

    Shares are rounded so that they add up, and whatever is there at all gets one cell: a part
    that can be named must be seen.
    """
    known = [(name, parts.get(name) or 0) for name in BAR_ORDER]
    known = [(name, count) for name, count in known if count > 0]
    if total <= 0 or width <= 0:
        return []
    exact = {name: count / total * width for name, count in known}
    cells = {name: max(1, int(share)) for name, share in exact.items()}
    used = min(width, max(round(sum(exact.values())), len(cells)))
    by_rest = sorted(exact, key=lambda name: exact[name] - cells[name], reverse=True)
    for name in by_rest:
        if sum(cells.values()) >= used:
            break
        cells[name] += 1
    while sum(cells.values()) > width:
        widest = max(cells, key=lambda name: cells[name])
        cells[widest] -= 1
    bar = [(name, cells[name]) for name, _count in known if cells[name] > 0]
    return [*bar, ("free", width - sum(count for _name, count in bar))]


class MemoryPanel(Panel):
    """Framed where there is room, bare bar and legend where there is not."""

    number = 1
    told_by = "probe"
    unwatched_s = 2.0

    def __init__(self, *, id: str, key_of: Callable[[str], str]) -> None:
        super().__init__(id=id)
        self._key_of = key_of

    def inputs(self, view: View) -> tuple[object, ...]:
        device = view.state.device
        found = (view.state.check, view.seen, view.state.own_probe)
        if device is None or device.balance is None:
            return (device, *found)
        # What is drawn of it alone: each reading has another time.
        several = len(view.state.gpus) > 1
        own = view.state.elsewhere
        return (
            device.id, device.balance.parts, device.balance.unexplained_bytes, device.kind, several,
            own and own.index, *found,
        )  # fmt: skip

    def title(self, view: View) -> str:
        device = view.state.device
        if device is None:
            return t("memory.title")
        if device.balance is None:
            return t("memory.unread", name=device.name)
        parts = parts_of(device.balance)
        used = gib(device.total_bytes - (parts.get("free") or 0))
        total = gib(device.total_bytes)
        if device.kind == "cpu":
            ours = bytes_text(sum(parts.get(name) or 0 for name in OURS))
            return t("memory.host", ours=ours, used=used, total=total)
        if len(view.state.gpus) < 2:
            return t("memory.used", used=used, total=total)
        title = t("memory.used_on", index=device.index, used=used, total=total)
        own = view.state.elsewhere
        return title if own is None else f"{title}  ·  {t('gpu.engine_on', index=own.index)}"

    def remark(self, view: View, width: int) -> Row | None:
        device = view.state.device
        if device is None or device.balance is None:
            return None
        row = Row(width)
        if view.state.own_probe:
            texts = [t("memory.own_probe"), t("memory.own_probe_short")]
            row.add(next((text for text in texts if width_of(text) <= width), texts[-1]), view.paint.wait)
        elif (told := headline(view, self._key_of("findings"), self._key_of("leaks"))) is not None:
            texts, style = told
            row.add(next((text for text in texts if width_of(text) <= width), texts[-1]), style)
        elif abs(device.balance.unexplained_bytes) > device.total_bytes // 100:
            rest = bytes_text(device.balance.unexplained_bytes)
            row.add(t("memory.unexplained", bytes=rest), view.paint.muted)
        return row

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        if height >= 4:
            return super().rows(view, width, height)
        rows = [Row(width).add(" ", view.paint.text) for _ in range(2)]
        device = view.state.device
        if device is None or device.balance is None:
            rows[0].add(view.unknown or t("memory.none"), view.paint.muted)
            return rows
        free = parts_of(device.balance).get("free") or 0
        figure = f" {gib(device.total_bytes - free)}/{gib(device.total_bytes)} GiB "
        room = width - 2 - width_of(figure)
        # There is no frame here that could say where the keys go.
        style = view.paint.chosen_tab if self.has_focus else view.paint.text
        rows[0].extend(_bar(view, device.balance, room)).add(" ", view.paint.text).add(figure, style)
        rows[1].extend(_legend(view, device.balance, width - 2, tight=True))
        return rows

    def body(self, view: View, width: int, height: int) -> list[Row]:
        device = view.state.device
        if device is None or device.balance is None:
            return [Row(width).add(t("memory.none"), view.paint.muted)]
        return [
            *(_bar(view, device.balance, width) for _ in range(height - 1)),
            _legend(view, device.balance, width),
        ]


def _bar(view: View, balance: Balance, width: int) -> Row:
    row = Row(width)
    for name, cells in bar_cells(parts_of(balance), balance.total_bytes, width):
        row.add(GLYPHS[name] * cells, view.paint.part[name])
    return row


UNLABELLED: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"context", "driver", "fragmented"}),
    frozenset({"context", "driver", "fragmented", "cache"}),
    frozenset({*BAR_ORDER, "free"}),
)
"""Whose names go first where there is no room: the pattern and the figure stay."""


def _legend(view: View, balance: Balance, width: int, *, tight: bool = False) -> Row:
    parts = parts_of(balance)
    shown = [name for name in BAR_ORDER if name in parts and (parts[name] is None or parts[name])]
    kinds = {part.kind for part in balance.parts if part.bytes is None or part.bytes}
    row = Row(0)
    for hints in (True, False) if not tight else (False,):
        for unlabelled in UNLABELLED:
            row = Row(10 * width)
            for place, name in enumerate([*shown, "free"]):
                row.add(("" if not place else " " if tight else "  "), view.paint.text)
                label = "" if name in unlabelled else t(f"part.{_label(name, kinds)}") + " "
                value = short_bytes(parts.get(name, 0)) if name in parts else UNKNOWN
                glued = tight and not (
                    label and GLYPHS[name].isalpha()
                )  # it would look like the word's first
                row.add(GLYPHS[name], view.paint.part[name]).add("" if glued else " ", view.paint.text)
                row.add(label + value, view.paint.alarm if name == "unseen" else view.paint.text)
                if name == "cache" and hints and view.past_at is None and not view.read_only:
                    row.add(t("memory.frees"), view.paint.muted)
            if row.cells <= width:
                return Row(width).extend(row)
            if hints:
                break
    return Row(width).extend(row)


def _label(name: str, kinds: set[PartKind]) -> str:
    if name == "context" and "runtime" in kinds:
        return "runtime"
    # A ghost is told from what somebody else may hold where nobody can hide from us.
    return "ghost" if name == "unseen" and "ghost" in kinds and "unseen" not in kinds else name
