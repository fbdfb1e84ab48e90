"""The job store: every job and every attempt of it, in one SQLite file that outlives all processes.

Each public method is one transaction, durable when it returns (synchronous FULL), and may be
called from any thread; one lock keeps them in order. Progress is not kept here: it changes too
often and means nothing after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.errors import InvalidRequest, NotNow
from engine.jobs import rows
from engine.jobs.breaker import ENGINE_ENDED
from engine.jobs.database import SCHEMA, open_database
from engine.jobs.files import manifest_path
from engine.jobs.model import Outcome, Owner, Recovery, refusal, require
from engine.jobs.order import Entry, place_at
from engine.jobs.tables import IN_ORDER, IS_ENDED, IS_WAITING, Tables, check_priority, waits
from engine.wire import Job, JobMove, JobRuns, JobSpec


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
        self._database = open_database(path)
        self._tables = Tables(path, self._database.connection, max_waiting, keep_ended, now)

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
        self._tables.close()

    # ----------------------------------------------------------------- reading

    def get(self, job_id: int) -> Job:
        """One job.

        Raises:
            NotFound: no job has that id.
        """
        with self._tables.read():
            return self._tables.job(job_id)

    def list_jobs(self, ended: int | None = 50) -> tuple[Job, ...]:
        """Those waiting and running and the newest `ended` ended ones (None: all), oldest first."""
        with self._tables.read():
            found = self._tables.all(f"SELECT * FROM jobs WHERE NOT {IS_ENDED}")
            found += self._tables.all(
                f"SELECT * FROM jobs WHERE {IS_ENDED} ORDER BY finished_at DESC, id DESC LIMIT ?",
                -1 if ended is None else max(0, ended),
            )
            positions = self._tables.positions()
        return tuple(
            rows.to_job(row, positions.get(row["id"])) for row in sorted(found, key=lambda row: row["id"])
        )

    def list_waiting(self) -> tuple[Job, ...]:
        """The waiting jobs in the order of the queue, held ones among them."""
        with self._tables.read():
            found = self._tables.all(f"SELECT * FROM jobs WHERE {IS_WAITING} {IN_ORDER}")
        return tuple(rows.to_job(row, position) for position, row in enumerate(found, 1))

    def list_runnable(self) -> tuple[Job, ...]:
        """The waiting jobs that may start, in order; none while the queue is held."""
        if self.held_reason is not None:
            return ()
        return tuple(job for job in self.list_waiting() if not job.held)

    def count_waiting(self) -> int:
        with self._tables.read():
            return self._tables.count_waiting()

    def count_by_state(self) -> dict[str, int]:
        """How many jobs are kept in each state that any is in."""
        with self._tables.read():
            found = self._tables.all("SELECT state, count(*) AS n FROM jobs GROUP BY state")
        return {str(row["state"]): int(row["n"]) for row in found}

    # ----------------------------------------------------------------- asking for work

    def submit(
        self, spec: JobSpec, expected_peak_bytes: int | None = None, runs: JobRuns | None = None
    ) -> Job:
        """Queue a new job at the end of its priority; `runs` is what will run in its model's place.

        Raises:
            NotNow: `max_waiting` jobs wait already.
            InvalidRequest: a text or number in `spec` cannot be stored.
        """
        with self._tables.write():
            return self._tables.insert(spec, expected_peak_bytes, duplicate_of=None, runs=runs)

    def submit_many(self, requests: Sequence[tuple[JobSpec, int | None, JobRuns | None]]) -> list[Job]:
        """Queue them in their order, all or none; each is what `submit` takes.

        Raises:
            NotNow, InvalidRequest: as `submit`; then none of them is queued.
        """
        with self._tables.write():
            return [
                self._tables.insert(spec, peak_bytes, duplicate_of=None, runs=runs)
                for spec, peak_bytes, runs in requests
            ]

    def duplicate(self, job_id: int, spec: JobSpec | None = None) -> Job:
        """Queue the same request again as a new job; `spec` replaces it when something was changed.

        Raises:
            NotFound, NotNow, InvalidRequest: as for `get` and `submit`.
        """
        with self._tables.write():
            original = self._tables.job(job_id)
            return self._tables.insert(
                spec or original.spec,
                original.expected_peak_bytes,
                duplicate_of=job_id,
                runs=original.runs if spec is None else None,
            )

    def retry(self, job_id: int) -> Job:
        """Queue a failed, cancelled or interrupted job again, at the end of its priority.

        Raises:
            NotFound: no job has that id.
            NotNow: it is in another state, or the queue is full.
        """
        with self._tables.write():
            row = self._tables.row(job_id)
            require(job_id, row["state"], "queued", "retry")
            if row["state"] == "waiting_memory":  # "queued" is one step away, but not by a retry
                raise refusal(job_id, row["state"], "retry")
            self._tables.check_room()
            self._tables.update(
                job_id,
                state="queued",
                place=self._tables.last_place() + 1,
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
            return self._tables.job(job_id)

    def cancel(self, job_id: int) -> Job:
        """Cancel a waiting job; note the wish for a running one, whose worker the caller must then ask.

        The wish is kept: if worker or engine die before they obey, the job ends as cancelled.

        Raises:
            NotFound: no job has that id.
            NotNow: it has ended.
        """
        with self._tables.write():
            row = self._tables.row(job_id)
            require(job_id, row["state"], "cancelled", "cancel")
            if row["state"] == "running":
                self._tables.update(job_id, cancel_requested=1)
            else:
                self._tables.end(row, "cancelled", error=None, error_code="cancelled")
            return self._tables.job(job_id)

    # ----------------------------------------------------------------- the queue's order

    def hold(self, job_id: int) -> Job:
        """Keep a waiting job from starting until it is released; harmless when it is held.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
        """
        return self._tables.set_held(job_id, held=True)

    def release(self, job_id: int) -> Job:
        """Let a held job start in its turn; harmless when it is not held.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
        """
        return self._tables.set_held(job_id, held=False)

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
        with self._tables.write():
            row = self._tables.row(job_id)
            if not waits(row):
                raise refusal(job_id, row["state"], "move")
            if move.priority is not None:
                check_priority(move.priority)
                self._tables.update(job_id, priority=move.priority, place=self._tables.last_place() + 1)
            elif move.position is not None:
                found = self._tables.all(f"SELECT id, priority FROM jobs WHERE {IS_WAITING} {IN_ORDER}")
                entries = [Entry(job_id=entry["id"], priority=entry["priority"]) for entry in found]
                for place, entry in enumerate(place_at(entries, job_id, move.position), 1):
                    self._tables.update(entry.job_id, priority=entry.priority, place=place)
            return self._tables.job(job_id)

    def wait_for_memory(self, job_id: int, waits_for: str | None) -> Job:
        """Say for what a waiting job waits; None when there is room again.

        Writes nothing when nothing changed, so that it may be called on every look at the queue.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait.
        """
        with self._tables.read():
            row = self._tables.row(job_id)
            if waits(row) and row["waits_for"] == waits_for:
                return self._tables.job(job_id)
        with self._tables.write():
            row = self._tables.row(job_id)
            if not waits(row):
                raise refusal(job_id, row["state"], "wait")
            self._tables.update(
                job_id, state="queued" if waits_for is None else "waiting_memory", waits_for=waits_for
            )
            return self._tables.job(job_id)

    # ----------------------------------------------------------------- running

    def claim(
        self,
        job_id: int,
        owner: Owner,
        *,
        output: str,
        manifest: str | None = None,
        runs: JobRuns | None = None,
    ) -> Job:
        """Start a waiting job: it is `running`, with its attempt counted up, and runs what `runs` says.

        `output` is where the video will lie, and `manifest` its manifest (None: the same name
        with `.json`); `recover` looks there after a crash.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not wait, is held, or the queue is held.
        """
        with self._tables.write():
            row = self._tables.row(job_id)
            require(job_id, row["state"], "running", "start")
            if row["held"]:
                raise refusal(job_id, row["state"], "start", " and held")
            if (reason := self._tables.breaker().held_reason) is not None:
                raise NotNow(f"job {job_id} cannot start, the queue is held: {reason}")
            started, attempt = self._tables.now(), row["attempt"] + 1
            self._tables.update(
                job_id,
                state="running",
                attempt=attempt,
                started_at=started,
                finished_at=None,
                waits_for=None,
                error=None,
                error_code=None,
                cancel_requested=0,
                spec=rows.encode_spec(self._tables.job(job_id).spec, runs),
            )
            self._tables.execute(
                "INSERT INTO attempts (job_id, attempt, started_at, instance, engine_pid, boot_id,"
                " worker_pid, worker_start_time, output, manifest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(job_id, attempt, started, owner.instance, owner.engine_pid, owner.boot_id),
                    *(owner.worker_pid, owner.worker_start_time, output, manifest or manifest_path(output)),
                ),
            )
            return self._tables.job(job_id)

    def set_worker(self, job_id: int, worker_pid: int, worker_start_time: float | None) -> None:
        """Name the worker of a running job that was claimed before its worker was there.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not run.
        """
        with self._tables.write():
            row = self._tables.row(job_id)
            if row["state"] != "running":
                raise refusal(job_id, row["state"], "end")
            self._tables.execute(
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
        with self._tables.write():
            row = self._tables.row(job_id)
            require(job_id, row["state"], outcome, "end")
            if attempt is not None and attempt != row["attempt"]:
                raise refusal(job_id, row["state"], "end", f" in attempt {row['attempt']}, not {attempt}")
            self._tables.end(
                row, outcome, error=error, error_code=error_code, output=output, manifest=manifest
            )
            return self._tables.job(job_id)

    def interrupt(
        self,
        job_id: int,
        cause: str,
        *,
        error_code: str = "worker_died",
        counted: bool = True,
        again: bool = True,
    ) -> Job:
        """A running job lost its worker: done if its files prove it, else queued once more, else interrupted.

        Queued again it goes to the front of its priority and keeps `cause` as its error. A job
        that somebody wanted cancelled ends as cancelled. Not `counted` is an interruption that
        a person meant, such as stopping the engine: the job is queued again however often. Not
        `again` leaves it interrupted: who ended its worker decides when it runs again.

        Raises:
            NotFound: no job has that id.
            NotNow: it does not run.
        """
        with self._tables.write():
            row = self._tables.row(job_id)
            require(job_id, row["state"], "interrupted", "end")
            return self._tables.interrupt(row, cause, error_code, counted=counted, again=again)

    def recover(self, instance: str, is_alive: Callable[[Owner], bool]) -> Recovery:
        """Settle what engines other than `instance` left running; called before any job starts.

        A job whose worker `is_alive` is left alone and named, since it may still be writing.
        """
        found: dict[str, list[Job]] = {
            "done": [], "queued": [], "interrupted": [], "cancelled": [], "running": []
        }  # fmt: skip
        with self._tables.write():
            for row in self._tables.all("SELECT * FROM jobs WHERE state = 'running' ORDER BY id DESC"):
                last = self._tables.attempt(row)
                if last.owner.instance == instance:
                    continue
                if is_alive(last.owner):
                    found["running"].append(self._tables.job(row["id"]))
                    continue
                cause = f"the engine (pid {last.owner.engine_pid}) ended under it"
                job = self._tables.interrupt(row, cause, ENGINE_ENDED)
                found[job.status].append(job)
        return Recovery(
            done=tuple(found["done"]),
            requeued=tuple(found["queued"]),
            interrupted=tuple(found["interrupted"]),
            cancelled=tuple(found["cancelled"]),
            still_running=tuple(found["running"]),
        )

    def relocate(self, places: Mapping[str, str]) -> None:
        """Let ended jobs name files where they lie now: `places` gives the new path of each old one."""
        with self._tables.write():
            for row in self._tables.all(f"SELECT id, output, manifest FROM jobs WHERE {IS_ENDED}"):
                fresh = {name: places.get(row[name], row[name]) for name in ("output", "manifest")}
                if any(fresh[name] != row[name] for name in fresh):
                    self._tables.update(row["id"], **fresh)

    # ----------------------------------------------------------------- the queue as a whole

    @property
    def held_reason(self) -> str | None:
        """Why no job starts although some wait, or None."""
        with self._tables.read():
            return self._tables.breaker().held_reason

    def hold_queue(self, reason: str) -> None:
        """Start nothing more until `resume`; a reason that is there already stays."""
        with self._tables.write():
            self._tables.save_breaker(self._tables.breaker().hold(reason))

    def resume(self) -> None:
        """Clear the hold and the count of failures; harmless when nothing is held."""
        with self._tables.write():
            self._tables.save_breaker(self._tables.breaker().reset())
