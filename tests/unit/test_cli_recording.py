"""`turbotui report`, `recording` and `replay`, over a recording that no engine serves."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.paths import Paths, find_paths
from engine.recording.entries import EngineStarted, Entry, Gap, pack_entries
from engine.recording.format import HEADER, pack_frame
from engine.recording.rows import pack_rows, row_of
from engine.wire import Logged, LogLine
from tests.unit.recordings import device
from turbotui.cli import main


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path / "home"))
    return find_paths()


@pytest.fixture
def recorded(paths: Paths) -> float:
    """An hour of an engine that died three hours ago; when it began."""
    began = time.time() - 4 * 3600
    line = LogLine(seq=1, at=began + 60, level="error", event="worker", text="it died \x1b[31m")
    entries = [
        Entry(began, EngineStarted(instance="a", build="1.0", pid=1, host="box", user="me")),
        Entry(began + 60, Logged(line=line)),
        Entry(began + 90, Gap(since=began + 80, reason="no reading came", device_id="GPU-a")),
    ]
    rows = [row_of(device(began + second * 10, live=second * 2**20)) for second in range(360)]
    first, last = int(began * 1000), int((began + 3600) * 1000)
    paths.recordings.mkdir(parents=True)
    for name, code, payload in (
        ("events", 4, pack_entries(entries)),
        ("spans", 3, pack_rows([row for row in rows if row is not None])),
    ):
        packed = HEADER + pack_frame(code, first, last, payload)
        (paths.recordings / f"{name}-{first:013d}.ttrec").write_bytes(packed + b"\x07torn")
    return began


def test_the_report_needs_no_engine_and_says_from_when_to_when(
    recorded: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    assert "me@box" in out and "it died" in out and "worker: it died" in out and "no reading came" in out
    assert main(["report", "--since", "-2h"]) == 0
    assert "none ran" in capsys.readouterr().out
    assert main(["report", "--since", "-5h", "--until", "-1h", "--md"]) == 0
    assert "## findings" in capsys.readouterr().out


def test_the_report_in_json_is_one_document(recorded: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"][0]["end"] == "died" and document["runs"][0]["since"] == pytest.approx(recorded)
    assert document["peaks"][0]["used_bytes"] > 0


def test_a_stretch_is_exported_and_told_from_the_file(
    recorded: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "night.ttrec"
    assert main(["recording", "export", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    assert main(["recording", "status", str(target)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["kind", "spans", "events"]
    assert main(["report", str(target)]) == 0
    assert "worker: it died" in capsys.readouterr().out
    assert main(["recording", "export", str(target)]) == 4
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_not_there_or_makes_no_sense_is_refused(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report"]) == 4
    assert "nothing is recorded yet" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "gone.ttrec")]) == 4
    assert "gone.ttrec" in capsys.readouterr().err
    assert main(["report", "--since", "soon"]) == 2
    assert "yesterday 22:00" in capsys.readouterr().err


def test_a_file_that_is_no_recording_is_named(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"\xff\xd8\xff\xe0" * 10)
    assert main(["report", str(other)]) == 4
    assert "photo.jpg is passed over: it is no recording" in capsys.readouterr().err


def test_a_replay_needs_a_terminal(recorded: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--since", "-5h"]) == 2
    assert "needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["report"], ["recording", "status"], ["replay"], ["report", "--json"]])
def test_a_file_that_is_no_recording_is_not_a_quiet_night(
    paths: Paths, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "empty.ttrec").write_bytes(b"")
    for name in ("passwd", "empty.ttrec"):
        assert main([*command, str(tmp_path / name)]) == 4
        out, err = capsys.readouterr()
        assert "nothing that can be read" in err and "runs" not in out
