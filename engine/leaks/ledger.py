"""The memory ledger on disk: one SQLite file, bounded in lines and bytes, which outlives every process.

Each public method is one transaction, may be called from any thread and blocks as a disk does. Lines
are durable against the end of the engine, and the last ones may go with the host: they tell of
memory that has gone with it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import msgspec

from engine.jobs.database import Family, open_database, storage_errors, transaction
from engine.jobs.migrations import steps_in
from engine.units import MIB
from engine.wire import LedgerKind, LedgerLine

SCHEMA = 1
MAX_LINES = 10_000
"""About 1,500 jobs with their stages and loads."""
MAX_BYTES = 16 * MIB
"""All of it is looked through when it is opened: 30 ms."""
TRIM_SHARE = 20
"""One in so many lines goes at once where there are too many: seldom, and never all."""
FAMILY = Family(
    noun="memory ledger",
    way_out="an empty ledger",
    application_id=0x7475_6D6C,  # "tuml"
    script=lambda: files("engine.leaks").joinpath("ledger.sql").read_text("utf-8"),
    steps=partial(steps_in, "engine.leaks.migrations"),
)


class LedgerStore:
    """The ledger in the file `path`; call `close` at the end.

    Raises:
        StorageUnusable: by every method: the disk refuses, or the file is damaged; by the first one
            also where it is newer than this build, or not ours.
    """

    def __init__(self, path: Path, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(LedgerLine)
        database = open_database(path, schema=SCHEMA, family=FAMILY)
        self._connection = database.connection
        if database.journal_mode == "wal":
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def write(self, line: LedgerLine) -> LedgerLine:
        """Keep it; the same with its number."""
        row = (line.kind, line.device_id, line.worker, line.model, line.job_id, self._encoder.encode(line))
        with self._open(), transaction(self._connection):
            self._trim()
            cursor = self._connection.execute(
                "INSERT INTO lines (kind, device_id, worker, model, job_id, line) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            return replace(line, id=int(cursor.lastrowid or 0))

    def read(
        self,
        limit: int,
        *,
        before: int | None = None,
        job_id: int | None = None,
        kinds: Collection[LedgerKind] = (),
        model: str | None = None,
        worker: str | None = None,
    ) -> tuple[list[LedgerLine], bool]:
        """The newest `limit` lines that are all of this, the newest first; and whether there are older ones.

        `before` is the number of a line that is left out with all after it.
        """
        wanted: list[tuple[str, Sequence[object]]] = []
        for condition, value in (
            ("id < ?", before),
            ("job_id = ?", job_id),
            ("model = ?", model),
            ("worker = ?", worker),
        ):
            if value is not None:
                wanted.append((condition, (value,)))
        if kinds:
            wanted.append((" OR ".join(["kind = ?"] * len(kinds)), tuple(kinds)))
        where = " AND ".join(f"({condition})" for condition, _ in wanted) or "1"
        values = [value for _, some in wanted for value in some]
        with self._open():
            rows = self._connection.execute(
                f"SELECT id, line FROM lines WHERE {where} ORDER BY id DESC LIMIT ?", (*values, limit + 1)
            ).fetchall()
        return [self._line(*row) for row in rows[:limit]], len(rows) > limit

    def newest_worker(self) -> str | None:
        """Whose line was written last."""
        with self._open():
            row = self._connection.execute("SELECT worker FROM lines ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def _line(self, number: int, text: bytes) -> LedgerLine:
        return replace(self._decoder.decode(text), id=number)

    def _trim(self) -> None:
        """Make room for one more line; pages of those that went are written again."""
        pages, free, size = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        count = int(self._connection.execute("SELECT count(*) FROM lines").fetchone()[0])
        if count < self._max_lines and (pages - free) * size < self._max_bytes:
            return
        self._connection.execute(
            "DELETE FROM lines WHERE id IN (SELECT id FROM lines ORDER BY id LIMIT ?)",
            (max(1, count // TRIM_SHARE),),
        )

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock, storage_errors(self.path, FAMILY):
            yield
