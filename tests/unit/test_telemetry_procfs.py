"""What is read of single processes in /proc, from made-up ones and from our own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.telemetry.procfs import clean, read_container, read_stat, read_uid, same_start
from tests.proc_tree import KERNEL_THREAD, TICKS, ProcTree

HEX = "3f2a9c1b" + "0" * 56


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    return ProcTree(tmp_path)


def test_a_name_with_spaces_parentheses_and_escapes_does_not_shift_the_fields(tree: ProcTree) -> None:
    tree.add(7, name="a) R 1 (\x1b[2J b", state="D", parent=3, start_time=12.34)
    stat = read_stat(7, tree.proc)
    assert stat is not None and not stat.ended and not stat.kernel_thread
    assert (stat.state, stat.parent, stat.name) == ("D", 3, "a) R 1 (\ufffd[2J b")
    assert same_start(stat.start_time, 12.34)
    assert not same_start(stat.start_time, 12.34 + 1 / TICKS)


def test_a_kernel_thread_and_a_zombie_are_told(tree: ProcTree) -> None:
    tree.add(2, flags=KERNEL_THREAD | 0x40)
    tree.add(3, state="Z")
    thread, zombie = read_stat(2, tree.proc), read_stat(3, tree.proc)
    assert thread is not None and thread.kernel_thread and not thread.ended
    assert zombie is not None and zombie.ended and not zombie.kernel_thread


@pytest.mark.parametrize("content", [b"", b"7 (x", b"7 (x)", b"7 (x) S one", b"\xff"])
def test_a_process_that_ends_while_it_is_read_is_no_process(tree: ProcTree, content: bytes) -> None:
    tree.add(7)
    for name in ("stat", "status"):
        (tree.proc / "7" / name).write_bytes(content)
    assert read_stat(7, tree.proc) is None and read_uid(7, tree.proc) is None
    assert read_stat(8, tree.proc) is None and read_uid(8, tree.proc) is None
    assert read_container(8, tree.proc) is None


def test_our_own_process_reads_as_the_kernel_has_it() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None and stat.parent == os.getppid() and read_uid(os.getpid()) == os.getuid()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        found = read_stat(child.pid)
        assert found is not None and found.start_time >= stat.start_time and found.parent == os.getpid()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("cgroup", "container"),
    [
        (f"0::/system.slice/docker-{HEX}.scope", "docker 3f2a9c1b"),
        (f"12:memory:/docker/{HEX}\n0::/", "docker 3f2a9c1b"),
        (f"0::/machine.slice/libpod-{HEX}.scope/container", "podman 3f2a9c1b"),
        (f"0::/user.slice/user-1000.slice/libpod-conmon-{HEX}.scope", None),
        (f"11:pids:/kubepods/burstable/pod0e-1/{HEX}", "kubernetes 3f2a9c1b"),
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0e_1.slice/"
            f"cri-containerd-{HEX}.scope",
            "kubernetes 3f2a9c1b",
        ),
        (f"0::/system.slice/nerdctl-{HEX}.scope", "containerd 3f2a9c1b"),
        (f"0::/default/{HEX}", "containerd 3f2a9c1b"),
        ("0::/lxc.payload.web/init.scope", "lxc web"),
        ("4:memory:/lxc/a\x1b[31mb", "lxc a\ufffd[31mb"),
        ("0::/user.slice/user-1000.slice/session-3.scope", None),
        ("0::/", None),
        ("nonsense", None),
    ],
)
def test_a_container_is_named_by_its_cgroup(tree: ProcTree, cgroup: str, container: str | None) -> None:
    tree.add(7, cgroup=cgroup)
    assert read_container(7, tree.proc) == container


@pytest.mark.parametrize(
    "text", ["python", "a b", "模型", "\u00a0", "\u202e", "\x1b[0m", "\u200b", "x" * 9, ""]
)
def test_what_is_clean_already_comes_back_as_it_is_and_nothing_hidden_ever(text: str) -> None:
    shown = clean(text, 8)
    assert len(shown) <= 8 and "\x1b" not in shown and "\u202e" not in shown and "\u200b" not in shown
    if len(text) <= 8 and not set(text) & set("\u202e\x1b\u200b"):
        assert shown == text
