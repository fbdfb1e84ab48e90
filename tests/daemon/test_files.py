"""Whole files over the engine's socket: only what a manifest names goes out, only images come in."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from engine.daemon.images import ImageStore
from engine.errors import EngineUnavailable, InvalidRequest, NotFound, NotNow, StorageUnusable
from engine.jobs.files import manifest_path
from engine.recording.reader import Recording
from engine.wire import JobSpec, Manifest, StoredImage, VideoFile
from tests.daemon.live import LiveEngine, wait_for
from turbotui.client.files import fetch_recording, fetch_video, put_image
from turbotui.client.http import HttpClient


@pytest.fixture(scope="module")
def job_id(live: LiveEngine) -> int:
    """A job with a video."""
    return live.run(JobSpec(model="wan-demo-small", prompt="files", frames=5, steps=1)).id


class Breaking(HttpClient):
    """Each connection ends after some bytes."""

    def __init__(self, socket_path: str, after: int) -> None:
        super().__init__(socket_path)
        self.after = after
        self.asked: list[str] = []

    def receive_file(self, path: str, headers: dict[str, str], timeout: float):  # type: ignore[no-untyped-def]
        self.asked.append(headers.get("Range", "all"))
        return self._breaking(path, headers, timeout)

    from contextlib import contextmanager

    @contextmanager
    def _breaking(self, path: str, headers: dict[str, str], timeout: float):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        with super().receive_file(path, headers, timeout) as answer:
            first = next(answer.chunks)[: self.after]
            yield replace(answer, chunks=iter([first]))


def test_a_fetch_that_breaks_goes_on_where_it_was(live: LiveEngine, job_id: int, tmp_path: Path) -> None:
    video = Path(live.client.job(job_id).output or "")
    size = video.stat().st_size
    client = Breaking(live.client.socket_path, after=size // 3)
    waited: list[float] = []
    got = fetch_video(lambda: client, job_id, tmp_path, wait=waited.append)
    assert got.path == tmp_path / video.name and got.path.read_bytes() == video.read_bytes()
    assert client.asked[:3] == ["all", f"bytes={size // 3}-", f"bytes={size // 3 * 2}-"]
    assert waited and list(tmp_path.iterdir()) == [got.path], "no part stays"
    assert fetch_video(lambda: client, job_id, tmp_path).was_there


def test_the_next_run_takes_up_what_the_last_one_left(live: LiveEngine, job_id: int, tmp_path: Path) -> None:
    video = Path(live.client.job(job_id).output or "").read_bytes()
    client = Breaking(live.client.socket_path, after=0)
    with pytest.raises(EngineUnavailable, match="the same command goes on from there"):
        fetch_video(lambda: client, job_id, tmp_path / "v.mp4", wait=lambda _s: None)
    (part,) = tmp_path.iterdir()
    part.write_bytes(video[:100])
    assert fetch_video(lambda: live.client, job_id, tmp_path / "v.mp4").resumed_bytes == 100
    assert (tmp_path / "v.mp4").read_bytes() == video


def test_a_part_with_wrong_bytes_gets_no_name(live: LiveEngine, job_id: int, tmp_path: Path) -> None:
    about = live.client.ask(f"/jobs/{job_id}/video/about", VideoFile, 10)
    (tmp_path / f".v.mp4.{about.sha256[:12]}.part").write_bytes(b"x" * 50)
    with pytest.raises(EngineUnavailable, match="another digest"):
        fetch_video(lambda: live.client, job_id, tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_replaced_only_by_force(live: LiveEngine, job_id: int, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("mine")
    with pytest.raises(InvalidRequest, match="is another file"):
        fetch_video(lambda: live.client, job_id, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_text() == "mine"
    fetch_video(lambda: live.client, job_id, tmp_path / "v.mp4", force=True)
    assert (tmp_path / "v.mp4").stat().st_size > 100


def test_only_what_the_manifest_names_is_read(live: LiveEngine, short: JobSpec, tmp_path: Path) -> None:
    job = live.run(short)
    assert live.client.ask(f"/jobs/{job.id}/manifest", Manifest, 10).output == job.output
    video = Path(job.output or "")
    kept = video.read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(kept)  # of the right size even
    video.unlink()
    video.symlink_to(secret)
    for path in ("video", "video/about", "manifest"):
        with pytest.raises(NotFound, match="moved or deleted"):
            live.client._get(f"/jobs/{job.id}/{path}", Manifest)
    video.unlink()
    video.write_bytes(kept)
    manifest = Path(manifest_path(str(video)))
    manifest.write_bytes(manifest.read_bytes().replace(str(video).encode(), str(secret).encode()))
    with pytest.raises(NotFound, match="moved or deleted"):
        live.client._get(f"/jobs/{job.id}/video", Manifest)
    waiting = live.client.submit(short)
    live.client.cancel(waiting.id)
    with pytest.raises(NotNow, match="has no video"):
        fetch_video(lambda: live.client, live.settle(waiting.id).id, tmp_path)
    video.unlink()
    manifest.unlink()


def test_ranges(live: LiveEngine, job_id: int) -> None:
    about = live.client.ask(f"/jobs/{job_id}/video/about", VideoFile, 10)

    def read(**headers: str) -> tuple[int, bytes]:
        with live.client.receive_file(
            f"/jobs/{job_id}/video", {name.replace("_", "-"): text for name, text in headers.items()}, 10
        ) as answer:
            return answer.status, b"".join(answer.chunks)

    whole = Path(about.path).read_bytes()
    assert hashlib.sha256(whole).hexdigest() == about.sha256
    assert read() == (200, whole)
    assert read(Range="bytes=100-") == (206, whole[100:])
    assert read(Range="bytes=100-", If_Range=about.etag) == (206, whole[100:])
    assert read(Range="bytes=100-", If_Range='"other"') == (200, whole)
    for wrong in ("bytes=1-2", "bytes=-5", "lines=1-", f"bytes={len(whole)}-"):
        with pytest.raises(InvalidRequest, match=r"not known here|none from"):
            read(Range=wrong)


def test_an_image_is_kept_below_the_engine_by_its_digest(
    live: LiveEngine, image: Path, tmp_path: Path
) -> None:
    stored = put_image(live.client, image)
    assert put_image(live.client, image) == stored, "the same one lies there once"
    path = Path(stored.path)
    assert path.parent == live.paths.data / "images" and path.read_bytes() == image.read_bytes()
    assert (stored.width, stored.height) == (64, 48)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    hostile = tmp_path / "..\x1b[2J‮ 猫.PNG"
    hostile.write_bytes(image.read_bytes())
    assert put_image(live.client, hostile) == stored, "also by another name"
    Image.new("RGB", (64, 48), (7, 7, 7)).save(hostile)
    other = put_image(live.client, hostile)
    assert Path(other.path).name == f"{other.sha256[:16]}-2J_猫.png"
    # What lies there under the name, but is not it, is replaced.
    path.write_bytes(b"damaged")
    assert put_image(live.client, image) == stored and path.read_bytes() == image.read_bytes()


def test_what_is_no_image_is_refused_and_leaves_nothing(
    live: LiveEngine, image: Path, tmp_path: Path
) -> None:
    before = set((live.paths.data / "images").iterdir())
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:60])
    with pytest.raises(InvalidRequest, match=r"'broken.png' is broken"):
        put_image(live.client, broken)
    (tmp_path / "id_key").write_text("a secret")
    with pytest.raises(InvalidRequest, match="id_key is no PNG"):
        put_image(HttpClient("/nowhere"), tmp_path / "id_key")  # nobody is even asked
    data = image.read_bytes()

    def put(query: str, body: bytes, length: int) -> None:
        live.client.send_file(f"/images?{query}", body, length, StoredImage, 10)

    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(InvalidRequest, match="did not arrive whole"):
        put(f"name=x.png&sha256={'0' * 64}", data, len(data))
    with pytest.raises(InvalidRequest, match="no digest"):
        put("name=x.png&sha256=../../x", data, len(data))
    with pytest.raises(InvalidRequest, match="is not taken"):
        put(f"name=x.png&sha256={digest}", b"", 2**40)
    assert set((live.paths.data / "images").iterdir()) == before


async def test_the_oldest_images_go_that_no_job_needs(tmp_path: Path, image: Path) -> None:
    data = image.read_bytes()
    needed: set[str] = set()
    store = ImageStore(tmp_path / "images", needed=lambda: frozenset(needed), most_bytes=2 * len(data) + 100)

    async def put(extra: bytes) -> Path:
        content = data + extra  # behind a PNG's end anything may lie

        async def chunks():  # type: ignore[no-untyped-def]
            yield content

        digest = hashlib.sha256(content).hexdigest()
        stored = await store.receive(chunks(), name="x.png", size=len(content), sha256=digest)
        return Path(stored.path)

    first, second = await put(b"1"), await put(b"2")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    needed.add(str(first))
    third = await put(b"3")
    assert first.exists() and third.exists() and not second.exists()
    needed.add(str(third))
    with pytest.raises(StorageUnusable, match="let some jobs end first"):
        await put(b"4")
    assert {path.name for path in store.folder.iterdir()} == {first.name, third.name}


def test_a_stretch_of_the_recording_comes_as_one_file(live: LiveEngine, tmp_path: Path) -> None:
    def recorded() -> bool:
        target = tmp_path / "night"
        target.unlink(missing_ok=True)
        try:
            fetch_recording(live.client, None, None, target)
        except NotFound:
            return False
        return bool(Recording(target).rows("cpu"))

    wait_for(recorded, 10, "a recording")
    with pytest.raises(StorageUnusable, match="File exists"):
        fetch_recording(live.client, None, None, tmp_path / "night")
    with pytest.raises(NotFound):
        fetch_recording(live.client, 0, 1, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    assert not [path for path in live.paths.cache.iterdir() if path.name.startswith("export-")]


async def test_images_that_are_put_at_once_make_room_once(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    data = []
    for shade in range(12):
        raw = io.BytesIO()
        Image.new("RGB", (64, 48), (shade, 0, 0)).save(raw, "BMP")
        data.append(raw.getvalue())
    store = ImageStore(folder, needed=frozenset, most_bytes=3 * len(data[0]))

    async def put(number: int, one: bytes) -> StoredImage:
        async def chunks() -> AsyncIterator[bytes]:
            yield one

        digest = hashlib.sha256(one).hexdigest()
        return await store.receive(chunks(), name=f"{number}.bmp", size=len(one), sha256=digest)

    await asyncio.gather(*(put(number, one) for number, one in enumerate(data)))
    assert len(list(folder.iterdir())) == 3
    same = await asyncio.gather(*(put(number, data[0]) for number in range(20, 26)))
    assert len({one.path for one in same}) == 1
    assert len(list(folder.iterdir())) == 3
