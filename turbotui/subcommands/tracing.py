"""Owns how the commands tell of the trace mode, and of what it costs before and after that is measured."""

from __future__ import annotations

from engine.wire import Tracing
from turbotui.format import clock, percent
from turbotui.text.spoken import listed, tr


def tracing_line(tracing: Tracing) -> str:
    """Whether it is on, since when, and what it costs; before it is measured, what it may cost."""
    if not tracing.on:
        off, cost = tr("tracing is off; it costs nothing"), _cost_when_on(tracing)
        return listed([off, cost]) if cost else off
    parts = [
        tr("tracing is on since {since}", since=clock(tracing.since))
        if tracing.since
        else tr("tracing is on")
    ]
    if tracing.limit:
        parts.append(tr("{entries} of {limit} entries", entries=tracing.entries, limit=tracing.limit))
    if tracing.cost_share is not None:
        parts.append(tr("costs {share} of a denoise step", share=percent(max(0.0, tracing.cost_share))))
    elif tracing.device == "cpu":
        parts.append(tr("on a CPU a step takes up to three times as long; jobs that run now measure it"))
    else:
        parts.append(tr("its cost is not measured yet; jobs that run now measure it"))
    return listed(parts)


def _cost_when_on(tracing: Tracing) -> str:
    """What it has cost here, or may cost; empty where nobody can tell."""
    if tracing.cost_share is not None:
        return tr("on, it cost {share} of a denoise step here", share=percent(max(0.0, tracing.cost_share)))
    if tracing.device == "cpu":
        return tr("on, a step takes up to three times as long on a CPU")
    return tr("on, a step takes about 2 % longer on a GPU") if tracing.device == "cuda" else ""
