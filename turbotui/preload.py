"""Owns what is loaded once the first picture stands, so that the first key need not wait for the disk."""

from __future__ import annotations

import importlib
import threading

from turbotui import garbage

AFTER_S = 1.0
MODULES = ("turbotui.commands", "turbotui.screens.switch", "turbotui.screens.new_job")


def begin() -> None:
    """In a thread of its own."""
    threading.Thread(target=_load, name="preload", daemon=True).start()


def _load() -> None:
    for name in MODULES:
        importlib.import_module(name)
    garbage.go_on()
