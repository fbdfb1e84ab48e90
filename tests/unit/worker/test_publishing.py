"""Names for a video and its manifest in a folder that others write to as well."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageUnusable
from engine.worker import publishing
from engine.worker.publishing import create_part, discard, publish, remove_leftovers

from .conftest import manifest_of


def _publish(path: Path, content: bytes) -> tuple[str, Path]:
    part = create_part(path)
    part.write_bytes(content)
    try:
        manifest, manifest_path = publish(part, manifest_of(path))
    finally:
        discard(part)
    return manifest.output, manifest_path


@pytest.fixture(params=["hard links", "no hard links"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems of both kinds."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("_links")
def test_the_video_and_its_manifest_lie_side_by_side_and_nothing_else(tmp_path: Path) -> None:
    output, path = _publish(tmp_path / "clip.mp4", b"whole")
    assert sorted(os.listdir(tmp_path)) == ["clip.json", "clip.mp4"]
    assert (output, path) == (str(tmp_path / "clip.mp4"), tmp_path / "clip.json")
    assert (tmp_path / "clip.mp4").read_bytes() == b"whole"
    assert json.loads(path.read_text("utf-8"))["spec"]["prompt"] == "风筝"


@pytest.mark.usefixtures("_links")
def test_a_name_that_is_taken_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"another engine's")
    (tmp_path / "clip-2.json").write_bytes(b"somebody's notes")
    output, path = _publish(tmp_path / "clip.mp4", b"ours")
    assert output == str(tmp_path / "clip-3.mp4")
    assert json.loads(path.read_text("utf-8"))["output"] == output
    assert sorted(os.listdir(tmp_path)) == ["clip-2.json", "clip-3.json", "clip-3.mp4", "clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"another engine's"
    assert (tmp_path / "clip-3.mp4").read_bytes() == b"ours"


@pytest.mark.usefixtures("_links")
@pytest.mark.parametrize("first_with", ["clip.mp4", "clip.json"])
def test_one_who_is_first_at_the_last_moment_keeps_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_with: str
) -> None:
    real = publishing._publish_pair

    def late(*paths: Path) -> bool:
        rival = tmp_path / first_with
        if not rival.exists():
            rival.write_bytes(b"the rival's")
        return real(*paths)

    monkeypatch.setattr(publishing, "_publish_pair", late)
    output, _ = _publish(tmp_path / "clip.mp4", b"ours")
    assert output == str(tmp_path / "clip-2.mp4")
    assert sorted(os.listdir(tmp_path)) == sorted([first_with, "clip-2.json", "clip-2.mp4"])
    assert (tmp_path / first_with).read_bytes() == b"the rival's"
    assert (tmp_path / "clip-2.mp4").read_bytes() == b"ours"


@pytest.mark.usefixtures("_links")
def test_many_who_want_one_name_all_keep_their_video(tmp_path: Path) -> None:
    outputs: list[str] = []
    start = threading.Barrier(8)

    def one(number: int) -> None:
        start.wait()
        outputs.append(_publish(tmp_path / "clip.mp4", b"%d" % number)[0])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {Path(output).read_bytes() for output in outputs} == {b"%d" % number for number in range(8)}
    for output in outputs:
        assert json.loads(Path(output).with_suffix(".json").read_text("utf-8"))["output"] == output
    assert len(os.listdir(tmp_path)) == 16


@pytest.mark.usefixtures("_links")
@pytest.mark.parametrize("failing", ["manifest's name", "folder's sync"])
def test_a_video_whose_manifest_cannot_be_named_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def broken(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*paths: Path) -> Any:
            if failing == "folder's sync" or paths[-1].suffix == ".json":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*paths)

        return call

    name = "_name" if failing == "manifest's name" else "_sync_folder"
    monkeypatch.setattr(publishing, name, broken(getattr(publishing, name)))
    with pytest.raises(StorageUnusable, match=r"clip\.mp4 cannot be written: Input/output error"):
        _publish(tmp_path / "clip.mp4", b"whole")
    assert os.listdir(tmp_path) == []


def test_the_manifest_is_whole_on_the_disk_before_the_video_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    real = publishing._name

    def look(part: Path, path: Path) -> bool:
        if path.suffix == ".mp4":
            (waiting,) = tmp_path.glob(".clip.json.*.part")
            found.append(json.loads(waiting.read_text("utf-8"))["output"])
        return real(part, path)

    monkeypatch.setattr(publishing, "_name", look)
    _publish(tmp_path / "clip.mp4", b"whole")
    assert found == [str(tmp_path / "clip.mp4")]


def test_only_what_a_dead_worker_of_this_host_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "clip.mp4"
    code = (
        "import sys; from pathlib import Path; from engine.worker.publishing import create_part\n"
        "for name in sys.argv[1:]: create_part(Path(name))"
    )
    others = [str(video), str(tmp_path / "clip.json"), str(tmp_path / "other.mp4")]
    subprocess.run([sys.executable, "-c", code, *others], check=True)
    alive = create_part(video)
    assert len(os.listdir(tmp_path)) == 4
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.node", lambda: "another-host")
        remove_leftovers(video)
        assert len(os.listdir(tmp_path)) == 4
    remove_leftovers(video)
    (other,) = tmp_path.glob(".other.mp4.*.part")
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, other.name])


def test_two_parts_of_one_name_are_two_files(tmp_path: Path) -> None:
    assert create_part(tmp_path / "clip.mp4") != create_part(tmp_path / "clip.mp4")
