"""Owns how the commands tell of the trace mode, and of what it costs before and after that is measured."""

from __future__ import annotations

from engine.wire import Tracing
from turbotui.format import clock, percent
from turbotui.text.spoken import listed, tr


def tracing_line(tracing: Tracing) -> str:
    """Whether it is on, since when, and what it costs; before it is measured, what it may cost."""
    if not tracing.on:
        cost = _cost_when_on(tracing)
        return tr("tracing is off; on, {cost}", cost=cost) if cost else tr("tracing is off; it costs nothing")
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
        parts.append(tr("a step may take three times as long on a CPU; like jobs with and without it tell"))
    else:
        parts.append(tr("its cost is not measured yet; like jobs with and without it do that"))
    return listed(parts)


def _cost_when_on(tracing: Tracing) -> str:
    """What it has cost here, or may cost; empty where nobody can tell."""
    if tracing.cost_share is not None:
        return tr("it cost {share} of a denoise step here", share=percent(max(0.0, tracing.cost_share)))
    if tracing.device == "cpu":
        return tr("a step takes up to three times as long on a CPU")
    return tr("a step takes about 2 % longer on a GPU") if tracing.device == "cuda" else ""
