"""Videos on disk: what is surely ours is found, and nothing else is ever deleted or moved."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from engine.daemon.aside import Aside, is_aside
from engine.daemon.outputs import list_outputs, move_outputs, prune_outputs
from engine.errors import InvalidRequest
from engine.wire import JobSpec, Manifest
from engine.worker import publishing

DAY = 86400.0


def make(folder: Path, number: int, *, days: float = 0.0, data: bytes = b"video") -> tuple[Path, Path]:
    """A video and its manifest, so many days old."""
    video = folder / f"{number:06d}-cat.mp4"
    at = time.time() - days * DAY
    manifest = Manifest(
        job_id=number, spec=JobSpec(model="m", prompt="cat"), kind="t2v", width=16, height=16, fps=16,
        timesteps=(1.0,), device="cpu", device_name="x", output=str(video), output_bytes=len(data),
        frames_sha256="ab", elapsed_s=1.0, stages=(), weights={}, versions={}, created_at=at,
    )  # fmt: skip
    video.write_bytes(data)
    path = video.with_suffix(".json")
    path.write_bytes(msgspec.json.encode(manifest))
    for each in (video, path):
        os.utime(each, (at, at))
    return video, path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "videos"
    made.mkdir()
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_what_a_manifest_names_and_is_whole_is_ours(folder: Path, tmp_path: Path) -> None:
    ours, manifest = make(folder, 1, days=40)
    for damage in (2, 3, 4, 5):
        make(folder, damage, days=40)
    (folder / "000002-cat.mp4").write_bytes(b"longer than it was")
    (folder / "000003-cat.json").write_text("{")
    secret = tmp_path / "secret"
    secret.write_bytes(b"video")
    (folder / "000004-cat.mp4").unlink()
    (folder / "000004-cat.mp4").symlink_to(secret)
    (folder / "000005-cat.json").rename(folder / "other.json")
    (folder / "holiday.mp4").write_bytes(b"mine")
    found = list_outputs([folder, folder, tmp_path / "absent"])
    assert [video.path for video in found.videos] == [str(ours)]
    assert found.videos[0].manifest == str(manifest) and found.videos[0].job_id == 1
    assert found.videos[0].bytes == 5 + manifest.stat().st_size
    assert found.others == 8  # links are not even counted
    before = names(folder)
    pruned = prune_outputs([folder], before=time.time() - 30 * DAY, delete=True)
    assert [video.path for video in pruned.videos] == [str(ours)] and pruned.deleted
    assert before - names(folder) == {ours.name, manifest.name}
    assert secret.read_bytes() == b"video"


def test_what_is_younger_or_being_written_stays_and_without_delete_all_does(folder: Path) -> None:
    old, _ = make(folder, 1, days=40)
    make(folder, 2, days=1)
    busy, _ = make(folder, 3, days=40)
    before = names(folder)
    kept = time.time() - 30 * DAY
    would = prune_outputs([folder], before=kept, delete=False, busy=frozenset({str(busy)}))
    assert [video.path for video in would.videos] == [str(old)] and not would.deleted and would.bytes > 5
    assert names(folder) == before
    prune_outputs([folder], before=kept, delete=True, busy=frozenset({str(busy)}))
    assert names(folder) == before - {old.name, old.with_suffix(".json").name}


def test_a_copy_that_was_written_lately_is_as_young_as_that(folder: Path) -> None:
    video, _ = make(folder, 1, days=400)
    os.utime(video)
    assert prune_outputs([folder], before=time.time() - DAY, delete=True).videos == ()
    assert video.exists()


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(folder: Path) -> None:
    dead = folder / f".000007-cat.mp4.{publishing._host()}.{2**22 + 5}.ab12cd34.part"
    living = folder / f".000008-cat.mp4.{publishing._host()}.{os.getpid()}.ab12cd34.part"
    elsewhere = folder / f".000009-cat.mp4.00000000.{2**22 + 5}.ab12cd34.part"
    foreign = folder / f".notes.txt.{publishing._host()}.{2**22 + 5}.ab12cd34.part"
    for path in (dead, living, elsewhere, foreign):
        path.write_bytes(b"x" * 10)
    found = list_outputs([folder])
    assert [part.path for part in found.parts] == [str(dead)]
    prune_outputs([folder], before=time.time() + 1, delete=True)
    assert names(folder) == {living.name, elsewhere.name, foreign.name}


def test_what_another_users_worker_left_is_his(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = folder / f".000007-cat.mp4.{publishing._host()}.{2**22 + 5}.ab12cd34.part"
    left.write_bytes(b"x")
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    found = list_outputs([folder])
    assert (found.parts, found.others) == ((), 1)


def test_moving_aside_writes_over_nothing_and_takes_only_ours(folder: Path, tmp_path: Path) -> None:
    video, manifest = make(folder, 1)
    (folder / "holiday.mp4").write_bytes(b"mine")
    aside = Aside(str(tmp_path / "away"), "outputs", never_within=[folder])
    (aside.folder / video.name).write_bytes(b"there before")
    move_outputs([folder], aside)
    assert names(folder) == {"holiday.mp4"} and aside.moved == 2 and aside.problems == []
    assert (aside.folder / video.name).read_bytes() == b"there before"
    assert (aside.folder / f"2-{video.name}").read_bytes() == b"video"
    assert aside.places[str(video)] == str(aside.folder / f"2-{video.name}")
    assert is_aside(aside.folder) and not is_aside(folder)
    assert (aside.folder / manifest.name).exists() and aside.folder.stat().st_mode & 0o077 == 0


def test_on_to_another_disk_a_copy_is_made_whole_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, _ = make(folder, 1, data=b"v" * 100_000)

    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", refuse)
    aside = Aside(str(tmp_path / "away"), "outputs", never_within=[])
    move_outputs([folder], aside)
    assert not video.exists() and (aside.folder / video.name).read_bytes() == b"v" * 100_000


def test_a_file_in_use_is_copied_and_emptied(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    aside = Aside(str(tmp_path / "away"), "logs", never_within=[])
    with log.open("ab", buffering=0) as writer:
        writer.write(b"before\n")
        aside.take(log)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n" and (aside.folder / "engine.log").read_bytes() == b"before\n"


@pytest.mark.parametrize("place", ["away", "", "videos/below"])
def test_a_place_that_is_relative_or_within_is_refused(folder: Path, tmp_path: Path, place: str) -> None:
    given = str(tmp_path / place) if place.startswith("videos") else place
    with pytest.raises(InvalidRequest):
        Aside(given, "outputs", never_within=[folder])
