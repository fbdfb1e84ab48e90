"""Rows of jobs.sqlite to and from the records that the rest of the engine knows."""

from __future__ import annotations

import dataclasses
import sqlite3

import msgspec

from engine.errors import InvalidRequest, StorageUnusable
from engine.jobs.breaker import Breaker
from engine.jobs.model import Attempt, Owner
from engine.wire import Job, JobRuns, JobSpec

_spec_decoder = msgspec.json.Decoder(JobSpec)


class _Beside(msgspec.Struct, frozen=True):
    """What the text of a request holds beside it; a build that does not know it reads past it."""

    runs: JobRuns | None = None


_beside_decoder = msgspec.json.Decoder(_Beside)


def encode_spec(spec: JobSpec, runs: JobRuns | None = None) -> str:
    """`spec` as JSON text, and beside its fields what runs in the place of its model.

    Raises:
        InvalidRequest: it holds a text that is no Unicode, such as half of a surrogate pair.
    """
    try:
        if runs is None:
            return msgspec.json.encode(spec).decode()
        return msgspec.json.encode({**msgspec.to_builtins(spec), "runs": runs}).decode()
    except (UnicodeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"the request cannot be stored: {error}; remove the broken character") from error


def to_job(row: sqlite3.Row, position: int | None) -> Job:
    """A row of `jobs` as the wire's Job; `position` is its place among those waiting."""
    try:
        spec = _spec_decoder.decode(row["spec"])
        runs = _beside_decoder.decode(row["spec"]).runs
    except msgspec.MsgspecError as error:
        raise StorageUnusable(
            f"the request of job {row['id']} in the job store cannot be read: {error}; "
            "move jobs.sqlite away to begin with an empty queue"
        ) from error
    return Job(
        id=row["id"],
        spec=dataclasses.replace(spec, priority=row["priority"]),
        status=row["state"],
        held=bool(row["held"]),
        position=position,
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        attempt=row["attempt"],
        error=row["error"],
        error_code=row["error_code"],
        waits_for=row["waits_for"],
        output=row["output"],
        manifest=row["manifest"],
        expected_peak_bytes=row["expected_peak_bytes"],
        duplicate_of=row["duplicate_of"],
        runs=runs,
    )


def to_attempt(row: sqlite3.Row) -> Attempt:
    """A row of `attempts`."""
    return Attempt(
        job_id=row["job_id"],
        attempt=row["attempt"],
        owner=Owner(
            instance=row["instance"],
            engine_pid=row["engine_pid"],
            boot_id=row["boot_id"],
            worker_pid=row["worker_pid"],
            worker_start_time=row["worker_start_time"],
        ),
        started_at=row["started_at"],
        output=row["output"],
        manifest=row["manifest"],
        ended_at=row["ended_at"],
        outcome=row["outcome"],
        error_code=row["error_code"],
        cause=row["cause"],
    )


def encode_breaker(breaker: Breaker) -> str:
    return msgspec.json.encode(breaker).decode()


def decode_breaker(text: str) -> Breaker:
    """A breaker as it was stored; a text that cannot be read counts as nothing held."""
    try:
        return msgspec.json.decode(text, type=Breaker)
    except msgspec.MsgspecError:
        return Breaker()
