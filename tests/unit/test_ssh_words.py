"""What goes wrong with ssh is one sentence, whatever it or the other machine says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import EngineUnavailable
from turbotui.remote.finding import read_place
from turbotui.remote.ssh import SshConnection
from turbotui.remote.target import Target


def connection(tmp_path: Path, script: str) -> SshConnection:
    """One whose ssh is a script."""
    return SshConnection(Target(host="box", ssh=("/bin/sh", "-c", script, "ssh")), tmp_path)


def test_a_forward_that_hangs_or_cannot_be_asked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"box has said nothing for 0\.2 s"):
        connection(tmp_path, "exec sleep 60").forward(tmp_path / "here", "/run/engine.sock", timeout=0.2)
    missing = SshConnection(Target(host="box", ssh=("/nowhere/ssh",)), tmp_path)
    with pytest.raises(EngineUnavailable, match="/nowhere/ssh cannot be run here"):
        missing.forward(tmp_path / "here", "/run/engine.sock")
    with pytest.raises(EngineUnavailable, match="divides at a colon"):
        connection(tmp_path, "exit 0").forward(tmp_path / "here", "/run/a:b/engine.sock")
    connection(tmp_path, "exit 0").forward(tmp_path / "here", "/run/engine.sock")


def test_what_ssh_says_of_a_command_is_shown_clean(tmp_path: Path) -> None:
    way = connection(
        tmp_path,
        r"printf 'Warning: Permanently added x\n\n\033]0;title\007Connection closed\n' >&2; exit 255",
    )
    with pytest.raises(EngineUnavailable) as told:
        way.run("echo here")
    assert "Connection closed" in str(told.value) and "\x1b" not in str(told.value) + way.said
    assert "Permanently" not in way.said


@pytest.mark.parametrize("code", ["0", "1", "126"])
def test_an_answer_that_lacks_what_was_asked_is_told(code: str) -> None:
    for more in ("", "turbotui-box lives 5\n"):
        with pytest.raises(EngineUnavailable):
            read_place(Target(host="box"), f"turbotui-box code {code}\n{more}turbotui-box end\n")
    with pytest.raises(EngineUnavailable, match="no engine on box"):
        read_place(Target(host="box"), "turbotui-box end\n")


@pytest.mark.parametrize("socket", ["", "relative", "/run/a\0b", "/run/a\nb"])
def test_a_socket_that_is_no_path_is_not_asked_for(socket: str) -> None:
    lock = json.dumps({"pid": 5, "socket": socket, "build": "b", "instance": "i", "start_time": 1.0})
    answer = f"turbotui-box code 127\nturbotui-box lock {lock}\nturbotui-box lives 5\nturbotui-box end\n"
    with pytest.raises(EngineUnavailable, match="there is no `turbotui`"):
        read_place(Target(host="box"), answer)
    good = answer.replace(json.dumps(socket), '"/run/a"')
    assert read_place(Target(host="box"), good).socket == "/run/a"
