"""Owns the unsent job: its fields as typed, what request they mean, and how it becomes a file and back."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidRequest
from turbotui.kept import load_table, save_table

if TYPE_CHECKING:
    from engine.wire import Job, JobSpec

DECIMAL = re.compile(r"[0-9]{0,19}")
"""What frames and seed may be: the digits that the fields take."""
SHARE = re.compile(r"[01](\.[0-9]{0,6})?|\.[0-9]{1,6}")
"""What a top-k may be, as far as digits tell."""
MAX_SAMPLES = 100
MAX_TOGETHER = 8
"""Samples that an engine puts side by side into one video."""
_NEW_LINE = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SIGMA_MAX = {"t2v": 80.0, "i2v": 200.0}
"""What an engine takes where nobody says; a job that says the same says nothing."""
_SLA_TOPK = 0.1
"""The same of a top-k."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """The fields of the new-job screen as they stand, text as typed."""

    prompt: str = ""
    model: str = ""
    resolution: str = ""
    """`480p 16:9`, the name and the ratio of a row of the model's table."""
    frames: str = ""
    steps: int = 0
    """0 takes the model's default."""
    seed: str = ""
    samples: str = ""
    """How many jobs with seeds in a row; empty is one."""
    together: bool = False
    """Whether the samples are one job instead: from one draw of noise, side by side in one video."""
    image: str = ""
    ode: bool = False
    adaptive: bool = False
    """Whether the video takes the image's shape."""
    residency: str = ""
    """One of `engine.wire.RESIDENCIES`; empty leaves it to the engine."""
    attention: str = ""
    """One of `engine.wire.ATTENTIONS`; empty is `auto`."""
    sla_topk: str = ""
    """Empty takes the engine's."""
    quant: str = ""
    """One of `engine.wire.QUANTS`; empty is `auto`."""
    sigma_max: str = ""
    """Carried over from a job, as are the next two; the screen has no fields for them."""
    output_dir: str = ""
    priority: int = 0
    job_id: int = 0
    """The job that it was filled from; 0 for none."""
    saved_at: float = 0.0
    """Wall clock of its last change."""

    def spec(self, *, image_to_video: bool) -> JobSpec:
        """The request that this draft means; fields left empty take the model's defaults.

        Raises:
            InvalidRequest: frames or seed is no number, or the image's path cannot be made whole.
        """
        from engine.wire import ATTENTIONS, QUANTS, RESIDENCIES, JobSpec

        name, _space, ratio = self.resolution.partition(" ")
        spec = JobSpec(
            model=self.model,
            prompt=self.prompt,
            image=whole_path(self.image) if self.image and image_to_video else None,
            resolution=name or None,
            aspect_ratio=ratio or None,
            frames=_number("frames", self.frames) if self.frames else None,
            steps=self.steps or None,
            seed=_number("seed", self.seed) if self.seed else 0,
            sigma_max=float(self.sigma_max) if self.sigma_max else None,
            ode=self.ode and image_to_video,
            adaptive=self.adaptive and image_to_video,
            output_dir=self.output_dir or None,
            priority=self.priority,
            residency=next((known for known in RESIDENCIES if known == self.residency), None),
            attention=next((known for known in ATTENTIONS if known == self.attention), "auto"),
            sla_topk=float(self.sla_topk) if SHARE.fullmatch(self.sla_topk) else None,
            quant=next((known for known in QUANTS if known == self.quant), "auto"),
        )
        return together(spec, self._count()) if self.together else spec

    def specs(self, *, image_to_video: bool) -> tuple[JobSpec, ...]:
        """One request for each sample, seeds in a row; raises as `spec`."""
        one = self.spec(image_to_video=image_to_video)
        return (one,) if self.together else samples_of(one, self._count())

    def _count(self) -> int:
        return _number("samples", self.samples) if self.samples else 1

    @property
    def empty(self) -> bool:
        """Whether nothing was typed that would be missed."""
        return not (self.prompt or self.frames or self.seed or self.samples or self.image)


def samples_of(spec: JobSpec, count: int) -> tuple[JobSpec, ...]:
    """`spec` `count` times, with seeds that follow each other.

    Raises:
        InvalidRequest: there are none, or too many.
    """
    if not 1 <= count <= MAX_SAMPLES:
        raise InvalidRequest(f"samples is {count}; choose 1 to {MAX_SAMPLES}")
    return tuple(replace(spec, seed=spec.seed + number) for number in range(count))


def together(spec: JobSpec, count: int) -> JobSpec:
    """`spec` with `count` samples side by side in its one video.

    Raises:
        InvalidRequest: there are none, or too many.
    """
    if not 1 <= count <= MAX_TOGETHER:
        raise InvalidRequest(f"samples is {count}; choose 1 to {MAX_TOGETHER} in one video")
    return replace(spec, samples=count)


def draft_of(job: Job, *, kind: str, output_dir: str | None) -> Draft:
    """The fields that ask for `job` again, as far as its `kind` of model and the engine do not by themselves.

    `output_dir` is where the engine puts videos whose requests name no folder.
    """
    spec = job.spec
    # Without a doubt it is what the model attends by, and so will another be asked for its own.
    own = spec.attention == "auto" or (job.doubt is None and spec.attention != "sagesla")
    topk = None if own and spec.sla_topk == _SLA_TOPK else spec.sla_topk
    other_sigma = spec.sigma_max is not None and spec.sigma_max != _SIGMA_MAX.get(kind)
    return Draft(
        prompt=typeable(spec.prompt),
        model=spec.model,
        resolution=f"{spec.resolution or ''} {spec.aspect_ratio or ''}".strip(),
        frames="" if spec.frames is None else str(spec.frames),
        steps=spec.steps or 0,
        seed=str(spec.seed) if spec.seed else "",
        image=spec.image or "",
        samples=str(spec.samples) if spec.samples > 1 else "",
        together=spec.samples > 1,
        ode=spec.ode,
        adaptive=spec.adaptive,
        residency=spec.residency or "",
        attention="" if own else spec.attention,
        sla_topk="" if topk is None else f"{topk:g}",
        quant="" if spec.quant == "auto" else spec.quant,
        sigma_max=f"{spec.sigma_max:g}" if other_sigma else "",
        output_dir="" if spec.output_dir in (None, output_dir) else spec.output_dir or "",
        priority=spec.priority,
        job_id=job.id,
    )


def typeable(text: str) -> str:
    """`text` as it may stand in a field: lines by line feeds, and nothing a terminal acts on or hides.

    Unlike `sanitize.clean` it leaves out what no prompt can mean rather than show it, since what stands in
    a field is sent.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _NEW_LINE.sub("\n", text).replace("\t", " ")
    return "".join(c for c in text if c == "\n" or (c not in _BIDI and unicodedata.category(c) not in _NONE))


_NONE = frozenset({"Cc", "Cs"})


def whole_path(path: str) -> str:
    """`path` from the root; the engine has a folder of its own. Links are left to it.

    Raises:
        InvalidRequest: it is relative and the folder that we are in is gone, or it holds a NUL.
    """
    try:
        # Unlike Path.expanduser this leaves the ~ of a user who does not exist as it is.
        return str(Path(os.path.expanduser(path)).absolute())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(
            f"the path {path!r} cannot be made absolute: {reason}; give one that begins with /"
        ) from error


def _number(name: str, text: str) -> int:
    if not text or not DECIMAL.fullmatch(text):
        raise InvalidRequest(f"{name} must be a whole number, got {text!r}; type digits or leave it empty")
    return int(text)


def draft_from(table: dict[str, Any]) -> Draft:
    """What a table of `asdict` means; what cannot be understood of it is left at its default."""
    usable: dict[str, Any] = {
        field.name: table[field.name]
        for field in fields(Draft)
        if type(table.get(field.name)) is type(field.default)
    }
    for name in ("frames", "seed", "samples"):
        if not DECIMAL.fullmatch(usable.get(name, "")):
            del usable[name]
    if usable.get("sla_topk") and not SHARE.fullmatch(usable["sla_topk"]):
        del usable["sla_topk"]
    try:
        float(usable.get("sigma_max") or "0")
    except ValueError:
        del usable["sigma_max"]
    usable["prompt"] = typeable(usable.get("prompt", ""))
    return Draft(**usable)


def load_draft(path: Path | None) -> Draft:
    """What was left there; an empty draft when there is none or it cannot be understood."""
    return draft_from(load_table(path))


def save_draft(path: Path | None, draft: Draft) -> None:
    """Keep `draft`; a disk that is full or read-only costs the draft and nothing else."""
    save_table(path, asdict(draft))
