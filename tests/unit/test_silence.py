"""Whose silence it is: a process's own, or of an engine that could not listen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Config
from engine.daemon import probe as probe_module
from engine.daemon.engine import Engine
from engine.daemon.lock import EngineLock
from engine.daemon.silence import MOST_A_LOOK_S, Silence
from engine.daemon.threads import in_thread
from engine.models.catalog import Catalog, Scan
from engine.paths import find_paths


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_silence_counts_from_the_last_word_in_looks_of_one_second() -> None:
    clock = Clock()
    silence = Silence(clock)
    for second in range(1, 6):
        clock.now += 1.0
        assert silence.look() == second
    silence.heard()
    clock.now += 1.0
    assert silence.look() == 1.0


def test_a_loop_that_was_held_up_takes_it_for_one_look() -> None:
    clock = Clock()
    silence = Silence(clock)
    clock.now += 11.0
    assert silence.look() == MOST_A_LOOK_S
    clock.now += 1.0
    assert silence.look() == MOST_A_LOOK_S + 1.0


async def test_what_a_probe_said_while_the_loop_was_held_up_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "SILENT_S", 2.5)
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", "sleep 0.3; echo here; exec sleep 20", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        reading = asyncio.create_task(probe_module._next_line(child.stdout))
        await asyncio.sleep(0)
        time.sleep(3.0)
        assert await reading == b"here\n"
        with pytest.raises(TimeoutError):
            await probe_module._next_line(child.stdout)
    finally:
        child.kill()
        await child.wait()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    paths = find_paths({"TURBOTUI_HOME": str(tmp_path)})
    paths.state.mkdir(parents=True)

    class Held(EngineLock):
        def __init__(self) -> None:
            pass

        def still_held(self) -> bool:
            return True

    # Without a log's folder there is no open file for the test to close.
    engine = Engine(paths, Config(), lock=Held(), environ={}, instance="test")
    yield engine
    engine.store.close()


async def test_a_slow_disk_holds_up_neither_the_engine_nor_a_second_look(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    scan = Catalog.scan

    def slow(catalog: Catalog) -> Scan:
        looks.append(time.monotonic())
        time.sleep(0.5)
        return scan(catalog)

    monkeypatch.setattr(Catalog, "scan", slow)
    began = time.monotonic()
    engine.lookout.look()
    await asyncio.sleep(0.05)
    engine.lookout.look()
    await asyncio.sleep(0.05)
    assert time.monotonic() - began < 0.4
    assert len(looks) == 1
    (engine.paths.models / "mine").mkdir(parents=True)
    (engine.paths.models / "mine" / "model_index.json").write_text("{}")
    await engine.models.rescan()
    assert [model.name for model in engine.models.statuses()] == ["mine"]
    assert len(looks) == 2


async def test_what_a_call_in_a_thread_raises_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await in_thread(fail, name="test")
    assert await in_thread(lambda: 3, name="test") == 3
