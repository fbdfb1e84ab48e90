"""Owns the fields of a job as widgets: what a model offers in them, and the draft that they come to."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.containers import Vertical

from engine.wire import ATTENTIONS, QUANTS, RESIDENCIES
from turbotui.draft import DECIMAL, Draft
from turbotui.format import bytes_text
from turbotui.job_fields import FPS, SEED_DIGITS, stepped_frames
from turbotui.screens.image_field import ImageThumb
from turbotui.text import known, t
from turbotui.widgets.fields import ChoiceField, FieldInput, TypedField, Words
from turbotui.widgets.models import short_dtype
from turbotui.widgets.prompt_area import PromptArea
from turbotui.widgets.shapes import Shape, ShapeField

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.wire import ModelStatus

STEPS = ("1", "2", "3", "4")
SEED_BITS = 31
"""Of a seed that is drawn: ten digits at most, to be read out and typed again."""


class DraftForm(Vertical):
    """Prompt and settings.

    Args:
        models: Those known now, the unusable among them.
    """

    DEFAULT_CSS = """
    DraftForm { height: auto; width: 100%; }
    DraftForm #prompt {
        height: 3; border: none; padding: 0 1; background: $panel; margin: 0 0 1 0;
        scrollbar-size-vertical: 1;
    }
    DraftForm #prompt:focus { border: none; background: $selected 60%; }
    DraftForm ChoiceField { height: 1; width: 100%; }
    DraftForm ShapeField { height: 5; width: 100%; }
    DraftForm #carried { height: 1; width: 100%; }
    DraftForm #image { width: 1fr; }
    DraftForm #image_remark { display: none; }
    """

    def __init__(self, models: Callable[[], tuple[ModelStatus, ...]]) -> None:
        super().__init__(id="form")
        self._models = models
        self._carried = Draft()
        """What was filled in last: what has no field stays as it was there."""

    def compose(self) -> ComposeResult:
        prompt = PromptArea(id="prompt")
        prompt.placeholder = t("new.placeholder")
        yield prompt
        yield ChoiceField(id="model", label=t("new.model"), remark=self._about_model)
        yield ChoiceField(id="resolution", label=t("new.resolution"), remark=self._about_size)
        yield ShapeField(id="shape", label=t("new.shape"))
        step = {"+": lambda: self._step_frames(1), "-": lambda: self._step_frames(-1)}
        yield TypedField(t("new.frames"), FieldInput(id="frames", restrict=r"\d{0,5}", keys=step))
        yield ChoiceField(id="steps", label=t("new.steps"), remark=lambda _value: t("new.steps_remark"))
        restrict = rf"\d{{0,{SEED_DIGITS}}}"
        draw = {"r": self._draw_seed}
        yield TypedField(t("new.seed"), FieldInput(id="seed", restrict=restrict, placeholder="0", keys=draw))
        yield TypedField(t("new.samples"), FieldInput(id="samples", restrict=r"\d{0,3}", placeholder="1"))
        yield ChoiceField(id="together", label=t("new.together"), remark=self._about_together)
        yield TypedField(t("new.image"), FieldInput(id="image", placeholder="/…/first.png"))
        yield ImageThumb()
        yield ChoiceField(id="ode", label=t("new.ode"), remark=lambda _value: t("new.ode_remark"))
        yield ChoiceField(id="attention", label=t("new.attention"), remark=self._about_attention)
        topk = FieldInput(id="sla_topk", restrict=r"[01]?\.?\d{0,6}", placeholder="0.1")
        yield TypedField(t("new.sla_topk"), topk)
        yield ChoiceField(
            id="adaptive", label=t("new.adaptive"), remark=lambda _value: t("new.adaptive_remark")
        )
        yield ChoiceField(id="residency", label=t("new.residency"), remark=self._about_residency)
        yield ChoiceField(id="quant", label=t("new.quant"), remark=self._about_quant)
        yield Words(id="carried")

    # ------------------------------------------------------------------ what stands in the fields

    def fill(self, draft: Draft) -> None:
        """Put `draft` into the fields; what its model cannot do takes the model's default."""
        self._carried = draft
        usable = self._usable()
        active = next((model.name for model in usable if model.active), "")
        names = [model.name for model in usable]
        self.choice("model").offer(names, draft.model if draft.model in names else active)
        prompt = self.query_one(PromptArea)
        if prompt.text != draft.prompt:
            prompt.take(draft.prompt)
        for name in ("seed", "samples", "image", "sla_topk"):
            self.typed(name).value.value = getattr(draft, name)
        for name in ("ode", "adaptive", "together"):
            chosen = t("new.yes") if getattr(draft, name) else t("new.no")
            self.choice(name).offer([t("new.no"), t("new.yes")], chosen)
        self.follow_model(draft)

    def draft(self) -> Draft:
        """The fields as they stand; when it was saved is not theirs to say."""
        sizes = " ".join(filter(None, (self.choice("resolution").value, self.query_one(ShapeField).value)))
        return replace(
            self._carried,
            prompt=self.query_one(PromptArea).text,
            model=self.choice("model").value,
            resolution=sizes,
            frames=self.typed("frames").value.value,
            steps=int(self.choice("steps").value or 0),
            seed=self.typed("seed").value.value,
            samples=self.typed("samples").value.value,
            image=self.typed("image").value.value,
            ode=self.choice("ode").value == t("new.yes"),
            adaptive=self.choice("adaptive").value == t("new.yes"),
            together=self.choice("together").value == t("new.yes"),
            residency=self._residency(),
            attention="" if self._attention() == "auto" else self._attention(),
            sla_topk=self.typed("sla_topk").value.value if self._is_sparse() else "",
            quant=self._quant(),
            saved_at=0.0,
        )

    def follow_model(self, draft: Draft) -> None:
        """Offer what the chosen model can do."""
        model = self.model
        if model is None:
            return
        name, _space, ratio = draft.resolution.partition(" ")
        names = list(dict.fromkeys(row.name for row in model.resolutions))
        name = name if name in names else model.default_resolution
        self.choice("resolution").offer(names, name)
        shapes = [
            Shape(name=row.aspect_ratio, width=row.width, height=row.height)
            for row in model.resolutions
            if row.name == name
        ]
        ratios = [shape.name for shape in shapes]
        self.query_one(ShapeField).offer(shapes, ratio if ratio in ratios else model.default_aspect_ratio)
        self.choice("steps").offer(list(STEPS), str(draft.steps or model.default_steps))
        frames = self.typed("frames").value
        frames.placeholder = str(model.default_frames)
        frames.value = draft.frames
        self.typed("image").display = self.choice("ode").display = self.image_to_video
        kind = draft.attention if draft.attention in ATTENTIONS else "auto"
        self.choice("attention").offer(
            [t(f"new.attention_{each}") for each in ATTENTIONS], t(f"new.attention_{kind}")
        )
        self.choice("adaptive").display = self.image_to_video
        # One that this model or this build does not know becomes the first, auto.
        residencies = self._residencies(model)
        chosen = draft.residency if draft.residency in residencies else "auto"
        self.choice("residency").offer(
            [t(f"new.residency_{each}") for each in residencies], t(f"new.residency_{chosen}")
        )
        # Where there is but one of the two there is nothing to choose.
        self.choice("quant").display = model.sibling is not None
        wanted = draft.quant if draft.quant in QUANTS and model.sibling is not None else "auto"
        self.choice("quant").offer([t(f"new.quant_{each}") for each in QUANTS], t(f"new.quant_{wanted}"))
        carried = self._about_carried()
        self.query_one("#carried", Words).text = carried
        self.query_one("#carried", Words).display = bool(carried)

    @property
    def model(self) -> ModelStatus | None:
        """The chosen one."""
        name = self.choice("model").value
        return next((model for model in self._usable() if model.name == name), None)

    @property
    def image_to_video(self) -> bool:
        model = self.model
        return model is not None and model.kind == "i2v"

    def choice(self, name: str) -> ChoiceField:
        return self.query_one(f"#{name}", ChoiceField)

    def typed(self, name: str) -> TypedField:
        return self.query_one(f"#{name}_row", TypedField)

    def _usable(self) -> list[ModelStatus]:
        return [model for model in self._models() if model.takes_jobs]

    # ------------------------------------------------------------------ how it is shown

    def fit(self, rows: int) -> None:
        """In a terminal of so many rows the prompt and the outlines take what is over."""
        roomy = rows >= 30
        self.query_one(PromptArea).styles.height = 3 if rows < 28 else 4 if not roomy else 6
        outlines = self.query_one(ShapeField)
        outlines.styles.height = 5 if not roomy else 6 if rows < 40 else 8
        outlines.styles.margin = (1, 0) if roomy else 0

    def tell(self, faults: dict[str, str]) -> None:
        """Say beside each typed field what it means, or what is wrong with it."""
        remarks = {
            "frames": self._about_frames(),
            "seed": t("new.seed_remark"),
            "samples": self._about_samples(),
            "sla_topk": t("new.sla_topk_remark"),
            "image": "",
        }
        self.typed("sla_topk").display = self._is_sparse()
        self.choice("together").display = self._samples() > 1
        for name, remark in remarks.items():
            self.typed(name).say(remark, faults.get(name, ""))

    def light(self) -> None:
        """Light the label of the field that has the focus."""
        for field in self.query(TypedField):
            field.label.lit = field.value.has_focus

    def focus_field(self, name: str | None) -> None:
        """Go to a field by its name, if it is in sight."""
        for field in self.query(f"#{name}") if name else ():
            if field.display and field.parent is not None and getattr(field.parent, "display", True):
                self.screen.set_focus(field)

    def _about_model(self, _name: str) -> str:
        """Facts: an engine computes each model in one way, by its files."""
        model = self.model
        if model is None:
            return ""
        facts = [model.kind, short_dtype(model.dtype), bytes_text(model.bytes)]
        if model.attention is not None:
            facts.append(known(f"attention.{model.attention}", model.attention))
        return "  ".join(facts)

    def _about_size(self, _value: str) -> str:
        chosen = self.query_one(ShapeField).value
        shape = next((shape for shape in self.query_one(ShapeField).shapes if shape.name == chosen), None)
        return "" if shape is None else f"{shape.width}x{shape.height}"

    def _about_frames(self) -> str:
        model = self.model
        if model is None:
            return ""
        text = self.typed("frames").value.value
        frames = int(text) if text and DECIMAL.fullmatch(text) else model.default_frames
        return t("new.frames_remark", length=f"{frames / FPS:.1f}", most=model.max_frames)

    def _samples(self) -> int:
        """As typed; 1 where nothing that counts is."""
        count = self.typed("samples").value.value
        return int(count) if count and DECIMAL.fullmatch(count) else 1

    def _about_samples(self) -> str:
        count, seed = self._samples(), self.typed("seed").value.value
        if count < 2 or not DECIMAL.fullmatch(seed):
            return t("new.samples_remark")
        if self.choice("together").value == t("new.yes"):
            return t("new.samples_together", count=count)
        first = int(seed or 0)
        return t("new.samples_seeds", first=first, last=first + count - 1)

    def _about_together(self, value: str) -> str:
        return t("new.together_remark" if value == t("new.yes") else "new.apart_remark")

    def _about_carried(self) -> str:
        """What has no field of its own and still counts."""
        draft, parts = self._carried, []
        if draft.sigma_max:
            parts.append(f"sigma_max {draft.sigma_max}")
        if draft.priority:
            parts.append(t("new.priority", priority=draft.priority))
        if draft.output_dir:
            parts.append(t("new.output_dir", path=draft.output_dir))
        return t("new.carried", what=", ".join(parts)) if parts else ""

    def _attention(self) -> str:
        """The chosen kind as the engine calls it."""
        chosen = self.choice("attention").value
        return next((name for name in ATTENTIONS if t(f"new.attention_{name}") == chosen), "auto")

    def _is_sparse(self) -> bool:
        """Whether what is chosen has a top-k."""
        chosen = self._attention()
        if chosen == "auto":
            return self.model is not None and self.model.attention == "sla"
        return chosen != "dense"

    def _about_attention(self, _value: str) -> str:
        own = "sla" if self.model is not None and self.model.attention == "sla" else "dense"
        chosen = self._attention()
        if chosen == "auto":
            return t("new.attention_auto_remark", kind=t(f"new.attention_{own}"))
        if (chosen == "dense") != (own == "dense"):
            return t("new.attention_dense_doubt" if chosen == "dense" else "new.attention_sparse_doubt")
        return t(f"new.attention_{chosen}_remark")

    def _residencies(self, model: ModelStatus) -> list[str]:
        """What this model may keep: both experts only where there are two."""
        experts = sum(part.name.startswith("dit.") for part in model.components)
        return [name for name in RESIDENCIES if name != "keep_experts" or experts > 1]

    def _residency(self) -> str:
        """The chosen one as the engine calls it; empty leaves it to the engine."""
        chosen = self.choice("residency").value
        found = next((name for name in RESIDENCIES if t(f"new.residency_{name}") == chosen), "auto")
        return "" if found == "auto" else found

    def _about_residency(self, _value: str) -> str:
        return t(f"new.residency_{self._residency() or 'auto'}_remark")

    def _quant(self) -> str:
        """The chosen one as the engine calls it; empty is auto."""
        chosen = self.choice("quant").value
        found = next((name for name in QUANTS if t(f"new.quant_{name}") == chosen), "auto")
        return "" if found == "auto" else found

    def _about_quant(self, _value: str) -> str:
        model = self.model
        if model is None or model.sibling is None:
            return ""
        is_int8 = model.dtype == "int8"
        int8, other = (model.name, model.sibling) if is_int8 else (model.sibling, model.name)
        chosen = self._quant()
        if chosen == "":
            return t("new.quant_named" if is_int8 else "new.quant_where_needed", name=int8)
        return t("new.quant_runs", name=int8 if chosen == "int8" else other)

    # ------------------------------------------------------------------ keys of the fields

    def _step_frames(self, by: int) -> None:
        model, field = self.model, self.typed("frames").value
        if model is not None:
            frames = (
                int(field.value) if DECIMAL.fullmatch(field.value) and field.value else model.default_frames
            )
            field.value = str(stepped_frames(frames, by, model.max_frames))
            field.cursor_position = len(field.value)

    def _draw_seed(self) -> None:
        field = self.typed("seed").value
        field.value = str(secrets.randbits(SEED_BITS))
        field.cursor_position = len(field.value)
