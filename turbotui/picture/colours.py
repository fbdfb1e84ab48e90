"""Owns which colours a console may draw pictures in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.app import App

    from turbotui.picture.cells import Colours


def colours_of(app: App[object]) -> Colours:
    """What the terminal has, by what Rich found out of it.

    `none` by NO_COLOR, and where a half-block is not one cell: in ASCII, or on a terminal that makes
    ambiguous symbols wide.
    """
    symbols = getattr(app, "symbols", None)
    if symbols is not None and (symbols.ascii or symbols.wide):
        return "none"
    if app.no_color or app.console.options.ascii_only:
        return "none"
    system = app.console.color_system
    if system == "truecolor" or app.is_headless:  # a picture of the screen has all colours
        return "true"
    if system == "256":
        return "256"
    return "16" if system in ("standard", "windows") else "none"
