"""The checks of a request: everything wrong that can be known when it is submitted is said then.

`check_request` fills in the model's defaults and returns what will run, or raises with one
sentence that names the value and the way out. It changes nothing on the disk.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.config import EngineConfig
from engine.errors import InvalidRequest, ModelUnusable, StorageUnusable
from engine.models.card import CARD_FILE
from engine.models.layout import NOT_DISTILLED
from engine.models.model import Model
from engine.planning.attention import choose_attention
from engine.planning.image_file import check_image
from engine.planning.shapes import (
    DEFAULT_SIGMA_MAX,
    MAX_SAMPLES,
    MAX_SIDE,
    MAX_SIGMA_MAX,
    MAX_STEPS,
    MIN_SIGMA_MAX,
    MIN_STEPS,
    SIZE_STEP,
    adaptive_size,
    are_valid_frames,
    nearest_frames,
)
from engine.units import size_text
from engine.wire import AttentionKind, JobSpec, ModelKind, Resolution

TAKES_FEW_STEPS = '"few_steps": true'
"""In the card of a model that shows no distillation and was made for few steps."""
MAX_SEED = 2**63 - 1
MAX_PRIORITY = 1000
MIN_FREE_BYTES = 100 * 10**6
"""A video and its manifest take far less; below this the disk is about to be full for all."""
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3800
"""Of the 4096 that a path may have; the rest is left for the name of the video."""
LINE_BREAKS = re.compile("[\t\n\r\x0b\x0c\x85\u2028\u2029]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """A request that can run: nothing in it is left open."""

    spec: JobSpec
    """With every default filled in."""
    kind: ModelKind
    width: int
    height: int
    frames: int
    steps: int
    sigma_max: float
    attention: AttentionKind
    sla_topk: float | None
    """None of `dense`."""
    output_dir: Path


def check_request(
    spec: JobSpec,
    model: Model,
    config: EngineConfig,
    default_output_dir: Path | str,
    *,
    look: Callable[[Path], tuple[int, int]] = check_image,
) -> Admitted:
    """What `spec` asks of `model`, every default filled in; `look` gives an image's size.

    Raises:
        ModelUnusable: the model has a problem.
        InvalidRequest: a value that could never work, or `look` has it of the image.
        StorageUnusable: the output folder cannot be written or is full.
    """
    if model.problem is not None:
        raise ModelUnusable(f"the model {model.name} cannot be used: {model.problem}")
    if not model.few_steps:
        raise InvalidRequest(
            f"{model.name} takes no jobs: {NOT_DISTILLED}; "
            f"{TAKES_FEW_STEPS} in its {CARD_FILE} says otherwise"
        )
    prompt = _check_prompt(spec.prompt, config.max_prompt_chars)
    resolution = _check_resolution(spec, model)
    frames = _check_frames(spec, model)
    steps = model.card.default_steps if spec.steps is None else spec.steps
    if not MIN_STEPS <= steps <= MAX_STEPS:
        raise InvalidRequest(f"steps is {steps}; choose {MIN_STEPS} to {MAX_STEPS}")
    if not 0 <= spec.seed <= MAX_SEED:
        raise InvalidRequest(f"seed is {spec.seed}; choose 0 to {MAX_SEED}")
    if abs(spec.priority) > MAX_PRIORITY:
        raise InvalidRequest(f"priority is {spec.priority}; choose {-MAX_PRIORITY} to {MAX_PRIORITY}")
    sigma_max = DEFAULT_SIGMA_MAX[model.kind] if spec.sigma_max is None else spec.sigma_max
    # Written so that a NaN fails it.
    if not MIN_SIGMA_MAX <= sigma_max <= MAX_SIGMA_MAX:
        raise InvalidRequest(f"sigma_max is {sigma_max:g}; choose {MIN_SIGMA_MAX:g} to {MAX_SIGMA_MAX:g}")
    if spec.ode and model.kind == "t2v":
        raise InvalidRequest(
            f"ode is for image-to-video models and {model.name} is text-to-video; leave it out"
        )
    attention, topk = choose_attention(spec, model)
    if not 1 <= spec.samples <= MAX_SAMPLES:
        raise InvalidRequest(f"samples is {spec.samples}; choose 1 to {MAX_SAMPLES}")
    if spec.adaptive and model.kind == "t2v":
        raise InvalidRequest(
            f"adaptive takes an image's shape and {model.name} is text-to-video; leave it out"
        )
    image, image_size = _check_image(spec, model, look)
    width, height = resolution.width, resolution.height
    if spec.adaptive and image_size is not None:
        width, height = _adapted(resolution, image_size)
    output_dir = _check_output_dir(spec.output_dir, Path(default_output_dir))
    return Admitted(
        spec=dataclasses.replace(
            spec,
            prompt=prompt,
            image=image,
            resolution=resolution.name,
            aspect_ratio=resolution.aspect_ratio,
            frames=frames,
            steps=steps,
            sigma_max=sigma_max,
            output_dir=str(output_dir),
            attention=attention,
            sla_topk=topk,
        ),
        kind=model.kind,
        width=width,
        height=height,
        frames=frames,
        steps=steps,
        sigma_max=sigma_max,
        attention=attention,
        sla_topk=topk,
        output_dir=output_dir,
    )


def _check_prompt(prompt: str, max_chars: int) -> str:
    """`prompt` on one line."""
    if len(prompt) > max_chars:
        raise InvalidRequest(
            f"the prompt has {len(prompt):,} characters and at most {max_chars:,} are accepted; shorten it"
        )
    folded = LINE_BREAKS.sub(" ", prompt).strip()
    _refuse_controls("the prompt", folded)
    if not folded:
        raise InvalidRequest("the prompt is empty; describe the video")
    return folded


def _check_resolution(spec: JobSpec, model: Model) -> Resolution:
    """The row of the model's table that is meant."""
    card = model.card
    name = card.default_resolution if spec.resolution is None else spec.resolution
    rows = {row.aspect_ratio: row for row in card.table if row.name == name}
    if not rows:
        names = dict.fromkeys(row.name for row in card.table)
        raise InvalidRequest(f"resolution is {shown(name)}; {model.name} has {', '.join(names)}")
    if spec.aspect_ratio is None:
        return rows.get(card.default_aspect_ratio) or next(iter(rows.values()))
    if spec.aspect_ratio not in rows:
        choices = ", ".join(f"{ratio} ({row.width}x{row.height})" for ratio, row in rows.items())
        raise InvalidRequest(
            f"aspect_ratio is {shown(spec.aspect_ratio)}; {model.name} has {choices} at {name}"
        )
    return rows[spec.aspect_ratio]


def _check_frames(spec: JobSpec, model: Model) -> int:
    frames, most = model.card.default_frames if spec.frames is None else spec.frames, model.card.max_frames
    if frames > most:
        raise InvalidRequest(f"frames is {frames}; {model.name} makes at most {most}, choose {most} or fewer")
    if not are_valid_frames(frames):
        nearest, *others = (count for count in nearest_frames(frames) if count <= most)
        if not others:
            raise InvalidRequest(f"frames is {frames}, which is not 4n + 1; choose {nearest}")
        above = others[0]
        raise InvalidRequest(f"frames is {frames}, which is not 4n + 1; choose {nearest} or {above}")
    return frames


def _adapted(row: Resolution, image_size: tuple[int, int]) -> tuple[int, int]:
    found = adaptive_size(row, *image_size)
    if found is None:
        width, height = image_size
        raise InvalidRequest(
            f"the image is {width}x{height}, and in that shape a side of the video would not be "
            f"{SIZE_STEP} to {MAX_SIDE} pixels; crop it or leave adaptive out"
        )
    return found


def _check_image(
    spec: JobSpec, model: Model, look: Callable[[Path], tuple[int, int]]
) -> tuple[str | None, tuple[int, int] | None]:
    """The image's path and its size in pixels; neither of a model that takes none."""
    if model.kind == "t2v":
        if spec.image is not None:
            raise InvalidRequest(
                f"an image was given and {model.name} is text-to-video; leave it out or choose an "
                "image-to-video model"
            )
        return None, None
    if spec.image is None:
        raise InvalidRequest(f"{model.name} is image-to-video and needs an image; give the path of one")
    path = _check_path("image", spec.image, "the image's full path")
    return str(path), look(path)


def _check_output_dir(wanted: str | None, default: Path) -> Path:
    """The folder for the video, which may still have to be made below one that can be written."""
    folder = default if wanted is None else _check_path("output_dir", wanted, "the folder's full path")
    remedy = "choose another output_dir"
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise StorageUnusable(f"{shown(existing)} is not a folder, so no video can be put there; {remedy}")
    fault = _write_fault(existing)
    if fault is not None:
        raise StorageUnusable(f"{shown(existing)} cannot be written: {fault}; {remedy}")
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise StorageUnusable(f"{shown(existing)} cannot be used: {error.strerror}; {remedy}") from error
    if free < MIN_FREE_BYTES:
        raise StorageUnusable(
            f"the disk of {shown(existing)} has {size_text(free)} left, less than "
            f"{size_text(MIN_FREE_BYTES)}; free some or {remedy}"
        )
    return folder


def _write_fault(folder: Path) -> str | None:
    """Why no file can be made in `folder`, or None.

    Tries it with a file that never gets a name: permissions do not tell of read-only file
    systems, quotas, or what root may do.
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return error.strerror
        # A file system without unnamed files.
        if not os.access(folder, os.W_OK | os.X_OK):
            return os.strerror(errno.EACCES)
    return None


def _check_path(field: str, text: str, wanted: str) -> Path:
    if not text:
        raise InvalidRequest(f"{field} is empty; give {wanted}")
    _refuse_controls(field, text)
    path = Path(text)
    if not path.is_absolute():
        raise InvalidRequest(f"{field} is {shown(text)}, which is not absolute; give {wanted}")
    if len(os.fsencode(path)) > MAX_PATH_BYTES or any(
        len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts
    ):
        raise InvalidRequest(f"{field} is {shown(text)}, which is longer than paths can be; shorten it")
    return path


def _refuse_controls(field: str, text: str) -> None:
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs"):
            what = "a control character" if category == "Cc" else "half of a character"
            raise InvalidRequest(f"{field} contains U+{ord(character):04X}, {what}; remove it")


def shown(value: str | Path) -> str:
    """`value` quoted for a sentence: escaped where it would not print, cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= 200 else text[:199] + "…")
