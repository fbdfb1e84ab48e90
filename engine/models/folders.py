"""The components of a model and the folders of the diffusers layout that they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

TEXT, VAE, DIT, DIT_HIGH, DIT_LOW = "text", "vae", "dit", "dit.high", "dit.low"
TOKENIZER = "tokenizer"
"""The folder of what reads a prompt; no component, since it takes no device memory."""

FOLDERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "t2v": MappingProxyType({TEXT: "text_encoder", DIT: "transformer", VAE: "vae"}),
        "i2v": MappingProxyType(
            {TEXT: "text_encoder", VAE: "vae", DIT_HIGH: "transformer", DIT_LOW: "transformer_2"}
        ),
    }
)
"""Model kind to component to folder, in the order in which a job first needs them."""
RANDOM_MARKER = "random.json"
"""In the folder of every random model, see `engine.models.random_files`."""


def was_made_here(folder: Path) -> bool:
    """Whether `folder` holds a random model, whole or not, and nobody's own."""
    return (folder / RANDOM_MARKER).is_file()
