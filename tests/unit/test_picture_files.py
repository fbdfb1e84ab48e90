"""Images and videos from files, and files that are neither: named and refused, and never waited for."""

from __future__ import annotations

import os
import struct
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest
from PIL import Image

from engine.errors import InvalidRequest
from turbotui.picture import files
from turbotui.picture.files import read_frames, read_image


def bomb(path: Path, side: int) -> None:
    """A PNG of a few hundred bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def cut_png(path: Path) -> None:
    Image.effect_noise((200, 200), 90).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:3000])


def cut_jpeg(path: Path) -> None:
    Image.effect_noise((200, 200), 90).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:900])


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no image"), "is no image: PNG"),
    "empty": (lambda path: path.write_bytes(b""), "is no image"),
    "tga": (lambda path: Image.new("RGB", (4, 4)).save(path, "TGA"), "is no image"),
    "folder": (Path.mkdir, "is no regular file"),
    "fifo": (os.mkfifo, "is no regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
    "missing": (lambda path: None, "not there any more"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read"),
    "ten gigabytes": (sparse, "has 10.0 GiB, more than 64.0 MiB"),
    "many pixels": (lambda path: bomb(path, 7000), "7000x7000 pixels, more than 40 megapixels"),
    "a bomb": (lambda path: bomb(path, 60000), "megapixels"),
    "a cut png": (cut_png, "is broken"),
    "a cut jpeg": (cut_jpeg, "is broken"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_whole_image_is_named_and_refused_at_once(tmp_path: Path, kind: str) -> None:
    make, said = BAD[kind]
    path = tmp_path / "first.png"
    make(path)
    began = time.monotonic()
    with pytest.raises(InvalidRequest, match=said) as refusal:
        read_image(path)
    assert time.monotonic() - began < 2
    assert str(refusal.value).startswith("first.png ")


def test_an_image_is_scaled_into_what_is_asked_and_keeps_its_shape(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    image = Image.new("RGB", (400, 100), (10, 20, 30))
    image.paste((200, 100, 50), (0, 0, 200, 100))
    image.save(path)
    found = read_image(path, (40, 40))
    assert (found.width, found.height, found.bytes) == (400, 100, path.stat().st_size)
    assert (found.picture.width, found.picture.height) == (40, 10)
    assert found.picture.rgb[:3] == bytes((200, 100, 50))
    assert found.picture.rgb[-3:] == bytes((10, 20, 30))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "PNG", "TIFF", "GIF"])
def test_each_format_that_a_job_takes_can_be_seen(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    Image.new("RGB", (64, 64), (200, 40, 40)).save(path, kind)
    red, green, _blue = read_image(path).picture.rgb[:3]
    assert red > 180 and green < 60


def test_a_picture_that_a_phone_turned_stands_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (80, 40)).save(path, exif=exif)
    found = read_image(path, (20, 20))
    assert (found.width, found.height) == (40, 80)
    assert (found.picture.width, found.picture.height) == (10, 20)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine frames from black to white, 64x32."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    frames = b"".join(bytes([n * 31]) * (64 * 32 * 3) for n in range(9))
    subprocess.run(
        [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"),
            *("-s", "64x32", "-r", "16", "-i", "-", "-pix_fmt", "yuv420p", str(path)),
        ],
        input=frames,
        check=True,
    )
    return path


def test_all_frames_of_a_video_are_read_in_order_and_small(video: Path) -> None:
    frames = read_frames(video, (32, 32))
    assert len(frames) == 9
    assert {(frame.width, frame.height) for frame in frames} == {(32, 16)}
    lights = [frame.rgb[0] for frame in frames]
    assert lights == sorted(lights) and lights[0] < 20 and lights[-1] > 220


def test_a_video_is_never_enlarged(video: Path) -> None:
    assert {(frame.width, frame.height) for frame in read_frames(video, (640, 640))} == {(64, 32)}


def test_a_video_that_is_cut_off_or_none_is_named_and_refused(video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:400])
    with pytest.raises(InvalidRequest, match=r"^cut\.mp4 is broken"):
        read_frames(cut, (32, 32))
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile '{video}'\n")
    with pytest.raises(InvalidRequest, match=r"^list\.mp4 is broken"):
        read_frames(playlist, (32, 32))
    with pytest.raises(InvalidRequest, match="not there any more"):
        read_frames(tmp_path / "gone.mp4", (32, 32))
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(InvalidRequest, match="no regular file"):
        read_frames(tmp_path / "fifo.mp4", (32, 32))


def test_a_decoder_that_hangs_is_ended(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "ffmpeg"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(slow))
    monkeypatch.setattr(files, "VIDEO_S", 0.3)
    began = time.monotonic()
    with pytest.raises(InvalidRequest, match="is broken"):
        read_frames(video, (32, 32))
    assert time.monotonic() - began < 10
