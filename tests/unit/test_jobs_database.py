"""The file below the job store: kept fixtures, migrations, refusals, file systems and sudden death."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import StorageUnusable
from engine.jobs import database, liveness
from engine.jobs.database import APPLICATION_ID, SCHEMA, backup_path, open_database, split_statements
from engine.jobs.filesystem import find_type, is_network, why_no_wal
from engine.jobs.migrations import load_steps
from engine.jobs.model import Owner
from engine.jobs.store import JobStore
from engine.wire import JobMove
from tests.attempts import attempts_of

FIXTURES = Path(__file__).parents[1] / "data"


def copy_fixture(tmp_path: Path, schema: int) -> Path:
    return Path(shutil.copy(FIXTURES / f"jobs-schema-{schema}.sqlite", tmp_path / "jobs.sqlite"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def describe(connection: sqlite3.Connection) -> list[str]:
    return sorted(sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql)


# ------------------------------------------------------------------------- fixtures of every schema


def test_there_is_a_fixture_of_every_schema_that_ever_was():
    assert {file.name for file in FIXTURES.glob("jobs-schema-*.sqlite")} == {
        f"jobs-schema-{schema}.sqlite" for schema in range(1, SCHEMA + 1)
    }


def test_the_database_of_schema_1_reads_as_it_was_written(tmp_path):
    store = JobStore(copy_fixture(tmp_path, 1))
    jobs = {job.id: job for job in store.list_jobs(ended=None)}
    assert {job_id: job.status for job_id, job in jobs.items()} == {
        1: "done", 2: "failed", 3: "cancelled", 4: "interrupted", 5: "queued", 6: "queued",
        7: "queued", 8: "waiting_memory", 9: "queued", 10: "queued", 11: "running",
    }  # fmt: skip
    assert [job.id for job in store.list_waiting()] == [9, 6, 5, 7, 8, 10]
    assert jobs[1].spec.prompt == "a red fox runs through fresh snow"
    assert (jobs[1].spec.frames, jobs[1].expected_peak_bytes, jobs[1].output) == (
        17, 123456789, "/srv/videos/000001.mp4",
    )  # fmt: skip
    assert (jobs[2].spec.prompt, jobs[2].error_code) == ("失败的任务 🦊", "out_of_memory")
    assert [attempt.outcome for attempt in attempts_of(store, 4)] == ["interrupted", "interrupted"]
    assert jobs[7].held
    assert jobs[8].waits_for == "2147483648 bytes held by pid 777 (trainer)"
    assert (jobs[9].duplicate_of, jobs[9].spec.priority) == (1, 2)
    assert (jobs[10].spec.image, jobs[10].spec.sigma_max, jobs[10].spec.ode) == (
        "/srv/images/fox.png",
        200.0,
        True,
    )
    assert store.held_reason == "held for the fixture"
    assert attempts_of(store, 11)[0].owner.worker_start_time == 1234.56
    store.close()


def test_the_database_of_schema_1_goes_on_working(tmp_path):
    store = JobStore(copy_fixture(tmp_path, 1))
    assert [job.id for job in store.recover("new", lambda owner: False).cancelled] == [11]
    store.resume()
    assert store.list_runnable()[0].id == 9
    store.move(8, JobMove(position=1))
    assert store.retry(2).status == "queued"
    store.close()


def test_a_new_file_has_the_same_schema_as_a_migrated_one(tmp_path):
    migrated = open_database(copy_fixture(tmp_path, 1)).connection
    fresh = open_database(tmp_path / "fresh.sqlite").connection
    with closing(migrated), closing(fresh):
        assert describe(fresh) == describe(migrated)


def test_the_steps_lead_from_schema_1_to_this_build():
    assert sorted(load_steps()) == list(range(2, SCHEMA + 1))


# ------------------------------------------------------------------------- migrations

ADD_NOTE = """
ALTER TABLE jobs ADD COLUMN note TEXT;
-- a comment; with a semicolon
UPDATE jobs SET note = 'a;b';
"""
STEPS = {SCHEMA + 1: ADD_NOTE, SCHEMA + 2: "CREATE TABLE later (x);\n"}


def test_an_older_file_is_brought_forward_with_a_copy_of_it_kept_beside(tmp_path):
    path = copy_fixture(tmp_path, SCHEMA)
    with closing(sqlite3.connect(path)) as older:
        rows = older.execute("SELECT * FROM jobs").fetchall()
    opened = open_database(path, schema=SCHEMA + 2, steps=STEPS)
    with closing(opened.connection) as connection:
        assert opened.migrated_from == SCHEMA
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA + 2,)
        assert connection.execute("SELECT DISTINCT note FROM jobs").fetchall() == [("a;b",)]
    backup = backup_path(path, SCHEMA)
    assert backup.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(backup)) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert kept.execute("SELECT * FROM jobs").fetchall() == rows


def test_a_migration_that_fails_half_way_changes_nothing(tmp_path):
    path = copy_fixture(tmp_path, SCHEMA)
    broken = STEPS | {SCHEMA + 2: "CREATE TABLE later (x);\nINSERT INTO nowhere VALUES (1);\n"}
    with pytest.raises(StorageUnusable, match="nowhere"):
        open_database(path, schema=SCHEMA + 2, steps=broken)
    store = JobStore(path)
    assert len(store.list_jobs(ended=None)) == 11
    assert "note" not in {row[1] for row in store._tables.execute("PRAGMA table_info(jobs)")}
    store.close()


def test_a_build_without_a_needed_step_leaves_the_file_alone(tmp_path):
    path = copy_fixture(tmp_path, SCHEMA)
    with pytest.raises(StorageUnusable, match=f"no step to schema {SCHEMA + 1}"):
        open_database(path, schema=SCHEMA + 2, steps={SCHEMA + 2: STEPS[SCHEMA + 2]})
    assert not backup_path(path, SCHEMA).exists()
    JobStore(path).close()


def test_a_script_that_ends_inside_a_statement_is_an_error():
    assert list(split_statements("SELECT 1;\nSELECT\n2;\n-- the end\n")) == ["SELECT 1;\n", "SELECT\n2;\n"]
    with pytest.raises(ValueError, match="SELECT 3"):
        list(split_statements("SELECT 1;\nSELECT 3\n"))


# ------------------------------------------------------------------------- refusals


def test_a_file_of_a_newer_build_is_refused_and_not_altered(tmp_path):
    path = copy_fixture(tmp_path, SCHEMA)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    path.chmod(0o644)
    before = contents(tmp_path)
    with pytest.raises(StorageUnusable, match=rf"schema {SCHEMA + 1}.*up to {SCHEMA}.*left as it is"):
        JobStore(path)
    assert contents(tmp_path) == before
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_newer_schema_that_still_lies_in_the_wal_is_found_too(tmp_path):
    path = copy_fixture(tmp_path, SCHEMA)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        f"c.execute('PRAGMA journal_mode = WAL'); c.execute('PRAGMA user_version = {SCHEMA + 1}');"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True)
    before = contents(tmp_path)
    assert len(before["jobs.sqlite-wal"]) > 0
    with pytest.raises(StorageUnusable, match=f"schema {SCHEMA + 1}"):
        JobStore(path)
    after = contents(tmp_path)
    # The -shm file is SQLite's index of the WAL and holds nothing of its own.
    assert (after["jobs.sqlite"], after["jobs.sqlite-wal"]) == (
        before["jobs.sqlite"],
        before["jobs.sqlite-wal"],
    )


def test_another_programs_database_is_refused_and_not_altered(tmp_path):
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url)")
    before = contents(tmp_path)
    with pytest.raises(StorageUnusable, match="another program's database"):
        JobStore(path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["text", "cut off", "overwritten"])
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path, damage):
    path = copy_fixture(tmp_path, SCHEMA)
    if damage == "text":
        path.write_text("these are my notes\n" * 50)
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 8192)
    with pytest.raises(StorageUnusable, match=r"jobs\.sqlite is no job store or is damaged.*move it away"):
        JobStore(path)


def test_an_empty_file_becomes_a_store(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.touch(mode=0o644)
    store = JobStore(path)
    assert (store.list_jobs(), path.stat().st_mode & 0o777) == ((), 0o600)
    with closing(sqlite3.connect(path)) as look:
        assert look.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    store.close()


def test_a_store_that_another_program_holds_refuses_changes_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    path = copy_fixture(tmp_path, SCHEMA)
    store = JobStore(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnusable, match="held by another program"):
            store.cancel(6)
        other.execute("ROLLBACK")
    assert store.cancel(6).status == "cancelled"
    store.close()


# ------------------------------------------------------------------------- file systems

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 8:1 / /home/ada/local rw shared:1 - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/my\040share rw - fuse.sshfs host:/ rw
33 22 0:42 / /srv rw - ext4 /dev/vdc rw
34 22 0:43 / /srv rw - cifs //nas/srv rw
"""


@pytest.mark.parametrize(
    ("path", "fs_type"),
    [
        ("/var/jobs.sqlite", "ext4"),
        ("/home/ada/jobs.sqlite", "nfs4"),
        ("/home/ada/local/jobs.sqlite", "xfs"),
        ("/homestead/jobs.sqlite", "ext4"),
        ("/mnt/my share/jobs.sqlite", "fuse.sshfs"),
        ("/srv/jobs.sqlite", "cifs"),
    ],
)
def test_the_innermost_and_last_mount_decides_the_type(path, fs_type):
    assert find_type(Path(path), MOUNTS) == fs_type


@pytest.mark.parametrize(
    "fs_type", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.unheard-of", "lustre"]
)
def test_types_that_may_be_shared_between_hosts_count_as_network(fs_type):
    assert is_network(fs_type)


@pytest.mark.parametrize(
    "fs_type", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.fuse-overlayfs"]
)
def test_types_of_this_host_do_not(fs_type):
    assert not is_network(fs_type)


def test_on_a_network_file_system_the_journal_is_no_wal_and_the_store_says_why(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:40 / {tmp_path} rw - nfs4 nas:/x rw\n")
    monkeypatch.setattr(database, "why_no_wal", lambda path: why_no_wal(path, mounts))
    path = copy_fixture(tmp_path, 1)
    with closing(sqlite3.connect(path)) as there:
        assert there.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store = JobStore(path)
    assert store.journal_mode == "delete"
    assert "nfs4" in store.journal_reason
    store.resume()
    assert not {"jobs.sqlite-wal", "jobs.sqlite-shm"} & contents(tmp_path).keys()
    # Others can still look at it: the exclusive lock was only for the way out of WAL.
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM jobs").fetchone() == (11,)
    store.close()


def test_on_a_local_file_system_the_journal_is_wal_with_full_synchronisation(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "why_no_wal", lambda path: None)
    store = JobStore(tmp_path / "jobs.sqlite")
    assert (store.journal_mode, store.journal_reason) == ("wal", None)
    assert store._tables.execute("PRAGMA synchronous").fetchone()[0] == 2
    store.close()


def test_an_unreadable_mount_table_means_no_wal(tmp_path):
    assert "unknown" in why_no_wal(tmp_path / "jobs.sqlite", tmp_path / "no such file")


# ------------------------------------------------------------------------- sudden death

WRITER = """
import itertools, sys
from pathlib import Path
from engine.jobs import database
from engine.jobs.model import Owner
from engine.jobs.store import JobStore
from engine.wire import JobSpec
if sys.argv[2] == "delete":
    database.why_no_wal = lambda path: "no WAL: asked for"
store = JobStore(Path(sys.argv[1]), max_waiting=10**6)
owner = Owner(instance="killed", engine_pid=1, boot_id="boot")
for number in itertools.count():
    job = store.submit(JobSpec(model="m", prompt=f"{number} " + "x" * (number % 5000)))
    print("queued", job.id, flush=True)
    store.claim(job.id, owner, output=f"/srv/{job.id}.mp4")
    print("running", job.id, flush=True)
    if number % 3:
        store.finish(job.id, "done")
        print("done", job.id, flush=True)
"""


@pytest.mark.parametrize(("journal", "lines"), [("wal", 23), ("wal", 60), ("delete", 23), ("delete", 60)])
def test_a_kill_in_the_middle_of_writes_loses_nothing_that_was_answered(tmp_path, journal, lines):
    path = tmp_path / "jobs.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), journal], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    answers = [writer.stdout.readline() for _ in range(lines)]
    writer.send_signal(signal.SIGKILL)
    answers += writer.stdout.read().splitlines()
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    answered = {int(job_id): state for state, job_id in (line.split() for line in answers)}
    store = JobStore(path)
    assert store._tables.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    found = {job.id: job.status for job in store.list_jobs(ended=None)}
    order = ["queued", "running", "done"]
    for job_id, state in answered.items():
        # One step more may have been written than was answered, never one less.
        assert order.index(found[job_id]) - order.index(state) in (0, 1)
    assert len(found) - len(answered) in (0, 1)
    running = {job_id for job_id, state in found.items() if state == "running"}
    recovered = store.recover("mine", lambda owner: False)
    assert running and {job.id for job in recovered.requeued} == running
    store.close()


# ------------------------------------------------------------------------- liveness


def test_an_owner_is_alive_only_with_its_boot_pid_and_start_time():
    pid = os.getpid()
    ours = Owner(
        instance="x",
        engine_pid=1,
        boot_id=liveness.read_boot_id(),
        worker_pid=pid,
        worker_start_time=liveness.read_start_time(pid),
    )
    assert liveness.is_alive(ours)
    assert not liveness.is_alive(dataclasses.replace(ours, worker_start_time=ours.worker_start_time - 1))
    assert not liveness.is_alive(dataclasses.replace(ours, boot_id="another boot"))
    assert not liveness.is_alive(dataclasses.replace(ours, worker_pid=None))


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert liveness.read_start_time(child.pid) is None
    child.wait()


def test_a_process_name_with_parentheses_does_not_confuse_the_start_time(tmp_path):
    (tmp_path / "7").mkdir()
    fields = ["S", *("0" for _ in range(18)), "4200", "0"]
    (tmp_path / "7/stat").write_text(f"7 (a) b (c) {' '.join(fields)}")
    assert liveness.read_start_time(7, tmp_path) == pytest.approx(4200 / os.sysconf("SC_CLK_TCK"))
