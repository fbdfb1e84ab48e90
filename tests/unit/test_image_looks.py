"""The images of many requests are read once each, and what was said of them is said again."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.errors import InvalidRequest
from engine.planning import image_file
from engine.planning.image_file import ImageLooks
from turbotui.client import files
from turbotui.picture import files as picture_files


def test_an_image_of_many_requests_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, later = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "later.png"
    for path in (good, later):
        Image.new("RGB", (64, 48)).save(path)
    bad.write_bytes(b"none")
    read = []
    check = image_file.check_image
    monkeypatch.setattr(image_file, "check_image", lambda path: (read.append(path), check(path))[1])
    looks = ImageLooks()
    looks.look([good, bad, good, bad, Path("/\0")])
    assert read[:2] == [good, bad] and len(read) == 3
    assert looks.check(good) == looks.check(good) == (64, 48)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="broken or of an unknown format"):
            looks.check(bad)
    assert len(read) == 3
    assert looks.check(later) == (64, 48) and read[-1] == later, "what was not looked at is read all the same"


@pytest.mark.parametrize("image_format", image_file.FORMATS)
def test_what_a_job_takes_is_sent_to_an_engine_and_shown(tmp_path: Path, image_format: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image", image_format)
    assert files._is_image((tmp_path / "image").read_bytes()[:16])
    assert image_format in picture_files.FORMATS
