"""Owns reading what a report rests on from a recording, as finely as its length asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.recording.tiers import CONTEXT_S, SECONDS, SPANS
from turbotui.report.facts import Report, find_facts

if TYPE_CHECKING:
    from engine.recording.reader import Recording

FINE_S = 2 * 3600.0
"""A report of more than this is told from spans of ten seconds: the peaks are the same, and it is quick."""


def read_report(recording: Recording, since: float, until: float) -> Report:
    """The report of a stretch; reads as long as there is something, so never in the loop of a console."""
    finest = SPANS if until - since > FINE_S else SECONDS
    return find_facts(
        recording.entries(since - CONTEXT_S, until),
        recording.rows(since=since, until=until, finest=finest),
        since=since,
        until=until,
    )
