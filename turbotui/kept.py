"""Owns the small files that a console keeps from one run to the next: read with care, written whole."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_BYTES = 1_000_000
"""A larger file is none of ours."""


def load_table(path: Path | None) -> dict[str, Any]:
    """The JSON object that was left there; empty where there is none or it cannot be understood."""
    if path is None:
        return {}
    try:
        if path.stat().st_size > LIMIT_BYTES:
            return {}
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def save_table(path: Path | None, table: dict[str, Any]) -> None:
    """Keep it; a disk that is full or read-only costs the table and nothing else."""
    if path is None:
        return
    new = path.with_name(path.name + ".new")
    with contextlib.suppress(OSError, UnicodeEncodeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(table, file, ensure_ascii=False)
        os.replace(new, path)
