"""Another machine's engine over ssh: a real sshd where there is one, and a stand-in for ssh anywhere."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from engine.errors import EngineUnavailable, InvalidRequest
from engine.paths import find_paths
from engine.wire import JobSpec
from tests.daemon.live import LiveEngine, is_gone, wait_for
from tests.ssh_server import ROOT, SSHD, WHY_NOT, SshServer
from turbotui.cli import main
from turbotui.client.http import HttpClient
from turbotui.remote.box import Box
from turbotui.remote.finding import read_place
from turbotui.remote.target import Target, find_target

STAND_IN = ROOT / "tests" / "stand_ins" / "ssh.py"
TURBOTUI = f"{shlex.quote(sys.executable)} -P -m turbotui"


HOLDS = """
import time
from engine.paths import find_paths
from turbotui.remote.box import Box
from turbotui.remote.target import find_target
box = Box(find_target(find_paths(), None))
box.connect(ask=True).hello()
print(box._tunnel._socket, flush=True)
time.sleep(60)
"""
"""Holds a connection, and says where its sockets lie."""


class Way(Protocol):
    """How ssh gets there in a test."""

    settings: dict[str, str]

    def cut(self) -> None: ...
    def down(self) -> None: ...
    def up(self) -> None: ...
    def refuse(self) -> None: ...


class StandIn:
    """A program in ssh's place."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        environ = {
            **os.environ,
            "TURBOTUI_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "TURBOTUI_ENGINE_DEVICE": "cpu",
        }
        (folder / "environ.json").write_text(json.dumps(environ))
        self.settings = {
            "SSH_STAND_IN": str(folder),
            "TURBOTUI_HOST": "box",
            "TURBOTUI_CONSOLE_SSH_COMMAND": shlex.join([sys.executable, str(STAND_IN)]),
            "TURBOTUI_CONSOLE_REMOTE_COMMAND": TURBOTUI,
        }

    def cut(self) -> None:
        for pid in children(os.getpid(), str(STAND_IN)):
            os.kill(pid, signal.SIGKILL)

    def down(self) -> None:
        (self.folder / "down").touch()
        self.cut()

    def up(self) -> None:
        (self.folder / "down").unlink()

    def refuse(self) -> None:
        (self.folder / "refuse").touch()


class Real(SshServer):
    """sshd itself."""

    def cut(self) -> None:
        for pid in self.sessions():
            os.kill(pid, signal.SIGKILL)

    def down(self) -> None:
        self.stop()

    def up(self) -> None:
        self.start()

    def refuse(self) -> None:
        self.stop()
        self.streams = False
        self.start()


def children(pid: int, what: str) -> list[int]:
    """Living children of `pid` whose command line holds `what`."""
    told = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in told.stdout.splitlines() if what in line]


@pytest.fixture(params=["stand-in", "sshd"])
def way(
    request: pytest.FixtureRequest, tmp_path: Path, live: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Way]:
    """The way to `live`, which is the other machine's engine; this one has a home of its own."""
    found: StandIn | Real
    if request.param == "sshd":
        if SSHD is None:
            pytest.skip(WHY_NOT)
        found = Real(tmp_path / "sshd", live.home)
        found.start()
    else:
        found = StandIn(tmp_path, live.home)
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "here"))
    for name, value in found.settings.items():
        monkeypatch.setenv(name, value)
    try:
        yield found
    finally:
        if isinstance(found, Real):
            found.stop()


@pytest.fixture
def box(way: Way) -> Iterator[Box]:
    target = find_target(find_paths(), None)
    assert target is not None
    found = Box(target)
    try:
        yield found
    finally:
        found.close()


def test_commands_ask_the_engine_there_and_leave_nothing_behind(
    way: Way, live: LiveEngine, short: JobSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    job = live.run(short)
    assert main(["jobs", "--all", "--json"]) == 0
    assert job.id in [found["id"] for found in json.loads(capfd.readouterr().out)]
    assert main(["--host", "", "jobs", "--json"]) == 0, "an empty name is this machine"
    assert json.loads(capfd.readouterr().out) == []
    assert main(["engine", "status", "--host", "box", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["pid"] == live.status().engine.pid, "done by turbotui there"
    assert children(os.getpid(), "ControlPersist=no") == []
    assert main(["--host", "", "engine", "stop"]) == 0, "the one that was started here"


def test_a_broken_link_is_made_anew_and_harms_no_job(
    way: Way, box: Box, live: LiveEngine, long: JobSpec
) -> None:
    client = box.connect(start=True, ask=True)
    job = live.until_running(client.submit(long).id)
    way.down()
    with pytest.raises(EngineUnavailable, match=r"somebody@box|root@box|@box"):
        wait_for(lambda: client.hello() is None, 5, "the end of the link")
    with pytest.raises(EngineUnavailable):
        box.connect()
    way.up()
    again = box.connect()
    assert again.job(job.id).attempt == job.attempt and again.hello().pid == client_pid(live)
    again.cancel(job.id)
    live.settle(job.id)


def client_pid(live: LiveEngine) -> int:
    return live.client.hello().pid


def test_a_server_that_forwards_no_sockets_is_reached_by_a_relay(
    way: Way, box: Box, live: LiveEngine
) -> None:
    way.refuse()
    client = box.connect(ask=True)
    assert client.hello().pid == client_pid(live)
    assert box.remark is not None and "AllowStreamLocalForwarding" in box.remark
    frames: list[object] = []
    streams: list[object] = []

    def take(frame: object) -> None:
        frames.append(frame)
        streams[0].close()  # type: ignore[attr-defined]

    client.subscribe(take, on_open=streams.append)
    assert frames, "a stream comes through it too"


def test_ssh_ends_with_a_process_that_was_killed(way: Way) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, env=environ_here())
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline()
        ours = children(child.pid, "ControlPersist=no")
        assert len(ours) == 1
        child.kill()
        child.wait()
    wait_for(lambda: is_gone(ours[0]), 5, "the end of ssh")


@pytest.mark.skipif(SSHD is None, reason=WHY_NOT)
def test_a_connection_that_the_person_shares_is_used_and_left_alone(
    tmp_path: Path, live: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SshServer(tmp_path / "sshd", live.home)
    config = server.folder / "config"
    config.write_text(config.read_text() + f"    ControlPath {tmp_path}/shared\n")
    server.start()
    theirs = subprocess.Popen(["ssh", "-F", str(config), "-M", "-N", "box"], stdin=subprocess.DEVNULL)
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "here"))
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    try:
        wait_for((tmp_path / "shared").exists, 10, "their connection")
        child = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, env=environ_here())
        assert child.stdout is not None
        with child.stdout:
            forwarded = child.stdout.readline().decode().strip()
            assert children(child.pid, "ControlPersist=no") == [] and len(server.sessions()) == 1
            assert HttpClient(forwarded).hello().pid == client_pid(live)
            child.kill()
            child.wait()

        def taken_back() -> bool:
            try:
                HttpClient(forwarded, timeout=1).hello()
            except EngineUnavailable:
                return True
            return False

        wait_for(taken_back, 5, "the end of the forwarding")
        assert theirs.poll() is None
    finally:
        theirs.terminate()
        theirs.wait(timeout=5)
        server.stop()


def environ_here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_what_is_missing_is_named(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(host: str, **settings: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            target = find_target(find_paths(), host)
            assert target is not None
            box = Box(target)
            try:
                with pytest.raises(EngineUnavailable) as error:
                    box.connect(ask=False)
                return str(error.value)
            finally:
                box.close()

    assert "there is no machine unknown.invalid" in why("unknown.invalid")
    assert "cannot be run here" in why("box", TURBOTUI_CONSOLE_SSH_COMMAND="/nowhere/ssh")
    empty = f"env TURBOTUI_HOME={find_paths().state}/empty {TURBOTUI}"
    said = why("box", TURBOTUI_CONSOLE_REMOTE_COMMAND=empty)
    assert "no engine on box" in said and "turbotui --host box engine start" in said


def test_a_box_without_turbotui_in_its_path_is_attached_to_by_its_lock(
    way: Way, live: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURBOTUI_CONSOLE_REMOTE_COMMAND", "nothing-such")
    target = find_target(find_paths(), None)
    assert target is not None
    box = Box(target)
    try:
        assert box.connect(ask=True).hello().pid == client_pid(live)
    finally:
        box.close()


def test_files_go_both_ways(
    way: Way, live: LiveEngine, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "-m", "wan-demo-i2v", "-p", "x", "--frames", "5", "--steps", "1", "--json"]
    assert main([*arguments, "--image", str(image), "--wait"]) == 0
    said = capfd.readouterr()
    manifest = json.loads(said.out)
    kept = Path(manifest["spec"]["image"])
    assert kept.parent == live.paths.data / "images" and kept.read_bytes() == image.read_bytes()
    assert "put first frame.png there" in said.err

    there = Path(manifest["output"])
    assert main(["fetch", str(manifest["job_id"]), str(tmp_path), "--json"]) == 0
    got = json.loads(capfd.readouterr().out)
    assert Path(got["path"]).read_bytes() == there.read_bytes()
    assert main(["open", str(manifest["job_id"])]) == 0
    assert f"scp box:{there} ." in capfd.readouterr().out

    time.sleep(1.0)  # what the recorder has is written twice a second
    assert main(["report", "--since", "-1h"]) == 0
    assert "wan-demo-i2v" in capfd.readouterr().out
    assert main(["recording", "export", str(tmp_path / "night")]) == 0
    assert (tmp_path / "night").stat().st_mode & 0o777 == 0o600


def test_an_engine_that_comes_back_is_reached_without_signing_in_again(
    way: Way, tmp_path: Path, spare: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "TURBOTUI_CONSOLE_REMOTE_COMMAND", f"env TURBOTUI_HOME={shlex.quote(str(spare.home))} {TURBOTUI}"
    )
    target = find_target(find_paths(), None)
    assert target is not None
    box = Box(target)
    spare.start()
    try:
        box.connect(ask=True)
        (ssh,) = children(os.getpid(), "ControlPersist=no")
        for _ in range(2):
            spare.kill()
            with pytest.raises(EngineUnavailable, match="no engine on box"):
                box.connect()
            spare.start()
            assert box.connect().hello().pid == client_pid(spare) and box.remark is None
        box.restart()
        assert spare.process is not None and spare.process.wait(timeout=10) == 0
        pid = wait_for(lambda: box.connect().hello().pid, 10, "the restarted engine")
        assert children(os.getpid(), "ControlPersist=no") == [ssh]
        assert main(["engine", "stop"]) == 0
        wait_for(lambda: is_gone(pid), 10, "its end")
    finally:
        box.close()


def test_what_a_machine_without_us_answers_is_told() -> None:
    target = Target(host="me@box")
    with pytest.raises(EngineUnavailable, match=r"no `turbotui` on me@box: install it there"):
        read_place(target, "Welcome!\nturbotui-box code 127\nturbotui-box said \nturbotui-box end\n")
    with pytest.raises(EngineUnavailable, match=r"no POSIX shell answers on me@box; it said: Account"):
        read_place(target, "Account\x1b[2J locked\n")
    odd = 'turbotui-box code 0\nturbotui-box said {"pid": 5}\nturbotui-box end\n'
    with pytest.raises(EngineUnavailable, match="different builds"):
        read_place(target, odd)


def test_the_option_comes_before_the_variable_and_that_before_the_setting(tmp_path: Path) -> None:
    paths = find_paths({"TURBOTUI_HOME": str(tmp_path)})
    paths.config.mkdir()
    paths.config_file.write_text('[console]\nhost = "set"\nremote_command = "/opt/t"\ntheme = 5\n')

    def host(option: str | None, environ: dict[str, str]) -> str | None:
        found = find_target(paths, option, environ=environ)
        return None if found is None else found.host

    assert host("given", {"TURBOTUI_HOST": "named"}) == "given"
    assert host(None, {"TURBOTUI_HOST": "named"}) == "named"
    assert host(None, {}) == "set", "a mistake in another setting is not this one's"
    assert host(None, {"TURBOTUI_HOST": ""}) is None and host("", {}) is None
    assert find_target(paths, "x", environ={}) == Target(host="x", command="/opt/t")
    for wrong in ("-oProxyCommand=x", "a b", "a\nb"):
        with pytest.raises(InvalidRequest, match="no name of a machine"):
            find_target(paths, wrong, environ={})
