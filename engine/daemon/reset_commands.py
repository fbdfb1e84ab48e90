"""The commands of one reset: persistence mode off, the reset itself, persistence mode restored.

Event loop's thread only.
"""

from __future__ import annotations

import asyncio
from functools import partial

from engine.daemon.reset_course import Course, end_text
from engine.daemon.reset_mark import ResetMarks
from engine.daemon.reset_plan import Facts
from engine.daemon.reset_program import QUERY_TIMEOUT_S, Ran, ResetProgram
from engine.daemon.steps import Steps
from engine.errors import Refused

RESTORE_TRIES = 3
RESTORE_PAUSE_S = 2.0
"""Between them: a driver that has just come back may not answer at once."""


class ResetCommands:
    """Runs them, each with its step; what goes wrong is told to the course."""

    def __init__(self, program: ResetProgram, marks: ResetMarks, *, timeout_s: float) -> None:
        """A reset that takes longer than `timeout_s` hangs."""
        self._program = program
        self._marks = marks
        self.timeout_s = timeout_s

    async def run(self, course: Course, steps: Steps) -> None:
        """Persistence mode is restored whatever happens between, but under a reset that hangs."""
        facts = course.facts
        try:
            if facts.persistence:
                ran = await self._command("persistence-off", facts.uuid)
                steps.ended("persistence mode off")
                if ran.code != 0:
                    text = f"nothing was reset: persistence mode cannot be switched off, {end_text(ran)}"
                    course.fail(text, ran)
                    return
            ran = await self._reset(facts)
            steps.ended("reset")
            course.heard(ran)
        except Refused as refusal:  # the program has gone since it was asked
            course.fail(str(refusal))
        finally:
            if course.hung is None:
                await self.restore(course, steps)
            elif facts.persistence:
                course.notes.append("persistence mode is restored once the reset has ended")

    async def restore(self, course: Course, steps: Steps) -> None:
        """Switch persistence mode on again where it was, and forget the reset."""
        if course.facts.persistence:
            ran, failure = await self._restored(course.facts.uuid)
            steps.ended("persistence mode restored" if failure is None else "persistence mode not restored")
            if failure is not None:
                course.fail(failure, ran)
        self._marks.clear()

    async def restore_of(self, uuid: str) -> str | None:
        """As `restore`, of a reset that an earlier engine left; why it could not be, or None."""
        _ran, failure = await self._restored(uuid)
        self._marks.clear()
        return failure

    async def _restored(self, uuid: str) -> tuple[Ran | None, str | None]:
        ran: Ran | None = None
        reason = ""
        for number in range(RESTORE_TRIES):
            if number:
                await asyncio.sleep(RESTORE_PAUSE_S)
            try:
                ran = await self._command("persistence-on", uuid)
            except Refused as refusal:
                reason = str(refusal)
                continue
            if ran.code == 0:
                return ran, None
            reason = end_text(ran)
            if ran.code is None:  # the driver hangs, and everybody waits for this
                break
        by_hand = " ".join(self._program.command("persistence-on", uuid))
        return ran, f"persistence mode is not restored, {reason}; do it by `{by_hand}`"

    async def _reset(self, facts: Facts) -> Ran:
        loop = asyncio.get_running_loop()
        keep = partial(self._marks.keep, persistence=bool(facts.persistence))

        def started(pid: int) -> None:
            loop.call_soon_threadsafe(keep, pid, facts.uuid, facts.index)

        words = self._program.command("reset", facts.uuid)
        return await self._program.run(words, timeout_s=self.timeout_s, kill=False, on_started=started)

    async def _command(self, verb: str, uuid: str) -> Ran:
        words = self._program.command(verb, uuid)
        return await self._program.run(words, timeout_s=QUERY_TIMEOUT_S, kill=True)
