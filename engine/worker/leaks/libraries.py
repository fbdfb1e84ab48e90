"""Which source files are a library's, and which are the engine's, a plug-in's or a person's own."""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import Path

ENGINE = str(Path(__file__).parents[2])
SEARCH = str(Path(__file__).parent)
"""This search, whose own frames tell nothing."""
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether code of this file is a library's: Python's, an installed package's, or of this search.

    The engine is none, though it may be installed as a package.
    """
    if file.startswith(f"{ENGINE}/"):
        return file.startswith(f"{SEARCH}/")
    if file.startswith("<") or "/site-packages/" in file or "/dist-packages/" in file:
        return True
    return file.startswith(LIBRARIES)
