"""What the frames depend on besides the request."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

import torch

from engine.version import build_id

LIBRARIES = ("torch", "diffusers", "transformers")


def versions() -> dict[str, str]:
    """By name: the interpreter, this build, the libraries, and those that torch was built for."""
    found = {"python": platform.python_version(), "turbotui": build_id()}
    found.update({name: _version(name) for name in LIBRARIES})
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if cudnn := torch.backends.cudnn.version():  # type: ignore[no-untyped-call]
        found["cudnn"] = str(cudnn)
    return found


@cache
def _version(package: str) -> str:
    # Once: the library keeps what it saw of each folder by its time of change, for as long as it lives.
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
