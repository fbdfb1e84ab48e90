"""Weights that are resident although nothing uses them: a component that was forgotten.

The engine keeps what fits on purpose, so that the next job finds it. It is forgotten where another model
is the active one, no job that waits asks for it, and that has been so for long.
"""

from __future__ import annotations

from engine.leaks.facts import ComponentUse, Facts
from engine.leaks.verdicts.words import LEAST_LEAK, ago
from engine.units import counted, size_text
from engine.wire import Remedy, Verdict

UNUSED_S = 1800.0
"""Who goes to and fro between two models comes back sooner."""
UNUSED_JOBS = 5
"""Jobs of other models since then: more than a comparison of two models makes in a row."""
MANY_JOBS = 20
"""Of others, however soon: more than one batch."""
LEAST_FORGOTTEN = LEAST_LEAK
"""Bytes of what is worth the word: less is kept for nothing as well, and nobody misses it."""


def component(facts: Facts) -> tuple[Verdict, ...]:
    """One for each component that no running or waiting job needs."""
    return tuple(_verdict(facts, item) for item in facts.components if not item.leased and not item.wanted)


def is_forgotten(facts: Facts, item: ComponentUse) -> bool:
    if item.leased or item.wanted or item.bytes < LEAST_FORGOTTEN:
        return False
    unused = item.used_at is None or facts.at - item.used_at >= UNUSED_S
    return item.jobs_since >= (UNUSED_JOBS if unused else MANY_JOBS)


def _verdict(facts: Facts, item: ComponentUse) -> Verdict:
    size, forgotten = size_text(item.bytes), is_forgotten(facts, item)
    return Verdict(
        kind="component",
        leak=forgotten,
        title=f"{item.label} is resident with {size}, and nothing uses it."
        if forgotten
        else f"{item.label} is resident with {size} beside the active model.",
        evidence=(
            "Another model is the active one, and no job that waits asks for it.",
            *_used(facts, item),
            "It was kept since there was room, so that its next job need not load it.",
        ),
        bytes=item.bytes,
        device_id=facts.device_id,
        component=item.label,
        remedy=Remedy(
            action="unload",
            text="Unload it; its next job loads it again.",
            command=f"turbotui unload {item.label}",
            target=item.label,
            predicted_bytes=item.bytes,
        ),
    )


def _used(facts: Facts, item: ComponentUse) -> tuple[str, ...]:
    if item.used_at is None:
        return ("This engine has not seen a job with its model.",)
    return (
        f"Its model was last used {ago(facts.at - item.used_at)}.",
        f"{counted(item.jobs_since, 'job')} of other models ended since then."
        if item.jobs_since
        else "No job of another model has ended since then.",
    )
