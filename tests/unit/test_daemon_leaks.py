"""A report's look into the worker: several who ask at once each get theirs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon import leaks as module
from engine.daemon.leaks import Leaks
from engine.errors import InvalidRequest
from engine.wire import ExportRequest, MarkRequest, Tracing
from engine.worker.leaks.facts import Findings

FINDINGS = Findings(at=1.0, elapsed_s=0.1, pid=7, objects=3, tracing=Tracing(on=False))


class OneAtATime:
    """A worker that takes a tenth of a second for each look, and makes one after another."""

    def __init__(self) -> None:
        self._busy = asyncio.Lock()

    async def export(self, path: Path, _format: str) -> int:
        return path.write_bytes(b"{}")

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
        leaks = Leaks(supervisor, nobody, nobody, nobody, nobody, nobody, output_dir=Path("/none"))
        unknown: list[str] = []
        mark = asyncio.create_task(leaks.mark(MarkRequest(on=True)))
        assert await asyncio.gather(*(leaks._look(unknown) for _ in range(4))) == [FINDINGS] * 4
        assert (await mark).at == FINDINGS.at
        return unknown

    assert asyncio.run(run()) == []


def test_a_snapshot_makes_the_folder_of_videos_where_no_job_has_yet_and_no_other(tmp_path: Path) -> None:
    async def run() -> None:
        nobody: Any = None
        supervisor: Any = SimpleNamespace(inspections=OneAtATime())
        videos = tmp_path / "home" / "videos"
        leaks = Leaks(supervisor, nobody, nobody, nobody, nobody, nobody, output_dir=videos)
        written = await leaks.export(ExportRequest(path=str(videos / "memory.json"), format="json"))
        assert Path(written.path).is_file() and written.bytes == 2
        with pytest.raises(InvalidRequest, match="is no folder"):
            await leaks.export(ExportRequest(path=str(tmp_path / "typo" / "a.json"), format="json"))

    asyncio.run(run())
