"""`turbotui ps` and `turbotui kill`, against a server that answers as an engine would."""

from __future__ import annotations

import io
import json
import sys
import time
from dataclasses import replace
from typing import Any

import click
import msgspec
import pytest
from test_cli import HELLO, STATUS, StandIn, engine, printed

from engine.wire import DeviceProcess, DeviceStatus, ErrorBody, Receipt, SpareRequest
from turbotui.cli import main
from turbotui.client.http import HttpClient

__all__ = ["engine"]

GIB = 2**30
HOSTILE = "python \x1b]0;owned\x07 train.py"
VICTIM = DeviceProcess(
    pid=4242, bytes=4 * GIB, user=HELLO.user, name="python", command=HOSTILE, start_time=77.25,
    container="docker 3f2a9c1b",
)  # fmt: skip
ADAS = DeviceProcess(pid=4243, bytes=None, user="ada", name="trainer", start_time=78.5)
OURS = DeviceProcess(pid=9, bytes=GIB, user=HELLO.user, ours="worker", start_time=79.0)


def victim_now() -> DeviceProcess:
    """Two hours and five minutes old at this test, not at the import."""
    return replace(VICTIM, started_at=time.time() - 7500)


def gpu(number: int, *processes: DeviceProcess) -> DeviceStatus:
    return DeviceStatus(
        id=f"GPU-{number}", kind="cuda", index=number, name="H200", total_bytes=141 * GIB, in_use=True,
        processes=processes,
    )  # fmt: skip


KILLED = Receipt(
    action="kill", target="4242 python", ok=True, expected_bytes=4 * GIB, returned_bytes=4 * GIB,
    residue_bytes=0, elapsed_s=0.5, proof="nvml-process",
)  # fmt: skip
REFUSED = (409, ErrorBody(code="refused", message="process 9 is the engine's own"))


@pytest.fixture(autouse=True)
def processes(request: pytest.FixtureRequest) -> None:
    stand_in: StandIn = request.getfixturevalue("engine")
    victim = victim_now()
    devices = (gpu(0, victim, ADAS, OURS), gpu(1, victim), *STATUS.devices)
    stand_in.answers = {"/status": (200, replace(STATUS, devices=devices)), "/kill": (200, KILLED)}


def test_ps_says_how_old_the_list_is_and_where_there_is_none(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    devices = (replace(gpu(0, ADAS), age_s=4.04), replace(gpu(1), age_s=0.4, processes_fault="it refuses"))
    engine.answers["/status"] = (200, replace(STATUS, devices=devices))
    assert main(["ps"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "GPU 0: as it was 4.0 s ago; no newer reading has come",
        "GPU 1: its processes are not known: it refuses",
    ]


def asked_kill(engine: StandIn) -> list[Any]:
    return [body for method, path, body in engine.asked if (method, path) == ("POST", "/kill")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda typed: monkeypatch.setattr(sys, "stdin", Terminal(typed))


def test_ps_lists_every_process_on_every_gpu(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps"]) == 0
    output = capsys.readouterr().out
    heading, victim, adas, ours, again = output.splitlines()
    assert heading.split() == ["gpu", "pid", "owner", "memory", "age", "container", "command"]
    assert victim.split()[:8] == ["0", "4242", HELLO.user, "4.00", "GiB", "2h05m", "docker", "3f2a9c1b"]
    assert adas.split() == ["0", "4243", "ada", "-", "-", "-", "trainer"]
    assert "[turbotui worker]" in ours and again.split()[:2] == ["1", "4242"]
    assert not set(output) & set("\x1b\x07")


def test_another_engine_is_shown_by_name_in_ps_and_in_status(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "turbotui engine of ada, pid 4240"
    device = replace(gpu(0, replace(ADAS, tenant=name)), tenant=name)
    engine.answers["/status"] = (200, replace(STATUS, devices=(device,)))
    assert main(["ps"]) == 0
    assert f"[{name}] trainer" in capsys.readouterr().out
    assert main(["status"]) == 0
    assert name in capsys.readouterr().out


def test_ps_tells_scripts_the_processes_of_each_device(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ps", "--json"]) == 0
    told = printed(capsys)
    assert list(told) == ["GPU-0", "GPU-1", "cpu"]
    told["GPU-0"][0].pop("started_at")
    expected = json.loads(msgspec.json.encode(VICTIM))
    expected.pop("started_at")
    assert told["GPU-0"][0] == expected


def test_ps_without_a_process_says_so(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers["/status"] = (200, STATUS)
    assert main(["ps"]) == 0
    assert "no process is on a GPU" in capsys.readouterr().out


def test_kill_says_what_it_ends_and_names_what_it_showed(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kill", "4242", "--yes", "--grace", "2", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["action"] == "kill"
    assert "ends process 4242 of u, 4.00 GiB on GPU 0, 4.00 GiB on GPU 1, 2h05m old" in output.err
    assert "in docker 3f2a9c1b" in output.err and "\x1b" not in output.err
    assert asked_kill(engine) == [{"pid": 4242, "start_time": 77.25, "other_user": False, "grace_s": 2.0}]


def test_kill_asks_where_there_is_a_terminal_and_refuses_to_guess_elsewhere(
    engine: StandIn, terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kill", "4242"]) == 2
    terminal("n\n")
    assert main(["kill", "4242"]) == 130
    assert asked_kill(engine) == []
    terminal("y\n")
    assert main(["kill", "4242"]) == 0
    assert "back 4.00 GiB by NVML" in capsys.readouterr().out and len(asked_kill(engine)) == 1


@pytest.mark.parametrize(
    ("typed", "options", "other_user"),
    [
        ("y\nn\n", [], None),
        ("y\ny\n", [], True),
        ("y\n", ["--other-user"], True),
        ("", ["--yes"], False),
        ("", ["--yes", "--other-user"], True),
    ],
)
def test_another_users_process_takes_a_second_yes(
    typed: str, options: list[str], other_user: bool | None, engine: StandIn, terminal: Any
) -> None:
    terminal(typed)
    assert main(["kill", "4243", *options]) == (130 if other_user is None else 0)
    assert [asked["other_user"] for asked in asked_kill(engine)] == (
        [] if other_user is None else [other_user]
    )


@pytest.mark.parametrize("pid", ["9", "1", "31337"])
def test_what_cannot_be_ended_is_the_engines_to_refuse_and_nobody_is_asked(
    pid: str, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/kill"] = REFUSED
    assert main(["kill", pid]) == 4
    assert REFUSED[1].message in capsys.readouterr().err
    # Without the start time that was shown, the engine never sends a signal.
    assert [asked["start_time"] for asked in asked_kill(engine)] == [None]


@pytest.mark.parametrize("arguments", [["kill"], ["kill", "python"], ["kill", "9", "--grace", "-1"]])
def test_kill_takes_one_pid_and_no_name(arguments: list[str], engine: StandIn) -> None:
    assert main(arguments) == click.UsageError.exit_code
    assert asked_kill(engine) == []


def test_ctrl_c_under_the_countdown_stops_it(
    engine: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: HttpClient, request: Any) -> Receipt:
        raise KeyboardInterrupt

    monkeypatch.setattr(HttpClient, "kill", interrupted)
    engine.answers["/kill/spare"] = (202, SpareRequest(pid=4242))
    assert main(["kill", "4242", "--yes"]) == 130
    assert ("POST", "/kill/spare", {"pid": 4242}) in engine.asked
    assert "SIGKILL is not sent" in capsys.readouterr().err
    engine.answers["/kill/spare"] = (409, ErrorBody(code="not_now", message="no countdown runs"))
    assert main(["kill", "4242", "--yes"]) == 130
    assert "too late to stop" in capsys.readouterr().err
