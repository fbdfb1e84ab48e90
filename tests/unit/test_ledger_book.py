"""The ledger as the daemon keeps it: the driver's figures beside the worker's, ends, growth told once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from facts import spoiled

from engine.checks.floor import floors
from engine.checks.run import find
from engine.daemon.ledger import LedgerBook
from engine.telemetry.samples import DeviceReading, ProcessReading
from engine.units import KIB, MIB
from engine.wire import Held, LedgerLine, LedgerPage, Receipt, ReceiptIssued
from engine.worker.channel import Ledgered

GPU = "GPU-1"


def reading(at: float, held: int | None, *, pid: int = 7, device: str = GPU) -> DeviceReading:
    return DeviceReading(
        device_id=device, index=0, name="H200", total_bytes=2**37, used_bytes=0, free_bytes=2**37,
        reserved_bytes=0, reserved_inside_used=False, taken_at=at,
        processes=(ProcessReading(pid=pid, bytes=held),),
    )  # fmt: skip


def told(
    kind: Any, *, job: int | None = None, left: int = 0, began: float = 1.0, ended: float = 2.0
) -> Ledgered:
    return Ledgered(
        line=LedgerLine(
            id=0, at=9.0, kind=kind, target=kind, device_id="", worker="", job_id=job, shape="s",
            elapsed_s=1.0, weights=Held(before=100, after=100), allocated=Held(before=100, after=100 + left),
            reserved=Held(before=200, after=300), rss=Held(before=5, after=6), pinned=Held(before=0, after=0),
        ),
        began_at=began,
        ended_at=ended,
    )  # fmt: skip


class Setting:
    """A book over a file of its own; the worker, the log and the check are the test's."""

    def __init__(self, path: Path, pid: int = 7) -> None:
        self.worker: Any = SimpleNamespace(pid=pid, start_time=1.5, device_id=GPU)
        self.log: list[tuple[str, str]] = []
        self.grown = 0
        logbook: Any = SimpleNamespace(write=lambda event, text, **_more: self.log.append((event, text)))
        self.book = LedgerBook(path, logbook, worker=lambda: self.worker, on_grown=self._grown)

    def _grown(self) -> None:
        self.grown += 1

    def jobs(self, count: int, *, each: int = 0, first: int = 1) -> None:
        for job in range(first, first + count):
            self.book.heard(self.worker, told("job", job=job, left=job * each))

    async def page(self, limit: int = 5000) -> LedgerPage:
        return await self.book.page(limit, before=None, job_id=None, kinds=(), model=None)

    async def newest(self) -> LedgerLine:
        return (await self.page(1)).lines[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


async def test_the_drivers_figure_is_what_it_told_within_the_action(path: Path) -> None:
    setting = Setting(path)
    for at, held in ((0.8, 10), (0.95, 11), (1.2, 40), (1.5, 90), (1.8, 30), (2.1, 99)):
        setting.book.read(reading(at, held))
    setting.book.read(reading(1.7, 10**9, pid=8))
    setting.book.read(reading(1.7, 10**9, device="GPU-2"))
    setting.book.heard(setting.worker, told("job", job=1))
    line = await setting.newest()
    assert (line.id, line.device_id, line.worker) == (1, GPU, "7 1.50")
    assert line.device == Held(before=11, peak=90, after=30)
    assert line.outside_bytes == 30 - 300
    setting.book.heard(setting.worker, told("load", began=1.9, ended=1.95))
    assert (await setting.newest()).device == Held(before=30), "nothing was read within it"
    await setting.book.close()


async def test_a_cleanup_ends_what_the_worker_held(path: Path) -> None:
    setting = Setting(path)
    receipt = Receipt(
        action="cleanup", target="worker and everything on it", ok=True, expected_bytes=900,
        returned_bytes=900, residue_bytes=0, elapsed_s=1.5, proof="nvml-process",
    )  # fmt: skip
    setting.book.told(ReceiptIssued(receipt=receipt))  # of a worker that had told nothing
    setting.book.heard(setting.worker, told("job", job=1, left=50))
    setting.book.told(ReceiptIssued(receipt=receipt))
    line = await setting.newest()
    assert (line.kind, line.id, line.worker, line.elapsed_s) == ("cleanup", 2, "7 1.50", 1.5)
    assert line.device == Held(before=900, after=0)
    assert line.allocated == Held(before=150, after=0) and line.reserved == Held(before=300, after=0)
    assert line.weights == Held(before=100, after=0) and line.floor_bytes == 0
    await setting.book.close()


async def test_each_jobs_floor_is_a_line_of_the_log(path: Path) -> None:
    setting = Setting(path)
    setting.jobs(8)
    setting.book.heard(setting.worker, told("job", job=9, left=2 * KIB))
    await setting.page()
    assert setting.log[0] == ("floor", "job 1 left +0 B")
    assert setting.log[-1] == ("floor", "job 9 left +2.0 KiB; last 7 jobs +0 B a job")
    assert setting.grown == 0 and setting.book.growing == ()
    await setting.book.close()


async def test_growth_is_told_once_and_found_while_its_worker_lives(path: Path) -> None:
    setting = Setting(path)
    setting.jobs(12, each=MIB)
    page = await setting.page()
    grows = [text for event, text in setting.log if text.startswith("it grows")]
    assert grows == ["it grows: device floor +1.0 MiB a job over 6 jobs"]
    assert setting.grown == 1
    (trend,) = setting.book.growing
    assert trend.bytes_each == MIB and trend in page.trends and page.worker == "7 1.50"
    facts = spoiled(growing=setting.book.growing)
    (finding,) = floors(facts)
    assert finding.kind == "floor" and finding.bytes == 9 * MIB
    assert finding.title == "The worker's device memory grows by 1.0 MiB with every job."
    assert finding in find(facts)
    setting.worker = SimpleNamespace(pid=8, start_time=9.0, device_id=GPU)
    assert setting.book.growing == (), "what an ended worker held has gone with it"
    await setting.book.close()


async def test_trends_go_on_after_a_restart_of_the_engine(path: Path) -> None:
    first = Setting(path)
    first.jobs(6, each=KIB)
    assert not any(trend.grows for trend in (await first.page()).trends)
    await first.book.close()
    second = Setting(path)
    before = await second.page()
    assert before.worker == "7 1.50" and {trend.count for trend in before.trends} == {4}
    second.jobs(6, each=KIB, first=7)
    page = await second.page()
    assert [trend.count for trend in page.trends if (trend.what, trend.over) == ("device", "jobs")] == [10]
    assert second.grown == 1
    other = Setting(path, pid=9)
    other.jobs(7)
    assert not any(trend.grows for trend in (await other.page()).trends), "a fresh worker begins anew"
    await second.book.close()
    await other.book.close()


async def test_a_file_that_cannot_be_used_costs_the_ledger_alone(path: Path) -> None:
    path.write_bytes(b"no database at all" * 20)
    setting = Setting(path)
    setting.jobs(3)
    page = await setting.page()
    assert page.lines == () and page.problem is not None and "is no memory ledger" in page.problem
    assert len(setting.log) == 1 and setting.log[0][1].startswith("lines are not kept: ")
    await setting.book.close()


async def test_a_disk_that_refuses_is_told_once_and_trends_go_on(path: Path) -> None:
    setting = Setting(path)
    setting.jobs(4)
    await setting.page()
    store = setting.book._store
    assert store is not None
    store._connection.execute("PRAGMA query_only = ON")
    setting.jobs(5, first=5)
    page = await setting.page()
    assert len(page.lines) == 4 and page.problem is not None
    assert [event for event, _text in setting.log].count("ledger") == 1
    assert [trend.count for trend in page.trends if (trend.what, trend.over) == ("device", "jobs")] == [7]
    store._connection.execute("PRAGMA query_only = OFF")
    setting.jobs(1, first=10)
    assert (await setting.page()).problem is None
    assert ("ledger", "the memory ledger is written again") in setting.log
    await setting.book.close()
