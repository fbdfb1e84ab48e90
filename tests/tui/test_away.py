"""Coming back to a console: what ended meanwhile, the report of it, and what an action left to tell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import NotFound
from engine.recording.entries import Entry, ProcessCame, pack_entries
from engine.recording.format import HEADER, pack_frame
from engine.recording.rows import pack_rows, row_of
from engine.wire import Job, JobSpec, Receipt, ReceiptIssued, ReceiptStep
from tests.unit.recordings import GIB, device
from turbotui import opening
from turbotui.app import TurboApp
from turbotui.client import scenes
from turbotui.opening import Opened
from turbotui.screens import report
from turbotui.seen import Seen, load_seen, save_seen

from .conftest import NOW, SMALL, WIDE, Clock, live, panel_text, screen_text, scripted, until

Build = Callable[..., TurboApp]
HOUR = 3600.0


def left(tmp_path: Path, hours: float) -> Path:
    path = tmp_path / "console.json"
    save_seen(path, Seen(left_at=NOW - hours * HOUR))
    return path


def recording(tmp_path: Path) -> Path:
    """An hour in which liwei came; named as the recorder names its files."""
    came = Entry(NOW - 1800, ProcessCame(device_id=scenes.GPU, process=scenes.gpu(NOW).processes[1]))
    rows = [row_of(device(NOW - 3600 + second, live=GIB)) for second in range(0, 3600, 10)]
    path = tmp_path / "night.ttrec"
    first, last = int((NOW - 3600) * 1000), int(NOW * 1000)
    entries = pack_entries([Entry(NOW - 3600, scenes.busy(NOW - 3600)), came])
    path.write_bytes(
        HEADER
        + pack_frame(4, first, last, entries)
        + pack_frame(2, first, last, pack_rows([row for row in rows if row]))
    )
    return path


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_the_header_counts_what_ended_until_it_is_waved_away(
    console: Build, size: tuple[int, int], tmp_path: Path
) -> None:
    app = console(scripted(scenes.busy(NOW)), seen_path=left(tmp_path, 16))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        assert "away 16h: 1 done 1 OOM [w]" in screen_text(app).splitlines()[0]
        assert size == SMALL or "▶41 3/4 ~6.0 s" in screen_text(app).splitlines()[0]
        await pilot.press("escape")
        assert "away" not in screen_text(app)


async def test_what_ended_before_and_a_short_absence_are_no_news(console: Build, tmp_path: Path) -> None:
    app = console(scripted(scenes.busy(NOW)), seen_path=left(tmp_path, 0.6))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "away 36m: no job ended [w]" in screen_text(app)
    app = console(scripted(scenes.busy(NOW)), seen_path=left(tmp_path, 0.4))
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        assert "away" not in screen_text(app)


async def test_leaving_is_remembered_and_findings_that_were_read(
    console: Build, tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "console.json"
    app = console(scripted(scenes.busy(NOW)), seen_path=path)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        app.read_findings(frozenset({"a"}))
        clock.passed = 7.0
        await pilot.press("q")
    assert load_seen(path) == Seen(left_at=NOW + 7, findings=frozenset({"a"}))


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x36"])
async def test_w_tells_what_happened_since_the_person_left_and_of_a_night(
    console: Build, size: tuple[int, int], tmp_path: Path
) -> None:
    app = console(scripted(scenes.busy(NOW)), seen_path=left(tmp_path, 0.9), recordings=recording(tmp_path))
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "liwei" in screen_text(app) and "came" in screen_text(app))
        assert "What happened  13:19 to 14:13, 54m00s" in screen_text(app)
        await pilot.press("w")
        await until(pilot, lambda: "What happened  02:13 to 14:13, 12h00m" in screen_text(app))
        await pilot.press("escape")
        assert "away" not in screen_text(app), "it was told"


async def test_the_console_goes_on_while_the_recording_is_read(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, threads = threading.Event(), []

    def slow(source: Path, since: float, until: float) -> list[str]:
        threads.append(threading.current_thread())
        go.wait(5)
        raise NotFound("there is no recording at all")

    monkeypatch.setattr(report, "tell_report", slow)
    app = console(scripted(scenes.busy(NOW)), recordings=tmp_path)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("w")
        await pilot.pause()
        assert "reading the recording" in screen_text(app)
        assert threads and threads[0] is not threading.main_thread()
        go.set()
        await until(pilot, lambda: "there is no recording at all" in screen_text(app))


async def test_a_process_is_told_in_full_with_who_it_was_when_it_came(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = scenes.busy(NOW)
    neighbour = replace(
        scenes.gpu(NOW).processes[1], container="docker 3f2a9c1b", program="ComfyUI", started_at=NOW - 2000,
        tenant="turbotui engine of liwei, pid 7", command="python " + "long " * 30 + "end",
    )  # fmt: skip
    gpu = replace(scenes.gpu(NOW), processes=(scenes.gpu(NOW).processes[0], neighbour))
    app = console(
        scripted(replace(snapshot, status=replace(snapshot.status, devices=(gpu,)))),
        recordings=recording(tmp_path),
    )
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        await pilot.press("5", "j", "enter")
        await until(pilot, lambda: "13:43:20 with 6.20 GiB  liwei" in screen_text(app))
        text = screen_text(app)
        for part in (
            "Process 90112",
            "docker 3f2a9c1b",
            "ComfyUI",
            "of liwei, pid 7",
            "long end",
            "6.20 GiB",
        ):
            assert part in text, part
        assert "turbotui watch 90112" in text
        await pilot.press("y")
        assert copied == ["turbotui watch 90112"]


async def test_the_notes_of_a_receipt_are_counted_and_read(console: Build) -> None:
    client = scripted(scenes.busy(NOW))
    app = console(client)
    receipt = Receipt(
        action="full_cleanup", target="everything of ours", ok=True, expected_bytes=2**30,
        returned_bytes=2**30, residue_bytes=0, elapsed_s=2.0, proof="nvml-process", at=NOW,
        steps=(ReceiptStep(name="our worker ended", bytes=2**30, elapsed_s=0.4),),
        notes=("GPU 2: process 90112 of liwei still holds 6.20 GiB: main.py", "GPU 2: 14.0 GiB are nobody's"),
    )  # fmt: skip
    async with app.run_test(size=SMALL) as pilot:
        await live(pilot)
        client.push(ReceiptIssued(receipt=receipt))
        await until(pilot, lambda: "full cleanup" in panel_text(app, "receipt"))
        await pilot.resize_terminal(*WIDE)
        await pilot.pause()
        assert "2 notes [.]" in panel_text(app, "receipt") or "1 note [.]" in panel_text(app, "receipt")
        await pilot.press("full_stop")
        await pilot.pause()
        text = screen_text(app)
        assert (
            "our worker ended" in text and "still holds 6.20 GiB" in text and "14.0 GiB are nobody's" in text
        )


async def test_a_video_is_opened_here_or_its_copy_line_is_taken_along(
    console: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "9.mp4"
    snapshot = scenes.idle(NOW)
    done = Job(
        id=9, spec=JobSpec(model="m", prompt="p"), status="done", created_at=NOW, finished_at=NOW,
        output=str(video),
    )  # fmt: skip
    app = console(scripted(replace(snapshot, jobs=(*snapshot.jobs, done))))
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=WIDE) as pilot:
        await live(pilot)
        await pilot.press("v")
        await until(pilot, lambda: "the video of job 9 is not at" in screen_text(app))
        video.write_bytes(b"x")
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_TTY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 51000 10.0.0.2 22")
        await pilot.press("enter", "v")
        await until(pilot, lambda: len(copied) == 1)
        assert copied[0].startswith("scp ") and f"10.0.0.2:{video}" in copied[0]
        monkeypatch.delenv("SSH_CONNECTION")
        monkeypatch.setenv("DISPLAY", ":0")
        shown: list[Path] = []
        monkeypatch.setattr(opening.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(opening, "start_opener", lambda _opener, path: shown.append(path))
        await pilot.press("v")
        await until(pilot, lambda: f"opened {video}" in screen_text(app))
        assert shown == [video]
    assert opening.open_video(done) == Opened(path=video, shown=True)
