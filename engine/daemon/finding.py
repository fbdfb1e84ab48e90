"""Has models looked for, fetched and imported, each in a process of its own. Event loop's thread only.

One errand at a time, which goes on whether or not somebody watches; how far it is can be asked.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from engine.daemon.logbook import LogBook
from engine.errors import EngineError, InvalidRequest, NotNow, StorageUnusable, WorkFailed, from_code
from engine.wire import (
    ErrandStatus,
    ErrorBody,
    GetNews,
    GetPlan,
    GetProgress,
    ImportProgress,
    ModelErrand,
    ModelScan,
    ReleasedModel,
    ScanNews,
)

FINDER = "engine.models.finding.run"
GETTER = "engine.models.getting.run"
IMPORTER = "engine.models.importing"
LINE_BYTES = 32 << 20
"""Of one line that a process says: all that a look found is one."""
RATE_S = 5.0
"""Over which a rate is taken."""
COMPLAINT_BYTES = 16 << 10

News = TypeVar("News", GetNews, ScanNews)


class ModelFinder:
    """For this engine's models."""

    def __init__(
        self,
        models: Path,
        cwd: Path,
        environ: dict[str, str],
        logbook: LogBook,
        rescan: Callable[[], Awaitable[None]],
    ) -> None:
        """Models go below `models`; processes run in `cwd`; `rescan` looks at `models` again."""
        self._models = models
        self._cwd = cwd
        self._environ = environ
        self._logbook = logbook
        self._rescan = rescan
        self._errand: ModelErrand | None = None
        self._task: asyncio.Task[None] | None = None
        self._arrivals: list[tuple[float, int]] = []
        """When how much was there, of the last seconds."""

    # ----------------------------------------------------------------- looks

    async def scan(self, paths: Sequence[str]) -> ModelScan:
        """Look through this host's disks, and `paths` first.

        Raises:
            InvalidRequest: a path is not absolute.
            WorkFailed: the process ended without an answer.
        """
        for path in paths:
            if not path.startswith("/"):
                raise InvalidRequest(f"{path!r} is no absolute path; the engine has another folder than you")
        home = self._environ.get("HOME", "/")
        async with aclosing(self._news(FINDER, ["--cwd", home, str(self._models), *paths], ScanNews)) as said:
            async for news in said:
                if news.scan is not None:
                    return news.scan
        raise WorkFailed("the look for models ended without an answer")

    async def released(self) -> tuple[ReleasedModel, ...]:
        """What can be fetched.

        Raises:
            WorkFailed: the process ended without an answer.
        """
        async with aclosing(self._news(GETTER, ["list", str(self._models)], GetNews)) as said:
            async for news in said:
                if news.models is not None:
                    return news.models
        raise WorkFailed("the fetching process ended without a plan")

    async def plan(self, name: str) -> GetPlan:
        """What fetching `name` would do.

        Raises:
            EngineError: as the process said.
        """
        async with aclosing(self._news(GETTER, ["plan", str(self._models), name], GetNews)) as said:
            async for news in said:
                if news.plan is not None:
                    return news.plan
        raise WorkFailed("the fetching process ended without a plan")

    def status(self) -> ErrandStatus:
        return ErrandStatus(errand=self._errand)

    # ----------------------------------------------------------------- errands

    def get(self, name: str) -> ErrandStatus:
        """Begin to fetch `name`, and to import it after.

        Raises:
            NotNow: another errand is under way.
        """
        return self._begin("get", name, lambda: self._get(name))

    def import_found(self, name: str, paths: Sequence[str]) -> ErrandStatus:
        """Begin to make a model called `name` of the files at `paths`.

        Raises:
            NotNow: another errand is under way.
            InvalidRequest: a path is not absolute, or there is none.
        """
        if not paths or not all(path.startswith("/") for path in paths):
            raise InvalidRequest("an import takes the absolute paths of a model's parts")
        return self._begin("import", name, lambda: self._import(name, paths))

    def cancel(self) -> ErrandStatus:
        """End the errand under way; what of it came stays for the next time.

        Raises:
            NotNow: there is none.
        """
        if self._task is None:
            raise NotNow("no model is being fetched or imported")
        self._task.cancel()
        return self.status()

    async def close(self) -> None:
        """Give up, and see the process out."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait([task], timeout=1.0)

    def _begin(
        self, verb: Literal["get", "import"], name: str, work: Callable[[], Awaitable[None]]
    ) -> ErrandStatus:
        if self._task is not None and self._errand is not None:
            raise NotNow(f"{self._errand.name} is under way; wait for it, or cancel it")
        self._errand = ModelErrand(verb=verb, name=name, state="running", at=time.time())
        self._arrivals.clear()
        self._logbook.write("models", f"{verb} {name}")
        self._task = asyncio.create_task(self._run(work))
        return self.status()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self._errand is not None
        error: ErrorBody | None = None
        state: Literal["done", "failed", "cancelled"] = "done"
        try:
            await work()
        except asyncio.CancelledError:
            state = "cancelled"
        except EngineError as problem:
            state, error = "failed", ErrorBody(code=problem.code, message=str(problem))
        except OSError as problem:
            told = f"the models' folder cannot be used: {problem}"
            state, error = "failed", ErrorBody(code=StorageUnusable.code, message=told)
        except Exception as problem:  # the errand's edge: one without an end would keep out every other
            told = f"{type(problem).__name__}: {problem}"
            state, error = "failed", ErrorBody(code=WorkFailed.code, message=told)
        try:
            await self._rescan()  # who is told that it is done finds it listed
        finally:
            self._task = None
            self._errand = replace(self._errand, state=state, error=error, at=time.time())
        level: Literal["info", "error"] = "error" if error else "info"
        line = f"{self._errand.verb} {self._errand.name}: {error.message if error else state}"
        self._logbook.write("models", line, level=level)

    async def _get(self, name: str) -> None:
        fetched: tuple[str, ...] | None = None
        async with aclosing(self._news(GETTER, ["fetch", str(self._models), name], GetNews)) as said:
            async for news in said:
                if news.progress is not None:
                    self._progressed(news.progress)
                fetched = news.fetched or fetched
        if fetched is None:
            raise WorkFailed("the fetching process ended before all was there")
        assert self._errand is not None
        self._errand = replace(self._errand, verb="import", rate=None, detail="", checking=False)
        await self._import(None, fetched)

    async def _import(self, name: str | None, paths: Sequence[str]) -> None:
        self._models.mkdir(parents=True, exist_ok=True)
        arguments = [str(self._models), *paths, *(["--name", name] if name else [])]
        async with aclosing(self._lines(IMPORTER, arguments)) as said:
            async for line in said:
                assert self._errand is not None
                with suppress(msgspec.MsgspecError):  # its plan and its end are other lines
                    news = msgspec.json.decode(line, type=ImportProgress)
                    self._errand = replace(
                        self._errand,
                        bytes=news.done_bytes,
                        total_bytes=news.total_bytes,
                        detail=news.component,
                    )

    def _progressed(self, progress: GetProgress) -> None:
        assert self._errand is not None
        now = time.monotonic()
        if progress.checking:
            self._arrivals.clear()
        self._arrivals.append((now, progress.bytes))
        while now - self._arrivals[0][0] > RATE_S:
            del self._arrivals[0]
        since, before = self._arrivals[0]
        self._errand = replace(
            self._errand,
            bytes=progress.bytes,
            total_bytes=progress.total_bytes,
            rate=(progress.bytes - before) / (now - since) if now > since else None,
            detail=progress.file,
            checking=progress.checking,
        )

    # ----------------------------------------------------------------- processes

    async def _news(
        self, module: str, arguments: Sequence[str], model: type[News]
    ) -> AsyncGenerator[News, None]:
        async with aclosing(self._lines(module, ["--parent", str(os.getpid()), *arguments])) as said:
            async for line in said:
                try:
                    news = msgspec.json.decode(line, type=model)
                except msgspec.MsgspecError:
                    continue  # what a library printed is no news
                if news.error is not None:
                    raise from_code(news.error.code, news.error.message)
                yield news

    async def _lines(self, module: str, arguments: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """What the process prints, a line each; it ends with whoever reads.

        Raises:
            EngineError: it failed, in its own words.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", module, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._cwd,
            env=self._environ,
            limit=LINE_BYTES,
        )
        assert process.stdout is not None and process.stderr is not None
        complaints = asyncio.create_task(_last_words(process.stderr))
        try:
            async for line in process.stdout:
                yield line
            code = await process.wait()
            words = await complaints
        finally:
            complaints.cancel()
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
        if code != 0:
            raise _failure(module, code, words)


async def _last_words(stream: asyncio.StreamReader) -> str:
    """The end of what is complained of, all of which is read."""
    kept = b""
    while data := await stream.read(COMPLAINT_BYTES):
        kept = (kept + data)[-COMPLAINT_BYTES:]
    lines = kept.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""


def _failure(module: str, code: int, words: str) -> EngineError:
    with suppress(msgspec.MsgspecError):
        body = msgspec.json.decode(words, type=ErrorBody)
        return from_code(body.code, body.message)
    return WorkFailed(words or f"{module} ended with exit code {code} without a word")
