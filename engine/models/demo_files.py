"""Which files the demo models consist of, and whether they are all there; imports no torch.

The maker writes a marker last; whoever only wants to know reads it here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

DEMO_FORMAT = 1
"""Raised whenever the made files change, so that older ones are made again."""
DEMO_FOLDER = "demo"
MARKER = "demo.json"
DEMO_MODELS = ("wan-demo-small", "wan-demo-large", "wan-demo-i2v")


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Every file of the demo models, relative to their folder, with its bytes."""

    format: int
    files: dict[str, int]


def demo_folder(models: Path) -> Path:
    """Where the demo models lie, below the folder of all models."""
    return models / DEMO_FOLDER


def are_demo_models_complete(models: Path) -> bool:
    """Whether the demo models lie whole below `models` and were made by this build's recipe."""
    root = demo_folder(models)
    try:
        marker = msgspec.json.decode((root / MARKER).read_bytes(), type=Marker)
        return (
            marker.format == DEMO_FORMAT
            and {name.split("/")[0] for name in marker.files} == set(DEMO_MODELS)
            and all((root / name).stat().st_size == size for name, size in marker.files.items())
        )
    except (OSError, msgspec.MsgspecError, ValueError):
        return False
