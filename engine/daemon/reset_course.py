"""One reset under way: what it found, what went wrong, and its receipt."""

from __future__ import annotations

from engine.daemon.reset_plan import Facts
from engine.daemon.reset_program import Ran
from engine.daemon.reset_words import explain
from engine.daemon.steps import Steps
from engine.wire import Receipt


class Course:
    """Filled in by `Reset` as it goes."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.after: Facts | None = None
        self.began = False
        """The reset itself was run."""
        self.done = False
        """And succeeded by its own word."""
        self.hung: Ran | None = None
        self.failures: list[str] = []
        self.notes: list[str] = []

    def fail(self, text: str, ran: Ran | None = None) -> None:
        self.failures.append(text)
        if ran is not None:
            self._told(ran)

    def note(self, text: str | None) -> None:
        if text is not None:
            self.notes.append(text)

    def heard(self, ran: Ran) -> None:
        """How the reset ended."""
        self.began = True
        self._told(ran)
        if ran.code is None:
            self.hung = ran
            self.failures.append(
                f"the reset hangs: {ran.argv[0]} (pid {ran.pid}) has not ended within {ran.elapsed_s:.0f} s "
                "and is left to itself, since one that is cut off leaves the GPU in an unknown state; where "
                "it does not end, only a restart of the host helps"
            )
            return
        told = explain(ran.code, ran.text)
        self.done = told.ok
        (self.notes if told.ok else self.failures).append(told.sentence)

    @property
    def _residue(self) -> str:
        if self.done:
            return "what the driver itself takes of the GPU, or more"
        return "the reset did not succeed, so what was on the GPU may still be there"

    def _told(self, ran: Ran) -> None:
        self.notes.append(f"ran: {' '.join(ran.argv)}")
        self.notes += [f"said: {line}" for line in ran.text.splitlines()]

    def receipt(self, name: str, steps: Steps) -> Receipt:
        before = self.facts.used_bytes
        after = self.after.used_bytes if self.after is not None else None
        reason = "a reset ends the memory of all: the device's use before and after it, by the driver"
        if before is None or after is None:
            reason = "the driver did not tell what was used on the device before or after"
        returned = None if before is None or after is None else max(0, before - after)
        return Receipt(
            action="reset",
            target=name,
            ok=not self.failures,
            error="; ".join(self.failures) or None,
            expected_bytes=before or 0,
            returned_bytes=returned if self.began else 0,
            residue_bytes=after,
            residue=(self._residue,) if after else (),
            elapsed_s=steps.elapsed_s,
            proof="device-delta",
            proof_reason=reason if self.began else "nothing was reset",
            steps=tuple(steps.taken),
            notes=tuple(self.notes),
        )


def end_text(ran: Ran) -> str:
    """How a command that should have succeeded ended."""
    if ran.code is None:
        return f"{ran.argv[0]} did not end within {ran.elapsed_s:.0f} s"
    return explain(ran.code, ran.text).sentence
