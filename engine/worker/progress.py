"""A job's progress as one fraction and an estimate of the time left.

The shares are what each part took of the last job of the same shape, or of a typical one; the
estimate corrects them by the time that this job has really taken. A stage that tells its steps is
believed more than its share, which was another size's or another machine's. Of typical shares no time left
is made until the longest stage has told its steps: the stages before it say nothing of how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from engine.wire import Stage, StageRecord
from engine.worker.channel import JobProgressed

Shares: TypeAlias = Mapping[str, float]
"""Stage to its part of the whole; they need not add up to 1."""

TYPICAL: Mapping[str, Shares] = MappingProxyType(
    {
        "cuda": MappingProxyType(
            {"text": 0.06, "image": 0.08, "denoise": 0.60, "decode": 0.24, "write": 0.02}
        ),
        # Convolutions are what a processor is slowest at: measured on the demo models.
        "cpu": MappingProxyType(
            {"text": 0.08, "image": 0.12, "denoise": 0.28, "decode": 0.50, "write": 0.02}
        ),
    }
)
"""By device kind."""
LEAST_SHARE = 0.005
"""Of a stage that took no time at all: its steps must still move the bar."""
LOAD_SHARE = 0.25
"""Of each stage's own share: what loading its component takes of it when it is not resident."""
TRUSTED = 0.05
"""Below this fraction an estimate would be a guess."""
HEARD = 0.1
"""Of a stage's own steps: from so many on, what they took counts."""
BELIEVED = 0.25
"""From so many on, nothing else counts for the rest of that stage."""
INTERVAL_S = 0.1
"""Between two messages about one load, whose chunks come by the hundred."""


def shares_of(records: Iterable[StageRecord]) -> Shares:
    """What each stage of a finished job took of it; lines such as `denoise dit.high` belong together."""
    found: dict[str, float] = {}
    for record in records:
        stage = record.stage.split()[0]
        found[stage] = found.get(stage, 0.0) + record.elapsed_s
    whole = sum(found.values()) or 1.0
    return {stage: seconds / whole for stage, seconds in found.items()}


def stages_of(kind: str) -> tuple[Stage, ...]:
    """The stages of a job of such a model, in order."""
    stages: tuple[Stage, ...] = ("text", "image", "denoise", "decode", "write")
    return stages if kind == "i2v" else tuple(stage for stage in stages if stage != "image")


def parts_of(shares: Shares, stages: Iterable[Stage]) -> dict[Stage, float]:
    """The share of each of `stages`, in order; they add up to 1."""
    least = {stage: max(LEAST_SHARE, shares.get(stage, 0.0)) for stage in stages}
    total = sum(least.values())
    return {stage: share / total for stage, share in least.items()}


class ProgressMeter:
    """Turns stage and step into JobProgressed messages; the fraction never falls."""

    def __init__(
        self,
        job_id: int,
        stages: tuple[Stage, ...],
        *,
        clock: Callable[[], float],
        report: Callable[[JobProgressed], None],
        shares: Shares,
        typical: bool,
    ) -> None:
        """`stages` are those of this job, in order; `load` belongs to the one that it precedes.

        `typical` shares are no measured job's.
        """
        self._job_id = job_id
        self._clock = clock
        self._report = report
        self._began = clock()
        self._share = parts_of(shares, stages)
        self._begin: dict[Stage, float] = {}
        begin = 0.0
        for stage, share in self._share.items():
            self._begin[stage] = begin
            begin += share
        longest = max(self._share, key=lambda stage: self._share[stage])
        self._unmeasured: Stage | None = longest if typical else None
        """The longest stage, until it has told so many steps that there is a rate."""
        self._typical = typical
        self._fraction = 0.0
        self._peak_bytes: int | None = None
        self._stage: Stage = "start"
        self._sent_at = self._began
        self._steps_from: tuple[Stage, int, float] | None = None
        """The stage whose steps are told, the first of them that was heard of, and when; what was loaded
        since then does not count."""
        self._heard_at = self._began

    def saw_peak(self, num_bytes: int) -> None:
        self._peak_bytes = max(num_bytes, self._peak_bytes or 0)

    def started(self) -> None:
        self._send("start", 0, 0)

    def at(self, stage: Stage, step: int, steps: int) -> None:
        """`step` of `steps` of `stage` are done."""
        part = LOAD_SHARE + (1 - LOAD_SHARE) * step / max(1, steps)
        self._advance(self._begin[stage] + self._share[stage] * part)
        if self._steps_from is None or self._steps_from[0] != stage:
            self._steps_from = (stage, step, self._clock())
        self._heard_at = self._clock()
        longest = self._unmeasured
        if longest is not None and self._begin[stage] >= self._begin[longest]:
            if stage != longest or step - self._steps_from[1] >= HEARD * max(1, steps):
                self._unmeasured = None
        self._send(stage, step, steps)

    def loading(self, stage: Stage, done_bytes: int, total_bytes: int) -> None:
        """A component that `stage` needs has `done_bytes` of its bytes."""
        part = LOAD_SHARE * done_bytes / max(1, total_bytes)
        self._advance(self._begin[stage] + self._share[stage] * part)
        now = self._clock()
        if self._steps_from is not None and self._steps_from[0] == stage:
            self._steps_from = (*self._steps_from[:2], self._steps_from[2] + now - self._heard_at)
        self._heard_at = now
        if self._stage != "load" or now - self._sent_at >= INTERVAL_S:
            self._send("load", 0, 0)

    def _advance(self, fraction: float) -> None:
        self._fraction = max(self._fraction, min(1.0, fraction))

    def _send(self, stage: Stage, step: int, steps: int) -> None:
        now = self._clock()
        self._stage, self._sent_at = stage, now
        elapsed = now - self._began
        told = self._fraction >= TRUSTED and self._unmeasured is None
        eta = self._left(elapsed, stage, step, steps, now) if told else None
        self._report(
            JobProgressed(
                job_id=self._job_id,
                stage=stage,
                step=step,
                steps=steps,
                fraction=self._fraction,
                eta_s=eta,
                peak_bytes=self._peak_bytes,
            )
        )

    def _left(self, elapsed: float, stage: Stage, step: int, steps: int, now: float) -> float:
        """Seconds: by the shares alone, and the more of a stage's steps are done the more by these."""
        by_shares = elapsed * (1 - self._fraction) / self._fraction
        if self._steps_from is None or self._steps_from[0] != stage or not steps:
            return by_shares
        _stage, first, since = self._steps_from
        done = (step - first) / steps
        if done < HEARD:
            return by_shares
        rest = (now - since) * (steps - step) / (step - first)
        end = self._begin[stage] + self._share[stage]
        # What comes after it has its share of the time that all until then will have taken.
        by_steps = rest + (elapsed + rest) * max(0.0, 1 - end) / end
        weight = 1.0 if self._typical else min(1.0, done / BELIEVED)
        return weight * by_steps + (1 - weight) * by_shares
