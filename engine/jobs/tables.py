"""The store's tables: the statements that every operation is made of, inside one lock and transaction.

Everything but `read`, `write` and `close` is called within one of those two.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InvalidRequest, NotFound, NotNow
from engine.jobs import rows
from engine.jobs.breaker import Breaker
from engine.jobs.database import storage_errors, transaction
from engine.jobs.files import find_proof
from engine.jobs.model import Attempt, Outcome, refusal
from engine.units import counted
from engine.wire import Job, JobRuns, JobSpec, JobState

PRIORITY_LIMIT = 1_000_000
ERROR_LIMIT_CHARS = 4000
REQUEUE_LIMIT = 1
"""How often an interrupted job goes back to the queue by itself."""

IS_WAITING = "state IN ('queued', 'waiting_memory')"
IS_ENDED = "state IN ('done', 'failed', 'cancelled', 'interrupted')"
IN_ORDER = "ORDER BY priority DESC, place, id"


class Tables:
    """Jobs, attempts and the breaker's state, by statement. Any thread; one at a time."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        max_waiting: int,
        keep_ended: int,
        now: Callable[[], float],
    ) -> None:
        self.path = path
        self.now = now
        self._connection = connection
        self._max_waiting = max_waiting
        self._keep_ended = keep_ended
        self._lock = threading.RLock()
        connection.row_factory = sqlite3.Row

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._lock, storage_errors(self.path), transaction(self._connection):
            yield

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._lock, storage_errors(self.path):
            yield

    def all(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.execute(query, values).fetchone()
        return row

    def row(self, job_id: int) -> sqlite3.Row:
        # An id that SQLite cannot even hold names no job either.
        row = self.one("SELECT * FROM jobs WHERE id = ?", job_id) if abs(job_id) < 2**63 else None
        if row is None:
            raise NotFound(f"there is no job {job_id}; `turbotui jobs` lists those there are")
        return row

    def job(self, job_id: int) -> Job:
        row = self.row(job_id)
        ahead = self.one(
            f"SELECT count(*) AS n FROM jobs WHERE {IS_WAITING} AND (-priority, place, id) < (?, ?, ?)",
            -row["priority"],
            row["place"],
            job_id,
        )
        assert ahead is not None
        return rows.to_job(row, ahead["n"] + 1 if waits(row) else None)

    def positions(self) -> dict[int, int]:
        found = self.all(f"SELECT id FROM jobs WHERE {IS_WAITING} {IN_ORDER}")
        return {row["id"]: position for position, row in enumerate(found, 1)}

    def attempt(self, row: sqlite3.Row) -> Attempt:
        found = self.one("SELECT * FROM attempts WHERE job_id = ? AND attempt = ?", row["id"], row["attempt"])
        assert found is not None, f"job {row['id']} runs without an attempt"
        return rows.to_attempt(found)

    def update(self, job_id: int, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*values.values(), job_id))

    def insert(
        self,
        spec: JobSpec,
        expected_peak_bytes: int | None,
        duplicate_of: int | None,
        runs: JobRuns | None = None,
    ) -> Job:
        check_priority(spec.priority)
        self.check_room()
        cursor = self.execute(
            "INSERT INTO jobs (spec, priority, place, state, created_at, expected_peak_bytes, duplicate_of)"
            " VALUES (?, ?, ?, 'queued', ?, ?, ?)",
            (
                rows.encode_spec(spec, runs),
                spec.priority,
                self.last_place() + 1,
                self.now(),
                expected_peak_bytes,
                duplicate_of,
            ),
        )
        assert cursor.lastrowid is not None
        return self.job(cursor.lastrowid)

    def set_held(self, job_id: int, *, held: bool) -> Job:
        with self.write():
            row = self.row(job_id)
            if not waits(row):
                raise refusal(job_id, row["state"], "hold" if held else "release")
            self.update(job_id, held=int(held))
            return self.job(job_id)

    def interrupt(
        self, row: sqlite3.Row, cause: str, error_code: str, *, counted: bool = True, again: bool = True
    ) -> Job:
        job_id = row["id"]
        last = self.attempt(row)
        proof = find_proof(job_id=job_id, attempt=last.attempt, output=last.output, manifest=last.manifest)
        if proof is not None:
            self.end(
                row, "done", output=last.output, manifest=last.manifest, cause=f"{cause}; its files are whole"
            )
        elif row["cancel_requested"]:
            self.end(row, "cancelled", error=None, error_code="cancelled", cause=cause)
        else:
            self.end(row, "interrupted", error=cause, error_code=error_code)
            if again and (row["interruptions"] < REQUEUE_LIMIT or not counted):
                self.update(
                    job_id,
                    state="queued",
                    place=self.first_place() - 1,
                    interruptions=row["interruptions"] + int(counted),
                    started_at=None,
                    finished_at=None,
                )
        return self.job(job_id)

    def end(
        self,
        row: sqlite3.Row,
        outcome: Outcome,
        *,
        error: str | None = None,
        error_code: str | None = None,
        output: str | None = None,
        manifest: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Write an end that is known to be legal: job, attempt, breaker and the bound on old rows."""
        ended = self.now()
        error = error[:ERROR_LIMIT_CHARS] if error else error
        cause = cause[:ERROR_LIMIT_CHARS] if cause else error
        state: JobState = outcome
        self.update(
            row["id"],
            state=state,
            held=0,
            finished_at=ended,
            waits_for=None,
            error=error,
            error_code=error_code,
            output=output,
            manifest=manifest,
        )
        if row["state"] == "running":
            self.execute(
                "UPDATE attempts SET ended_at = ?, outcome = ?, error_code = ?, cause = ?"
                " WHERE job_id = ? AND attempt = ?",
                (ended, outcome, error_code, cause, row["id"], row["attempt"]),
            )
        self.save_breaker(self.breaker().record(outcome, error_code, row["id"]))
        # Not this one, whatever the wall clock did meanwhile.
        self.execute(
            f"DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE {IS_ENDED} AND id != ?"
            " ORDER BY finished_at DESC, id DESC LIMIT -1 OFFSET ?)",
            (row["id"], max(0, self._keep_ended - 1)),
        )

    def check_room(self) -> None:
        waiting = self.count_waiting()
        if waiting >= self._max_waiting:
            raise NotNow(
                f"{counted(waiting, 'job waits', 'jobs wait')} already, the most that the queue takes; "
                "cancel some, wait, or raise engine.max_queue"
            )

    def count_waiting(self) -> int:
        row = self.one(f"SELECT count(*) AS n FROM jobs WHERE {IS_WAITING}")
        return int(row["n"]) if row else 0

    def first_place(self) -> int:
        row = self.one(f"SELECT coalesce(min(place), 1) AS place FROM jobs WHERE {IS_WAITING}")
        return int(row["place"]) if row else 1

    def last_place(self) -> int:
        row = self.one(f"SELECT coalesce(max(place), 0) AS place FROM jobs WHERE {IS_WAITING}")
        return int(row["place"]) if row else 0

    def breaker(self) -> Breaker:
        row = self.one("SELECT value FROM meta WHERE key = 'breaker'")
        return rows.decode_breaker(row["value"]) if row else Breaker()

    def save_breaker(self, breaker: Breaker) -> None:
        self.execute(
            "INSERT INTO meta (key, value) VALUES ('breaker', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (rows.encode_breaker(breaker),),
        )


def waits(row: sqlite3.Row) -> bool:
    return row["state"] in ("queued", "waiting_memory")


def check_priority(priority: int) -> None:
    if abs(priority) > PRIORITY_LIMIT:
        raise InvalidRequest(
            f"priority must be between -{PRIORITY_LIMIT} and {PRIORITY_LIMIT}, got {priority}"
        )
