"""Owns the English sentences of the console, by noun."""

from __future__ import annotations

from turbotui.text.en import acting, found, guide, jobs, keys, leaks, pages, panels, quantising

TEXTS: dict[str, str] = {
    **keys.TEXTS,
    **panels.TEXTS,
    **jobs.TEXTS,
    **acting.TEXTS,
    **found.TEXTS,
    **pages.TEXTS,
    **guide.GUIDE,
    **quantising.TEXTS,
    **leaks.TEXTS,
}
