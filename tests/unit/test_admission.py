"""Every mistake of a request that can be known when it is submitted, each in one sentence."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config import EngineConfig
from engine.errors import EngineError, InvalidRequest, ModelUnusable, StorageUnusable
from engine.models.card import Card, CardRow, inferred_card
from engine.models.model import Model, ModelComponent
from engine.planning.admission import Admitted, check_request
from engine.planning.attention import doubt_about
from engine.planning.image_file import check_image
from engine.wire import JobSpec

ROWS = (("80p", "16:10", 128, 80), ("80p", "1:1", 96, 96), ("112p", "1:1", 144, 144))
CARD = Card(
    format=1,
    title="Toy",
    kind="t2v",
    resolutions=tuple(CardRow(name=n, aspect_ratio=a, width=w, height=h) for n, a, w, h in ROWS),
    default_resolution="80p",
    default_aspect_ratio="16:10",
    default_frames=17,
    default_steps=3,
    max_frames=33,
)
T2V = Model(name="toy", kind="t2v", path=Path("/toy"), card=CARD)
DIT = ModelComponent(name="dit", folder=Path("/toy"), bytes=1, identity="", dtype="bfloat16")
I2V = Model(name="toy-i2v", kind="i2v", path=Path("/toy"), card=CARD)
CONFIG = EngineConfig(max_prompt_chars=100)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "猫 first frame.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return str(path)


def check(folder: Path, model: Model = T2V, **fields: Any) -> Admitted:
    spec = JobSpec(model=model.name, **{"prompt": "a cat", **fields})
    return check_request(spec, model, CONFIG, folder)


def refusal(folder: Path, model: Model = T2V, **fields: Any) -> str:
    """The sentence with which it is refused, which anything can print."""
    with pytest.raises(InvalidRequest) as error:
        check(folder, model, **fields)
    text = str(error.value)
    text.encode()
    assert text.isprintable()
    assert len(text) < 700
    return text


def test_defaults_are_filled_in_from_the_models_card(tmp_path: Path) -> None:
    admitted = check(tmp_path)
    assert (admitted.width, admitted.height, admitted.frames, admitted.steps) == (128, 80, 17, 3)
    assert (admitted.kind, admitted.sigma_max, admitted.output_dir) == ("t2v", 80.0, tmp_path)
    assert admitted.spec == JobSpec(
        model="toy",
        prompt="a cat",
        resolution="80p",
        aspect_ratio="16:10",
        frames=17,
        steps=3,
        sigma_max=80.0,
        output_dir=str(tmp_path),
        attention="dense",
    )


def test_a_model_that_is_not_distilled_takes_no_jobs_and_says_why(tmp_path: Path) -> None:
    text = refusal(tmp_path, replace(T2V, few_steps=False))
    assert re.search(
        r"^toy takes no jobs: .*no proj_l.*not distilled.*1 to 4 steps.*few_steps.*turbotui.json", text
    )


def test_what_was_admitted_is_admitted_again_unchanged(tmp_path: Path, image: str) -> None:
    once = check(tmp_path, I2V, image=image, prompt="  two\r\n lines\t", ode=True, frames=5)
    assert check_request(once.spec, I2V, CONFIG, tmp_path / "other") == once
    assert (once.spec.prompt, once.sigma_max, once.spec.ode) == ("two  lines", 200.0, True)


SLA = replace(T2V, components=(replace(DIT, proj_l=True),))
OTHERS = [("dense", None, "dense", None), ("sla", 0.15, "sla", 0.15), ("sagesla", None, "sagesla", 0.1)]


@pytest.mark.parametrize(("asked", "topk", "kind", "used"), [("auto", None, "sla", 0.1), *OTHERS])
def test_attention_is_the_models_own_unless_a_job_says_another(
    tmp_path: Path, asked: str, topk: float | None, kind: str, used: float | None
) -> None:
    once = check(tmp_path, SLA, attention=asked, sla_topk=topk)
    assert (once.attention, once.sla_topk) == (once.spec.attention, once.spec.sla_topk) == (kind, used)
    assert check_request(once.spec, SLA, CONFIG, tmp_path) == once
    doubt = doubt_about(once.attention, SLA)
    assert (doubt is not None) == (kind == "dense")
    assert check(tmp_path, T2V).attention == "dense" and doubt_about("dense", T2V) is None


def test_a_model_without_proj_l_attends_sparsely_only_where_a_top_k_says_so_too(tmp_path: Path) -> None:
    for kind in ("sla", "sagesla"):
        assert "has no proj_l" in refusal(tmp_path, attention=kind)
        admitted = check(tmp_path, attention=kind, sla_topk=0.2)
        assert (admitted.attention, admitted.sla_topk) == (kind, 0.2)
        assert "only the sparse part" in (doubt_about(admitted.attention, T2V) or "")


@pytest.mark.parametrize("topk", [0, -0.1, 1.01, math.nan, math.inf])
def test_a_top_k_is_a_share_of_what_there_is(tmp_path: Path, topk: float) -> None:
    assert f"sla_topk is {topk:g}; choose above 0, at most 1" in refusal(tmp_path, SLA, sla_topk=topk)


def test_dense_attention_has_no_top_k(tmp_path: Path) -> None:
    assert "would attend densely" in refusal(tmp_path, sla_topk=0.1)
    assert "would attend densely" in refusal(tmp_path, SLA, attention="dense", sla_topk=0.1)
    assert "choose auto, dense, sla, sagesla" in refusal(tmp_path, attention="flash")


def test_a_resolution_without_the_default_aspect_ratio_takes_its_first(tmp_path: Path) -> None:
    admitted = check(tmp_path, resolution="112p")
    assert (admitted.spec.aspect_ratio, admitted.width, admitted.height) == ("1:1", 144, 144)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"resolution": "720p"}, "resolution is '720p'; toy has 80p, 112p"),
        ({"resolution": ""}, "resolution is ''; toy has 80p, 112p"),
        ({"resolution": "\x1b[31m"}, "resolution is '\\x1b[31m'; toy has 80p, 112p"),
        (
            {"aspect_ratio": "16:9"},
            "aspect_ratio is '16:9'; toy has 16:10 (128x80), 1:1 (96x96) at 80p",
        ),
        (
            {"resolution": "112p", "aspect_ratio": "16:10"},
            "aspect_ratio is '16:10'; toy has 1:1 (144x144) at 112p",
        ),
        ({"frames": 16}, "frames is 16, which is not 4n + 1; choose 13 or 17"),
        ({"frames": 32}, "frames is 32, which is not 4n + 1; choose 29 or 33"),
        ({"frames": 0}, "frames is 0, which is not 4n + 1; choose 1"),
        ({"frames": -7}, "frames is -7, which is not 4n + 1; choose 1"),
        ({"frames": 37}, "frames is 37; toy makes at most 33, choose 33 or fewer"),
        ({"steps": 0}, "steps is 0; choose 1 to 4"),
        ({"steps": 5}, "steps is 5; choose 1 to 4"),
        ({"seed": -1}, "seed is -1; choose 0 to 9223372036854775807"),
        ({"seed": 2**63}, "seed is 9223372036854775808; choose 0 to 9223372036854775807"),
        ({"priority": 10**30}, f"priority is {10**30}; choose -1000 to 1000"),
        ({"sigma_max": 1.0}, "sigma_max is 1; choose 15 to 10000"),
        ({"sigma_max": math.nan}, "sigma_max is nan; choose 15 to 10000"),
        ({"sigma_max": math.inf}, "sigma_max is inf; choose 15 to 10000"),
        ({"ode": True}, "ode is for image-to-video models and toy is text-to-video; leave it out"),
        ({"prompt": ""}, "the prompt is empty; describe the video"),
        ({"prompt": " \n\t\u2028 "}, "the prompt is empty; describe the video"),
        ({"prompt": "a\x00b"}, "the prompt contains U+0000, a control character; remove it"),
        ({"prompt": "\x1b]0;x\x07"}, "the prompt contains U+001B, a control character; remove it"),
        ({"prompt": "a\u009bb"}, "the prompt contains U+009B, a control character; remove it"),
        ({"prompt": "a\ud83d"}, "the prompt contains U+D83D, half of a character; remove it"),
        (
            {"prompt": "x" * 102_400},
            "the prompt has 102,400 characters and at most 100 are accepted; shorten it",
        ),
        (
            {"output_dir": "videos"},
            "output_dir is 'videos', which is not absolute; give the folder's full path",
        ),
        ({"output_dir": ""}, "output_dir is empty; give the folder's full path"),
        ({"output_dir": "/a\x00b"}, "output_dir contains U+0000, a control character; remove it"),
        ({"output_dir": "/a\nb"}, "output_dir contains U+000A, a control character; remove it"),
        ({"output_dir": "/\udcff"}, "output_dir contains U+DCFF, half of a character; remove it"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_the_way_out(
    tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    assert refusal(tmp_path, **fields) == sentence


def test_paths_longer_than_can_be_are_refused(tmp_path: Path) -> None:
    assert "longer than paths can be" in refusal(tmp_path, output_dir=str(tmp_path / ("目" * 100)))
    assert "longer than paths can be" in refusal(tmp_path, output_dir="/a" * 3000)


@pytest.mark.parametrize("prompt", ["一只猫在夕阳下", "👩‍🚀 rides a 🐎", "العربية", "a\u200dz", "é" * 100])
def test_prompts_in_any_script_are_kept_as_they_are(tmp_path: Path, prompt: str) -> None:
    assert check(tmp_path, prompt=prompt).spec.prompt == prompt


@given(
    st.text(max_size=120),
    st.none() | st.text(max_size=8) | st.sampled_from(["80p", "112p"]),
    st.none() | st.integers(),
    st.none() | st.floats(),
    st.none() | st.text(max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_any_request_is_admitted_whole_or_refused_in_one_sentence(
    prompt: str, resolution: str | None, frames: int | None, sigma_max: float | None, output_dir: str | None
) -> None:
    try:
        admitted = check(
            Path(tempfile.gettempdir()),
            prompt=prompt,
            resolution=resolution,
            frames=frames,
            sigma_max=sigma_max,
            output_dir=output_dir,
        )
    except EngineError as error:
        assert str(error).isprintable()
        str(error).encode()
        return
    assert None not in (admitted.spec.resolution, admitted.spec.aspect_ratio, admitted.spec.frames)
    assert admitted.spec.prompt.strip()
    assert (admitted.frames - 1) % 4 == 0


def test_a_model_with_a_problem_is_refused_with_it(tmp_path: Path) -> None:
    broken = replace(T2V, problem="vae.safetensors is truncated: it has 3 of 9 bytes; fetch it again")
    with pytest.raises(ModelUnusable, match=r"the model toy cannot be used: vae\.safetensors is truncated"):
        check(tmp_path, broken)


def test_the_released_tables_apply_to_models_without_a_card(tmp_path: Path) -> None:
    model = replace(T2V, card=inferred_card("wan", "t2v"))
    admitted = check(tmp_path, model, resolution="720p")
    assert (admitted.width, admitted.height, admitted.frames, admitted.steps) == (1280, 720, 81, 4)


# --------------------------------------------------------------------------- images


def png(width: int, height: int) -> bytes:
    """A PNG whose header says `width` x `height` over a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def encoded(image_format: str, size: tuple[int, int] = (64, 48)) -> bytes:
    data = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(data, image_format)
    return data.getvalue()


def test_image_to_video_needs_an_image_and_text_to_video_takes_none(tmp_path: Path, image: str) -> None:
    assert refusal(tmp_path, I2V) == "toy-i2v is image-to-video and needs an image; give the path of one"
    assert "an image was given and toy is text-to-video; leave it out" in refusal(tmp_path, image=image)
    assert check(tmp_path, I2V, image=image).spec.image == image


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_the_known_formats_are_accepted_whatever_the_name(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "frame.dat"
    path.write_bytes(encoded(image_format))
    assert check_image(path) == (64, 48)


def test_an_8k_image_is_accepted_and_a_bomb_is_not(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(png(7680, 4320))
    assert check_image(path) == (7680, 4320)
    for width, height in ((8000, 5001), (12_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)):
        path.write_bytes(png(width, height))
        with pytest.raises(InvalidRequest, match=r"pixels, more than the 40 megapixels .*; scale it down"):
            check_image(path)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_an_image_that_is_cut_off_is_seen_at_submit(tmp_path: Path, image_format: str, share: float) -> None:
    data = encoded(image_format, (300, 200))
    path = tmp_path / "frame"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidRequest, match=r"cut off|broken"):
        check_image(path)


def test_a_damaged_png_is_seen_at_submit(tmp_path: Path) -> None:
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "frame.png"
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match="broken"):
        check_image(path)


def test_a_photo_with_something_appended_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "motion.jpg"
    path.write_bytes(encoded("JPEG") + b"video" * 500_000)
    assert check_image(path) == (64, 48)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_photo(tmp_path: Path) -> None:
    data = encoded("JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 40) + b"x" * 38 + b"\xff\xd9"
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[:2] + thumbnail + data[2:-200])
    with pytest.raises(InvalidRequest, match="cut off"):
        check_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello", "broken or of an unknown format; give a PNG, JPEG, WEBP, BMP, TIFF or GIF"),
        (b"GIF89a" + b"\0" * 100, "unknown format"),
        (b"\x89PNG\r\n\x1a\n", "broken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unknown format"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(content)
    assert words in refusal(tmp_path, I2V, image=str(path))


@given(
    st.binary(max_size=200),
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]),
    st.integers(0, 200),
)
@settings(max_examples=100, deadline=None)
def test_no_damage_makes_the_check_raise_anything_else(noise: bytes, image_format: str, place: int) -> None:
    path = Path(tempfile.gettempdir()) / f"turbotui-test-{os.getpid()}"
    data = encoded(image_format, (8, 8))
    path.write_bytes(data[:place] + noise + data[place + len(noise) :])
    try:
        check_image(path)
    except InvalidRequest:
        pass
    finally:
        path.unlink()


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    assert "does not exist; check the path" in refusal(tmp_path, I2V, image=str(tmp_path / "none.png"))
    assert "is a folder" in refusal(tmp_path, I2V, image=str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in refusal(tmp_path, I2V, image=str(tmp_path / "pipe"))
    assert "is no regular file" in refusal(tmp_path, I2V, image="/dev/zero")
    assert "not absolute" in refusal(tmp_path, I2V, image="frame.png")
    assert "U+0000" in refusal(tmp_path, I2V, image="/x\0.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in refusal(tmp_path, I2V, image=str(tmp_path / "loop"))
    assert "cannot be read: Not a directory" in refusal(tmp_path, I2V, image="/dev/null/x")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(png(10, 10))
    os.truncate(path, 65 * 2**20)
    assert "has 65.0 MiB, more than 64.0 MiB; save it smaller" in refusal(tmp_path, I2V, image=str(path))


# --------------------------------------------------------------------------- output folders


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_one_it_would_lie_in(tmp_path: Path) -> None:
    wanted = tmp_path / "new" / "影片"
    assert check(tmp_path, output_dir=str(wanted)).output_dir == wanted
    assert not wanted.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageUnusable, match="is not a folder, so no video can be put there; choose another"
    ):
        check(tmp_path, output_dir=str(tmp_path / "file" / "below"))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    wanted = f"{str(tmp_path)!r} cannot be written: Read-only file system; choose another output_dir"
    with pytest.raises(StorageUnusable, match=re.escape(wanted)):
        check(tmp_path, output_dir=str(tmp_path / "new"))


def test_a_folder_that_takes_no_files_even_from_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageUnusable, match="choose another output_dir"):
        check(tmp_path, output_dir="/proc")


def test_a_folder_without_unnamed_files_is_judged_by_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "open", refuse)
    assert check(tmp_path).output_dir == tmp_path
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(StorageUnusable, match="cannot be written: Permission denied"):
        check(tmp_path)


def test_a_disk_that_is_nearly_full_is_refused_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 12 * 2**20))
    with pytest.raises(
        StorageUnusable, match=r"has 12\.0 MiB left, less than 95\.4 MiB; free some or choose"
    ):
        check(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 0, 100 * 10**6))
    assert check(tmp_path)


# --------------------------------------------------------------------------- samples, the image's own shape


def test_samples_are_one_to_eight(tmp_path: Path) -> None:
    assert check(tmp_path, samples=8).spec.samples == 8
    for count in (0, 9, -1):
        assert refusal(tmp_path, samples=count) == f"samples is {count}; choose 1 to 8"


def test_an_adaptive_size_is_the_image_s_shape_at_the_table_s_pixels(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(png(300, 400))
    admitted = check(tmp_path, I2V, image=str(path), adaptive=True)
    assert (admitted.width, admitted.height) == (80, 112)  # of 128 x 80
    assert (admitted.spec.resolution, admitted.spec.aspect_ratio) == ("80p", "16:10")
    assert check(tmp_path, I2V, image=str(path)).width == 128
    assert refusal(tmp_path, adaptive=True) == (
        "adaptive takes an image's shape and toy is text-to-video; leave it out"
    )


def test_a_shape_that_the_nets_do_not_take_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    path.write_bytes(png(4000, 10))
    assert refusal(tmp_path, I2V, image=str(path), adaptive=True) == (
        "the image is 4000x10, and in that shape a side of the video would not be 16 to 2048 pixels; "
        "crop it or leave adaptive out"
    )


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_an_image_that_lies_on_its_side_is_measured_upright(tmp_path: Path, image_format: str) -> None:
    turned, path = Image.Exif(), tmp_path / "turned"
    for orientation, size in ((6, (48, 64)), (3, (64, 48))):
        turned[0x0112] = orientation
        Image.new("RGB", (64, 48)).save(path, format=image_format, exif=turned)
        assert check_image(path) == size
