"""Owns the last rows but the keys: the tabs of a small terminal, the running job and the last receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.events import Click

from turbotui.findings import headline
from turbotui.format import bytes_text, clip, seconds
from turbotui.past.axis import cursor_label
from turbotui.text import key_names, known, t
from turbotui.text.spoken import spoken, word
from turbotui.widgets.lines import LinePanel, Row, View, width_of
from turbotui.widgets.models import back_in_s, previous_model, unloaded
from turbotui.widgets.panels import as_of_text
from turbotui.widgets.queue import one_line

if TYPE_CHECKING:
    from rich.style import Style

    from engine.wire import ActionProgressed, Receipt
    from turbotui.state import Look
    from turbotui.theme import Paint

TABS = ("memory", "history", "models", "queue", "card", "log")
"""Panels by number."""

PROOFS = {
    "nvml-process": "NVML",
    "device-delta": "device",
    "allocator": "allocator",
    "process-rss": "RSS",
    "page-cache": "page cache",
    "process-exit": "exit",
}
STRONG_PROOFS = frozenset({"nvml-process", "process-rss", "page-cache"})
"""Those by which the kernel or the driver itself counts the bytes."""


class Tabs(LinePanel):
    """Which panel is in the middle."""

    def __init__(self, *, id: str, on_choose: Callable[[str], None], key_of: Callable[[str], str]) -> None:
        super().__init__(id=id)
        self._key_of = key_of
        self.chosen = "history"
        self._on_choose = on_choose
        self._spans: list[tuple[int, int, str]] = []

    def inputs(self, view: View) -> tuple[object, ...]:
        device = view.state.device
        return (self.chosen, len(view.state.waiting), self._told(view), device and device.kind)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint, row = view.paint, Row(width).add(" ", view.paint.text)
        self._spans = []
        for number, tab in enumerate(TABS, 1):
            if tab == "memory":
                continue
            start = row.cells
            count = f" {len(view.state.waiting)}" if tab == "queue" and view.state.waiting else ""
            host = tab == "card" and view.state.device is not None and view.state.device.kind == "cpu"
            label = f"{t('tab.processes' if host else f'tab.{tab}')}{count}"
            if tab == self.chosen:
                row.add(f" {number} {label} ", paint.chosen_tab)
            else:
                row.add(f" {number} ", paint.key).add(f"{label} ", paint.muted)
            self._spans.append((start, row.cells, tab))
            row.add(" ", paint.text)
        if (told := self._told(view)) is not None:
            texts, style = told
            fitting = next((text for text in texts if width_of(text) < row.left), None)
            if fitting is not None:
                row.tail(fitting + " ", style)
        return [row]

    def _told(self, view: View) -> tuple[list[str], Style] | None:
        return headline(view, self._key_of("findings"), self._key_of("leaks"))

    def on_click(self, event: Click) -> None:
        for start, end, tab in self._spans:
            if start <= event.x < end:
                self._on_choose(tab)


class RunningLine(LinePanel):
    """The running job, where the queue is not in sight; where nothing is to run, what to press.

    Args:
        why_not: Why no job can be written now, or None.
    """

    def __init__(
        self, *, id: str, key_of: Callable[[str], str], why_not: Callable[[Look], str | None]
    ) -> None:
        super().__init__(id=id)
        self._key_of = key_of
        self._why_not = why_not

    def inputs(self, view: View) -> tuple[object, ...]:
        state = view.state
        return (state.jobs, state.engine and state.engine.queue, not state.models, view.making_demo)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        moment = as_of_text(view)
        if view.past_at is not None:
            moment = cursor_label(view.past_at, view.cursor.width_s, view.now)
        if not moment:
            return [self._row(view, width)]
        row = Row(width).add(f" {moment}", view.paint.wait)
        return [row.extend(self._row(view, width - row.cells))]

    def _row(self, view: View, width: int) -> Row:
        paint, state = view.paint, view.state
        waiting = len(state.waiting)
        tail = "  " + t("queue.wait_short", count=waiting) + " " if waiting else ""
        if state.running is not None:
            row = one_line(view, state.running, width - max(1, width_of(tail)))
            return Row(width).extend(row).tail(tail, paint.muted)
        if state.engine is None:
            unknown = view.unknown or view.untold
            return Row(width).add(f" {unknown}" if unknown else "", paint.muted)
        held = state.engine.queue.held_reason
        if held:
            return Row(width).add(" " + t("queue.held", reason=spoken(held)), paint.wait)
        if waiting:
            return Row(width).add(f" {t('queue.idle_waiting', count=waiting)}", paint.muted)
        return self._next(view, Row(width))

    def _next(self, view: View, row: Row) -> Row:
        """What there is to do where nothing runs and nothing waits."""
        paint = view.paint
        if view.look != "live" or self._why_not(view.look) is not None:
            return row.add(f" {t('queue.idle')}", paint.muted)
        if view.state.models:
            row.add(f" {t('queue.idle')}  ", paint.muted).add(self._key_of("add"), paint.key)
            return row.add(f" {t('queue.writes')}", paint.muted)
        if view.making_demo:
            return row.add(f" {t('models.making')}", paint.wait)
        row.add(f" {t('models.none')}  ", paint.text)
        row.add(self._key_of("found"), paint.key).add(f"{t('models.found')}  ", paint.text)
        return row.add(self._key_of("demo"), paint.key).add(t("models.demo"), paint.text)


Tone = Literal["plain", "wait", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """A sentence of the console's own for the last line."""

    text: str
    tone: Tone = "plain"
    lasts_s: float | None = None
    """How long what it says is true, where that is shorter than it would stand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """A question to the engine that has no answer yet."""

    label: str
    since: float
    """Monotonic."""
    give_up_key: str | None = None
    """What to press to give it up, where that can be done."""


SHARED_ACTIONS = frozenset({"switch", "cleanup", "park", "kill", "reset", "full_cleanup"})
"""Of which every console shows how far they have come, whoever asked; a job's own loads are in its row."""


class ReceiptLine(LinePanel):
    """What is being done with its seconds, else what was said last, else the newest receipt."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.notice: Notice | None = None
        self.pending: Pending | None = None
        self.notes_key = ""
        """What shows the receipt in full."""
        self.switch_key = ""
        """What lists the models."""

    def inputs(self, view: View) -> tuple[object, ...]:
        elapsed = None if self.pending is None else int((view.monotonic - self.pending.since) * 5)
        state = view.state
        return (state.receipt, state.steps, self.notice, self.pending, elapsed, state.lost_reason, state.jobs,
                state.models)  # fmt: skip

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        paint = view.paint
        row = Row(width).add(" ", paint.text)
        if self.pending is not None:
            return [self._pending_row(row, self.pending, view)]
        if self.notice is not None:
            style = {"plain": paint.text, "wait": paint.wait, "error": paint.error}[self.notice.tone]
            prefix = "! " if self.notice.tone == "error" else ""
            return [row.add(prefix + self.notice.text, style)]
        if view.look == "lost":
            jobs = len(view.state.waiting) + (view.state.running is not None)
            if not view.read_only:
                row.add(t("receipt.lost"), paint.bold)
            if jobs:
                row.add("  " + t("receipt.safe", count=jobs), paint.text)
            return [row.add(f"  {spoken(view.state.lost_reason)}", paint.muted)]
        if view.state.steps and view.state.steps[0].action in SHARED_ACTIONS:
            return [_others_row(row, view.state.steps, paint)]
        if view.state.receipt is not None:
            tails = self._undo(view, width)
            return [receipt_row(paint, view.state.receipt, row, notes_key=self.notes_key, tails=tails)]
        return [row.add(t("receipt.none"), paint.muted)]

    def _undo(self, view: View, width: int) -> tuple[Row, ...]:
        """How the model that was just unloaded comes back, and in how long; the longest words first."""
        receipt, paint = view.state.receipt, view.paint
        if receipt is None or receipt.action != "unload" or not receipt.ok or receipt.notes or view.read_only:
            return ()
        # The list of models begins with the one used last that is not active.
        first = previous_model(view.state.models)
        if first is None or first.name != receipt.target or not unloaded(first):
            return ()
        took = back_in_s(first)
        again = t("receipt.undo") if took is None else t("receipt.undo_in", took=seconds(took))
        return tuple(
            Row(width)
            .add(t("receipt.undo_by") + " ", paint.muted)
            .add(key_names(f"{self.switch_key} ↵"), paint.key)
            .add(f" {words}".rstrip() + " ", paint.muted)
            for words in (again, "")
        )

    def _pending_row(self, row: Row, pending: Pending, view: View) -> Row:
        paint = view.paint
        elapsed = view.monotonic - pending.since
        row.add("◌ ", paint.wait).add(pending.label, paint.text)
        if elapsed >= 0.2:
            row.add(f"  {elapsed:.1f} s", paint.muted)
            if pending.give_up_key is not None:
                row.add(f"  {pending.give_up_key}", paint.key)
                words = f" {t('doing.gives_up')}"
                # The step under way goes before them.
                if width_of(words) + 2 + width_of(_ticked(view.state.steps, 0)) <= row.left:
                    row.add(words, paint.muted)
        ticked = _ticked(view.state.steps, row.left - 2)
        if not ticked and pending.give_up_key is not None and view.state.running is not None:
            # Where a job runs, its end is what it waits for.
            return row.add("  " + t("switch.after", id=view.state.running.id), paint.muted)
        return row.add("  " + ticked, paint.muted) if ticked else row


def _others_row(row: Row, steps: tuple[ActionProgressed, ...], paint: Paint) -> Row:
    """What another console or a command has asked for, as far as it has come."""
    first = steps[0]
    name = known(f"receipt.did_{first.action}", first.action.replace("_", " "))
    row.add("◌ ", paint.wait).add(f"{name} {spoken(first.target)}".rstrip(), paint.text)
    ticked = _ticked(steps, row.left - 2)
    return row.add("  " + ticked, paint.muted) if ticked else row


def _ticked(steps: tuple[ActionProgressed, ...], cells: int) -> str:
    """The step under way and those that have ended, as many of the newest as fit."""
    text = ""
    for progressed in reversed(steps):
        step = progressed.step
        size = "" if step.bytes is None else f" {bytes_text(step.bytes)}"
        name = word(step.name)
        if progressed.target:  # it stands before all of them
            name = name.replace(f"{progressed.target}/", "")
        if step.total_bytes is None:
            one = f"✓ {name}{size} {seconds(step.elapsed_s)}"
        else:
            one = f"▸ {name}{size} / {bytes_text(step.total_bytes)}"
        longer = f"{one}  {text}" if text else one
        if text and width_of(longer) > cells:
            break
        text = longer
    return text


def action_text(receipt: Receipt) -> str:
    """What was done, in the person's language; an action of a newer engine goes by its own name."""
    return known(f"receipt.did_{receipt.action}", receipt.action.replace("_", " "))


def proof_text(receipt: Receipt) -> str:
    """What a receipt is proved by."""
    return word(PROOFS.get(receipt.proof, receipt.proof))


def residue_text(receipt: Receipt) -> str:
    """What has not come back, and how far the count may be off where that is no residue."""
    left = receipt.residue_bytes
    off = f" ±{bytes_text(receipt.within_bytes)}" if receipt.within_bytes else ""
    return "0" + off if left == 0 else bytes_text(left)


def receipt_row(
    paint: Paint, receipt: Receipt, row: Row, *, notes_key: str = "", tails: tuple[Row, ...] = ()
) -> Row:
    """A receipt in one row, with the first of `tails` that fits at its end.

    Green stands only before what was proved by a process's own bytes.
    """
    if not receipt.ok:
        row.add("! ", paint.error).add(
            f"{action_text(receipt)} {spoken(receipt.target)}".rstrip(), paint.bold
        )
        return row.add(f"  {spoken(receipt.error or '') or t('receipt.failed')}", paint.text)
    told = receipt.returned_bytes is not None or not receipt.expected_bytes
    proved = told and receipt.proof in STRONG_PROOFS and not receipt.residue_bytes
    row.add("✓ ", paint.proof if proved else paint.text)
    # The proof matters more than all the names of what was moved.
    target = clip(spoken(receipt.target), max(16, row.width // 4))
    row.add(f"{action_text(receipt)} {target}".rstrip(), paint.bold)
    # What stayed behind is not cut off for the sake of how that is known, nor the time where all came back.
    forms: tuple[tuple[bool, bool], ...] = ((True, False), (False, False), (False, True))
    if row.width < 100 and proved:
        forms = forms[1:]
    for by, short in forms:
        if _figures(paint, receipt, Row(1000), by=by, short=short and proved).cells <= row.left:
            break
    _figures(paint, receipt, row, by=by, short=short and proved)
    width = row.width
    tail = next((one for one in tails if one.cells + 2 <= row.left), Row(0))
    row.width -= tail.cells + 2 if tail.cells else 0
    if len(receipt.steps) > 1:
        steps = " · ".join(f"{word(step.name)} {seconds(step.elapsed_s)}" for step in receipt.steps)
        if row.left > width_of(steps) + 2:
            row.add(f"  {steps}", paint.muted)
    if receipt.notes:
        _put_notes(row, receipt.notes, paint, notes_key)
    if receipt.proof_reason and row.left > 20:
        row.add(f"  {spoken(receipt.proof_reason)}", paint.muted)
    row.width = width
    return row.to(width - tail.cells, paint.text).extend(tail) if tail.cells else row


def _figures(paint: Paint, receipt: Receipt, row: Row, *, by: bool, short: bool) -> Row:
    """What was moved and came back, with `by` what that is proved by, and in how long.

    In `short` nothing is left of what was expected, which is told in fewer words.
    """

    def put(name: str, value: str, *, warn: bool = False) -> None:
        row.add(f"  {t(f'receipt.{name}')} ", paint.muted).add(value, paint.wait if warn else paint.text)

    if receipt.loaded_bytes:
        put("warm" if receipt.action == "warm" else "loaded", bytes_text(receipt.loaded_bytes))
    if short and (receipt.expected_bytes or receipt.returned_bytes):
        put("back", f"{bytes_text(receipt.returned_bytes)} / {bytes_text(receipt.expected_bytes)}")
    elif receipt.expected_bytes or receipt.returned_bytes:
        put("expected", bytes_text(receipt.expected_bytes))
        put("back", bytes_text(receipt.returned_bytes))
        if by:
            row.add(f" {t('receipt.by', proof=proof_text(receipt))}", paint.muted)
        left = receipt.residue_bytes
        put("residue", residue_text(receipt), warn=bool(left))
        if receipt.residue and left:
            row.add(f" ({', '.join(map(spoken, receipt.residue))})", paint.muted)
    return row.add(f"  {seconds(receipt.elapsed_s)}", paint.text)


def _put_notes(row: Row, notes: tuple[str, ...], paint: Paint, key: str) -> None:
    """The first note where it fits, and how many more there are behind the receipt's key."""
    first = f"  {spoken(notes[0])}"
    fits = width_of(first) + 14 <= row.left
    if fits:
        row.add(first, paint.text)
    more = len(notes) - fits
    if more:
        row.add(f"  {t('receipt.more_notes', count=more, press=key)}", paint.wait)


class TooSmall(LinePanel):
    """Said instead of everything when the terminal cannot hold it."""

    def __init__(self, *, id: str, least: tuple[int, int]) -> None:
        super().__init__(id=id)
        self._least = least

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.size,)

    def rows(self, view: View, width: int, height: int) -> list[Row]:
        columns, lines = self._least
        rows = [Row(width) for _ in range(max(0, (height - 2) // 2))]
        for text, style in (
            (t("small.needs", columns=columns, lines=lines), view.paint.bold),
            (t("small.is", columns=width, lines=height), view.paint.muted),
        ):
            rows.append(
                Row(width).to(max(0, (width - width_of(text)) // 2), view.paint.text).add(text, style)
            )
        return rows
