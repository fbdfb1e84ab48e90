"""The look through /proc: over a made-up one, and once over the real one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine.checks import scan as scanning
from engine.checks.facts import ProcessFact
from engine.checks.scan import Scan, scan
from tests.proc_tree import ProcTree

UID = 1000
SLOW_WORKER = ("-P", "-m", "engine.worker.entry", "--fd", "3")
PROBE = ("-P", "-m", "engine.telemetry.probe")


class Tree(ProcTree):
    """A /proc with command lines, threads and sockets."""

    def start(self, pid: int, *words: str, **changes: object) -> None:
        self.add(pid, **changes)  # type: ignore[arg-type]
        (self.proc / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        self.thread(pid, pid, state=str(changes.get("state", "S")))

    def mark(self, pid: int, parent: int) -> None:
        """The environment in which an engine of that pid starts its children."""
        (self.proc / str(pid) / "environ").write_bytes(f"HOME=/h\0_TURBOTUI_PARENT={parent}\0".encode())

    def thread(
        self, pid: int, number: int, *, state: str, switches: int = 7, place: str = "uvm_wait"
    ) -> None:
        folder = self.proc / str(pid) / "task" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(
            (self.proc / str(pid) / "stat").read_text().replace(") S ", f") {state} ")
        )
        (folder / "status").write_text(f"voluntary_ctxt_switches:\t{switches}\n")
        (folder / "wchan").write_text(place)

    def listen(self, pid: int, inode: int, *, state: str = "0A") -> None:
        (self.proc / str(pid) / "fd" / "9").symlink_to(f"socket:[{inode}]")
        net = self.proc / str(pid) / "net"
        net.mkdir()
        for table, number in (("tcp", 5), ("tcp6", inode)):
            line = f"0: 0100007F:1E61 00000000:0000 {state} 0:0 00:0 0 1000 0 {number} 1"
            (net / table).write_text(f"  sl  local_address rem_address   st ... inode\n   {line}\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setattr(scanning, "AGAIN_S", 0.0)
    tree = Tree(tmp_path)
    tree.start(1, "/sbin/init", name="init", parent=0, files=())
    return tree


def look(tree: Tree, *on_gpus: int, **changes: object) -> dict[int, ProcessFact]:
    return {fact.pid: fact for fact in seen(tree, *on_gpus, **changes).processes}


def seen(tree: Tree, *on_gpus: int, **changes: object) -> Scan:
    return scan(on_gpus, uid=UID, proc=tree.proc, bound_s=5.0, **changes)  # type: ignore[arg-type]


def engine(tree: Tree) -> None:
    tree.start(100, "/v/python", "-P", "-m", "engine.daemon", parent=1)
    tree.start(101, "/v/python", "-c", "forkserver", name="tt-nursery", parent=100)
    tree.start(102, "/v/python", "-c", "forkserver", name="tt-worker", parent=101)
    tree.start(103, "/v/python", *SLOW_WORKER, "--parent", "100", parent=100)
    tree.start(104, "/v/python", *PROBE, parent=100)
    for pid in (101, 102, 103, 104):
        tree.mark(pid, 100)


def test_processes_of_a_living_engine_are_under_its_daemon(tree: Tree) -> None:
    engine(tree)
    found = look(tree)
    assert {pid: fact.role for pid, fact in found.items()} == {
        100: "daemon", 101: "nursery", 102: "worker", 103: "worker", 104: "probe"
    }  # fmt: skip
    assert not any(fact.left for fact in found.values())
    assert found[101].under_daemon and found[102].under_daemon and found[103].under_daemon


def test_the_children_of_a_daemon_that_is_gone_are_left(tree: Tree) -> None:
    engine(tree)
    tree.remove(100)
    tree.start(101, name="tt-nursery", parent=1)
    tree.start(103, "/v/python", *SLOW_WORKER, "--parent", "100", parent=1)
    tree.start(104, "/v/python", *PROBE, parent=1)
    for pid in (101, 104):
        tree.mark(pid, 100)
    found = look(tree)
    assert [pid for pid, fact in found.items() if fact.left] == [101, 102, 103, 104]
    assert found[102].parent_name == "tt-nursery" and found[103].parent_name == "init"


def test_a_younger_process_of_the_daemons_number_is_not_the_daemon(tree: Tree) -> None:
    engine(tree)
    tree.start(100, "bash", name="bash", start_time=5000.0)
    tree.start(104, "/v/python", *PROBE, parent=1)
    tree.mark(104, 100)
    assert look(tree)[104].left


def test_the_child_of_a_test_or_of_another_program_that_lives_is_not_left(tree: Tree) -> None:
    tree.start(200, "/v/python", "-m", "pytest")
    tree.start(201, "/v/python", *PROBE, parent=200)
    tree.mark(201, 200)
    tree.start(202, name="tt-worker", parent=200)  # of which nothing else can be read
    found = look(tree)
    assert found[201].role == "probe" and not found[201].left and not found[202].left


def test_a_module_of_the_same_name_in_a_strangers_project_is_not_ours(tree: Tree) -> None:
    tree.start(300, "/v/python", "-m", "engine.worker.entry", "--parent", "7")
    tree.start(301, "/v/python", "-m", "engine.telemetry.probe")
    tree.start(302, "/v/python", *PROBE)  # as `turbotui doctor` starts one: it waits for its own
    tree.start(303, "/v/python", "-P", "-m", "engine.telemetry.probe.more")
    tree.mark(303, 7)
    assert look(tree) == {}


def test_nobody_is_an_orphan_below_a_python_that_cannot_be_asked_what_it_is(tree: Tree) -> None:
    engine(tree)
    tree.start(100, "/v/python", "-P", "-m", "engine.daemon", parent=1, state="D")
    found = look(tree)
    assert found[102].under_daemon and found[103].under_daemon


@pytest.mark.parametrize(
    "words",
    [
        ("vim", "engine.daemon"),
        ("/v/python", "notes.py", "engine.daemon"),
        ("/v/python", "-m", "engine.daemonic"),
        ("/v/python", "-m"),
        (),
    ],
)
def test_what_only_mentions_an_engine_is_none(tree: Tree, words: tuple[str, ...]) -> None:
    tree.start(200, *words, name="vim" if words[:1] == ("vim",) else "python3.12")
    assert look(tree) == {}


def test_other_users_engines_are_left_out_unless_they_are_on_a_gpu(tree: Tree) -> None:
    tree.start(300, name="tt-worker", uid=1001, parent=1)
    assert look(tree) == {}
    assert look(tree, 300)[300].uid == 1001


def test_an_orphan_that_ends_between_the_looks_was_only_dying(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.start(300, name="tt-worker", parent=1)
    monkeypatch.setattr(time, "sleep", lambda _seconds: tree.remove(300))
    assert look(tree) == {}


def test_a_thread_that_has_not_run_between_two_looks_is_stuck(tree: Tree) -> None:
    tree.start(400, "/usr/bin/python", "train.py")
    tree.thread(400, 401, state="D", place="os_acquire_mutex")
    assert look(tree, 400)[400].stuck_in == "os_acquire_mutex"


@pytest.mark.parametrize("change", [{"switches": 8}, {"place": "io_schedule"}, {"state": "S"}])
def test_a_thread_that_has_run_or_moved_in_between_is_not(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    tree.start(400, "/usr/bin/python", "train.py")
    tree.thread(400, 401, state="D")
    again = {"state": "D", **change}
    monkeypatch.setattr(time, "sleep", lambda _seconds: tree.thread(400, 401, **again))  # type: ignore[arg-type]
    assert look(tree, 400)[400].stuck_in is None


def test_whether_a_process_listens_is_read_of_its_own_network(tree: Tree) -> None:
    tree.start(500, "python", "main.py")
    assert look(tree, 500)[500].listens is None  # no tables: nothing can be said
    tree.listen(500, 7777)
    assert look(tree, 500)[500].listens is True
    tree.start(501, "python", "main.py")
    tree.listen(501, 7777, state="01")
    assert look(tree, 501)[501].listens is False
    tree.hide_files(500)
    fact = look(tree, 500)[500]
    assert fact.listens is None and fact.holds_gpu is None


def test_whoever_has_a_gpus_file_open_is_looked_for_only_when_asked(tree: Tree) -> None:
    tree.start(600, "Xorg", name="Xorg", uid=0)
    tree.start(601, "bash", name="bash", files=("/dev/null",))
    assert look(tree) == {}
    assert list(look(tree, find_holders=True)) == [600]


def test_a_command_line_of_another_user_is_cleaned_and_that_of_a_process_in_the_kernel_not_read(
    tree: Tree,
) -> None:
    tree.start(700, "python", "\x1b]0;owned\x07\u202emain.py", uid=1001)
    tree.start(701, "python", "main.py", state="D")
    found = look(tree, 700, 701)
    assert not set(found[700].command) & set("\x1b\x07\u202e") and "owned" in found[700].command
    assert found[701].command == ""


def test_a_look_without_time_says_that_it_is_not_whole(tree: Tree) -> None:
    engine(tree)
    assert seen(tree).complete
    assert not scan((), uid=UID, proc=tree.proc, bound_s=0.0).complete


def test_the_real_proc_is_looked_through_within_its_time() -> None:
    began = time.monotonic()
    found = scan((os.getpid(),), uid=os.getuid(), find_holders=True)
    assert time.monotonic() - began < 1.0
    me = next(fact for fact in found.processes if fact.pid == os.getpid())
    assert me.uid == os.getuid() and me.stuck_in is None and me.parent == os.getppid() and me.command
