"""When the daemon checks, what it keeps for a check, and what it says aloud."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from facts import GPU, WORKER, foreign, gpu, process

from engine.checks.scan import Scan
from engine.config import EngineConfig
from engine.daemon import checks as daemon_checks
from engine.daemon.checks import Checks
from engine.telemetry.recorder import Recorder
from engine.units import GIB
from engine.wire import DeviceStatus, Event, FindingsChanged, LogLine, Receipt, ReceiptIssued

SEEN = Scan(processes=(), complete=True)


class Setting:
    """A Checks over made-up devices; the look through /proc is the test's."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.lines: list[LogLine] = []
        self.events: list[Event] = []
        self.devices: tuple[DeviceStatus, ...] = (gpu(),)
        self.looks: list[tuple[set[int], bool]] = []
        self.answer: Callable[[], Scan] = lambda: SEEN
        self.recorder = Recorder()
        memory: Any = SimpleNamespace(
            statuses=lambda: self.devices, host=None, counters=None, versions={}, recorder=self.recorder
        )
        supervisor: Any = SimpleNamespace(statuses=lambda: (WORKER,))
        nursery = SimpleNamespace(state="ready", detail=None, device_files=())
        engine: Any = SimpleNamespace(nursery=nursery, probe_age_s=0.1)
        logbook: Any = SimpleNamespace(write=self._write, tail=lambda limit: tuple(self.lines[-limit:]))
        self.checks = Checks(
            memory=memory,
            supervisor=supervisor,
            logbook=logbook,
            config=EngineConfig(),
            environ={"HF_TOKEN": "secret"},
            engine=lambda: engine,
            file=folder / "findings.json",
            publish=self.events.append,
            look=self._look,
            clock=lambda: self.now,
        )

    def _write(self, event: str, text: str, **_details: object) -> None:
        self.lines.append(LogLine(seq=len(self.lines) + 1, at=time.time(), event=event, text=text))

    def _look(self, on_gpus: set[int], *, uid: int, find_holders: bool) -> Scan:
        self.looks.append((on_gpus, find_holders))
        return self.answer()

    def told(self) -> list[str]:
        return [line.text for line in self.lines if line.event == "check"]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_a_clean_engine_says_nothing(setting: Setting) -> None:
    report = await setting.checks.check()
    assert report.findings == () and report.unknown == () and report.clean_at == report.at
    assert setting.told() == [] and setting.events == []


async def test_a_finding_is_said_once_and_its_end_is_an_event(setting: Setting) -> None:
    await setting.checks.check()
    setting.devices = (gpu(unseen=14 * GIB),)
    for _ in range(3):
        report = await setting.checks.check()
    assert [finding.kind for finding in report.findings] == ["ghost"]
    assert len(setting.told()) == 1 and setting.told()[0].startswith("1 new finding: 14.00 GiB on GPU 0")
    assert "; clean at " in setting.told()[0]
    assert [isinstance(event, FindingsChanged) for event in setting.events] == [True]
    assert setting.looks[-1] == ({500}, True) and setting.looks[0] == ({500}, False)
    setting.devices = (gpu(),)
    await setting.checks.check()
    assert isinstance(setting.events[-1], FindingsChanged) and setting.events[-1].report.findings == ()
    assert len(setting.events) == 2 and len(setting.told()) == 1


async def test_what_is_only_good_to_know_is_not_said_aloud(setting: Setting) -> None:
    setting.devices = (gpu(releasable=9 * GIB),)
    assert (await setting.checks.check()).new == 1
    assert setting.told() == [] and len(setting.events) == 1


async def test_a_look_that_hangs_costs_its_findings_and_not_the_check(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_checks, "PATIENCE_S", 0.05)
    released = threading.Event()

    def hang() -> Scan:
        released.wait(10)
        return SEEN

    setting.answer = hang
    began = time.monotonic()
    first, second = await setting.checks.check(), await setting.checks.check()
    assert time.monotonic() - began < 1.0
    assert "processes" in first.unknown[0] and second.clean_at is None
    assert len(setting.looks) == 1, "one that hangs is not joined by another"
    released.set()
    await asyncio.sleep(0.05)
    assert (await setting.checks.check()).unknown == () and len(setting.looks) == 2


async def test_a_look_that_fails_is_a_bug_and_the_check_goes_on(setting: Setting) -> None:
    def fail() -> Scan:
        raise ValueError("odd")

    setting.answer = fail
    assert "processes" in (await setting.checks.check()).unknown[0]
    assert any(line.event == "bug" and "odd" in line.text for line in setting.lines)


async def test_who_asks_at_once_shares_one_check(setting: Setting) -> None:
    first, second = await asyncio.gather(setting.checks.check(), setting.checks.check())
    assert first is second and len(setting.looks) == 1


async def settled(setting: Setting) -> None:
    while setting.checks._running is not None:
        await asyncio.sleep(0.001)


async def test_it_checks_at_start_when_somebody_comes_and_hourly(setting: Setting) -> None:
    async def looks_after(seconds: float, *, watched: bool) -> int:
        setting.now += seconds
        setting.checks.look_around(watched=watched)
        await settled(setting)
        return len(setting.looks)

    devices, setting.devices = setting.devices, ()
    assert await looks_after(1, watched=True) == 0  # there is nothing to look at yet
    setting.devices = devices
    assert await looks_after(1, watched=True) == 1
    assert await looks_after(1, watched=True) == 1
    assert await looks_after(100, watched=False) == 1
    assert await looks_after(1, watched=True) == 2  # a console opens
    assert await looks_after(1, watched=False) == 2
    assert await looks_after(1, watched=True) == 2  # again, a moment later
    assert await looks_after(3590, watched=True) == 2
    assert await looks_after(20, watched=True) == 3


async def test_a_disk_that_is_full_costs_the_file_and_says_so(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "findings.json.part").mkdir()
    assert (await setting.checks.check()).findings == ()
    assert "cannot be kept" in setting.told()[0]


async def test_who_comes_and_goes_is_kept_but_for_our_own(setting: Setting) -> None:
    for device in (gpu(), gpu(), gpu(foreign()), gpu(foreign()), gpu(), gpu(foreign(start_time=101.0))):
        setting.checks.sampled(device)
    setting.checks.sampled(replace(gpu(), processes=()))
    changes = [
        (change.process.pid, change.process.start_time, change.came) for change in setting.checks._changes
    ]
    assert changes == [(4242, 100.0, True), (4242, 100.0, False), (4242, 101.0, True), (4242, 101.0, False)]


async def test_receipts_are_kept_for_the_check(setting: Setting) -> None:
    receipt = Receipt(
        action="unload", target="wan", ok=True, expected_bytes=9 * GIB, residue_bytes=2 * GIB, elapsed_s=0.1,
        proof="nvml-process", at=time.time() + 1e9,
    )  # fmt: skip
    setting.checks.heard(ReceiptIssued(receipt=receipt))
    assert [finding.kind for finding in (await setting.checks.check()).findings] == ["residue"]


async def test_unseen_memory_began_when_the_history_says_so(setting: Setting) -> None:
    now = time.time()
    for second in range(120):
        device = gpu(unseen=14 * GIB if second >= 80 else 0)
        assert device.balance is not None
        setting.recorder.record(replace(device.balance, taken_at=now - 120 + second))
    setting.devices = (gpu(unseen=14 * GIB),)
    since = (await setting.checks.check()).findings[0].since
    assert since == pytest.approx(now - 40, abs=5)
    assert GPU in setting.recorder.device_ids


async def test_unseen_memory_that_was_always_there_has_no_beginning(setting: Setting) -> None:
    now = time.time()
    for second in range(60):
        balance = gpu(unseen=14 * GIB).balance
        assert balance is not None
        setting.recorder.record(replace(balance, taken_at=now - 60 + second))
    setting.devices = (gpu(unseen=14 * GIB),)
    report = await setting.checks.check()
    assert report.findings[0].since == pytest.approx(report.at)


async def test_what_looks_left_behind_is_told_only_when_it_has_outlived_its_tether(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_checks, "TETHER_S", 0.01)
    dying = Scan(processes=(process(777, uid=os.getuid(), role="worker", left=True),), complete=True)
    answers = [dying, SEEN]
    setting.answer = lambda: answers.pop(0)
    assert (await setting.checks.check()).findings == ()
    answers = [dying, dying, dying]
    assert [found.kind for found in (await setting.checks.check()).findings] == ["orphan"]
    assert len(answers) == 1
    assert [found.kind for found in (await setting.checks.check()).findings] == ["orphan"]
    assert answers == []  # what was left behind before is not waited for again
