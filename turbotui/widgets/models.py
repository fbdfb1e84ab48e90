"""Owns the models panel: every model, and where each component of the loaded ones lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from turbotui.format import UNKNOWN, bytes_text, clip, clip_middle, percent, seconds, short_bytes
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.widgets.lines import Row, View, width_of
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from rich.style import Style

    from engine.wire import ComponentStatus, ModelStatus

BYTES_CELLS = 7
BACK_CELLS = 8
ROOMY = 16
"""Rows from which on every component of every model is told, where all of them fit."""


class ModelKey(NamedTuple):
    """Names a row: a model, one of its components, or the reason why a model cannot be used."""

    model: str
    component: str | None = None
    kind: Literal["model", "component", "problem"] = "model"


def previous_model(models: tuple[ModelStatus, ...]) -> ModelStatus | None:
    """The model used last before the active one."""
    others = [model for model in models if not model.active and model.last_used_at and not model.problem]
    return max(others, key=lambda model: model.last_used_at or 0, default=None)


def resident_bytes(model: ModelStatus) -> int:
    return sum(part.bytes for part in model.components if part.state == "resident")


def unloaded(model: ModelStatus, component: str | None = None) -> bool:
    """Whether nothing of `model`, or of one component of it, is on the device or on its way there."""
    return all(part.state == "absent" for part in model.components if component in (None, part.name))


def back_in_s(model: ModelStatus) -> float | None:
    """Seconds to load what of `model` is not resident; None when a part of it is unmeasured."""
    absent = [part.back_in_s for part in model.components if part.state == "absent"]
    known = [value for value in absent if value is not None]
    return sum(known) if absent and len(known) == len(absent) else None


def is_warm(part: ComponentStatus) -> bool:
    """Whether all of it is known to lie in host memory."""
    return part.warm_bytes is not None and part.warm_bytes >= part.bytes


def warm_share(parts: Sequence[ComponentStatus]) -> int | None:
    """Percent of `parts` in host memory, 100 only for all of it; None when one's cannot be known."""
    known = [min(part.warm_bytes, part.bytes) for part in parts if part.warm_bytes is not None]
    if len(known) < len(parts):
        return None
    warm, whole = sum(known), sum(part.bytes for part in parts)
    if warm in (0, whole):
        return 100 if warm else 0
    return min(99, max(1, round(100 * warm / whole)))


def short_dtype(dtype: str) -> str:
    return dtype.removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


class ModelsPanel(ListPanel):
    """Models with components in memory show them; the rest take one row each unless there is much room."""

    number = 3
    told_by = "engine"

    def inputs(self, view: View) -> tuple[object, ...]:
        state = view.state
        running = state.running
        return (
            state.models,
            running and (running.id, running.model),
            state.own_device and state.own_device.kind,
            view.making_demo,
            [(worker.warm_bytes, worker.warm_refusal) for worker in state.workers],
        )

    def title(self, view: View) -> str:
        return t("models.title")

    def remark(self, view: View, width: int) -> Row | None:
        if not view.state.models:
            return None
        heads = Row(width).add("GiB", view.paint.muted)
        return heads.field(t("models.back_in"), BACK_CELLS, view.paint.muted, right=True)

    def below(self, view: View) -> str:
        """What is warm of all, or why nothing can be, where the list leaves the room."""
        if more := super().below(view):
            return more
        device = view.state.own_device
        if device is None or device.kind == "cpu":
            return ""
        worker = next(iter(view.state.workers), None)
        if worker is not None and worker.warm_refusal:
            return clip(t("models.not_warm", reason=spoken(worker.warm_refusal)), max(0, self.size.width - 6))
        if worker is not None and worker.warm_bytes:
            return t("models.warm_all", bytes=bytes_text(worker.warm_bytes))
        return ""

    def keys(self, view: View) -> list[Key]:
        keys: list[Key] = []
        models = view.state.models
        room = self.size.height - 2
        every = room >= ROOMY and sum(1 + len(model.components) for model in models) <= room
        for model in models:
            keys.append(ModelKey(model.name))
            if not model.takes_jobs:
                keys.append(ModelKey(model.name, kind="problem"))
            there = any(part.state != "absent" for part in model.components)
            if there or ((every or model.active) and not model.problem):
                keys += [ModelKey(model.name, part.name, "component") for part in model.components]
        return keys

    def nothing(self, view: View, width: int) -> list[Row]:
        if view.look == "starting" and view.state.engine is None:
            return [Row(width).add(t("models.waiting"), view.paint.muted)]
        if view.making_demo:
            return [Row(width).add(t("models.making"), view.paint.wait)]
        return [
            Row(width).add(t("models.none"), view.paint.text),
            Row(width).add("i", view.paint.key).add(t("models.found"), view.paint.text),
            Row(width).add("D", view.paint.key).add(t("models.demo"), view.paint.text),
        ]

    def row(self, view: View, key: Key, width: int) -> Row:
        assert isinstance(key, ModelKey)
        model = next(model for model in view.state.models if model.name == key.model)
        if key.kind == "problem":
            text = spoken(model.problem) if model.problem else t("models.no_jobs")
            return Row(width).add(f"    {text}", view.paint.muted)
        if key.kind == "component":
            part = next(part for part in model.components if part.name == key.component)
            return _component_row(view, part, width)
        return _model_row(view, model, width)

    @property
    def chosen_model(self) -> str | None:
        return self.chosen.model if isinstance(self.chosen, ModelKey) else None

    @property
    def chosen_component(self) -> str | None:
        return self.chosen.component if isinstance(self.chosen, ModelKey) else None


def _model_row(view: View, model: ModelStatus, width: int) -> Row:
    paint = view.paint
    running = view.state.running
    runs = running is not None and running.model == model.name
    previous = previous_model(view.state.models)
    marker = "▶" if runs else "●" if model.active else "'" if previous is model else " "
    if model.problem:
        marker = "!"
    row = Row(width).add(f"{marker} ", paint.ours if runs or model.active else paint.key)
    about = f"{model.kind} {short_dtype(model.dtype)}"
    room = width - 2 - BYTES_CELLS - BACK_CELLS
    name_cells = max(8, min(30, room - len(about) - 2))
    name_style = paint.bold if model.active or runs else paint.text
    row.field(clip_middle(model.name, name_cells), name_cells, name_style)
    row.add("  ", paint.text).add(about, paint.muted)
    share = warm_share(model.components)
    if not model.active and not resident_bytes(model) and share:
        _add_if_fits(row, 2 + room, (f"  ◌ {t('models.warm', share=share)}", f"  ◌ {share} %"), paint.text)
    if model.quantised_from is not None:
        whole = f"  {t('models.made_of', name=model.quantised_from)}"
        _add_if_fits(row, 2 + room, (whole, f"  {t('models.sibling')}"), paint.muted)
    row.to(2 + room, paint.text)
    if runs and running is not None:
        return row.field(t("models.runs", id=running.id), BYTES_CELLS + BACK_CELLS, paint.muted, right=True)
    if (making := model.quantising) is not None:
        done = making.done_bytes / making.bytes if making.bytes else 0.0
        text = t("models.quantising", share=percent(done))
        return row.field(text, BYTES_CELLS + BACK_CELLS, paint.wait, right=True)
    if model.problem:
        there = resident_bytes(model)
        text = f"{short_bytes(there)} {t('models.unusable')}" if there else t("models.unusable")
        return row.field(text, BYTES_CELLS + BACK_CELLS, paint.wait, right=True)
    row.field(short_bytes(model.bytes), BYTES_CELLS, paint.text, right=True)
    absent = [part for part in model.components if part.state == "absent"]
    back = seconds(back_in_s(model)) if absent else ""
    return row.field(back, BACK_CELLS, paint.text, right=True)


def _add_if_fits(row: Row, column: int, texts: Sequence[str], style: Style) -> None:
    """The first of `texts` that ends before `column`; nothing where none does."""
    for text in texts:
        if row.cells + width_of(text) <= column:
            row.add(text, style)
            return


def _component_row(view: View, part: ComponentStatus, width: int) -> Row:
    paint = view.paint
    device = view.state.own_device
    room = width - 4 - BYTES_CELLS - BACK_CELLS
    name_cells = max(9, min(20, room - 13))
    row = Row(width).to(4, paint.text).field(part.name, name_cells, paint.text)
    share = warm_share([part])
    if part.state == "resident":
        where = t("models.gpu") if device is None or device.kind == "cuda" else t("models.host")
        row.add("● ", paint.ours).add(where, paint.text)
        # On a host without a GPU its memory is the device, and being in it twice is no use.
        if share and (device is None or device.kind == "cuda"):
            _add_if_fits(
                row, 4 + room, (f"  ◌ {t('models.warm', share=share)}", f" ◌ {share} %"), paint.muted
            )
    elif part.state == "loading":
        row.add("↻ ", paint.wait).add(t("models.loading"), paint.wait)
    elif share:
        row.add("◌ ", paint.text).add(t("models.warm", share=share), paint.text)
    else:
        # Where it cannot be known nothing is claimed: that it lies on the disk is true either way.
        row.add("· ", paint.muted).add(t("models.disk"), paint.muted)
    row.to(4 + room, paint.text).field(short_bytes(part.bytes), BYTES_CELLS, paint.text, right=True)
    if part.leased:
        return row.field(t("models.leased"), BACK_CELLS, paint.muted, right=True)
    if part.state == "resident":
        return row
    back = UNKNOWN if part.back_in_s is None else seconds(part.back_in_s)
    return row.field(back, BACK_CELLS, paint.text, right=True)
