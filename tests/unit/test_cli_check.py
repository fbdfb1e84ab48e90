"""`turbotui check`, `watch` and `doctor`, against a server that answers as an engine would."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_cli import STATUS, StandIn, engine, no_engine, printed

from engine.wire import (
    Balance,
    BalancePart,
    CheckReport,
    DeviceProcess,
    DeviceStatus,
    Finding,
    Goodbye,
    InstallationLine,
    MemorySampled,
    Snapshot,
)
from turbotui.cli import EPILOG, main
from turbotui.subcommands import doctor as doctor_command
from turbotui.subcommands.follow import BACK_S, Follower, Moved

__all__ = ["engine", "no_engine"]

GIB = 2**30
UNSEEN = Finding(
    kind="unseen", severity="warning", title="14.00 GiB on GPU 0 has no process that can be seen.",
    evidence=("Likeliest: \x1b]0;owned\x07 another container.",), bytes=14 * GIB, since=1.0, new=True,
    changed="liwei 90112 (ComfyUI) came", remedy="Have it looked for.", admin_line="box, GPU 0: please look",
    device_id="GPU-0",
)  # fmt: skip
CACHE = Finding(
    kind="cache", severity="info", title="6.00 GiB are the worker's cache, which is no leak.",
    evidence=("why",), bytes=6 * GIB, remedy="Leave it.", remedy_command="turbotui free",
)  # fmt: skip


def report(*findings: Finding, **changes: Any) -> CheckReport:
    new = sum(finding.new for finding in findings)
    return replace(CheckReport(at=2.0, elapsed_s=0.12, findings=findings, new=new, clean_at=1.0), **changes)


def test_check_tells_each_finding_in_full_and_exits_by_the_worst(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/check"] = (200, report(UNSEEN, CACHE, unknown=("GPU 1: not read yet",)))
    assert main(["check"]) == 7
    output = capsys.readouterr().out
    for words in (
        "warning, new: 14.00 GiB on GPU 0", "14.0 GiB  since", "another container", "About then: liwei 90112",
        "box, GPU 0: please look", "info: 6.00 GiB", "(turbotui free)", "unknown: GPU 1",
        "2 findings, 1 new, clean",
    ):  # fmt: skip
        assert words in output
    assert "why" not in output and not set(output) & set("\x1b\x07")
    assert engine.asked == [("POST", "/check", None)]
    assert main(["check", "--all"]) == 7
    assert "why" in capsys.readouterr().out


def test_check_tells_scripts_the_whole_report(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers["/check"] = (200, report(UNSEEN, CACHE))
    assert main(["check", "--json"]) == 7
    assert printed(capsys) == json.loads(msgspec.json.encode(report(UNSEEN, CACHE)))


@pytest.mark.parametrize(
    ("severities", "code"),
    [((), 0), (("info",), 0), (("notice", "info"), 6), (("notice", "warning"), 7), (("critical", "info"), 8)],
)
def test_the_exit_code_is_the_worst_severitys_and_documented(
    severities: tuple[Any, ...], code: int, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [replace(CACHE, severity=severity) for severity in severities]
    engine.answers["/check"] = (200, report(*findings))
    assert main(["check"]) == code
    assert "nothing found" in capsys.readouterr().out or findings
    assert f"\n  {code} " in EPILOG


# ----------------------------------------------------------------- watch


def gpu(
    held: int | None, at: float, *, free: int = 100 * GIB, start: float | None = 7.5, number: int = 0
) -> Any:
    """A GPU at a time, with the process 4242 on it unless `held` is negative."""
    process = DeviceProcess(
        pid=4242,
        bytes=held,
        user="liwei",
        name="python",
        program="ComfyUI",
        command="\x1b[2J",
        start_time=start,
    )
    return DeviceStatus(
        id=f"GPU-{number}", kind="cuda", index=number, name="H200", total_bytes=141 * GIB, in_use=True,
        processes=() if held is not None and held < 0 else (process,),
        balance=Balance(
            device_id=f"GPU-{number}", taken_at=at, coherent=True, total_bytes=141 * GIB, unexplained_bytes=0,
            parts=(BalancePart(kind="free", owner="free", bytes=free),),
        ),
    )  # fmt: skip


def followed(*devices: DeviceStatus) -> tuple[Follower, list[Moved]]:
    told: list[Moved] = []
    follower = Follower(pid=4242, tell=told.append)
    for device in devices:
        follower.take(device)
    return follower, told


def test_a_followed_process_is_told_of_when_it_moves_with_its_rate_and_peak() -> None:
    _, told = followed(gpu(GIB, 10), gpu(GIB + 2**19, 11), gpu(5 * GIB, 12), gpu(3 * GIB, 14))
    assert [(moved.bytes, moved.change_bytes, moved.rate) for moved in told] == [
        (GIB, None, None), (5 * GIB, 4 * GIB, 2 * GIB), (3 * GIB, -2 * GIB, -GIB)
    ]  # fmt: skip
    assert told[-1].peak_bytes == 5 * GIB and told[-1].elapsed_s == 4 and told[-1].program == "ComfyUI"


def test_a_quick_load_is_not_a_line_for_each_sample_and_its_end_is_told() -> None:
    samples = [gpu(GIB * number, 10 + number / 10) for number in range(1, 11)]
    _, told = followed(*samples, gpu(10 * GIB, 11.3))
    assert len(told) < 7 and told[-1].bytes == 10 * GIB


def test_the_end_is_told_with_what_came_back_as_soon_as_it_has() -> None:
    follower, told = followed(
        gpu(6 * GIB, 10, free=100 * GIB), gpu(-1, 10.1, free=101 * GIB), gpu(-1, 10.3, free=106 * GIB)
    )
    assert follower.ended and told[-1].left
    assert (told[-1].change_bytes, told[-1].came_back_bytes, told[-1].rate) == (-6 * GIB, 6 * GIB, None)


def test_what_does_not_come_back_is_not_claimed() -> None:
    follower, told = followed(gpu(6 * GIB, 10), gpu(-1, 10.1), gpu(-1, 11))
    assert not follower.ended and len(told) == 1
    follower.take(gpu(-1, 10.1 + BACK_S, free=102 * GIB))
    assert follower.ended and told[-1].came_back_bytes == 2 * GIB


def test_a_list_that_failed_once_is_no_end() -> None:
    follower, told = followed(gpu(6 * GIB, 10), gpu(-1, 10.1), gpu(6 * GIB, 10.2), gpu(6 * GIB, 20))
    assert not follower.ended and len(told) == 1
    follower.take(gpu(-1, 20.1))  # the patience with its end begins anew
    assert not follower.ended


def test_a_pid_that_is_somebody_else_by_now_has_ended() -> None:
    follower, told = followed(gpu(6 * GIB, 10), gpu(6 * GIB, 10.1, start=99.0, free=107 * GIB))
    assert follower.ended and told[-1].left


def test_it_ends_when_the_last_gpu_is_left_and_unknown_bytes_stay_unknown() -> None:
    follower, told = followed(gpu(None, 10), gpu(GIB, 10, number=1), gpu(-1, 11, free=101 * GIB, number=1))
    assert told[-1].left and not follower.ended
    follower.take(gpu(-1, 12))
    follower.take(gpu(-1, 12 + BACK_S))
    assert follower.ended and told[0].bytes is None and told[-1].change_bytes is None


def test_a_process_that_is_on_no_gpu_is_never_seen() -> None:
    follower, told = followed(gpu(-1, 10), gpu(-1, 20))
    assert not follower.seen and not follower.ended and told == []


def stream(*devices: DeviceStatus) -> list[tuple[str, Any]]:
    first = Snapshot(status=replace(STATUS, devices=devices[:1]), jobs=(), log=())
    return [("snapshot", first), *(("memory", MemorySampled(device=device)) for device in devices[1:])]


def test_watch_prints_lines_until_the_process_has_ended(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    events = stream(gpu(GIB, 10), gpu(5 * GIB, 12), gpu(-1, 13, free=105 * GIB))
    engine.events = [events, events]
    assert main(["watch", "4242"]) == 0
    first, moved, end = capsys.readouterr().out.splitlines()
    assert "4242 ComfyUI on GPU-0  1.00 GiB" in first and "\x1b" not in first
    assert "+4.00 GiB  2.00 GiB/s" in moved
    assert "left after 3.0 s; held 5.00 GiB, at most 5.00 GiB; 5.00 GiB more are free" in end
    assert main(["watch", "4242", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["left"] for line in lines] == [False, False, True] and lines[2]["came_back_bytes"] == 5 * GIB


def test_watch_says_when_the_process_is_not_there_and_when_the_engine_goes(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.events = [stream(gpu(-1, 10)), [*stream(gpu(GIB, 10)), ("goodbye", Goodbye(reason="stopped"))]]
    assert main(["watch", "4242"]) == 4
    assert "turbotui ps" in capsys.readouterr().err
    assert main(["watch", "4242"]) == 0
    assert "the engine ends: stopped" in capsys.readouterr().err
    assert main(["watch", "0"]) == 2 and main(["watch", "python"]) == 2


# ----------------------------------------------------------------- doctor


def test_doctor_tells_each_line_with_its_fix_and_exits_by_problems(
    no_engine: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        InstallationLine(name="python", state="ok", text="Python 3.12"),
        InstallationLine(
            name="linger", state="note", text="no \x1b[31mlinger", fix="loginctl enable-linger me"
        ),
    ]
    monkeypatch.setattr(doctor_command, "ask_doctor", lambda: lines)
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "ok       python" in output and "loginctl enable-linger me" in output and "\x1b" not in output
    lines.append(InstallationLine(name="torch", state="problem", text="no torch"))
    assert main(["doctor", "--json"]) == 7
    assert printed(capsys) == json.loads(msgspec.json.encode(lines))


def test_doctor_says_so_where_the_engines_own_modules_cannot_be_run(
    no_engine: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert main(["doctor"]) == 7
    assert "PROBLEM" in capsys.readouterr().out

    def failing(*_arguments: object, **_options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(
            [], 1, b"", b"Traceback\nModuleNotFoundError: No module named 'msgspec'\n"
        )

    monkeypatch.setattr(subprocess, "run", failing)
    assert main(["doctor"]) == 7
    assert "No module named 'msgspec'" in capsys.readouterr().out


def test_doctor_needs_no_engine_and_starts_none(
    no_engine: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["doctor", "--json"])
    lines = {line["name"]: line for line in printed(capsys)}
    assert {"python", "engine", "packages", "torch", "gpu", "ffmpeg", "memlock", "state", "terminal"} <= set(
        lines
    )
    assert (
        lines["python"]["state"] == "ok"
        and lines["torch"]["state"] == "ok"
        and lines["ffmpeg"]["state"] == "ok"
    )
    assert str(tmp_path) in lines["state"]["text"]
    assert code == (7 if any(line["state"] == "problem" for line in lines.values()) else 0)
    assert list(tmp_path.iterdir()) == []


def test_ps_names_the_program_beside_the_command_and_ours_as_ours(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    device = gpu(GIB, 10)
    ours = replace(device.processes[0], pid=9, ours="worker", program="turbotui worker", command="py")
    device = replace(device, processes=(*device.processes, ours))
    engine.answers["/status"] = (200, replace(STATUS, devices=(device,)))
    assert main(["ps"]) == 0
    _heading, foreign, worker = capsys.readouterr().out.splitlines()
    assert "[ComfyUI] " in foreign and "\x1b" not in foreign
    assert worker.endswith("[turbotui worker] py")
