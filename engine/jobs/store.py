"""The job store: every job and every attempt of it, in one SQLite file that outlives all processes.

Each public method is one transaction, durable when it returns (synchronous FULL), and may be
called from any thread; one lock keeps them in order. Progress is not kept here: it changes too
often and means nothing after a crash.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InvalidRequest, NotFound, NotNow
from engine.jobs import rows
from engine.jobs.breaker import ENGINE_ENDED, Breaker
from engine.jobs.database import SCHEMA, open_database, storage_errors, transaction
from engine.jobs.files import find_proof, manifest_path
from engine.jobs.model import Attempt, Outcome, Owner, Recovery, refusal, require
from engine.jobs.order import Entry, place_at
from engine.wire import Job, JobMove, JobSpec, JobState

PRIORITY_LIMIT = 1_000_000
ERROR_LIMIT_CHARS = 4000
REQUEUE_LIMIT = 1
"""How often an interrupted job goes back to the queue by itself."""

IS_WAITING = "state IN ('queued', 'waiting_memory')"
IS_ENDED = "state IN ('done', 'failed', 'cancelled', 'interrupted')"
IN_ORDER = "ORDER BY priority DESC, place, id"


class JobStore:
    """The store in the file `path`; call `close` at the end."""

    def __init__(
        self,
        path: Path,
        *,
        max_waiting: int = 1000,
        keep_ended: int = 2000,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open or create it, and bring an older file forward.

        At most `max_waiting` jobs wait, and the `keep_ended` newest ended ones are kept, so that
        the file cannot grow for ever.

        Raises:
            StorageUnusable: the file is newer than this build, not ours, damaged, or cannot be written.
        """
        self.path = path
        self._max_waiting = max_waiting
        self._keep_ended = keep_ended
        self._now = now
        self._lock = threading.RLock()
        self._database = open_database(path)
        self._connection = self._database.connection
        self._connection.row_factory = sqlite3.Row

    @property
    def schema(self) -> int:
        """`user_version` of the file."""
        return SCHEMA

    @property
    def journal_mode(self) -> str:
        """`wal`, or `delete` where WAL must not be used."""
        return self._database.journal_mode

    @property
    def journal_reason(self) -> str | None:
        """Why the journal is not WAL, or None when it is."""
        return self._database.journal_reason

    @property
    def migrated_from(self) -> int | None:
        """The schema that the file had before it was opened, when that was an older one."""
        return self._database.migrated_from

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # ----------------------------------------------------------------- reading

    def get(self, job_id: int) -> Job:
        """One job.

        Raises:
            NotFound: no job has that id.
        """
        with self._read():
            return self._job(job_id)

    def list_jobs(self, ended: int | None = 50) -> tuple[Job, ...]:
        """Those waiting and running and the newest `ended` ended ones (None: all), oldest first."""
        with self._read():
            found = self._all(f"SELECT * FROM jobs WHERE NOT {IS_ENDED}")
            found += self._all(
                f"SELECT * FROM jobs WHERE {IS_ENDED} ORDER BY finished_at DESC, id DESC LIMIT ?",
                -1 if ended is None else max(0, ended),
            )
            positions = self._positions()
        return tuple(
            rows.to_job(row, positions.get(row["id"])) for row in sorted(found, key=lambda row: row["id"])
        )

    def list_waiting(self) -> tuple[Job, ...]:
        """The waiting jobs in the order of the queue, held ones among them."""
        with self._read():
            found = self._all(f"SELECT * FROM jobs WHERE {IS_WAITING} {IN_ORDER}")
        return tuple(rows.to_job(row, position) for position, row in enumerate(found, 1))

    def list_runnable(self) -> tuple[Job, ...]:
        """The waiting jobs that may start, in order; none while the queue is held."""
        if self.held_reason is not None:
            return ()
        return tuple(job for job in self.list_waiting() if not job.held)

    def next_runnable(self) -> Job | None:
        """The job whose turn it is, or None."""
        runnable = self.list_runnable()
        return runnable[0] if runnable else None

    def count_waiting(self) -> int:
        with self._read():
            return self._count_waiting()

    def list_attempts(self, job_id: int) -> tuple[Attempt, ...]:
        """Every start of a job, oldest first.

        Raises:
            NotFound: no job has that id.
        """
        with self._read():
            self._row(job_id)
            found = self._all("SELECT * FROM attempts WHERE job_id = ? ORDER BY attempt", job_id)
        return tuple(rows.to_attempt(row) for row in found)

    # ----------------------------------------------------------------- asking for work

    def submit(self, spec: JobSpec, expected_peak_bytes: int | None = None) -> Job:
        """Queue a new job at the end of its priority.

        Raises:
            NotNow: `max_waiting` jobs wait already.
            InvalidRequest: a text or number in `spec` cannot be stored.
        """
        with self._write():
            return self._insert(spec, expected_peak_bytes, duplicate_of=None)

    def duplicate(self, job_id: int, spec: JobSpec | None = None) -> Job:
        """Queue the same request again as a new job; `spec` replaces it when something was changed.

        Raises:
            NotFound, NotNow, InvalidRequest: as for `get` and `submit`.
        """
        with self._write():
            original = self._job(job_id)
            return self._insert(spec or original.spec, original.expected_peak_bytes, duplicate_of=job_id)

    def retry(self, job_id: int) -> Job:
        """Queue a failed, cancelled or interrupted job again, at the end of its priority.

        Raises:
            NotFound: no job has that id.
            NotNow: it is in another state, or the queue is full.
        """
        with self._write():
            row = self._row(job_id)
            require(job_id, row["state"], "queued", "retry")
            if row["state"] == "waiting_memory":  # "queued" is one step away, but not by a retry
                raise refusal(job_id, row["state"], "retry")
            self._check_room()
            self._update(
                job_id,
                state="queued",
                place=self._last_place() + 1,
                held=0,
                cancel_requested=0,
                interruptions=0,
                started_at=None,
                finished_at=None,
                error=None,
                error_code=None,
                output=None,
                manifest=None,
            )
            return self._job(job_id)

    def cancel(self, job_id: int) -> Job:
        """Cancel a waiting job; note the wish for a running one, whose worker the caller must then ask.

        The wish is kept: if worker or engine die before they obey, the job ends as cancelled.

        Raises:
            NotFound: no job has that id.
            NotNow: it has ended.
        """
        with self._write():
            row = self._row(job_id)
            require(job_id, row["state"], "cancelled", "cancel")
            if row["state"] == "running":
                self._update(job_id, cancel_requested=1)
            else:
                self._end(row, "cancelled", error=None, error_code="cancelled")
            return self._job(job_id)

    # ----------------------------------------------------------------- the queue's order

    def hold(self, job_id: int) -> Job:
        """Keep a waiting job from starting until it is released; harmless when it is held.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
        """
        return self._set_held(job_id, held=True)

    def release(self, job_id: int) -> Job:
        """Let a held job start in its turn; harmless when it is not held.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
        """
        return self._set_held(job_id, held=False)

    def move(self, job_id: int, move: JobMove) -> Job:
        """Give a waiting job another place or priority.

        A position beyond the last means the last. A job that is moved past jobs of another
        priority takes the nearest priority that keeps it there. A new priority puts it behind
        those that have it already.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
            InvalidRequest: not exactly one of the two is given, or it is out of range.
        """
        if (move.position is None) == (move.priority is None):
            raise InvalidRequest("a move names either a position or a priority, exactly one of them")
        if move.position is not None and move.position < 1:
            raise InvalidRequest(f"position must be 1 or more, got {move.position}")
        with self._write():
            row = self._row(job_id)
            if not _waits(row):
                raise refusal(job_id, row["state"], "move")
            if move.priority is not None:
                _check_priority(move.priority)
                self._update(job_id, priority=move.priority, place=self._last_place() + 1)
            elif move.position is not None:
                found = self._all(f"SELECT id, priority FROM jobs WHERE {IS_WAITING} {IN_ORDER}")
                entries = [Entry(job_id=entry["id"], priority=entry["priority"]) for entry in found]
                for place, entry in enumerate(place_at(entries, job_id, move.position), 1):
                    self._update(entry.job_id, priority=entry.priority, place=place)
            return self._job(job_id)

    def wait_for_memory(self, job_id: int, waits_for: str | None) -> Job:
        """Say for what a waiting job waits; None when there is room again.

        Writes nothing when nothing changed, so that it may be called on every look at the queue.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
        """
        with self._read():
            row = self._row(job_id)
            if _waits(row) and row["waits_for"] == waits_for:
                return self._job(job_id)
        with self._write():
            row = self._row(job_id)
            if not _waits(row):
                raise refusal(job_id, row["state"], "wait")
            self._update(
                job_id, state="queued" if waits_for is None else "waiting_memory", waits_for=waits_for
            )
            return self._job(job_id)

    # ----------------------------------------------------------------- running

    def claim(self, job_id: int, owner: Owner, *, output: str, manifest: str | None = None) -> Job:
        """Start a waiting job: it is `running`, with its attempt counted up.

        `output` is where the video will lie, and `manifest` its manifest (None: the same name
        with `.json`); `recover` looks there after a crash.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait, is held, or the queue is held.
        """
        with self._write():
            row = self._row(job_id)
            require(job_id, row["state"], "running", "start")
            if row["held"]:
                raise refusal(job_id, row["state"], "start", " and held")
            if (reason := self._breaker().held_reason) is not None:
                raise NotNow(f"job {job_id} cannot start, the queue is held: {reason}")
            started, attempt = self._now(), row["attempt"] + 1
            self._update(
                job_id,
                state="running",
                attempt=attempt,
                started_at=started,
                finished_at=None,
                waits_for=None,
                error=None,
                error_code=None,
                cancel_requested=0,
            )
            self._connection.execute(
                "INSERT INTO attempts (job_id, attempt, started_at, instance, engine_pid, boot_id,"
                " worker_pid, worker_start_time, output, manifest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(job_id, attempt, started, owner.instance, owner.engine_pid, owner.boot_id),
                    *(owner.worker_pid, owner.worker_start_time, output, manifest or manifest_path(output)),
                ),
            )
            return self._job(job_id)

    def set_worker(self, job_id: int, worker_pid: int, worker_start_time: float | None) -> None:
        """Name the worker of a running job that was claimed before its worker was there.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not run.
        """
        with self._write():
            row = self._row(job_id)
            if row["state"] != "running":
                raise refusal(job_id, row["state"], "end")
            self._connection.execute(
                "UPDATE attempts SET worker_pid = ?, worker_start_time = ? WHERE job_id = ? AND attempt = ?",
                (worker_pid, worker_start_time, job_id, row["attempt"]),
            )

    def finish(
        self,
        job_id: int,
        outcome: Outcome,
        *,
        attempt: int | None = None,
        error: str | None = None,
        error_code: str | None = None,
        output: str | None = None,
        manifest: str | None = None,
    ) -> Job:
        """End a job as done, failed or cancelled; failed also from the queue.

        `attempt`, when given, must be the current one: a late answer of an earlier start
        ends nothing. The breaker counts this end in the same transaction.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not run (any more), or runs another attempt.
        """
        if outcome == "interrupted":
            raise ValueError("an interruption goes through interrupt(), which may queue the job again")
        with self._write():
            row = self._row(job_id)
            require(job_id, row["state"], outcome, "end")
            if attempt is not None and attempt != row["attempt"]:
                raise refusal(job_id, row["state"], "end", f" in attempt {row['attempt']}, not {attempt}")
            self._end(row, outcome, error=error, error_code=error_code, output=output, manifest=manifest)
            return self._job(job_id)

    def interrupt(
        self, job_id: int, cause: str, *, error_code: str = "worker_died", counted: bool = True
    ) -> Job:
        """A running job lost its worker: done if its files prove it, else queued once more, else interrupted.

        Queued again it goes to the front of its priority and keeps `cause` as its error. A job
        that somebody wanted cancelled ends as cancelled. Not `counted` is an interruption that
        a person meant, such as stopping the engine: the job is queued again however often.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not run.
        """
        with self._write():
            row = self._row(job_id)
            require(job_id, row["state"], "interrupted", "end")
            return self._interrupt(row, cause, error_code, counted=counted)

    def recover(self, instance: str, is_alive: Callable[[Owner], bool]) -> Recovery:
        """Settle what engines other than `instance` left running; called before any job starts.

        A job whose worker `is_alive` is left alone and named, since it may still be writing.
        """
        found: dict[str, list[Job]] = {
            "done": [], "queued": [], "interrupted": [], "cancelled": [], "running": []
        }  # fmt: skip
        with self._write():
            for row in self._all("SELECT * FROM jobs WHERE state = 'running' ORDER BY id DESC"):
                last = self._attempt(row)
                if last.owner.instance == instance:
                    continue
                if is_alive(last.owner):
                    found["running"].append(self._job(row["id"]))
                    continue
                cause = f"the engine (pid {last.owner.engine_pid}) ended under it"
                job = self._interrupt(row, cause, ENGINE_ENDED)
                found[job.status].append(job)
        return Recovery(
            done=tuple(found["done"]),
            requeued=tuple(found["queued"]),
            interrupted=tuple(found["interrupted"]),
            cancelled=tuple(found["cancelled"]),
            still_running=tuple(found["running"]),
        )

    # ----------------------------------------------------------------- the queue as a whole

    @property
    def held_reason(self) -> str | None:
        """Why no job starts although some wait, or None."""
        with self._read():
            return self._breaker().held_reason

    def hold_queue(self, reason: str) -> None:
        """Start nothing until `resume`; an earlier reason stays."""
        with self._write():
            breaker = self._breaker()
            if breaker.held_reason is None:
                held = Breaker(kind=breaker.kind, count=breaker.count, held_reason=reason)
                self._save_breaker(held)

    def resume(self) -> None:
        """Clear the hold and the count of failures; harmless when nothing is held."""
        with self._write():
            self._save_breaker(self._breaker().reset())

    # ----------------------------------------------------------------- inside a transaction

    @contextmanager
    def _write(self) -> Iterator[None]:
        with self._lock, storage_errors(self.path), transaction(self._connection):
            yield

    @contextmanager
    def _read(self) -> Iterator[None]:
        with self._lock, storage_errors(self.path):
            yield

    def _all(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(query, values).fetchone()
        return row

    def _row(self, job_id: int) -> sqlite3.Row:
        # An id that SQLite cannot even hold names no job either.
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id) if abs(job_id) < 2**63 else None
        if row is None:
            raise NotFound(f"there is no job {job_id}; `turbotui jobs` lists those there are")
        return row

    def _job(self, job_id: int) -> Job:
        row = self._row(job_id)
        ahead = self._one(
            f"SELECT count(*) AS n FROM jobs WHERE {IS_WAITING} AND (-priority, place, id) < (?, ?, ?)",
            -row["priority"],
            row["place"],
            job_id,
        )
        assert ahead is not None
        return rows.to_job(row, ahead["n"] + 1 if _waits(row) else None)

    def _positions(self) -> dict[int, int]:
        found = self._all(f"SELECT id FROM jobs WHERE {IS_WAITING} {IN_ORDER}")
        return {row["id"]: position for position, row in enumerate(found, 1)}

    def _attempt(self, row: sqlite3.Row) -> Attempt:
        found = self._one(
            "SELECT * FROM attempts WHERE job_id = ? AND attempt = ?", row["id"], row["attempt"]
        )
        assert found is not None, f"job {row['id']} runs without an attempt"
        return rows.to_attempt(found)

    def _update(self, job_id: int, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*values.values(), job_id))

    def _insert(self, spec: JobSpec, expected_peak_bytes: int | None, duplicate_of: int | None) -> Job:
        _check_priority(spec.priority)
        self._check_room()
        cursor = self._connection.execute(
            "INSERT INTO jobs (spec, priority, place, state, created_at, expected_peak_bytes, duplicate_of)"
            " VALUES (?, ?, ?, 'queued', ?, ?, ?)",
            (
                rows.encode_spec(spec),
                spec.priority,
                self._last_place() + 1,
                self._now(),
                expected_peak_bytes,
                duplicate_of,
            ),
        )
        assert cursor.lastrowid is not None
        return self._job(cursor.lastrowid)

    def _set_held(self, job_id: int, *, held: bool) -> Job:
        with self._write():
            row = self._row(job_id)
            if not _waits(row):
                raise refusal(job_id, row["state"], "hold" if held else "release")
            self._update(job_id, held=int(held))
            return self._job(job_id)

    def _interrupt(self, row: sqlite3.Row, cause: str, error_code: str, *, counted: bool = True) -> Job:
        job_id = row["id"]
        last = self._attempt(row)
        proof = find_proof(job_id=job_id, attempt=last.attempt, output=last.output, manifest=last.manifest)
        if proof is not None:
            self._end(
                row, "done", output=last.output, manifest=last.manifest, cause=f"{cause}; its files are whole"
            )
        elif row["cancel_requested"]:
            self._end(row, "cancelled", error=None, error_code="cancelled", cause=cause)
        else:
            self._end(row, "interrupted", error=cause, error_code=error_code)
            if row["interruptions"] < REQUEUE_LIMIT or not counted:
                self._update(
                    job_id,
                    state="queued",
                    place=self._first_place() - 1,
                    interruptions=row["interruptions"] + int(counted),
                    started_at=None,
                    finished_at=None,
                )
        return self._job(job_id)

    def _end(
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
        ended = self._now()
        error = error[:ERROR_LIMIT_CHARS] if error else error
        cause = cause[:ERROR_LIMIT_CHARS] if cause else error
        state: JobState = outcome
        self._update(
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
            self._connection.execute(
                "UPDATE attempts SET ended_at = ?, outcome = ?, error_code = ?, cause = ?"
                " WHERE job_id = ? AND attempt = ?",
                (ended, outcome, error_code, cause, row["id"], row["attempt"]),
            )
        self._save_breaker(self._breaker().record(outcome, error_code, row["id"]))
        # Not this one, whatever the wall clock did meanwhile.
        self._connection.execute(
            f"DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE {IS_ENDED} AND id != ?"
            " ORDER BY finished_at DESC, id DESC LIMIT -1 OFFSET ?)",
            (row["id"], max(0, self._keep_ended - 1)),
        )

    def _check_room(self) -> None:
        waiting = self._count_waiting()
        if waiting >= self._max_waiting:
            raise NotNow(
                f"{waiting} jobs wait already, the most that the queue takes; "
                "cancel some, wait, or raise engine.max_queue"
            )

    def _count_waiting(self) -> int:
        row = self._one(f"SELECT count(*) AS n FROM jobs WHERE {IS_WAITING}")
        return int(row["n"]) if row else 0

    def _first_place(self) -> int:
        row = self._one(f"SELECT coalesce(min(place), 1) AS place FROM jobs WHERE {IS_WAITING}")
        return int(row["place"]) if row else 1

    def _last_place(self) -> int:
        row = self._one(f"SELECT coalesce(max(place), 0) AS place FROM jobs WHERE {IS_WAITING}")
        return int(row["place"]) if row else 0

    def _breaker(self) -> Breaker:
        row = self._one("SELECT value FROM meta WHERE key = 'breaker'")
        return rows.decode_breaker(row["value"]) if row else Breaker()

    def _save_breaker(self, breaker: Breaker) -> None:
        self._connection.execute(
            "INSERT INTO meta (key, value) VALUES ('breaker', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (rows.encode_breaker(breaker),),
        )


def _waits(row: sqlite3.Row) -> bool:
    return row["state"] in ("queued", "waiting_memory")


def _check_priority(priority: int) -> None:
    if abs(priority) > PRIORITY_LIMIT:
        raise InvalidRequest(
            f"priority must be between -{PRIORITY_LIMIT} and {PRIORITY_LIMIT}, got {priority}"
        )
