"""Has a model quantised, in a process of its own; how far it is, is seen at the model."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.daemon.logbook import LogBook
from engine.errors import EngineError, NotNow, WorkFailed, from_code
from engine.units import size_text
from engine.wire import ErrorBody, Quantised, QuantisePlan, QuantiseProgress


class Line(msgspec.Struct, frozen=True):
    """One line of the maker: exactly one of these."""

    plan: QuantisePlan | None = None
    progress: QuantiseProgress | None = None
    done: Quantised | None = None
    error: ErrorBody | None = None


class Quantising:
    """One model at a time. Event loop's thread only."""

    def __init__(
        self,
        models: Path,
        logbook: LogBook,
        *,
        on_progress: Callable[[], None],
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        """`on_progress` runs when `progress` of the model under way has changed, `on_end` when it is over."""
        self._models = models
        self._logbook = logbook
        self._on_progress = on_progress
        self._on_end = on_end
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._model: str | None = None
        self._progress: QuantiseProgress | None = None
        self._cancelled = False

    def progress_of(self, model: str) -> QuantiseProgress | None:
        """How far the making of this model's sibling is; None where none is made."""
        return self._progress if model == self._model else None

    async def plan(self, model: str) -> QuantisePlan:
        """What it would take.

        Raises:
            Refused: one of its subclasses, in the maker's words.
        """
        process = await self._start("--dry-run", "--", str(self._models), model)
        try:
            return await self._planned(process)
        finally:
            await process.wait()

    async def start(self, model: str) -> QuantisePlan:
        """Begin; answers with the plan, and what becomes of it is seen at the model and in the log.

        Raises:
            NotNow: another one is being quantised.
            Refused: as `plan`.
        """
        if self._model is not None:
            raise NotNow(f"{self._model} is being quantised; wait for its end, or stop it")
        self._model, self._cancelled = model, False
        try:
            self._process = await self._start("--", str(self._models), model)
            plan = await self._planned(self._process)
        except BaseException:
            self._forget()
            raise
        self._logbook.write("models", f"quantising {model}: {size_text(plan.bytes)} to {plan.path}")
        self._task = asyncio.create_task(self._follow(self._process, plan))
        return plan

    def cancel(self) -> str:
        """Stop it; what is written whole stays for the next time. The model's name.

        Raises:
            NotNow: none is being quantised.
        """
        if self._model is None or self._process is None:
            raise NotNow("no model is being quantised")
        self._cancelled = True
        with suppress(ProcessLookupError):
            self._process.terminate()
        return self._model

    def close(self) -> None:
        """Give up."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
        if self._task is not None:
            self._task.cancel()

    async def _start(self, *arguments: str) -> Process:
        self._models.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-P", "-m", "engine.models.quantising", *arguments)
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, cwd=self._models
        )

    async def _planned(self, process: Process) -> QuantisePlan:
        line = await _line(process)
        if line is not None and line.error is not None:
            raise from_code(line.error.code, line.error.message)
        if line is None or line.plan is None:
            code = await process.wait()
            raise WorkFailed(
                f"the maker ended with exit code {code}; `turbotui quantize` in a terminal says why"
            )
        return line.plan

    async def _follow(self, process: Process, plan: QuantisePlan) -> None:
        """Until it ends."""
        said: str | None = None
        try:
            while (line := await _line(process)) is not None:
                if line.progress is not None:
                    self._progress = line.progress
                    self._on_progress()
                elif line.error is not None:
                    said = line.error.message
                elif line.done is not None:
                    said = f"{plan.name} is ready, made of {plan.model}"
            code = await process.wait()
            if self._cancelled and code:
                said = f"quantising {plan.model} was stopped; what is written whole is kept for the next time"
            self._logbook.write(
                "models",
                said or f"{plan.model} could not be quantised: the maker ended with exit code {code}",
                level="info" if code == 0 or self._cancelled else "error",
            )
        finally:
            self._forget()
        with suppress(EngineError):
            await self._on_end()

    def _forget(self) -> None:
        self._process, self._task, self._model, self._progress = None, None, None, None


async def _line(process: Process) -> Line | None:
    """The next one; None at the end."""
    assert process.stdout is not None
    raw = await process.stdout.readline()
    return msgspec.json.decode(raw, type=Line) if raw else None
