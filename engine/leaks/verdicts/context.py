"""The driver's context and the code that libraries have loaded, and memory of ours that is neither."""

from __future__ import annotations

from collections.abc import Iterator

from engine.leaks.facts import Facts
from engine.leaks.verdicts.words import LEAST_NAMED, cleanup, of_finding
from engine.units import size_text
from engine.wire import Remedy, Verdict


def context(facts: Facts) -> tuple[Verdict, ...]:
    return tuple(_verdicts(facts))


def _verdicts(facts: Facts) -> Iterator[Verdict]:
    num_bytes = facts.part_bytes("context")
    if num_bytes >= LEAST_NAMED:
        size = size_text(num_bytes)
        yield Verdict(
            kind="context",
            leak=False,
            title=f"{size} on {facts.name} are the worker's context and its libraries' code.",
            evidence=(
                f"Its process holds {size} beyond its allocator's segments, measured while it was idle.",
                "Every process on a GPU has one; only the end of the process gives it back.",
            ),
            bytes=num_bytes,
            device_id=facts.device_id,
            remedy=Remedy(
                action="park",
                text="End the worker and start none, if others need so little.",
                command="turbotui park",
                predicted_bytes=num_bytes,
            ),
        )
    for finding in facts.checked:
        if finding.kind == "unexplained" and finding.device_id == facts.device_id:
            yield Verdict(
                kind="context",
                # The check itself says so only of an idle worker whose context was measured after a job.
                leak=True,
                title=finding.title,
                evidence=of_finding(finding),
                bytes=finding.bytes,
                device_id=finding.device_id,
                site_reason="it was taken past PyTorch's allocator, which notes no sites of others",
                remedy=cleanup(finding.bytes),
            )
