"""Telling people: what is worth it, how often, and a command that cannot hurt the engine."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from engine.config import NotifyConfig
from engine.daemon.logbook import LogBook
from engine.daemon.notify import CommandRunner, Notification, Notifier, RateLimit
from engine.daemon.telling import Telling, UnseenWatch
from engine.units import GIB
from engine.wire import DeviceStatus, Job, JobChanged, JobSpec, Pressure, PressureChanged
from tests.daemon.live import wait_for
from turbotui.client import scenes

NOTE = Notification(event="done", text="job 1 done", host="box", user="me", at=1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# ------------------------------------------------------------------ the rate limit


def test_the_newest_of_those_held_back_is_told_later_with_their_count() -> None:
    clock = Clock()
    limit = RateLimit(10, clock=clock)
    assert limit.admit(NOTE) == NOTE
    for number in (2, 3, 4):
        assert limit.admit(replace(NOTE, text=f"job {number} done")) is None
    assert limit.due() == []
    clock.now += 10
    assert limit.due() == [replace(NOTE, text="job 4 done", suppressed=2)]
    assert limit.due() == []
    assert limit.admit(NOTE) is None


def test_kinds_are_limited_apart() -> None:
    limit = RateLimit(10, clock=Clock())
    assert limit.admit(NOTE) and limit.admit(replace(NOTE, event="oom"))


# ------------------------------------------------------------------ the command


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Callable[..., tuple[CommandRunner, list[str]]]]:
    made: list[CommandRunner] = []

    def build(*argv: str, timeout_s: float = 10.0) -> tuple[CommandRunner, list[str]]:
        failures: list[str] = []
        made.append(
            CommandRunner(
                argv,
                timeout_s=timeout_s,
                cwd=str(tmp_path),
                environ=dict(os.environ),
                on_failure=failures.append,
            )
        )
        return made[-1], failures

    yield build
    for one in made:
        one.close()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code)


def test_the_command_reads_its_json_and_runs_in_order(tmp_path: Path, runner: Any) -> None:
    told = tmp_path / "told"
    run, failures = runner(*python(f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')"))
    for number in range(3):
        run.submit(json.dumps({"n": number}).encode())
    wait_for(lambda: told.exists() and told.read_text().count("\n") == 3, 10, "three runs")
    assert [json.loads(line)["n"] for line in told.read_text().splitlines()] == [0, 1, 2]
    assert failures == []


def test_no_shell_reads_the_command(tmp_path: Path, runner: Any) -> None:
    run, failures = runner("touch", "a; touch b")
    run.submit(b"{}")
    wait_for(lambda: (tmp_path / "a; touch b").exists(), 10, "the file")
    assert not (tmp_path / "b").exists() and failures == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("/no/such/program",), "cannot be run"),
        (("/",), "cannot be run"),
        (("false",), "exit code 1"),
        (python("import os; os.kill(os.getpid(), 9)"), "signal 9"),
    ],
)
def test_what_fails_is_said_once(runner: Any, argv: tuple[str, ...], said: str) -> None:
    run, failures = runner(*argv)
    for _ in range(3):
        run.submit(b"{}")
    wait_for(lambda: run._waiting.empty(), 10, "three runs")
    run.close()
    assert len(failures) == 1 and said in failures[0]


def test_one_that_neither_reads_nor_speaks_little_is_no_failure(runner: Any) -> None:
    run, failures = runner(*python("print('x' * 10_000_000)"))
    run.submit(b"x" * 10_000)
    wait_for(lambda: run._waiting.empty() and run._child is None, 10, "its end")
    run.close()
    assert failures == []


def test_one_that_hangs_is_ended_after_its_time_and_its_own_children_are_not(
    tmp_path: Path, runner: Any
) -> None:
    pids = tmp_path / "pids"
    code = (
        "import subprocess, os, time, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "other = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{other.pid}}')\n"
        "time.sleep(60)"
    )
    run, failures = runner(*python(code), timeout_s=1.0)
    began = time.monotonic()
    run.submit(b"{}")
    assert time.monotonic() - began < 0.1
    wait_for(lambda: failures, 10, "the end of the command")
    hung, other = map(int, pids.read_text().split())
    try:
        assert "had not ended after 1 s" in failures[0]
        assert not Path(f"/proc/{hung}").exists()  # ended and reaped
        assert Path(f"/proc/{other}").exists()
    finally:
        os.kill(other, 9)


def test_closing_ends_what_runs_and_forgets_what_waits(runner: Any) -> None:
    run, failures = runner(*python("import time; time.sleep(60)"), timeout_s=60)
    for _ in range(5):
        run.submit(b"{}")
    child = wait_for(lambda: run._child, 10, "the command")
    began = time.monotonic()
    run.close()
    assert time.monotonic() - began < 3
    assert child.returncode == -9 and not run._thread.is_alive() and failures == []


def test_too_many_are_dropped_and_that_is_said(runner: Any) -> None:
    run, failures = runner(*python("import time; time.sleep(60)"), timeout_s=60)
    for _ in range(200):
        run.submit(b"{}")
    assert len(failures) == 1 and "dropped" in failures[0]


def test_without_a_command_no_thread_is_started() -> None:
    before = threading.active_count()
    notifier = Notifier(NotifyConfig(), cwd="/", environ={}, on_failure=print)
    notifier.tell(NOTE)
    notifier.close()
    assert threading.active_count() == before and not notifier.wants("done")


# ------------------------------------------------------------------ what is told


class Told(Notifier):
    def __init__(self, *on: Any) -> None:
        super().__init__(NotifyConfig(command="tell", on=on), cwd="/", environ={}, on_failure=print)
        self.told: list[Notification] = []

    def tell(self, notification: Notification) -> None:
        if self.wants(notification.event):
            self.told.append(notification)

    def kinds(self) -> list[str]:
        return [notification.event for notification in self.told]


def telling(told: Told, *, idle: bool = False, devices: list[DeviceStatus] | None = None) -> Telling:
    return Telling(
        told,
        Mock(LogBook),
        devices=lambda: [] if devices is None else devices,
        is_idle=lambda: idle,
    )


def job(status: Any, **more: Any) -> JobChanged:
    spec = JobSpec(model="m", prompt="evil \x1b]0;x\x07 prompt " + "很" * 500)
    return JobChanged(
        job=Job(id=7, spec=spec, status=status, created_at=0.0, started_at=1.0, finished_at=3.5, **more)
    )


def test_ends_are_told_and_nothing_else_of_a_job() -> None:
    told = Told("done", "failed", "oom", "queue_empty")
    heard = telling(told)
    for event in (
        job("queued"),
        job("running"),
        job("done", output="/v/7.mp4"),
        job("cancelled"),
        job("failed", error="no disk", error_code="storage"),
        job("failed", error="2 GiB asked", error_code="out_of_memory"),
        job("interrupted", error="worker died"),
    ):
        heard.heard(event)
    assert told.kinds() == ["done", "failed", "oom", "failed"]
    done = told.told[0]
    assert done.text == "job 7 done: m, /v/7.mp4" and done.job is not None
    assert (done.job["output"], done.job["elapsed_s"]) == ("/v/7.mp4", 2.5)
    assert "\x1b" not in done.job["prompt"] and len(done.job["prompt"]) <= 200


def test_running_out_of_memory_is_a_failure_to_those_who_ask_for_failures_alone() -> None:
    told = Told("failed")
    telling(told).heard(job("failed", error_code="out_of_memory"))
    assert told.kinds() == ["failed"]


def test_an_empty_queue_is_told_after_the_last_job_however_it_ended() -> None:
    told = Told("done", "queue_empty")
    telling(told, idle=True).heard(job("cancelled"))
    telling(told, idle=False).heard(job("done"))
    assert told.kinds() == ["queue_empty", "done"]


def test_pressure_is_told_as_it_rises() -> None:
    told = Told("pressure")
    heard = telling(told)
    for level in ("none", "warn", "warn", "act", "warn", "act", "none"):
        pressure = Pressure(
            device_id="cpu", level=level, total_bytes=10, used_bytes=9, used_share=0.9, why="90 % in use"
        )
        heard.heard(PressureChanged(pressure=(pressure,)))
    assert [notification.text.partition(":")[0] for notification in told.told] == ["warn", "act", "act"]


def test_unseen_memory_is_told_once_it_has_stayed() -> None:
    told = Told("unseen")
    now = 1_790_000_000.0
    devices: list[DeviceStatus] = []
    heard = telling(told, devices=devices)
    for unseen in (0, 14, 0, 0, 14, 14, 14, 14, 14.1, 14.1, 14.1):
        devices[:] = [scenes.gpu(now, scenes.gpu_balance(now, unseen=unseen))]
        heard.look()
    (only,) = told.told
    assert (only.bytes, only.device) == (14 * GIB, scenes.GPU)
    assert "no process we can see" in only.text


def test_unseen_memory_that_goes_and_comes_back_is_news_again() -> None:
    watch = UnseenWatch()
    sizes = [GIB, GIB, GIB, 0, GIB, GIB, GIB, None, 2 * GIB, 2 * GIB, 2 * GIB]
    assert [watch.look(size) for size in sizes] == [
        *(None, None, GIB),
        *(None, None, None, GIB),
        *(None, None, None, GIB),
    ]
