"""Owns the unsent job: what was typed and not submitted survives closing the screen and the console."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidRequest
from turbotui.kept import load_table, save_table

if TYPE_CHECKING:
    from engine.wire import JobSpec

DECIMAL = re.compile(r"[0-9]{0,19}")
"""What frames and seed may be: the digits that the fields take."""


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
    image: str = ""
    ode: bool = False
    residency: str = ""
    """One of `engine.wire.RESIDENCIES`; empty leaves it to the engine."""

    def spec(self, *, image_to_video: bool) -> JobSpec:
        """The request that this draft means; fields left empty take the model's defaults.

        Raises:
            InvalidRequest: frames or seed is no number, or the image's path cannot be made whole.
        """
        from engine.wire import RESIDENCIES, JobSpec

        name, _space, ratio = self.resolution.partition(" ")
        return JobSpec(
            model=self.model,
            prompt=self.prompt,
            image=whole_path(self.image) if self.image and image_to_video else None,
            resolution=name or None,
            aspect_ratio=ratio or None,
            frames=_number("frames", self.frames) if self.frames else None,
            steps=self.steps or None,
            seed=_number("seed", self.seed) if self.seed else 0,
            ode=self.ode and image_to_video,
            residency=next((known for known in RESIDENCIES if known == self.residency), None),
        )


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


def load_draft(path: Path | None) -> Draft:
    """What was left there; an empty draft when there is none or it cannot be understood."""
    table = load_table(path)
    usable: dict[str, Any] = {
        field.name: table[field.name]
        for field in fields(Draft)
        if type(table.get(field.name)) is type(field.default)
    }
    for name in ("frames", "seed"):
        if not DECIMAL.fullmatch(usable.get(name, "")):
            del usable[name]
    return Draft(**usable)


def save_draft(path: Path | None, draft: Draft) -> None:
    """Keep `draft`; a disk that is full or read-only costs the draft and nothing else."""
    save_table(path, asdict(draft))
