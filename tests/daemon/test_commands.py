"""The commands as a person runs them: a process of its own, a real engine, a hostile folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from engine.errors import NotNow
from engine.wire import (
    CacheCleared,
    CacheStatus,
    EngineStatus,
    ErrorBody,
    Job,
    JobSpec,
    Manifest,
    ModelStatus,
    Receipt,
    Status,
)
from tests.daemon.live import LiveEngine, wait_for

TURBOTUI = str(Path(sys.executable).with_name("turbotui"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose files shadow what an engine needs, for whoever looks there."""
    place = tmp_path / "a folder of somebody's"
    (place / "engine").mkdir(parents=True)
    for name in ("engine/__init__.py", "torch.py", "json.py", "msgspec.py"):
        (place / name).write_text("raise SystemExit('the wrong module was imported')\n")
    return place


def start(engine: LiveEngine, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [TURBOTUI, *arguments],
        cwd=folder,
        env=engine.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(engine: LiveEngine, folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(engine, folder, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_video_is_made_from_a_folder_with_modules_of_its_own(
    live: LiveEngine, folder: Path, image: Path
) -> None:
    (folder / "frame.png").write_bytes(image.read_bytes())
    shape = ("--frames", "5", "--steps", "1", "--image", "frame.png", "--output-dir", "my videos")
    code, out, err = run(live, folder, "generate", "--demo", "--prompt", "雪", *shape, "--wait", "--json")
    assert (code, err) == (0, "")
    manifest = msgspec.json.decode(out, type=Manifest)
    assert manifest.kind == "i2v" and manifest.spec.prompt == "雪"
    assert manifest.spec.image == str(folder / "frame.png")
    assert Path(manifest.output).parent == folder / "my videos"
    assert Path(manifest.output).stat().st_size == manifest.output_bytes


def test_what_the_commands_print_as_json_are_the_wire_models(live: LiveEngine, folder: Path) -> None:
    shapes: dict[str, object] = {
        "status": Status,
        "models --demo": list[ModelStatus],
        "jobs --all": list[Job],
        "switch wan-demo-small": Receipt,
        "unload wan-demo-small/dit": Receipt,
        "free": Receipt,
        "cache": CacheStatus,
        "cache clear": CacheCleared,
        "engine status": EngineStatus,
    }
    for command, shape in shapes.items():
        code, out, err = run(live, folder, *command.split(), "--json")
        assert (code, err) == (0, ""), command
        msgspec.json.decode(out, type=shape)
        assert run(live, folder, *command.split())[0] == 0, command


def test_refusals_of_a_real_engine_have_their_exit_codes(live: LiveEngine, folder: Path) -> None:
    refused = {
        "generate --model wan-demo-small --prompt x --frames 6": 2,
        "generate --model nothing --prompt x": 4,
        "job show 987654": 4,
        "switch nothing": 4,
        "unload wan-demo-small/nothing": 4,
    }
    for command, expected in refused.items():
        code, out, err = run(live, folder, *command.split(), "--json")
        assert code == expected, (command, out, err)
        body = msgspec.json.decode(out, type=ErrorBody)
        assert err == f"turbotui: {body.message}\n"


def test_an_unload_of_what_a_job_uses_is_a_refusal(live: LiveEngine, folder: Path, long: JobSpec) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    code, out, err = run(live, folder, "unload", f"{long.model}/dit", "--json")
    live.client.cancel(job.id)
    live.settle(job.id)
    receipt = msgspec.json.decode(out, type=Receipt)
    assert (code, receipt.ok, receipt.error_code) == (4, False, "not_now")
    assert err == f"turbotui: {receipt.error}\n" and "is in use" in err


def test_ctrl_c_leaves_the_job_and_cancel_ends_it(live: LiveEngine, folder: Path) -> None:
    before = {job.id for job in live.client.jobs(all=True)}
    shape = ("--model", "wan-demo-large", "--prompt", "harbour", "--frames", "33", "--wait")
    with start(live, folder, "generate", *shape) as process:
        try:
            new = wait_for(lambda: {job.id for job in live.client.jobs()} - before, 20, "the job")
            (job_id,) = new
            live.until_running(job_id)
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"job {job_id} goes on" in err and "Traceback" not in err
    assert live.client.job(job_id).status == "running"
    assert run(live, folder, "job", "cancel", str(job_id))[0] == 0
    assert live.settle(job_id).status == "cancelled"


def test_ctrl_c_takes_a_switch_out_of_the_line_behind_a_job(
    live: LiveEngine, folder: Path, long: JobSpec
) -> None:
    job = live.client.submit(long)
    live.until_running(job.id)
    since = max(line.seq for line in live.client.logs())

    def asked() -> bool:
        return any(line.text.startswith("/switch") for line in live.client.logs(after=since))

    with start(live, folder, "switch", "wan-demo-small", "--json") as process:
        try:
            wait_for(asked, 10, "a switch in the line")
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    receipt = msgspec.json.decode(out, type=Receipt)
    assert (process.returncode, receipt.ok, receipt.error_code) == (130, False, "cancelled")
    assert "cancelled before anything was moved" in err and "Traceback" not in err
    assert live.client.job(job.id).status == "running"
    code, _, err = run(live, folder, "cancel-switch")
    assert code == 4 and "nothing to give up" in err
    live.client.cancel(job.id)
    live.settle(job.id)


def test_a_command_starts_an_engine_that_outlives_it_and_stop_ends_it(
    spare: LiveEngine, folder: Path, long: JobSpec
) -> None:
    try:
        assert run(spare, folder, "engine", "status")[0] == 3
        code, out, _ = run(spare, folder, "status", "--json")
        assert code == 0
        pid = json.loads(out)["engine"]["pid"]
        assert os.getsid(pid) == pid
        code, out, _ = run(spare, folder, "engine", "start")
        assert code == 0 and f"runs already: pid {pid}" in out
        code, _, err = run(spare, folder, "engine", "run")
        assert code == 3 and f"pid {pid}" in err
        running, held = spare.client.submit(long), spare.client.submit(long)
        spare.client.hold(held.id, held=True)
        spare.until_running(running.id)
        spare.paths.config.mkdir(parents=True, exist_ok=True)
        spare.paths.config_file.write_text("[engine]\nmax_queue = 2\n")
        draft = spare.paths.state / "draft.json"
        draft.write_text('{"prompt": "half written"}')
        code, out, err = run(spare, folder, "engine", "restart", "--json")
        assert code == 0 and json.loads(out)["pid"] != pid
        assert f"job {running.id} is interrupted" in err and "1 job waits" in err
        assert draft.read_text() == '{"prompt": "half written"}'
        again = spare.client.job(running.id)
        assert again.status in ("queued", "running") and again.spec == running.spec
        assert spare.client.job(held.id).held
        spare.until_running(running.id)
        spare.client.submit(long)
        with pytest.raises(NotNow, match="queue"):  # the settings are those of the file
            spare.client.submit(long)
    finally:
        code = run(spare, folder, "engine", "stop")[0]
    assert code == 0
    assert run(spare, folder, "engine", "stop")[0] == 3


def test_the_status_begins_with_the_background_view_and_metrics_agree_with_it(
    live: LiveEngine, short: JobSpec
) -> None:
    assert live.run(short).status == "done"

    def told() -> list[str]:
        return [line.text for line in live.client.logs(limit=5000) if line.event == "background"]

    wait_for(lambda: any("wan-demo-small (" in text for text in told()), 5, "the background's line")
    background = live.status().background
    assert background is not None and background.device_id == "cpu"
    assert background.used_bytes and background.lines[1].startswith("Active models: wan-demo-small (")
    loaded = {part.name for part in background.models[0].components if part.state == "resident"}
    assert loaded and all(f"{name} loaded" in background.lines[1] for name in loaded)
    lines = told()
    for begin in ("Host memory (no GPU): ", "Active models: wan-demo-small (", "Cache status: "):
        assert any(line.startswith(begin) for line in lines), begin
    assert all(one != other for one, other in pairwise(lines)), "what is as it was told is not told again"

    page = live.client.metrics()
    done = len([job for job in live.client.jobs(all=True) if job.status == "done"])
    assert f'turbotui_jobs{{state="done"}} {done}\n' in page
    assert 'turbotui_device_memory_part_bytes{device="cpu",owner="ours",part="weights"' in page
    assert 'turbotui_pressure_used_ratio{device="cpu"} 0.' in page
