"""What a model is called that is made of a file: the same for who looks for models and who imports them."""

from __future__ import annotations

import re
from pathlib import Path

from engine.models.importing.weights import WEIGHT_ENDINGS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""What a model may be called."""
_EXPERT_WORD = re.compile(r"[-_. ]?(?<![a-z])(high|low)(?![a-z])([-_. ]?noise)?", re.IGNORECASE)
_SAYS_NOTHING = re.compile(
    r"(diffusion_pytorch_model|model|pytorch_model|transformer(_2)?|dit|checkpoints?)(-\d+-of-\d+)?"
    r"|[0-9a-f]{20,}|snapshots|",
    re.IGNORECASE,
)
_HUB = "models--"


def model_name(path: Path, *, two: bool) -> str:
    """A name for a model out of that of its DiT's file, or of its folders where that says nothing.

    Of `two` experts what tells one from the other is left out.
    """
    for step in (path, *path.absolute().parents):
        name = step.name
        for ending in WEIGHT_ENDINGS:
            name = name.removesuffix(ending)
        if name.startswith(_HUB):
            name = name.rpartition("--")[2]
        if two:
            name = _EXPERT_WORD.sub("", name)
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-._+")[:100]
        if _SAYS_NOTHING.fullmatch(name) is None:
            return name
    return "imported"
