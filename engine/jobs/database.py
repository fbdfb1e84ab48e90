"""The SQLite file below a store: looked at, created, migrated and opened; its errors in sentences.

A file of a newer build is refused after a read-only look and stays as it is. Every error of
SQLite leaves here as StorageUnusable with the path and the way out.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from engine.errors import StorageUnusable
from engine.jobs.filesystem import why_no_wal
from engine.jobs.migrations import load_schema, load_steps

SCHEMA = 1
"""`user_version` that this build writes."""
APPLICATION_ID = 0x7475_6A62
"""Marks the file as ours ("tujb"), so that no other program's database is taken for a job store."""
BUSY_TIMEOUT_S = 5.0
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What a file of ours is: its mark, its newest schema, and the steps that lead there."""

    noun: str
    """As errors name it: `job store`."""
    way_out: str
    """What moving a damaged one away begins with."""
    application_id: int
    script: Callable[[], str]
    """The newest schema as SQL."""
    steps: Callable[[], Mapping[int, str]]


JOBS = Family(
    noun="job store",
    way_out="an empty queue",
    application_id=APPLICATION_ID,
    script=load_schema,
    steps=load_steps,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """An open file."""

    connection: sqlite3.Connection
    journal_mode: str
    """`wal`, or `delete` with its reason."""
    journal_reason: str | None
    migrated_from: int | None = None
    """The schema that the file had before it was brought forward."""


def open_database(
    path: Path, *, schema: int = SCHEMA, steps: Mapping[int, str] | None = None, family: Family = JOBS
) -> Database:
    """Open `path`, creating it 0600 or migrating it forward as needed.

    `schema` and `steps` are this build's; a test gives others to try a migration.

    Raises:
        StorageUnusable: newer than this build, not ours, damaged, or the disk refuses.
    """
    with storage_errors(path, family):
        _look(path, schema, family)
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            reason = why_no_wal(path)
            if reason is not None:
                # A file that was in WAL mode elsewhere must not touch shared memory here.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            # Once more, since a transaction that was cut off has been rolled back only here.
            found = _check_identity(connection, path, schema, family)
            mode = _set_journal(connection, wal=reason is None)
            if reason is None and mode != "wal":
                reason = f"no WAL: SQLite keeps {path} in {mode} mode"
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            if found == 0:
                _create(connection, schema, family)
            elif found < schema:
                _migrate(connection, path, found, schema, family.steps() if steps is None else steps)
            check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if check != "ok":
                raise StorageUnusable(_damaged(path, str(check), family))
        except BaseException:
            connection.close()
            raise
    migrated_from = found if 0 < found < schema else None
    return Database(
        connection=connection, journal_mode=mode, journal_reason=reason, migrated_from=migrated_from
    )


def backup_path(path: Path, schema: int) -> Path:
    """Where the copy of `path` as it was under the older `schema` lies."""
    return path.with_name(f"{path.name}.schema-{schema}.bak")


@contextmanager
def storage_errors(path: Path, family: Family = JOBS) -> Iterator[None]:
    """SQLite's and the system's errors inside the block come out as StorageUnusable."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageUnusable(_explain(path, error, family)) from error
    except OSError as error:
        raise StorageUnusable(
            f"{path} cannot be used: {error.strerror}; {_free(path)}; "
            "make its folder writable, or set TURBOTUI_HOME to another place"
        ) from error


def free_bytes(path: Path) -> int | None:
    """Bytes that this user may still write where `path` lies; None when the system will not say."""
    try:
        stats = os.statvfs(path.parent)
    except OSError:
        return None
    return stats.f_bavail * stats.f_frsize


def _look(path: Path, schema: int, family: Family) -> None:
    """Refuse a file that must not be opened for writing; leaves it and its folder as they are.

    The header says it without SQLite, which would leave files of its own beside a database in
    WAL mode. Only commits that still lie in a WAL need SQLite, read-only.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except FileNotFoundError:
        return
    if not header:
        return
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise StorageUnusable(_damaged(path, "it is no SQLite database", family))
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    wal = path.with_name(path.name + "-wal")
    if (version, application) == (0, 0) or (wal.exists() and wal.stat().st_size > 0):
        with closing(sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=ro", uri=True)) as connection:
            _check_identity(connection, path, schema, family)
    else:
        _check(path, version, application, 1, schema, family)


def _check_identity(connection: sqlite3.Connection, path: Path, schema: int, family: Family) -> int:
    """The file's schema, 0 when nothing is in it yet; refuses what is not ours or newer."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    _check(path, version, application, tables, schema, family)
    return version


def _check(path: Path, version: int, application: int, tables: int, schema: int, family: Family) -> None:
    if application != family.application_id and (version, tables) != (0, 0):
        raise StorageUnusable(
            f"{path} is another program's database; move it away, or set TURBOTUI_HOME to another place"
        )
    if version > schema:
        raise StorageUnusable(
            f"{path} has schema {version} and this build knows schemas up to {schema}; it was left as it is: "
            "start the newer turbotui that wrote it, or set TURBOTUI_HOME to another place"
        )


def _make_private(path: Path) -> None:
    try:
        # An existing file is not opened here: closing it would drop SQLite's locks of this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _set_journal(connection: sqlite3.Connection, *, wal: bool) -> str:
    """The mode that SQLite then has, which is not the wished one where the system refuses WAL."""
    mode = str(connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}").fetchone()[0])
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("PRAGMA locking_mode = NORMAL")
    return mode


def _create(connection: sqlite3.Connection, schema: int, family: Family) -> None:
    with transaction(connection):
        for statement in split_statements(family.script()):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {family.application_id}")
        connection.execute(f"PRAGMA user_version = {schema}")


def _migrate(
    connection: sqlite3.Connection, path: Path, found: int, schema: int, steps: Mapping[int, str]
) -> None:
    """All steps in one transaction, after a whole copy was put beside the file."""
    missing = [version for version in range(found + 1, schema + 1) if version not in steps]
    if missing:
        raise StorageUnusable(
            f"{path} has schema {found} and this build has no step to schema {missing[0]}; "
            "it was left as it is: install a whole turbotui, or set TURBOTUI_HOME to another place"
        )
    backup = backup_path(path, found)
    unfinished = backup.with_name(backup.name + ".part")
    unfinished.unlink(missing_ok=True)
    _make_private(unfinished)
    try:
        with closing(sqlite3.connect(unfinished)) as copy:
            connection.backup(copy)
        os.replace(unfinished, backup)
    finally:
        unfinished.unlink(missing_ok=True)
    with transaction(connection):
        for version in range(found + 1, schema + 1):
            for statement in split_statements(steps[version]):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {schema}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that takes the write lock at once; rolled back whole on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def split_statements(script: str) -> Iterator[str]:
    """The statements of `script`, since `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if any(line.strip() and not line.strip().startswith("--") for line in statement.splitlines()):
        raise ValueError(f"a script ends inside a statement: {statement.strip()[:80]!r}")


def _explain(path: Path, error: sqlite3.DatabaseError, family: Family) -> str:
    # The primary code is the low byte; the rest says which kind of it.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return f"{path} cannot grow: the disk is full ({_free(path)}); make room, then try again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            f"{path} cannot be written: {error} ({_free(path)}); make it and its folder writable, "
            "or set TURBOTUI_HOME to another place"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is held by another program for more than {BUSY_TIMEOUT_S:.0f} s; end that program"
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _damaged(path, str(error), family)
    return f"{path} cannot be used: {error} ({_free(path)}); look at the disk, then try again"


def _damaged(path: Path, detail: str, family: Family) -> str:
    detail = " ".join(detail.split())
    return f"{path} is no {family.noun} or is damaged: {detail}; move it away to begin with {family.way_out}"


def _free(path: Path) -> str:
    free = free_bytes(path)
    return "free bytes unknown" if free is None else f"{free} bytes free"
