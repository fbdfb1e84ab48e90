"""What the demo models are called, where they lie, their cards, and whether they are all there.

Imports no torch. The maker writes a marker last; whoever only wants to know reads it here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.models.card import CARD_FORMAT, Card, CardRow
from engine.wire import ModelKind

DEMO_FORMAT = 2
"""Raised whenever the made files change, so that older ones are made again."""
DEMO_FOLDER = "demo"
MARKER = "demo.json"
DEMO_MODELS = ("wan-demo-small", "wan-demo-large", "wan-demo-i2v")

TITLES = {
    "wan-demo-small": "Demo T2V, small",
    "wan-demo-large": "Demo T2V, large",
    "wan-demo-i2v": "Demo I2V, two experts",
}
TABLE: dict[str, dict[str, tuple[int, int]]] = {
    "80p": {"16:10": (128, 80), "10:16": (80, 128), "1:1": (96, 96)},
    "112p": {"16:10": (176, 112), "10:16": (112, 176), "1:1": (144, 144)},
}
"""Name to aspect ratio to (width, height): toy sizes, multiples of 16."""


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


def demo_card(name: str, kind: ModelKind) -> Card:
    """The card of the demo model called `name`."""
    return Card(
        format=CARD_FORMAT,
        title=TITLES[name],
        kind=kind,
        demo=True,
        resolutions=tuple(
            CardRow(name=row, aspect_ratio=aspect_ratio, width=width, height=height)
            for row, sizes in TABLE.items()
            for aspect_ratio, (width, height) in sizes.items()
        ),
        default_resolution="80p",
        default_aspect_ratio="16:10",
        default_frames=17,
        default_steps=4,
        max_frames=81,
    )
