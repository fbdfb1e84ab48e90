"""Owns the words that a setting and a request both take.

Apart from `engine.wire`, which re-exports them: whoever only reads the settings, such as a console before
its first picture, has not to load every wire model for two lists of words.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Residency: TypeAlias = Literal["auto", "dit_only", "keep_text", "keep_experts"]

RESIDENCIES: tuple[Residency, ...] = ("auto", "dit_only", "keep_text", "keep_experts")
"""What a job keeps on the device beside what its running stage uses: what fits and is needed later;
nothing; the text encoder, or both experts, as long as that is possible at all."""

VaePrecision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""In which a VAE computes; `auto` is that of its files."""
