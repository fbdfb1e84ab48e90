"""Owns how a moment of a recording becomes what the console draws from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.wire import MemorySampled
from turbotui.state import ConsoleState, reduce

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.recording.rows import Row
    from turbotui.replay.standing import Standing


def rebuilt(standing: Standing, rows: Mapping[str, Row], moment: float, *, silent: bool) -> ConsoleState:
    """What a console of that moment would have shown; while the recording is `silent`, its log alone."""
    state = ConsoleState(link="connected", hello=standing.hello(), log=tuple(standing.log))
    if silent:
        return state
    snapshot = standing.snapshot(moment, rows.values())
    if snapshot is not None:
        state = reduce(state, snapshot, wall=moment)
    for row in rows.values():
        state = reduce(state, MemorySampled(device=standing.device(row)), wall=moment)
    return state
