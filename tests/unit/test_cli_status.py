"""The status at a glance, again and again, and as figures, against a server that answers as an engine."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from unix_server import Handler, serving

from engine.errors import NotFound
from engine.paths import find_paths
from engine.version import build_id
from engine.wire import (
    Background,
    BackgroundCache,
    Hello,
    HostStatus,
    LockHolder,
    Pressure,
    PressureOffer,
    Status,
)
from turbotui.cli import main
from turbotui.client import scenes
from turbotui.format import cell_width
from turbotui.subcommands.oneline import CELLS, one_line
from turbotui.subcommands.watch import status_lines

NOW = 1_790_000_000.0
HELLO = Hello(wire=1, build=build_id(), schema=1, pid=7, start_time=1.5, instance="i", host="h", user="u")
BUSY = scenes.busy(NOW).status
JOB = scenes.running_job(NOW)
ACT = Pressure(
    device_id=scenes.GPU,
    level="act",
    total_bytes=100,
    used_bytes=96,
    used_share=0.96,
    why="96 % of 140 GiB in use: liwei 90112 +6.20 GiB in 40 s",
    offers=(
        PressureOffer(
            what="component", target="m/text", bytes=2**30, command="turbotui unload m/text", action="unload"
        ),
    ),
)


class StandIn:
    def __init__(self) -> None:
        self.status: Status = replace(
            BUSY,
            background=Background(
                device_id=scenes.GPU,
                cache=BackgroundCache(),
                lines=("GPU memory: 1", "Active models: 2", "3"),
            ),
            pressure=(ACT,),
        )
        self.asked: list[str] = []

    def __call__(self, handler: Handler, method: str, body: bytes) -> None:
        self.asked.append(handler.path)
        if handler.path == "/metrics":
            handler.answer(200, b'# TYPE a gauge\na{b="c"} 1\n', "text/plain; version=0.0.4")
        else:
            answers: dict[str, Any] = {"/hello": HELLO, "/status": self.status}
            handler.answer(200, answers.get(handler.path, JOB))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StandIn, ExitStack]]:
    """An engine that runs; closing the stack ends it, with its lock."""
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    stand_in = StandIn()
    with ExitStack() as stack:
        serve(tmp_path, stand_in, stack)
        yield stand_in, stack


def serve(home: Path, stand_in: StandIn, stack: ExitStack) -> None:
    paths = find_paths()
    paths.state.mkdir(exist_ok=True)
    (home / "s").unlink(missing_ok=True)
    lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    holder = LockHolder(pid=7, start_time=1.5, socket=str(home / "s"), instance="i", build="b")
    os.write(lock, msgspec.json.encode(holder))
    stack.enter_context(serving(home / "s", stand_in))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "turbotui", *arguments]


# ------------------------------------------------------------------ one line


def test_the_line_tells_device_model_job_queue_and_what_nobody_can_name() -> None:
    assert one_line(BUSY, JOB) == "GPU2 38.7/140G 97% 61C ?14.0 wan2.2-a14b job 41 71% +3"
    idle = replace(BUSY, workers=(), models=())
    idle = replace(idle, engine=replace(idle.engine, queue=replace(idle.engine.queue, waiting=0)))
    assert one_line(idle, None) == "GPU2 38.7/140G 97% 61C ?14.0"
    assert one_line(scenes.cpu(NOW).status, None) == "host 2.9/16G wan-demo-small"


def test_it_fits_sixty_cells_and_keeps_what_matters() -> None:
    long = replace(BUSY.models[0], name="一个名字很长的模型" * 5 + "-14b")
    status = replace(BUSY, models=(long,), pressure=(ACT,))
    line = one_line(status, JOB)
    assert cell_width(line) <= CELLS
    assert line.startswith("GPU2 38.7/140G act 96% ") and "job 41 71%" in line and "61C" not in line


def test_tmux_gets_colours_and_no_name_can_give_it_more() -> None:
    status = replace(BUSY, models=(replace(BUSY.models[0], name="#[fg=red]#(rm)"),), pressure=(ACT,))
    line = one_line(status, JOB, tmux=True)
    assert "#[fg=yellow]act 96%#[default]" in line and "#[fg=red]?14.0#[default]" in line
    line = one_line(replace(status, pressure=()), JOB, tmux=True)
    assert "##[fg=red]##(rm)" in line and "#(rm)" not in line.replace("##", "")
    assert "\x1b" not in one_line(replace(status, models=(replace(BUSY.models[0], name="\x1b]0;"),)), None)


def test_a_reading_that_is_old_or_missing_says_so() -> None:
    old = replace(BUSY.devices[0], age_s=60.0)
    assert one_line(replace(BUSY, devices=(old,)), None).startswith("GPU2 38.7/140G ~1m00s ")
    for age, told in ((4.05, " ~4s "), (1.2, " ~1s "), (0.9, None)):
        line = one_line(replace(BUSY, devices=(replace(old, age_s=age),)), None)
        assert told in line if told else "~" not in line
    assert " stale " in one_line(replace(BUSY, devices=(replace(old, age_s=None),)), None)
    assert "- GPU" not in one_line(replace(BUSY, devices=(replace(old, balance=None),)), None)
    assert one_line(replace(BUSY, devices=()), None).startswith("ready")


def test_a_device_is_chosen_by_uuid_or_index_and_an_unknown_one_refused_by_name() -> None:
    other = replace(BUSY.devices[0], id="GPU-99999999-2222", index=5, in_use=False)
    status = replace(BUSY, devices=(*BUSY.devices, other))
    for name in ("5", "GPU-99999999-2222", "GPU-99999999", "99999999"):
        assert one_line(status, JOB, device=name).startswith("GPU5 ")
    assert "job" not in one_line(status, JOB, device="5")  # it runs on the other one
    with pytest.raises(NotFound, match=r"'7'.*GPU-99999999-2222"):
        one_line(status, JOB, device="7")


def test_the_command_prints_one_line_quickly(server: Any) -> None:
    began = time.monotonic()
    run = subprocess.run(command("status", "--oneline"), capture_output=True, text=True, timeout=20)
    elapsed = time.monotonic() - began
    bare = time.monotonic()
    subprocess.run(command("--help"), capture_output=True, timeout=20)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("\n") == 1 and run.stdout.startswith("GPU2 38.7/140G act 96%")
    # Little beyond a command that asks nobody, on however slow a machine.
    assert elapsed < 2 * (time.monotonic() - bare) + 0.1


def test_without_an_engine_it_says_so_and_starts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    assert main(["status", "--oneline", "--tmux"]) == 3
    assert capsys.readouterr().out == "turbotui: no engine\n"
    assert not find_paths().lock.exists()
    assert main(["metrics"]) == 3
    assert not find_paths().lock.exists()


@pytest.mark.parametrize("options", ["--oneline --json", "--oneline --watch", "--device 0", "--tmux"])
def test_options_that_mean_nothing_together_are_refused(options: str, server: Any) -> None:
    assert main(["status", *options.split()]) == 2


# ------------------------------------------------------------------ the status itself, and figures


def test_the_status_says_how_old_a_reading_is_that_is_not_of_now() -> None:
    fresh = "\n".join(status_lines(scenes.pressed(NOW).status))
    assert "ago: no newer" not in fresh
    base = scenes.pressed(NOW).status
    old = replace(base, devices=tuple(replace(device, age_s=4.04) for device in base.devices))
    if base.host is not None:
        old = replace(old, host=replace(base.host, age_s=4.04))
    lines = list(status_lines(old))
    assert any("as it was 4.0 s ago: no newer reading has come" in line for line in lines)
    with_view = replace(
        old, background=Background(device_id=scenes.GPU, cache=BackgroundCache(), lines=("GPU memory: 1",))
    )
    assert list(status_lines(with_view))[1] == "As it was 4.0 s ago: no newer reading has come"
    host = scenes.cpu(NOW).status
    aged = HostStatus(total_bytes=10, available_bytes=5, limited_by_cgroup=False, age_s=4.0)
    assert "as it was 4.0 s ago" in "\n".join(status_lines(replace(host, host=aged)))
    told = "\n".join(status_lines(replace(host, host=replace(aged, age_s=1.2))))
    assert "ago" not in told  # beside GPUs the host is read once a second


def test_the_background_view_comes_first_and_pressure_names_what_can_go(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["GPU memory: 1", "Active models: 2", "3", ""]
    told = next(line for line in lines if line.startswith("pressure"))
    assert "act: 96 %" in told and "liwei 90112 +6.20 GiB in 40 s" in told
    assert any("1.00 GiB m/text can go: turbotui unload m/text" in line for line in lines)


def test_parts_of_processes_have_their_pids_and_figures_of_ours_say_what_they_count() -> None:
    aged = HostStatus(
        total_bytes=10, available_bytes=5, limited_by_cgroup=False, age_s=0.1, ours_rss_bytes=930 * 2**20
    )
    text = "\n".join(status_lines(replace(BUSY, host=aged)))
    assert "process python 90112" in text
    assert "930 MiB in our processes (pages that they share count in each)" in text


def test_metrics_are_printed_as_they_are(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    assert capsys.readouterr().out == '# TYPE a gauge\na{b="c"} 1\n'


# ------------------------------------------------------------------ again and again


def test_into_a_pipe_the_pictures_stand_apart_and_a_restart_is_lived_through(
    server: tuple[StandIn, ExitStack], tmp_path: Path
) -> None:
    stand_in, stack = server
    with subprocess.Popen(
        command("status", "--watch", "0.1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        out = iter(child.stdout.readline, "")
        try:
            assert sum(line.startswith("GPU memory") for line in (next(out) for _ in range(40))) >= 2
            stack.close()
            assert any("looking again" in line for line in out)
            with ExitStack() as again:
                serve(tmp_path, stand_in, again)
                assert any(line == "GPU memory: 1\n" for line in out)
                child.send_signal(signal.SIGINT)
                list(out)
                assert child.wait(10) == 130
            assert child.stderr.read().strip() == ""
        finally:
            child.kill()


def test_json_is_a_line_for_each_time(server: Any) -> None:
    with subprocess.Popen(
        command("status", "--watch", "0.1", "--json"), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2)]
        child.send_signal(signal.SIGINT)
    assert all(msgspec.json.decode(line, type=Status).pressure == (ACT,) for line in lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_on_a_terminal_it_is_drawn_in_place_and_left_as_it_was(
    server: Any, number: signal.Signals, code: int
) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.environ.update(TERM="xterm", COLUMNS="80", LINES="24")
        os.execv(sys.executable, command("status", "--watch", "0.1"))
    output = b""
    deadline = time.monotonic() + 20
    sent = False
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                output += os.read(fd, 65536)
            except OSError:
                break
        if output.count(b"\x1b[H") >= 3 and not sent:
            sent = True
            os.kill(pid, number)
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == code
    assert output.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H") and output.strip().endswith(
        b"\x1b[?25h\x1b[?1049l"
    )
    assert output.count(b"GPU memory: 1\x1b[K") >= 3 and b"Traceback" not in output
    # No picture scrolls: none has more lines than the terminal.
    assert max(picture.count(b"\n") for picture in output.strip().split(b"\x1b[H")) < 24
