"""A report's look into the worker: several who ask at once each get theirs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon import leaks as module
from engine.daemon.leaks import Leaks
from engine.wire import MarkRequest, Tracing
from engine.worker.leaks.facts import Findings

FINDINGS = Findings(at=1.0, elapsed_s=0.1, pid=7, objects=3, tracing=Tracing(on=False))


class OneAtATime:
    """A worker that takes a tenth of a second for each look, and makes one after another."""

    def __init__(self) -> None:
        self._busy = asyncio.Lock()

    async def inspect(self) -> Findings:
        async with self._busy:
            await asyncio.sleep(0.1)
            return FINDINGS


def test_who_looks_while_others_do_waits_for_them_and_gets_a_look_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.25)

    async def run() -> list[str]:
        nobody: Any = None
        supervisor: Any = SimpleNamespace(inspections=OneAtATime())
        leaks = Leaks(supervisor, nobody, nobody, nobody, nobody, nobody)
        unknown: list[str] = []
        mark = asyncio.create_task(leaks.mark(MarkRequest(on=True)))
        assert await asyncio.gather(*(leaks._look(unknown) for _ in range(4))) == [FINDINGS] * 4
        assert (await mark).at == FINDINGS.at
        return unknown

    assert asyncio.run(run()) == []
