"""Finding and starting an engine, with a stand-in for the daemon that keeps its contract."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.errors import EngineUnavailable, InvalidRequest
from engine.paths import Paths, find_paths
from engine.version import build_id
from engine.wire import WIRE_VERSION, Hello, LockHolder
from turbotui.client import launch

ENGINE = r"""
import fcntl, json, os, socket, sys, time
socket_path, slow, count = sys.argv[1], float(sys.argv[2]), sys.argv[3]
with open(count, "a") as starts:
    starts.write("x")
lock = os.open("engine.lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
time.sleep(slow)
listener = socket.socket(socket.AF_UNIX)
listener.bind(socket_path)
listener.listen()
os.ftruncate(lock, 0)
build = os.environ.get("PYTHONSAFEPATH", "")
holder = {"pid": os.getpid(), "start_time": 1.0, "socket": socket_path, "instance": "i", "build": build}
os.pwrite(lock, json.dumps(holder).encode(), 0)
body = json.dumps({"wire": 1, "build": build, "schema": 1, "pid": os.getpid(), "start_time": 1.0,
                   "instance": "i", "host": os.getcwd(), "user": str(os.getsid(0) == os.getpid())}).encode()
while True:
    peer, _ = listener.accept()
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    peer.close()
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    monkeypatch.delenv("SUDO_UID", raising=False)
    return find_paths()


@pytest.fixture
def stand_in(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[float], None]]:
    """Makes `engine_command` run the stand-in, which takes the given seconds to come up."""
    script = tmp_path / "engine.py"
    script.write_text(ENGINE)

    def use(slow: float) -> None:
        command = [
            sys.executable,
            "-I",
            str(script),
            str(tmp_path / "s"),
            str(slow),
            str(tmp_path / "starts"),
        ]
        monkeypatch.setattr(launch, "engine_command", lambda: command)

    yield use
    if holder := launch.find_engine(paths):
        os.kill(holder.pid, signal.SIGKILL)
        assert launch.wait_until_gone(paths, "i", 5)


def hold_lock(paths: Paths, content: bytes) -> int:
    paths.state.mkdir(parents=True)
    fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, content)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


HOLDER = LockHolder(pid=1, start_time=1.5, socket="/nowhere/s", instance="i", build="b")


def test_the_holder_is_found_only_while_it_holds_the_lock(paths: Paths) -> None:
    assert launch.find_engine(paths) is None
    fd = hold_lock(paths, msgspec.json.encode(HOLDER))
    assert launch.find_engine(paths) == HOLDER
    os.close(fd)
    assert launch.find_engine(paths) is None


@pytest.mark.parametrize("content", [b"", b'{"pid": 1, "sta', b"\xff", b"[]"])
def test_a_holder_that_has_only_half_introduced_itself_is_nobody_yet(paths: Paths, content: bytes) -> None:
    fd = hold_lock(paths, content)
    assert launch.find_engine(paths) is None
    os.close(fd)


def test_without_leave_to_start_one_no_engine_is_unavailable_at_once(paths: Paths) -> None:
    with pytest.raises(EngineUnavailable, match="turbotui engine start"):
        launch.connect(paths, start=False)
    assert not paths.state.exists()


def test_an_engine_is_started_in_its_own_session_and_folder_and_then_reused(
    paths: Paths, stand_in: Callable[[float], None], tmp_path: Path
) -> None:
    stand_in(0.0)
    begun: list[bool] = []
    hello = launch.connect(paths, on_start=lambda: begun.append(True)).hello()
    assert (hello.host, hello.user, hello.build) == (str(paths.state), "True", "1")
    assert launch.connect(paths, on_start=lambda: begun.append(True)).hello().pid == hello.pid
    assert begun == [True] and (tmp_path / "starts").read_text() == "x"
    assert stat.S_IMODE((paths.logs / "engine.log").stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.state.stat().st_mode) == 0o700


def test_two_clients_that_start_at_once_share_the_engine_that_won(
    paths: Paths, stand_in: Callable[[float], None], tmp_path: Path
) -> None:
    stand_in(0.3)
    pids: list[int] = []
    clients = [
        threading.Thread(target=lambda: pids.append(launch.connect(paths, timeout=10).hello().pid))
        for _ in range(2)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(pids) == 2 and len(set(pids)) == 1
    assert (tmp_path / "starts").read_text() == "xx"


def test_an_engine_that_ends_as_it_starts_is_quoted(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-I", "-c", "import sys; print('first'); sys.exit('no such device')"]
    monkeypatch.setattr(launch, "engine_command", lambda: command)
    with pytest.raises(EngineUnavailable, match=r"exit 1.*no such device.*engine\.log"):
        launch.connect(paths)


def test_only_the_engine_that_ended_is_quoted(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.logs.mkdir(parents=True)
    (paths.logs / "engine.log").write_text("an older engine's trouble\n")
    monkeypatch.setattr(launch, "engine_command", lambda: [sys.executable, "-I", "-c", "raise SystemExit(1)"])
    with pytest.raises(EngineUnavailable, match=r"exit 1.*it printed nothing"):
        launch.connect(paths)


def test_a_restart_with_wrong_settings_leaves_the_engine_alone(
    paths: Paths, stand_in: Callable[[float], None]
) -> None:
    stand_in(0.0)
    pid = launch.connect(paths).hello().pid
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text("[engine]\nlog_bytes = 1\n")
    with pytest.raises(InvalidRequest, match="log_bytes"):
        launch.restart_engine(paths)
    assert launch.connect(paths, start=False).hello().pid == pid


def test_a_race_that_is_lost_to_nobody_is_tried_again_but_not_for_ever(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(3)"
    monkeypatch.setattr(launch, "engine_command", lambda: [sys.executable, "-I", "-c", script])
    with pytest.raises(EngineUnavailable, match="exit 3"):
        launch.connect(paths)
    assert (tmp_path / "starts").read_text() == "xxx"


def test_a_holder_that_does_not_answer_is_named(paths: Paths) -> None:
    fd = hold_lock(paths, msgspec.json.encode(HOLDER))
    with pytest.raises(EngineUnavailable, match=r"\(pid 1\).*has not answered.*0\.05 s"):
        launch.connect(paths, timeout=0.05)
    os.close(fd)


def test_an_engine_that_cannot_be_started_is_said_in_one_sentence(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "engine_command", lambda: ["/nowhere/python"])
    with pytest.raises(EngineUnavailable, match="cannot be started"):
        launch.connect(paths)


def test_waiting_for_an_engine_to_go_ends_with_it_or_with_the_time(paths: Paths) -> None:
    fd = hold_lock(paths, msgspec.json.encode(HOLDER))
    assert not launch.wait_until_gone(paths, "i", 0.03)
    assert launch.wait_until_gone(paths, "another instance", 5)
    threading.Timer(0.1, os.close, [fd]).start()
    began = time.monotonic()
    assert launch.wait_until_gone(paths, "i", 5)
    assert time.monotonic() - began < 4


def test_root_through_sudo_does_not_run_in_the_home_of_another(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.getuid() or 1234
    if os.getuid() == 0:
        os.chown(tmp_path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", str(owner))
    with pytest.raises(EngineUnavailable, match="through sudo"):
        launch.start_engine(paths)
    assert not paths.state.exists()
    monkeypatch.setenv("SUDO_UID", "0")
    launch.refuse_borrowed_home(paths)
    monkeypatch.setenv("SUDO_UID", str(owner + 1))
    launch.refuse_borrowed_home(paths)


def test_what_the_engine_prints_is_bounded(paths: Paths, stand_in: Callable[[float], None]) -> None:
    paths.logs.mkdir(parents=True)
    log = paths.logs / "engine.log"
    log.write_bytes(b"x" * (launch.LOG_LIMIT_BYTES + 1))
    stand_in(0.0)
    launch.connect(paths)
    assert log.stat().st_size < 1000
    assert (paths.logs / "engine.log.1").stat().st_size > launch.LOG_LIMIT_BYTES


def hello(wire: int, build: str) -> Hello:
    return Hello(wire=wire, build=build, schema=1, pid=1, start_time=1.0, instance="i", host="h", user="u")


def test_an_engine_of_another_build_is_noticed() -> None:
    assert launch.version_notice(hello(WIRE_VERSION, build_id())) is None
    other = launch.version_notice(hello(WIRE_VERSION, "0.0.9"))
    assert other and "0.0.9" in other and build_id() in other and "restart" in other
    newer = launch.version_notice(hello(WIRE_VERSION + 1, build_id()))
    assert newer and "different versions" in newer
