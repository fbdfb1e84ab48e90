"""Which model plays which part in the benchmark, and the jobs that are run with it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from engine.wire import JobSpec

Role: TypeAlias = Literal["small", "large", "two"]
Dtype: TypeAlias = Literal["bf16", "int8"]
ROLES: tuple[Role, ...] = ("small", "large", "two")
SIZES: dict[Role, str] = {"small": "wan2.1-t2v-1.3b", "large": "wan2.1-t2v-14b", "two": "wan2.2-i2v-a14b"}
DEMO: dict[Role, str] = {"small": "wan-demo-small", "large": "wan-demo-large", "two": "wan-demo-i2v"}
PROMPT = "a lighthouse in a storm, waves break over the rocks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cast:
    """The models of one run."""

    demo: bool
    dtype: Dtype
    image: Path
    """A picture for the model that needs one."""

    def name(self, role: Role) -> str:
        if self.demo:
            return DEMO[role]
        return f"{SIZES[role]}-random" if self.dtype == "bf16" else f"{SIZES[role]}-random-{self.dtype}"

    def missing(self, models: Path) -> list[Role]:
        """Those that do not lie in `models`; the demo's are made when they are needed."""
        return [] if self.demo else [role for role in ROLES if not (models / self.name(role)).is_dir()]

    def maker(self, role: Role) -> str:
        """The command that makes a missing one."""
        suffix = "" if self.dtype == "bf16" else f" --dtype {self.dtype}"
        return f"turbotui models make-random {SIZES[role]}{suffix}"

    def quickest(self, role: Role, *, prompt: str = PROMPT) -> JobSpec:
        """The least work that goes through every stage, and through both experts where there are two."""
        return JobSpec(
            model=self.name(role),
            prompt=prompt,
            image=str(self.image) if role == "two" else None,
            resolution=None if self.demo else "480p",
            frames=5,
            steps=4 if role == "two" else 1,
            seed=1,
        )

    def with_swap(self) -> JobSpec:
        """Steps long enough to carry an expert under one of them: 1.1 s of a 14B on an H100 with real sizes,
        where the bus takes 0.5 s; at 720p its VAE would take most of the benchmark's time."""
        return JobSpec(
            model=self.name("two"),
            prompt=PROMPT,
            image=str(self.image),
            resolution=None if self.demo else "480p",
            frames=5 if self.demo else 17,
            steps=4,
            seed=1,
        )


def write_image(path: Path, width: int = 64, height: int = 48) -> None:
    """A small PNG: colours that run across it. Made by hand, since the CLI carries no library for it."""
    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (x * 3 % 256, y * 5 % 256, 96))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
