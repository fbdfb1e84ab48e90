"""The figures of `turbotui bench generate`: what each must reach where, and the table that they make."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

GIB = 2**30

Unit: TypeAlias = Literal["s", "B", "U", ""]
"""`U` is tokens times width times two bytes: what one bf16 tensor of all tokens takes."""

TITLES: Mapping[str, tuple[str, Unit]] = MappingProxyType(
    {
        "text": ("text", "s"),
        "image": ("image", "s"),
        "step": ("DiT a step", "s"),
        "dit": ("DiT", "s"),
        "decode": ("VAE decode", "s"),
        "video": ("video", "s"),
        "end_to_end": ("prompt to mp4", "s"),
        "peak": ("peak VRAM", "B"),
        "peak_least": ("peak VRAM, dit_only", "B"),
        "units": ("DiT activations", "U"),
        "decode_bytes": ("VAE activations", "B"),
        "frames_changed": ("other frames", ""),
    }
)
"""By name: title and unit, in the table's order. `frames_changed`: whether the same request gave other
frames under another residency."""
HOST_TITLES: Mapping[str, str] = MappingProxyType(
    {"peak": "peak host memory", "peak_least": "host peak, dit_only"}
)
"""Of what is counted in host memory where there is no GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What decides which targets bind: they are those of 81 frames in 4 steps at 16:9."""

    width: int | None
    """Of the DiT; None where its files do not say."""
    layers: int | None
    kind: str
    int8: bool
    resolution: str
    aspect_ratio: str
    attention: str
    """As it ran: `dense`, `sla`, `sagesla`."""
    frames: int
    steps: int
    on_gpu: bool


SMALL, LARGE = (1536, 30), (5120, 40)
"""Width and layers of the released nets."""
DIT_S: Mapping[tuple[tuple[int, int], str], tuple[float, float]] = MappingProxyType(
    {
        (SMALL, "480p"): (0.90, 0.75),
        (SMALL, "720p"): (2.6, 2.0),
        (LARGE, "480p"): (6.2, 4.5),
        (LARGE, "720p"): (17.0, 12.0),
    }
)
"""Seconds of all steps: with bf16 and SLA, and with int8 linears and SageSLA."""
UNITS_AT_MOST = 6.0


def targets(setup: Setup) -> dict[str, float]:
    """Name to the most that it may be."""
    found = {"frames_changed": 0.0}
    net = (setup.width or 0, setup.layers or 0)
    usual = (setup.frames, setup.steps, setup.aspect_ratio) == (81, 4, "16:9")
    if not setup.on_gpu or not usual or net not in (SMALL, LARGE):
        return found
    found["units"] = UNITS_AT_MOST
    if setup.resolution == "480p":
        found |= {"decode": 0.9, "decode_bytes": 4.0 * GIB}
    if setup.kind == "i2v":
        return found | ({"peak_least": 20.0 * GIB} if setup.int8 and setup.resolution == "720p" else {})
    limits = DIT_S.get((net, setup.resolution))
    if limits is not None and (setup.int8, setup.attention) in ((False, "sla"), (True, "sagesla")):
        found["dit"] = limits[setup.int8]
    if net == SMALL and setup.resolution == "480p" and setup.attention != "dense":
        found["end_to_end"] = 2.5
    if net == LARGE and setup.resolution == "720p" and not setup.int8:
        found["peak_least"] = 33.0 * GIB
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure of a case beside what it must reach and what plain diffusers takes."""

    name: str
    title: str
    value: float | None
    """The median of its runs; None where it could not be measured, which `note` explains."""
    worst: float | None
    unit: Unit
    target: float | None
    """The most that it may be; None where none binds."""
    ok: bool | None
    """None where no target binds or there is no figure."""
    baseline: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One model at one size with one attention."""

    model: str
    attention: str
    quant: str
    """`bf16` or `int8`, by the files of the model that ran; as asked for where none did."""
    resolution: str
    width: int
    height: int
    frames: int
    steps: int
    runs: int
    device: str
    versions: dict[str, str]
    figures: tuple[Figure, ...]
    baseline_note: str = ""
    """What the figures of plain diffusers are, or why there are none."""
    problem: str = ""
    """Why the case could not be measured."""

    @property
    def label(self) -> str:
        """What was measured, or why it was not."""
        if self.problem:
            return " ".join(filter(None, (self.model, self.resolution, self.attention, f"- {self.problem}")))
        size = f"{self.width}x{self.height}, {self.frames} frames, {self.steps} steps"
        return f"{self.model} {size}, {self.quant}, {self.attention}"

    @property
    def ok(self) -> bool:
        return not self.problem and all(figure.ok is not False for figure in self.figures)


def figure(
    name: str,
    values: Sequence[float],
    limits: Mapping[str, float],
    *,
    on_gpu: bool,
    baseline: float | None = None,
    note: str = "",
) -> Figure:
    """The figure called `name` from its runs; without any it says in `note` why."""
    title, unit = TITLES[name]
    if not on_gpu:
        title = HOST_TITLES.get(name, title)
    limit = limits.get(name)
    value = statistics.median(values) if values else None
    return Figure(
        name=name,
        title=title,
        value=value,
        worst=max(values, default=None),
        unit=unit,
        target=limit,
        ok=None if limit is None or value is None else value <= limit,
        baseline=baseline,
        note=note,
    )


def text_of(value: float | None, unit: Unit) -> str:
    if value is None:
        return "-"
    if unit == "B":
        return f"{value / GIB:.2f} GiB"
    return f"{value:.3g} {unit}".strip()


def markdown(cases: Sequence[Case], command: str) -> str:
    """All cases as one table: a line of ours, and beneath it one of plain diffusers where that was run."""
    names = [name for name in TITLES if any(one.name == name for case in cases for one in case.figures)]
    titles = {one.name: one.title for case in cases for one in case.figures}
    heads = ["", *(titles[name] for name in names)]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for case in cases:
        by_name = {one.name: one for one in case.figures}
        cells = [_cell(by_name.get(name)) for name in names]
        lines.append(f"| {_escaped(case.label)} | {' | '.join(cells)} |")
        if any(one.baseline is not None for one in case.figures):
            found = [by_name.get(name) for name in names]
            plain = [text_of(one.baseline, one.unit) if one else "-" for one in found]
            lines.append(f"| - plain diffusers | {' | '.join(plain)} |")
    devices = dict.fromkeys(case.device for case in cases if case.device)
    versions = {f"{name} {value}": None for case in cases for name, value in case.versions.items()}
    notes = dict.fromkeys(
        f"{one.title}: {one.note}" for case in cases for one in case.figures if one.note and one.value is None
    )
    plain_notes = dict.fromkeys(case.baseline_note for case in cases if case.baseline_note)
    told = [
        f"By `{command}` on {', '.join(devices)} ({', '.join(versions)}). Medians of "
        f"{max((case.runs for case in cases), default=0)} jobs with new prompts through the API of an "
        "engine of the benchmark's own; one job with dit_only and one to warm up come before them and "
        "are not counted in the times. In brackets the worst, then the target.",
        *(f"{note[:1].upper()}{note[1:]}." for note in (*plain_notes, *notes)),
    ]
    return "\n".join([*lines, "", *told]) + "\n"


def _cell(found: Figure | None) -> str:
    if found is None:
        return "-"
    text = text_of(found.value, found.unit)
    if found.value is not None and found.worst is not None and found.worst != found.value:
        text += f" ({text_of(found.worst, found.unit)})"
    if found.target is not None:
        mark = {True: "met", False: "**missed**", None: "not measured"}[found.ok]
        text += f", <= {text_of(found.target, found.unit)}: {mark}"
    return text


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
