"""Owns the lists of models to have: what lies on the engine's host, and what can be fetched to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turbotui.format import bytes_text, clip_middle
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.errand import errand_rows
from turbotui.widgets.lines import Row, View, wrapped
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from engine.wire import FoundModel, FoundPart, GetPlan, ModelErrand, ModelScan, ReleasedModel

NAME_CELLS = 32
SIZE_CELLS = 9
DETAIL_ROWS = 6


class FoundPanel(ListPanel):
    """One of two lists, and below it all about the chosen row and what is under way."""

    def __init__(self) -> None:
        super().__init__(id="found")
        self.scan: ModelScan | None = None
        self.released: tuple[ReleasedModel, ...] = ()
        self.plan: GetPlan | None = None
        """Why the chosen one cannot be fetched from here, with what to do."""
        self.errand: ModelErrand | None = None
        self.fetching = False
        """Whether the list is that of what can be fetched."""
        self.busy = ""
        self.said = ""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.scan, self.released, self.plan, self.errand, self.fetching, self.busy, self.said)

    # ------------------------------------------------------------------ frame

    def title(self, view: View) -> str:
        return t("found.title_get") if self.fetching else t("found.title")

    def remark(self, view: View, width: int) -> Row | None:
        return Row(width).add(self.busy, view.paint.wait) if self.busy else None

    def below(self, view: View) -> str:
        found = "found.keys" if self.keys(view) else "found.keys_none"
        if view.read_only:  # names no key that would be refused
            found = "found.keys_look"
        get = "found.keys_get_look" if view.read_only else "found.keys_get"
        keys = [t(get if self.fetching else found)]
        if self.fetching and self.plan is not None:
            keys.insert(0, t("found.key_copy"))
        if self.errand is not None and self.errand.state == "running" and not view.read_only:
            keys.insert(0, t("found.key_cancel"))
        return "  ".join(keys)

    # ------------------------------------------------------------------ rows

    def keys(self, view: View) -> list[Key]:
        if self.fetching:
            return [("released", model.name) for model in self.released]
        if self.scan is None:
            return []
        models: list[Key] = [("model", place) for place in range(len(self.scan.models))]
        return [*models, *(("part", place) for place in range(len(self.scan.parts)))]

    def nothing(self, view: View, width: int) -> list[Row]:
        if self.busy or self.said:
            return []
        return [Row(width).add(line, view.paint.text) for line in wrapped(t("found.nothing"), width)]

    def row(self, view: View, key: Key, width: int) -> Row:
        row = Row(width).add("> " if key == self.chosen else "  ", view.paint.key)
        chosen = self._of(key)
        if chosen is None:
            return row
        kind = key[0] if isinstance(key, tuple) else ""
        if kind == "released":
            return self._released_row(view, row, key)
        return self._model_row(view, row, key) if kind == "model" else self._part_row(view, row, key)

    def _model_row(self, view: View, row: Row, key: Key) -> Row:
        model, paint = self.model(key), view.paint
        assert model is not None
        cells = min(NAME_CELLS, max(12, row.left - 36))
        row.field(clip_middle(model.name, cells), cells, paint.bold).add(f"  {model.kind}  ", paint.muted)
        row.field(bytes_text(model.bytes), SIZE_CELLS, paint.text, right=True).add("  ", paint.text)
        if model.imported:
            return row.add(t("found.imported"), paint.muted)
        if model.missing:
            return row.add(t("found.lacks", count=len(model.missing)), paint.wait)
        if view.read_only:
            return row.add(t("verdict.usable"), paint.muted)
        return row.add(t("found.ready"), paint.ours)

    def _part_row(self, view: View, row: Row, key: Key) -> Row:
        part, paint = self.part(key), view.paint
        assert part is not None
        style = (
            paint.text if part.verdict == "usable" else paint.wait if part.verdict == "parts" else paint.muted
        )
        row.field(t(f"verdict.{part.verdict}"), 12, style)
        row.field(bytes_text(part.bytes), SIZE_CELLS, paint.text, right=True).add("  ", paint.text)
        title = spoken(part.title)
        row.add(title, style).add("  ", paint.text)
        return row.add(clip_middle(part.path, max(8, row.left)), paint.muted) if row.left > 8 else row

    def _released_row(self, view: View, row: Row, key: Key) -> Row:
        model, paint = self.release(key), view.paint
        assert model is not None
        cells = min(NAME_CELLS, max(12, row.left - 36))
        row.field(clip_middle(model.name, cells), cells, paint.text)
        dtype = "int8" if model.int8 else "bf16"
        row.add(f"  {model.kind} {dtype}  ", paint.muted)
        row.field(bytes_text(model.about_bytes), SIZE_CELLS, paint.text, right=True).add("  ", paint.text)
        return row.add(t(f"presence.{model.presence}"), paint.muted)

    def body(self, view: View, width: int, height: int) -> list[Row]:
        detail = self._detail(view, width)[: max(2, height - 4)]
        rows = super().body(view, width, max(1, height - 1 - len(detail)))
        while len(rows) < height - 1 - len(detail):
            rows.append(Row(width))
        return [*rows, Row(width).add("─" * width, view.paint.faint), *detail]

    def _detail(self, view: View, width: int) -> list[Row]:
        """What is under way or was just said, and all about the chosen row."""
        paint = view.paint
        rows = errand_rows(view, self.errand, width)
        if self.said:
            rows += [Row(width).add(line, paint.wait) for line in wrapped(self.said, width)]
        if self.plan is not None:
            commands = (*self.plan.elsewhere, *self.plan.here)
            return [*rows, *(Row(width).add(clip_middle(line, width), paint.text) for line in commands)]
        lines = self._about()
        rows += [Row(width).add(line, paint.muted) for text in lines for line in wrapped(text, width)]
        return rows or [Row(width)]

    def _about(self) -> list[str]:
        """Sentences about the chosen row, or of the whole look where none is."""
        if (model := self.model(self.chosen)) is not None:
            told = (*model.missing, *model.notes)
            return [*(spoken(sentence) for sentence in told), *model.paths][:DETAIL_ROWS]
        if (part := self.part(self.chosen)) is not None:
            return [spoken(part.sentence), part.path]
        if (released := self.release(self.chosen)) is not None:
            return [
                t("found.shared", repository=released.repository, bytes=bytes_text(released.shared_bytes))
            ]
        if self.scan is not None and not self.fetching:
            return [t("found.looked", places=", ".join(self.scan.places)), *map(spoken, self.scan.skipped)]
        return []

    # ------------------------------------------------------------------ what a row is

    def _of(self, key: Key) -> object:
        return self.model(key) or self.part(key) or self.release(key)

    def model(self, key: Key) -> FoundModel | None:
        if self.scan is None or not isinstance(key, tuple) or key[0] != "model":
            return None
        return self.scan.models[key[1]] if key[1] < len(self.scan.models) else None

    def part(self, key: Key) -> FoundPart | None:
        if self.scan is None or not isinstance(key, tuple) or key[0] != "part":
            return None
        return self.scan.parts[key[1]] if key[1] < len(self.scan.parts) else None

    def release(self, key: Key) -> ReleasedModel | None:
        if not isinstance(key, tuple) or key[0] != "released":
            return None
        return next((model for model in self.released if model.name == key[1]), None)
