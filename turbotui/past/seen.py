"""Owns what this console has seen itself: how everything stood, a state a second, then one in ten.

States share what did not change from one to the next, so that an hour of them takes a few MiB.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from turbotui.past.marks import SAME_S, happened_by
from turbotui.state import in_order

if TYPE_CHECKING:
    from engine.wire import Balance, DeviceStatus, Job
    from turbotui.state import ConsoleState

FINE_S = 600
"""So long each second is kept."""
COARSE_S = 10
KEEP_S = 3600
HOLE_S = 5.0
"""After so long without a word, what stood before it is not believed until the next snapshot."""

STEP_S = 1.0
"""A clock that goes back by less is being slowed; more, and it was set."""


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    state: ConsoleState
    anew: bool
    """It was told whole: what was before it may have changed in the meantime."""


class Seen:
    """`keep` and `at` may be in different threads."""

    def __init__(self, *, rewinds: bool = False) -> None:
        """With `rewinds` the times are a replay's, and may jump back to be told again."""
        self._rewinds = rewinds
        self._kept: list[_Kept] = []
        self._lock = Lock()
        self._thinned_at = 0.0

    def keep(self, state: ConsoleState, at: float, *, anew: bool = False) -> None:
        """Take how everything stands at `at`, wall-clock; of one second the last counts."""
        with self._lock:
            if self._kept and self._kept[-1].at > at:
                at = self._back_to(at)
            last = self._kept[-1] if self._kept else None
            if last is not None and int(last.at) == int(at):
                self._kept[-1] = _Kept(at, state, anew or last.anew)
                return
            if last is not None:
                before = self._kept[-2].state if len(self._kept) > 1 else None
                self._kept[-1] = replace(last, state=_slim(last.state, before))
            self._kept.append(_Kept(at, state, anew))
            if at - self._thinned_at > 60 or at < self._thinned_at:
                self._thinned_at = at
                self._thin(at)

    def _back_to(self, at: float) -> float:
        """Make room for what stands at `at`, earlier than what was kept last; when that counts as."""
        if self._rewinds:
            # What it told of later will be told again.
            while self._kept and self._kept[-1].at > at:
                self._kept.pop()
            return at
        late = self._kept[-1].at - at
        if late <= STEP_S:
            return self._kept[-1].at
        # The host's clock was set back: what was seen is as long ago as before.
        self._kept = [replace(one, at=one.at - late) for one in self._kept]
        return at

    def at(self, moment: float, newest: ConsoleState) -> ConsoleState | None:
        """How everything stood at a moment, with the lines of `newest` up to it; None where unseen."""
        with self._lock:
            # A second's state is that of its end, with all that happened in it.
            place = bisect_right(self._kept, int(moment), key=lambda kept: int(kept.at))
            found = self._kept[place - 1] if place else None
            following = self._kept[place] if place < len(self._kept) else None
            later = [one.state for one in self._kept[place : place + 3] if one.at <= moment + SAME_S]
        if found is None or found.state.link != "connected" or found.state.engine is None:
            return None
        if following is not None and following.anew and moment - found.at > HOLE_S:
            return None
        upto = max(moment, found.at)
        jobs = _jobs_by(moment, found.state.jobs, later)
        return replace(found.state, jobs=jobs, log=tuple(line for line in newest.log if line.at <= upto))

    def _thin(self, now: float) -> None:
        kept: list[_Kept] = []
        for one in self._kept:
            if one.at < now - KEEP_S:
                continue
            same = kept and int(kept[-1].at // COARSE_S) == int(one.at // COARSE_S)
            if same and one.at < now - FINE_S:
                one = replace(one, anew=one.anew or kept[-1].anew)
                kept.pop()
            kept.append(one)
        self._kept = kept


def _jobs_by(moment: float, jobs: tuple[Job, ...], later: list[ConsoleState]) -> tuple[Job, ...]:
    """`jobs` with what had become of them by `moment` and was told a little later."""
    known = {job.id: job for job in jobs}
    told = False
    for state in later:
        for job in state.jobs:
            if job is not known.get(job.id) and happened_by(known.get(job.id), job, moment):
                known[job.id], told = job, True
    return in_order(list(known.values())) if told else jobs


def _slim(state: ConsoleState, before: ConsoleState | None) -> ConsoleState:
    """`state` without what lies elsewhere, with the objects of `before` for what is the same in both."""
    # The log is the newest state's: its lines have times of their own.
    state = replace(state, log=(), marks=())
    if before is None or state.devices is before.devices:
        return state
    old = {device.id: device for device in before.devices}
    devices = tuple(_device(device, old.get(device.id)) for device in state.devices)
    return replace(state, devices=devices)


def _device(device: DeviceStatus, before: DeviceStatus | None) -> DeviceStatus:
    if before is None or device is before:
        return device
    processes = before.processes if device.processes == before.processes else device.processes
    return replace(device, processes=processes, balance=_balance(device.balance, before.balance))


def _balance(balance: Balance | None, before: Balance | None) -> Balance | None:
    if balance is None or before is None:
        return balance
    known = {part: part for part in before.parts}
    return replace(balance, parts=tuple(known.get(part, part) for part in balance.parts))
