"""`turbotui reset`, against a server that answers as an engine would."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import Any

import pytest
from test_cli import StandIn, engine, printed

from engine.wire import Receipt, ResetCondition, ResetHelper, ResetPlan
from turbotui.cli import main

__all__ = ["engine"]

UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"
PLAN = ResetPlan(
    device_id=UUID, index=3, name="H200", bus_id="00000000:1A:00.0", used_bytes=2**30,
    recovery_action="Reset",
    conditions=(ResetCondition(name="display", state="ok", text="no display is active on it"),),
    holders=(), ends=("worker 9; job 41 is interrupted and queued again",),
    commands=(("/usr/bin/sudo", "-n", "/x/helper", "reset", UUID),),
)  # fmt: skip
DONE = Receipt(
    action="reset", target="GPU 3", ok=True, expected_bytes=2**30, returned_bytes=2**30, elapsed_s=4.0,
    proof="device-delta", notes=("said: was successfully reset\x1b[2J",),
)  # fmt: skip
HELPER = ResetHelper(
    path="/x/helper", script="#!/bin/sh\nexit 0\n", sudoers_path="/etc/sudoers.d/x",
    sudoers="ada ALL=(root) NOPASSWD: /x/helper", installed=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def answers(request: pytest.FixtureRequest) -> None:
    stand_in: StandIn = request.getfixturevalue("engine")
    stand_in.answers = {"/reset/3": (200, PLAN), "/reset": (200, DONE), "/reset-helper": (200, HELPER)}


def asked(engine: StandIn) -> list[Any]:
    return [body for method, path, body in engine.asked if (method, path) == ("POST", "/reset")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda typed: monkeypatch.setattr(sys, "stdin", Terminal(typed))


@pytest.mark.parametrize(
    "options", [[], ["--yes"], ["--confirm", "3"], ["--yes", "--confirm", "0"]], ids=" ".join
)
def test_without_a_terminal_yes_and_the_index_are_both_needed(
    engine: StandIn, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reset", "3", *options]) == 2
    assert asked(engine) == []
    said = capsys.readouterr().err
    assert ("--yes alone resets nothing" in said) is (options == ["--yes"])
    assert "3" in said


def test_confirmed_by_its_index_it_is_done_and_all_is_told(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reset", "3", "--yes", "--confirm", "3"]) == 0
    output = capsys.readouterr()
    assert asked(engine) == [{"device_id": UUID, "index": 3}]
    for told in (
        "driver's advice",
        "Reset",
        "no display is active",
        "job 41 is interrupted",
        "/x/helper reset",
    ):
        assert told in output.err
    assert "by the device's total" in output.out and "said: was successfully reset" in output.out
    assert "\x1b" not in output.out + output.err


def test_the_index_has_to_be_typed(engine: StandIn, terminal: Any) -> None:
    terminal("0\n")
    assert main(["reset", "3"]) == 2
    terminal("")
    assert main(["reset", "3"]) == 130
    assert asked(engine) == []
    terminal("3\n")
    assert main(["reset", "3"]) == 0
    assert len(asked(engine)) == 1


def test_what_blocks_is_told_and_nothing_is_asked_for(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = replace(
        PLAN, conditions=(ResetCondition(name="holders", state="blocks", text="process 5 of ada holds it"),)
    )
    engine.answers["/reset/3"] = (200, blocked)
    assert main(["reset", "3", "--yes", "--confirm", "3"]) == 4
    assert "process 5 of ada" in capsys.readouterr().err and asked(engine) == []
    assert main(["reset", "3", "--plan", "--json"]) == 0
    assert printed(capsys)["conditions"][0]["state"] == "blocks"


def test_the_helper_goes_to_stdout_alone(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reset", "--print-helper"]) == 0
    output = capsys.readouterr()
    assert output.out == HELPER.script
    assert HELPER.sudoers in output.err and "not installed" in output.err
    assert "persistence mode" in output.err
    checked, installed = output.err.index("visudo -cf"), output.err.index(HELPER.sudoers_path)
    assert checked < installed and f"> {HELPER.sudoers_path}" not in output.err


def test_a_demonstration_resets_nothing(engine: StandIn) -> None:
    assert main(["--demo", "reset", "3", "--yes", "--confirm", "3"]) == 2
    assert main(["reset"]) == 2
    assert engine.asked == []
