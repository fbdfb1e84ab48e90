"""`cleanup --all`, `outputs`, `open` and `view`, against a server that answers as an engine would."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import HELLO, JOB, STATUS, StandIn, engine, printed

from engine.wire import (
    CleanupCandidate,
    DeviceProcess,
    FullCleanupPlan,
    OutputList,
    OutputPart,
    OutputVideo,
    PruneResult,
    Receipt,
    ResetCondition,
    ResetPlan,
)
from turbotui.cli import main
from turbotui.subcommands import opening

__all__ = ["engine"]

GIB = 2**30
UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"


def candidate(pid: int, *, mine: bool, refusal: str | None = None) -> CleanupCandidate:
    user = HELLO.user if mine else "ada"
    process = DeviceProcess(
        pid=pid, bytes=GIB, user=user, command="train\x1b[2J.py", start_time=pid + 0.25
    )  # fmt: skip
    return CleanupCandidate(process=process, device_ids=(UUID,), bytes=GIB, mine=mine, refusal=refusal)


PLAN = FullCleanupPlan(
    worker_pid=9, worker_bytes=30 * GIB, job_id=41, waiting=2, nursery_pid=8, nursery_bytes=GIB,
    candidates=(
        candidate(100, mine=True), candidate(101, mine=False), candidate(102, mine=True, refusal="a zombie")
    ),
    device_id=UUID, videos=5, videos_bytes=GIB, logs=4, logs_bytes=2**20,
)  # fmt: skip
DONE = Receipt(
    action="full_cleanup", target="everything of ours", ok=True, expected_bytes=GIB, returned_bytes=GIB,
    elapsed_s=2.0, proof="nvml-process", notes=("GPU 0: process 101 of ada still holds 1.00 GiB: x",),
)  # fmt: skip
RESET_PLAN = ResetPlan(
    device_id=UUID, index=3, name="H200", bus_id=None, used_bytes=GIB, recovery_action=None, holders=(),
    ends=(), commands=(),
    conditions=(ResetCondition(name="holders", state="blocks", text="process 100 holds it"),),
)  # fmt: skip


@pytest.fixture(autouse=True)
def answers(request: pytest.FixtureRequest) -> StandIn:
    stand_in: StandIn = request.getfixturevalue("engine")
    stand_in.answers = {f"/reset/{UUID}": (200, RESET_PLAN)}
    return stand_in


def asked(engine: StandIn, path: str = "/cleanup/all") -> list[Any]:
    return [body for method, asked, body in engine.asked if (method, asked) == ("POST", path)]


@pytest.fixture
def cleaning(engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The plan for a GET, the receipt for a POST on the same path."""
    plain = type(engine).__call__

    def both(self: StandIn, handler: Any, method: str, body: bytes) -> None:
        self.answers["/cleanup/all"] = (200, PLAN if method == "GET" else DONE)
        plain(self, handler, method, body)

    monkeypatch.setattr(type(engine), "__call__", both)
    return engine


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda typed: monkeypatch.setattr(sys, "stdin", Terminal(typed))


def kill(pid: int, *, other: bool = False) -> dict[str, Any]:
    return {"pid": pid, "start_time": pid + 0.25, "other_user": other, "grace_s": 2.0}


def test_all_is_shown_and_nothing_is_ended_that_nobody_picked(
    cleaning: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup", "--all"]) == 2
    assert asked(cleaning) == []
    assert main(["cleanup", "--all", "--yes"]) == 0
    output = capsys.readouterr()
    for told in (
        "ends worker 9: 30.0 GiB",
        "job 41 is interrupted",
        "queue of 2 jobs",
        "nursery 8",
        "process 101 of ada",
        "it would not be ended: a zombie",
        "the engine itself stays",
    ):
        assert told in output.err
    assert "process 101 of ada still holds" in output.out and "\x1b" not in output.err + output.out
    assert asked(cleaning) == [{"also": [], "reset": None, "move_outputs": None, "move_logs": None}]


def test_each_process_of_ones_own_is_asked_for_and_others_are_not_offered(
    cleaning: StandIn, terminal: Any
) -> None:
    terminal("y\nn\n")
    assert main(["cleanup", "--all"]) == 130
    assert asked(cleaning) == []
    terminal("n\ny\n")
    assert main(["cleanup", "--all"]) == 0
    terminal("y\ny\n")
    assert main(["cleanup", "--all", "--move-logs", "/l", "--move-outputs", "/o"]) == 0
    first, second = asked(cleaning)
    assert first["also"] == [] and second["also"] == [kill(100)]
    assert (second["move_logs"], second["move_outputs"]) == ("/l", "/o")


def test_folders_are_those_that_the_caller_means(
    cleaning: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert main(["cleanup", "--all", "--yes", "--move-logs", "~/l", "--move-outputs", "o"]) == 0
    [request] = asked(cleaning)
    assert (request["move_logs"], request["move_outputs"]) == ("/home/ada/l", str(tmp_path / "o"))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--also", "101"], 4),
        (["--also", "102"], 4),
        (["--also", "777"], 4),
        (["--no-reload"], 2),
        (["--reset"], 2),
        (["--reset", "--confirm", "0"], 2),
    ],
)
def test_what_may_not_be_ends_nothing(cleaning: StandIn, options: list[str], code: int) -> None:
    assert main(["cleanup", "--all", "--yes", *options]) == code
    assert asked(cleaning) == []


def test_another_users_is_ended_only_as_the_person_insists(cleaning: StandIn) -> None:
    assert main(["cleanup", "--all", "--yes", "--also", "101", "--also", "100", "--other-user"]) == 0
    assert asked(cleaning)[0]["also"] == [kill(101, other=True), kill(100)]


def test_a_reset_belongs_to_it_only_with_the_index(cleaning: StandIn) -> None:
    assert main(["cleanup", "--all", "--yes", "--reset", "--confirm", "3"]) == 0
    assert asked(cleaning)[0]["reset"] == {"device_id": UUID, "index": 3}


def test_its_options_alone_are_a_mistake(cleaning: StandIn) -> None:
    assert main(["cleanup", "--yes", "--also", "100"]) == 2
    assert main(["cleanup", "--yes", "--move-logs", "/l"]) == 2
    assert cleaning.asked == []


# ------------------------------------------------------------------------- outputs

VIDEO = OutputVideo(job_id=7, model="m", path="/o/7.mp4", manifest="/o/7.json", bytes=GIB, at=1.0)
PART = OutputPart(path="/o/.8.part", bytes=2**20, at=2.0)
FOUND = PruneResult(deleted=False, videos=(VIDEO,), parts=(PART,), bytes=GIB + 2**20)


def test_outputs_are_listed(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers["/outputs"] = (200, OutputList(folders=("/o",), videos=(VIDEO,), parts=(PART,), others=3))
    assert main(["outputs", "list"]) == 0
    output = capsys.readouterr().out
    assert "/o/7.mp4" in output and "unfinished" in output and "3 other files" in output


def test_pruning_lists_first_and_deletes_only_when_told_to(
    engine: StandIn, terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/outputs/prune"] = (200, FOUND)
    assert main(["outputs", "prune", "--keep", "30d"]) == 0
    assert "would go: 1 video and 1 leftover," in capsys.readouterr().out
    assert main(["outputs", "prune", "--keep", "30d", "--delete"]) == 2
    terminal("n\n")
    assert main(["outputs", "prune", "--keep", "30d", "--delete"]) == 130
    assert not any(body["delete"] for body in asked(engine, "/outputs/prune"))
    assert main(["outputs", "prune", "--keep", "30d", "--delete", "--yes"]) == 0
    looked, deleted = asked(engine, "/outputs/prune")[-2:]
    assert (looked["delete"], deleted["delete"]) == (False, True) and looked["before"] == deleted["before"]
    assert "/o/7.mp4 and its manifest" in capsys.readouterr().err


@pytest.mark.parametrize("age", ["30", "d", "-1d", "30y", ""])
def test_an_age_that_is_none_deletes_nothing(engine: StandIn, age: str) -> None:
    assert main(["outputs", "prune", "--keep", age, "--delete", "--yes"]) == 2
    assert engine.asked == []


# ------------------------------------------------------------------------- open and view


@pytest.fixture
def video(engine: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "a cat's video.mp4"
    path.write_bytes(b"v")
    engine.answers["/jobs/41"] = (200, replace(JOB, status="done", output=str(path)))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    return path


def test_over_ssh_a_video_is_told_with_the_way_to_fetch_it(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 50000 fe80::1 2222")
    monkeypatch.setattr(opening, "_open", lambda opener, path: pytest.fail("opened over SSH"))
    assert main(["open", "41"]) == 0
    path, command = capsys.readouterr().out.splitlines()
    assert path == str(video)  # no link where stdout is no terminal
    assert command.startswith("scp -P 2222 ") and "@[fe80::1]:" in command and " .    #" in command


def test_where_there_is_a_display_it_is_opened(
    video: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opener = tmp_path / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text("#!/bin/sh\n")
    opener.chmod(0o755)
    opened: list[tuple[str, Path]] = []
    monkeypatch.setattr(opening, "_open", lambda opener, path: opened.append((opener, path)))
    monkeypatch.setenv("PATH", str(opener.parent))
    assert main(["open", "41"]) == 0 and opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["open", "41", "--print"]) == 0 and opened == []
    assert main(["open", "41"]) == 0 and opened == [(str(opener), video)]


def test_a_video_that_is_not_there_is_told(
    video: Path, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    video.unlink()
    assert main(["open", "41"]) == 4 and "moved or deleted" in capsys.readouterr().err
    engine.answers["/jobs/41"] = (200, JOB)
    assert main(["open", "41"]) == 4 and "no video: it is queued" in capsys.readouterr().err


def test_without_a_job_it_is_the_folder(
    engine: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 50000 10.0.0.1 22")
    assert main(["open", "--json"]) == 0
    told = printed(capsys)
    assert told["path"] == STATUS.engine.output_dir and told["copy"].startswith("scp -r ")


def test_view_says_to_which_engine_it_attaches(
    engine: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbotui.console.open_console", lambda **_settings: 0)
    assert main(["view"]) == 0
    assert "attaches to engine" in capsys.readouterr().err
