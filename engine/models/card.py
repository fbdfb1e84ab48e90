"""A model's card, `turbotui.json`: its title, table of resolutions and defaults.

Ours, and optional: repositories from elsewhere have none, and the catalog infers it then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from engine.errors import ModelUnusable
from engine.planning.shapes import MAX_STEPS, MIN_STEPS, SIZE_STEP, are_valid_frames, resolutions
from engine.wire import ModelKind, Resolution

CARD_FILE = "turbotui.json"
CARD_FORMAT = 1
MAX_FRAMES = 81
"""What the released models were trained on."""
REMEDY = f"correct it, or remove {CARD_FILE} to take the defaults"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Side = Annotated[int, msgspec.Meta(ge=SIZE_STEP, le=8192, multiple_of=SIZE_STEP)]


class CardRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the table of resolutions; sides in pixels."""

    name: Text
    aspect_ratio: Text
    width: Side
    height: Side


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model says of itself. `kind` and the defaults are checked against the rest."""

    format: int
    title: Text
    kind: ModelKind
    demo: bool = False
    resolutions: Annotated[tuple[CardRow, ...], msgspec.Meta(min_length=1)]
    default_resolution: Text
    default_aspect_ratio: Text
    default_frames: Annotated[int, msgspec.Meta(ge=1)]
    default_steps: Annotated[int, msgspec.Meta(ge=MIN_STEPS, le=MAX_STEPS)] = MAX_STEPS
    max_frames: Annotated[int, msgspec.Meta(ge=1)]
    quantised_from: Text | None = None
    """Name of the model of which this one's int8 weights were made."""
    quantised_weights: Text | None = None
    """Digest of that model's DiTs, see `engine.models.siblings`: another model under its name is another."""

    @property
    def table(self) -> tuple[Resolution, ...]:
        return tuple(
            Resolution(name=row.name, aspect_ratio=row.aspect_ratio, width=row.width, height=row.height)
            for row in self.resolutions
        )


def read_card(path: Path) -> Card:
    """The card at `path`.

    Raises:
        ModelUnusable: it cannot be read, is no card, or contradicts itself.
    """
    try:
        card = msgspec.json.decode(path.read_bytes(), type=Card)
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ModelUnusable(f"{path} is no model card ({error}); {REMEDY}") from error
    if card.format != CARD_FORMAT:
        raise ModelUnusable(
            f"{path} has format {card.format}, this build reads {CARD_FORMAT}; update turbotui or {REMEDY}"
        )
    rows = {(row.name, row.aspect_ratio) for row in card.resolutions}
    if (card.default_resolution, card.default_aspect_ratio) not in rows:
        raise ModelUnusable(
            f"{path} has the default {card.default_resolution} {card.default_aspect_ratio}, "
            f"which its own table lacks; {REMEDY}"
        )
    for name, frames in (("default_frames", card.default_frames), ("max_frames", card.max_frames)):
        if not are_valid_frames(frames) or frames > card.max_frames:
            raise ModelUnusable(
                f"{path} has {name} {frames}, which is not 4n + 1 up to {card.max_frames}; {REMEDY}"
            )
    return card


def inferred_card(title: str, kind: ModelKind) -> Card:
    """The card of a released model, which carries none: the 480p and 720p tables, 81 frames."""
    rows = tuple(
        CardRow(name=row.name, aspect_ratio=row.aspect_ratio, width=row.width, height=row.height)
        for row in resolutions("480p", "720p")
    )
    return Card(
        format=CARD_FORMAT,
        title=title,
        kind=kind,
        resolutions=rows,
        default_resolution="480p" if kind == "t2v" else "720p",
        default_aspect_ratio="16:9",
        default_frames=MAX_FRAMES,
        max_frames=MAX_FRAMES,
    )
