"""The memory ledger's file: what is written is read back, by page and filter, and it stays in its bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import StorageUnusable
from engine.jobs import database
from engine.jobs.database import backup_path, open_database
from engine.jobs.store import JobStore
from engine.leaks import ledger
from engine.leaks.ledger import FAMILY, SCHEMA, LedgerStore
from engine.wire import Held, LedgerKind, LedgerLine


def line(
    kind: LedgerKind = "stage", *, job: int | None = 1, model: str = "m", worker: str = "7 1.00"
) -> LedgerLine:
    return LedgerLine(
        id=0, at=5.5, kind=kind, target="denoise dit.high", device_id="GPU-1", worker=worker, model=model,
        job_id=job, shape="32x32x5x1", ok=False, elapsed_s=1.25, kept_bytes=3,
        weights=Held(before=1, after=2), allocated=Held(before=10, peak=30, after=20), rss=Held(after=2**40),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[LedgerStore]:
    found = LedgerStore(path)
    yield found
    found.close()


def ids(found: tuple[list[LedgerLine], bool]) -> list[int]:
    return [line.id for line in found[0]]


def test_a_line_comes_back_whole_also_from_another_engine(store: LedgerStore, path: Path) -> None:
    written = store.write(line())
    assert written == replace(line(), id=1)
    store.close()
    assert path.stat().st_mode & 0o077 == 0
    again = LedgerStore(path)
    assert again.read(10) == ([written], False) and again.newest_worker() == "7 1.00"
    again.close()


def test_lines_are_read_by_page_and_filter(store: LedgerStore) -> None:
    for number in range(1, 13):
        store.write(line("job" if number % 3 == 0 else "stage", job=1 + number // 7, model=f"m{number % 2}"))
    store.write(line("switch", job=None, model="m0", worker="8 2.00"))
    assert ids(store.read(3)) == [13, 12, 11] and store.read(3)[1]
    assert ids(store.read(3, before=11)) == [10, 9, 8]
    assert ids(store.read(20, kinds=("job",))) == [12, 9, 6, 3]
    assert ids(store.read(20, kinds=("job", "switch"), model="m0")) == [13, 12, 6]
    assert ids(store.read(20, job_id=2, kinds=("job", "stage"), before=12)) == [11, 10, 9, 8, 7]
    assert ids(store.read(20, worker="8 2.00")) == [13] and store.newest_worker() == "8 2.00"
    assert store.read(20, model="nobody") == ([], False)
    assert not store.read(13)[1]


def test_the_newest_lines_stay_within_the_number(path: Path) -> None:
    store = LedgerStore(path, max_lines=50)
    for number in range(1, 301):
        store.write(line(job=number))
        found = ids(store.read(1000))
        assert found[0] == number and len(found) <= 50
    assert len(found) >= 45
    store.close()


def test_the_file_stays_within_its_bytes(path: Path) -> None:
    store = LedgerStore(path, max_bytes=200_000)
    for _ in range(900):
        store.write(line())
    count = len(ids(store.read(5000)))
    store.close()
    assert path.stat().st_size < 220_000
    assert 100 < count < 500


def test_an_older_file_is_brought_forward_and_kept_beside(
    store: LedgerStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = store.write(line())
    store.close()
    steps = {2: "ALTER TABLE lines ADD COLUMN host TEXT;"}
    opened = open_database(path, schema=2, steps=steps, family=FAMILY)
    assert opened.migrated_from == 1
    opened.connection.close()
    assert backup_path(path, 1).exists()
    with pytest.raises(StorageUnusable, match="schema 2 and this build knows schemas up to 1"):
        LedgerStore(path)
    monkeypatch.setattr(ledger, "SCHEMA", 2)
    newer = LedgerStore(path)
    assert newer.read(5)[0] == [written]
    newer.close()


def test_every_schema_has_its_step() -> None:
    assert set(FAMILY.steps()) == set(range(2, SCHEMA + 1))


def test_what_is_no_ledger_is_left_alone(path: Path) -> None:
    JobStore(path).close()
    before = path.read_bytes()
    with pytest.raises(StorageUnusable, match="another program's database"):
        LedgerStore(path)
    assert path.read_bytes() == before
    path.write_bytes(b"hello" * 100)
    with pytest.raises(
        StorageUnusable, match=r"is no memory ledger or is damaged.*begin with an empty ledger"
    ):
        LedgerStore(path)


def test_a_network_disk_gets_no_shared_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "why_no_wal", lambda _path: "no WAL: it lies on nfs4")
    store = LedgerStore(path)
    written = store.write(line())
    assert not path.with_name("ledger.sqlite-wal").exists()
    store.close()
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert plain.execute("PRAGMA user_version").fetchone()[0] == SCHEMA
    again = LedgerStore(path)
    assert again.read(1)[0] == [written]
    again.close()


def test_a_disk_that_refuses_is_said_and_tried_again(store: LedgerStore, path: Path) -> None:
    store._connection.execute("PRAGMA max_page_count = 1")
    pages = int(store._connection.execute("PRAGMA page_count").fetchone()[0])
    assert pages > 1  # SQLite keeps the limit at what there is
    with pytest.raises(StorageUnusable, match="cannot grow: the disk is full"):
        for _ in range(100):
            store.write(line())
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert store.write(line()).id > 1
