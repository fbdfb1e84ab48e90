"""The driver's reset of one GPU: looked at first, asked for by its index, then done and looked at again.

Any NVML client blocks a reset, so probe, worker and nursery end before; persistence mode blocks it
too, so it is switched off and restored whatever happens. A reset that hangs is said to hang, and is
neither waited for without end nor cut off; see `engine.daemon.reset_hang`. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.daemon.audit import Asker, AuditLog, end_of
from engine.daemon.host_kind import HostKind, read_host_kind
from engine.daemon.own_processes import OwnProcesses
from engine.daemon.receipt_book import ReceiptBook
from engine.daemon.reset_commands import ResetCommands
from engine.daemon.reset_course import Course
from engine.daemon.reset_hang import HangingReset
from engine.daemon.reset_helper import helper_problem
from engine.daemon.reset_holders import Holders, find_holders
from engine.daemon.reset_mark import ResetMark, ResetMarks
from engine.daemon.reset_plan import (
    Facts,
    Surroundings,
    conditions,
    count_links,
    facts_from,
    holder_text,
    rights_condition,
)
from engine.daemon.reset_program import QUERY_TIMEOUT_S, RESET_TIMEOUT_S, Ran, ResetProgram
from engine.daemon.reset_words import explain
from engine.daemon.steps import Steps
from engine.daemon.threads import in_thread
from engine.errors import InvalidRequest, NotFound, NotNow, Refused
from engine.units import size_text
from engine.wire import (
    DeviceProcess,
    Receipt,
    ResetCondition,
    ResetPlan,
    ResetRequest,
)

FIELDS = (
    "uuid",
    "index",
    "name",
    "pci.bus_id",
    "persistence_mode",
    "display_active",
    "mig.mode.current",
    "compute_cap",
    "memory.used",
)
RECOVERY = "gpu_recovery_action"
"""Asked apart: drivers before 570 do not know it."""
WHY = "a GPU reset was asked for"
NEAR_NOTHING_BYTES = 2**30
"""More than the driver itself takes of an empty GPU; 0.6 GiB on an H200."""
LOOK_S = 0.5
"""How often it is looked whether a reset that another process began has ended."""


class Reset:
    """Resets GPUs, one at a time."""

    def __init__(
        self,
        program: ResetProgram,
        own: OwnProcesses,
        receipts: ReceiptBook,
        audit: AuditLog,
        *,
        helper: Path,
        marks: Path,
        log: Callable[[str], None],
        listed: Callable[[str], Iterable[DeviceProcess]],
        hold_queue: Callable[[str], str | None],
        platform: Callable[[], HostKind] = read_host_kind,
        timeout_s: float = RESET_TIMEOUT_S,
        holders: Callable[..., Holders] = find_holders,
    ) -> None:
        """`marks` is the file that notes one that runs, `log` hears what people should know; `listed` gives
        who is on the driver's lists of a GPU, by its UUID; `hold_queue` keeps jobs from a GPU that is not
        sound, and gives what of that could not be written down.
        """
        self._program = program
        self._own = own
        self._audit = audit
        self._helper = helper
        self._listed = listed
        self._receipts = receipts
        self._hold_queue = hold_queue
        self._platform = platform
        self._marks = ResetMarks(marks, log=log)
        self._log = log
        self._commands = ResetCommands(program, self._marks, timeout_s=timeout_s)
        self._hang = HangingReset(own, log=log)
        self._holders = holders
        self._running: asyncio.Task[Receipt] | None = None

    # ----------------------------------------------------------------- with the engine

    def start_ours(self) -> None:
        """Start our processes, but not while a reset runs that an earlier engine has left."""
        mark = self._marks.read()
        if mark is None or not mark.of_this_boot():
            self._own.bring_back()
            if mark is not None:
                self._marks.clear()  # the host was restarted, and its persistence mode set anew
            return
        name = f"GPU {mark.index}"
        after = partial(self._after_earlier, mark)
        if not mark.runs():
            self._own.bring_back()
            self._hang.owe(name, after)
            return
        self._hang.begin(
            name,
            f"the reset of {name} that an earlier engine began still runs (pid {mark.pid}); nothing of ours "
            "uses the GPUs until it has ended, or the host is restarted",
            partial(_ended, mark),
            after,
        )

    async def _after_earlier(self, mark: ResetMark) -> None:
        self._log(
            f"the reset of GPU {mark.index} that an earlier engine began has ended; nobody saw how, so look "
            "whether the GPU is sound"
        )
        if not mark.persistence:
            self._marks.clear()
        elif (failure := await self._commands.restore_of(mark.device_id)) is not None:
            self._log(f"GPU {mark.index}: {failure}")

    async def close(self) -> None:
        """The engine ends: nothing is brought back any more, but persistence mode, for which it waits."""
        self._own.close()
        if self._running is not None:
            await asyncio.wait({self._running}, timeout=self._commands.timeout_s + 2 * QUERY_TIMEOUT_S)
        self._hang.close()
        await self._marks.written(1.0)

    # ----------------------------------------------------------------- looking

    async def plan(self, device: str) -> ResetPlan:
        """What a reset of `device` (a UUID, its beginning, or an index) would do now.

        Raises:
            Refused: there is no GPU, no such one, or the driver does not tell of it.
        """
        facts = await self._find(device)
        return await self._plan(facts)

    async def _plan(self, facts: Facts) -> ResetPlan:
        facts = await self._more(facts)
        holders = await self._held(facts)
        rights = await self._rights(facts.uuid)
        around = Surroundings(rights=rights, platform=self._platform())
        return ResetPlan(
            device_id=facts.uuid,
            index=facts.index,
            name=facts.name,
            bus_id=facts.bus_id,
            used_bytes=facts.used_bytes,
            recovery_action=facts.recovery_action,
            conditions=conditions(facts, holders, around),
            holders=holders.known,
            ends=tuple(self._ends()),
            commands=tuple(self._words(facts)),
        )

    async def _find(self, device: str) -> Facts:
        if device == "cpu":
            raise Refused("the cpu has no reset; `turbotui cleanup` ends the worker and gives back all of it")
        rows = await self._program.query(FIELDS)
        known = [facts for row in rows if (facts := facts_from(row)) is not None]
        if device.isdecimal():
            found = [facts for facts in known if facts.index == int(device)]
        else:
            found = [facts for facts in known if device and facts.uuid.startswith(device)]
        if len(found) != 1:
            names = ", ".join(f"{facts.index} ({facts.uuid})" for facts in known) or "none"
            raise NotFound(f"{device!r} names {len(found) or 'no'} GPU; there are {names}")
        return found[0]

    async def _more(self, facts: Facts) -> Facts:
        """What is asked apart, since not every driver can be asked."""
        links = await self._program.ask("nvlink", "--status", "-i", facts.uuid)
        recovery = None
        with suppress(Refused):
            rows = await self._program.query((RECOVERY,), facts.uuid)
            recovery = rows[0][RECOVERY] if rows else None
        return replace(
            facts, links=count_links(links.text) if links.code == 0 else None, recovery_action=recovery
        )

    async def _held(self, facts: Facts, *, lists: bool = True) -> Holders:
        # In a thread: a host has thousands of processes.
        look = partial(
            self._holders,
            facts.bus_id,
            tuple(self._listed(facts.uuid)) if lists else (),
            dict(self._own.pids()),
        )
        return await in_thread(look, name="holders")

    async def _rights(self, uuid: str) -> ResetCondition:
        program = self._program
        problem = sudo = None
        if not (program.is_set or program.is_root):
            problem = helper_problem(self._helper)
            if problem is None:
                ran = await program.run(program.command("check", uuid), timeout_s=QUERY_TIMEOUT_S, kill=True)
                sudo = (
                    None
                    if ran.code == 0
                    else f"sudo does not run the helper: {explain(1, ran.text).sentence}"
                )
        return rights_condition(
            is_set=program.is_set, is_root=program.is_root, helper_problem=problem, sudo_problem=sudo
        )

    def _ends(self) -> Iterable[str]:
        for role, pid in sorted(self._own.pids().items()):
            if role != "daemon":
                job = self._own.job_id if role == "worker" else None
                also = f"; job {job} is interrupted and queued again" if job is not None else ""
                yield f"{role} {pid}{also}"

    def _words(self, facts: Facts) -> Iterable[tuple[str, ...]]:
        off = facts.persistence is True
        verbs = ("persistence-off", "reset", "persistence-on") if off else ("reset",)
        return (self._program.command(verb, facts.uuid) for verb in verbs)

    # ----------------------------------------------------------------- doing

    async def run(self, request: ResetRequest, *, asker: Asker | None) -> Receipt:
        """Reset the GPU; goes on when the caller is gone.

        Raises:
            Refused: nothing was done, and why.
        """
        try:
            if self._hang.why is not None:
                raise NotNow(self._hang.why)
            if self._running is not None and not self._running.done():
                raise NotNow("a reset is already under way; its receipt will tell")
        except Refused as refusal:
            self._refused(request, refusal, asker)
            raise
        self._running = asyncio.create_task(self._run(request, asker))
        self._running.add_done_callback(lambda done: self._ran(request, done, asker))
        return await asyncio.shield(self._running)

    def _ran(self, request: ResetRequest, task: asyncio.Task[Receipt], asker: Asker | None) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._refused(request, error, asker)

    def _refused(self, request: ResetRequest, why: BaseException, asker: Asker | None) -> None:
        """On record also when the caller is gone."""
        self._audit.write("reset", f"GPU {request.index} {request.device_id}", f"refused: {why}", asker)

    async def _run(self, request: ResetRequest, asker: Asker | None) -> Receipt:
        facts = await self._find(request.device_id)
        if facts.uuid != request.device_id:
            raise InvalidRequest(f"name the GPU by its whole UUID, {facts.uuid}")
        if facts.index != request.index:
            raise InvalidRequest(
                f"{facts.uuid} is GPU {facts.index}, not {request.index} as was typed; nothing was done"
            )
        plan = await self._plan(facts)
        if plan.blocked_by:
            raise Refused(
                f"GPU {facts.index} is not reset: {'; '.join(cond.text for cond in plan.blocked_by)}"
            )
        name = f"GPU {facts.index} {facts.uuid}"
        await self._audit.asked("reset", name, asker)
        steps = Steps(lambda step: self._receipts.stepped("reset", name, step))
        steps.ended("looked at", facts.used_bytes)
        receipt = await self._reset(facts, name, steps)
        self._audit.write("reset", name, end_of(receipt), asker, receipt)
        return self._receipts.issue(receipt)

    async def _reset(self, facts: Facts, name: str, steps: Steps) -> Receipt:
        course = Course(facts)
        closed = f"GPU {facts.index} is being reset; ask again when its receipt is there"
        async with self._own.device(closed) as turn:
            try:
                left = await self._own.end_clients(WHY, steps)
                await asyncio.wait({turn}, timeout=QUERY_TIMEOUT_S)
                # The driver's lists are from before our own ended, so the open files decide.
                holders = await self._held(facts, lists=False)
                steps.ended("holders looked at")
                if left or holders.known:
                    held = [*left, *map(holder_text, holders.known)]
                    course.fail(f"nothing was reset: {', '.join(held)} would not let go of the GPU")
                else:
                    await self._commands.run(course, steps)
                    await self._look_after(course, steps)
            finally:
                if course.hung is None:
                    self._own.bring_back()
                else:
                    self._stay_away(course, course.hung, name)
        return course.receipt(name, steps)

    def _stay_away(self, course: Course, ran: Ran, name: str) -> None:
        """No process of ours goes near the driver until it has ended; that comes before all else."""
        index, ended = course.facts.index, asyncio.get_running_loop().create_future()

        async def wait() -> None:
            ended.set_result(await in_thread(ran.finish or (lambda: ran), name="hanging-reset"))

        async def after() -> None:
            await self._late(course.facts, await ended, name)

        self._hang.begin(
            f"GPU {index}",
            f"the reset of GPU {index} hangs (pid {ran.pid}) and is left to itself; nothing of ours "
            "uses the GPUs until it has ended, or the host is restarted",
            wait,
            after,
        )
        # What is told here stays until a person resumes the queue, so it has to stay true.
        course.note(
            self._hold_queue(
                f"the reset of GPU {index} did not end within {ran.elapsed_s:.0f} s; once it has, its "
                "receipt tells how: look whether the GPU is sound, then resume the queue"
            )
        )

    async def _late(self, facts: Facts, ran: Ran, name: str) -> None:
        """The end of one that hung: what it said, persistence mode, and the GPU's health."""
        steps, course = Steps(lambda step: self._receipts.stepped("reset", name, step)), Course(facts)
        course.heard(ran)
        course.note(f"it ended after {ran.elapsed_s:.0f} s, long after it was said to hang")
        await self._commands.restore(course, steps)
        await self._look_after(course, steps)
        receipt = course.receipt(name, steps)
        self._audit.write("reset", name, f"ended late, {end_of(receipt)}", None, receipt)
        self._receipts.issue(receipt)

    async def _look_after(self, course: Course, steps: Steps) -> None:
        """Whether the GPU is sound: the driver answers, next to nothing is used, nothing is recommended."""
        if not course.began or course.hung is not None:
            return
        try:
            after = await self._more(await self._find(course.facts.uuid))
        except Refused as refusal:
            course.fail(f"the driver does not tell of the GPU after it: {refusal}")
        else:
            course.after = after
            used, action = after.used_bytes, after.recovery_action
            # Where the reset itself failed, nothing should have ended.
            if course.done and used is not None and used > NEAR_NOTHING_BYTES:
                course.fail(f"{size_text(used)} are still used on it, which a reset should have ended")
            if action is not None and action.lower() != "none":
                course.fail(f"the driver still recommends: {action}")
        steps.ended("health looked at", course.after.used_bytes if course.after else None)
        if course.failures and course.done:
            reason = f"GPU {course.facts.index} is not sound after its reset: {course.failures[-1]}"
            course.note(self._hold_queue(reason))


async def _ended(mark: ResetMark) -> None:
    """Until its process has, which is no child of ours."""
    while mark.runs():
        await asyncio.sleep(LOOK_S)
