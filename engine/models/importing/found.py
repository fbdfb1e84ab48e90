"""What a file or a folder turned out to be: its kind, a verdict, and the sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from engine.models.configs import I2V_CHANNELS, T2V_CHANNELS
from engine.models.model import printable
from engine.models.weight_file import UnsupportedFormat
from engine.wire import ModelKind

Kind: TypeAlias = Literal["dit", "text", "vae", "tokenizer", "diffusers", "folder", "lora", "unsupported"]
Verdict: TypeAlias = Literal["usable", "parts", "unsupported", "damaged"]
Expert: TypeAlias = Literal["high", "low"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one path holds."""

    path: Path
    kind: Kind
    verdict: Verdict
    sentence: str
    """Why it has that verdict, one sentence in English."""
    title: str
    """What it is in a few words, such as `TurboWan T2V DiT, 30 layers of 1536, int8`."""
    files: tuple[Path, ...] = ()
    """Of weights; of several shards all."""
    bytes: int = 0
    """Of all tensors."""
    dtype: str | None = None
    """As torch spells it; None where there are no weights or they could not be read."""
    # Of a DiT:
    width: int | None = None
    layers: int | None = None
    in_channels: int | None = None
    quantised: bool = False
    distilled: bool = False
    """Whether it has the `proj_l` of sparse-linear attention, as TurboDiffusion's checkpoints have."""
    expert: Expert | None = None
    """Which of two, where its name or that of its folder says so."""
    # Of a folder:
    parts: tuple[Found, ...] = ()
    """Everything that was found in it, one by one; of a diffusers repository its components."""

    @property
    def shards(self) -> int:
        return len(self.files)

    @property
    def model_kind(self) -> ModelKind | None:
        """What a DiT makes videos from; None of anything else."""
        if self.in_channels == I2V_CHANNELS:
            return "i2v"
        return "t2v" if self.in_channels == T2V_CHANNELS else None


def unsupported(path: Path, title: str, sentence: str) -> Found:
    return Found(path=path, kind="unsupported", verdict="unsupported", title=title, sentence=sentence)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def unreadable(path: Path, error: Exception) -> Found:
    """What `error` says of a file: of a format that is not read, or damaged."""
    if isinstance(error, UnsupportedFormat):
        return replace(unsupported(path, error.title, printable(str(error))), bytes=_size(path))
    return Found(
        path=path,
        kind="unsupported",
        verdict="damaged",
        title="damaged",
        bytes=_size(path),
        sentence=printable(str(error) or type(error).__name__),
    )
