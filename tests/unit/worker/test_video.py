"""The video file and its manifest: whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from engine.errors import StorageUnusable, WorkFailed
from engine.worker.leaving import Frames
from engine.worker.video import QUEUED, VideoWriter

from .conftest import manifest_of


def _frames(count: int, seed: int = 0, side: int = 32) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _feeders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "video"]


def test_a_finished_video_plays_with_all_its_frames_at_16_a_second(tmp_path: Path) -> None:
    path = tmp_path / "a clip: 风筝 100%d.mp4"
    with VideoWriter(path, 48, 32) as writer:
        first, rest = np.zeros((1, 32, 48, 3), np.uint8), np.full((4, 32, 48, 3), 200, np.uint8)
        writer.append(first)
        writer.append(rest)
        assert not path.exists()
        digest = writer.finish()
        assert not path.exists()
        writer.publish(manifest_of(path))
    assert digest == hashlib.sha256(first.tobytes() + rest.tobytes()).hexdigest()
    assert writer.num_frames == 5 and _feeders() == []
    assert sorted(os.listdir(tmp_path)) == [path.with_suffix(".json").name, path.name]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, *raw], check=True, capture_output=True
    )
    said = read.stderr.decode()
    assert all(word in said for word in ("h264", "yuv420p", "48x32", "16 fps"))
    shown = np.frombuffer(read.stdout, np.uint8).reshape(-1, 32, 48, 3).mean(axis=(1, 2, 3))
    assert shown.tolist() == pytest.approx([0, 200, 200, 200, 200], abs=10)


def test_a_writer_left_early_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "clip.mp4", 32, 32) as writer:
        writer.append(_frames(3))
        encoder = writer._encoder
        raise RuntimeError
    assert encoder.returncode is not None
    assert os.listdir(tmp_path) == []
    assert _feeders() == []


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, 32, 32) as writer:
            writer.append(_frames(5))
            writer.finish()
            writer.publish(manifest_of(tmp_path / name))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / folder / "clip.mp4"
    with pytest.raises(StorageUnusable, match=rf"{folder}/clip\.mp4 cannot be written"):
        VideoWriter(path, 32, 32)


def test_a_limit_on_files_is_said_with_the_free_bytes_and_nothing_stays(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with (
        pytest.raises(StorageUnusable, match=r"clip\.mp4 cannot be written: File too large .* free there"),
        VideoWriter(path, 256, 256) as writer,
    ):
        # Of the encoder alone: this process writes the report of the test run, perhaps into a file.
        limit = 65536  # bytes
        resource.prlimit(writer._encoder.pid, resource.RLIMIT_FSIZE, (limit, limit))
        for seed in range(30):
            writer.append(_frames(1, seed, 256))
        writer.finish()
    assert os.listdir(tmp_path) == []


def test_a_disk_without_a_byte_left_is_said_in_the_same_way(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a small file system")
    try:
        with (
            pytest.raises(StorageUnusable, match=r"clip\.mp4 cannot be written: No space left on device"),
            VideoWriter(disk / "clip.mp4", 256, 256) as writer,
        ):
            for seed in range(30):
                writer.append(_frames(1, seed, 256))
            writer.finish()
        assert os.listdir(disk) == []
        with VideoWriter(disk / "clip.mp4", 32, 32) as writer:
            writer.append(_frames(1))
            writer.finish()
            with pytest.raises(OSError, match="No space left"):
                (disk / "rest").write_bytes(b"x" * 65536)
            with pytest.raises(StorageUnusable, match=r"clip\.json cannot be written: No space left"):
                writer.publish(manifest_of(disk / "clip.mp4"))
        assert os.listdir(disk) == ["rest"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interrupt_of_the_terminal_does_not_reach_the_encoder(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 32, 32) as writer:
        assert os.getpgid(writer._encoder.pid) != os.getpgid(0)


def test_the_decoder_does_not_wait_for_the_encoder_until_the_queue_is_full(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 256, 256) as writer:
        os.kill(writer._encoder.pid, signal.SIGSTOP)
        chunk = _frames(4, side=256)
        began = time.monotonic()
        for _ in range(QUEUED):
            writer.append(chunk)
        assert time.monotonic() - began < 1
        assert writer.num_frames < 4 * QUEUED
        os.kill(writer._encoder.pid, signal.SIGCONT)
        writer.finish()
        assert writer.num_frames == 4 * QUEUED


def test_a_writer_left_while_the_encoder_hangs_ends_it_and_its_thread(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(tmp_path / "clip.mp4", 256, 256) as writer:
        os.kill(writer._encoder.pid, signal.SIGSTOP)
        for seed in range(QUEUED):
            writer.append(_frames(4, seed, 256))
        raise KeyError
    assert os.listdir(tmp_path) == [] and _feeders() == []


def test_an_encoder_that_ended_by_itself_is_named_and_nothing_waits_for_it(tmp_path: Path) -> None:
    with (
        pytest.raises(WorkFailed, match=r"clip\.mp4 could not be encoded: it ended with status -9"),
        VideoWriter(tmp_path / "clip.mp4", 256, 256) as writer,
    ):
        os.kill(writer._encoder.pid, signal.SIGKILL)
        for seed in range(3 * QUEUED):
            writer.append(_frames(4, seed, 256))
        writer.finish()
    assert os.listdir(tmp_path) == [] and _feeders() == []
