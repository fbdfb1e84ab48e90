"""Images from strangers, and what an image-to-video net sees of them."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from engine.errors import InvalidRequest
from engine.planning.image_file import check_image
from engine.worker.channel import ModelFiles
from engine.worker.conditioning import fit_image, image_condition, read_image
from engine.worker.store import ComponentStore

from .conftest import BUDGET, I2V


def _png_claiming(path: Path, width: int, height: int) -> None:
    """A tiny PNG whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (12000, 12000), (60000, 60000)])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    _png_claiming(path, width, height)
    with pytest.raises(
        InvalidRequest, match=r"bomb\.png' has .* 40 megapixels that are accepted; scale it down"
    ):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\nbroken", b"GIF89a"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"image\.png"):
        read_image(path)


def test_an_image_cut_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((200, 200), 90).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InvalidRequest, match=r"cut\.jpg' is (cut off|broken)"):
        read_image(path)


def test_what_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InvalidRequest, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(InvalidRequest, match="is no regular file"):
        read_image(tmp_path / "pipe")


@pytest.mark.parametrize("image_format", ["PPM", "TGA", "ICO"])
def test_formats_that_submitting_refuses_are_refused_here_too(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(path, format=image_format)
    for refuse in (check_image, read_image):
        with pytest.raises(
            InvalidRequest, match="of an unknown format; give a PNG, JPEG, WEBP, BMP, TIFF or GIF file"
        ):
            refuse(path)


def test_pixels_that_only_decoding_finds_broken_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.bmp"
    Image.effect_noise((200, 200), 90).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert check_image(path) == (200, 200)
    with pytest.raises(InvalidRequest, match=r"broken\.bmp' is broken .*; save it again"):
        read_image(path)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.new(mode, (20, 10)).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (20, 10))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"]
)
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_every_mode_of_a_tiff_becomes_rgb(tmp_path: Path, mode: str, compression: str) -> None:
    path = tmp_path / "image.tif"
    Image.new(mode, (20, 10)).save(path, compression=compression)
    assert check_image(path) == (20, 10)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (20, 10))


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_that_lies_stands_upright(tmp_path: Path, mode: str, compression: str) -> None:
    Image.new(mode, (20, 10)).save(path := tmp_path / "a.tif", compression=compression, tiffinfo={0x0112: 6})
    assert check_image(path) == read_image(path).size == (10, 20)


def test_floats_of_a_tiff_are_shares_of_white_or_levels(tmp_path: Path) -> None:
    for top in (1.0, 255.0):
        ramp = np.tile(np.linspace(0, top, 256, dtype=np.float32), (2, 1))
        Image.fromarray(ramp).save(path := tmp_path / "a.tif")
        assert np.asarray(read_image(path))[0, :, 0].tolist() == list(range(256))


def test_the_first_frame_of_a_gif_and_of_a_tiff_is_taken(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for name in ("moving.gif", "pages.tif"):
        red.save(tmp_path / name, save_all=True, append_images=[blue])
        assert check_image(tmp_path / name) == (8, 8)
        assert read_image(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)


def test_a_bomb_in_a_gif_or_a_tiff_is_refused_by_its_header(tmp_path: Path) -> None:
    gif, tiff = tmp_path / "a.gif", tmp_path / "a.tif"
    Image.new("P", (8, 8)).save(gif)
    data = bytearray(gif.read_bytes())
    frame = data.index(b",\0\0\0\0\x08\0\x08\0")
    data[frame + 5 : frame + 9] = (9000).to_bytes(2, "little") * 2  # a frame beyond its screen
    gif.write_bytes(data)
    Image.new("L", (8, 8)).save(tiff)
    data = bytearray(tiff.read_bytes())
    for tag, side in ((278, 322), (284, 323)):  # what it says of its strips becomes the sides of a tile
        at = re.search(re.escape(tag.to_bytes(2, "little")) + b"[\3\4]\0\1\0\0\0", data).start()
        data[at : at + 12] = struct.pack("<HHIHH", side, 3, 1, 9000, 0)
    tiff.write_bytes(data)
    for path in (gif, tiff):
        with pytest.raises(InvalidRequest, match=r"9000x9000 pixels, more than the 40 megapixels"):
            read_image(path)


def test_a_tiff_that_is_cut_off_is_refused_at_submit(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.effect_noise((200, 200), 90).save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InvalidRequest, match="cut off"):
        check_image(path)


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    found = np.asarray(read_image(tmp_path / "deep.png"))
    assert found[0, :, 0].tolist() == list(range(0, 256, 4)), "the upper 8 bits of each"


def test_the_first_frame_of_an_animation_is_taken_upright(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red.save(tmp_path / "moving.webp", save_all=True, append_images=[blue], lossless=True)
    assert read_image(tmp_path / "moving.webp").getpixel((0, 0)) == (255, 0, 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=turned)
    assert read_image(tmp_path / "turned.jpg").size == (10, 20)


def test_an_image_is_stretched_as_uint8_before_it_becomes_floats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    fitted = fit_image(Image.fromarray(pixels), 48, 32)
    as_tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    resized = F.interpolate(as_tensor, size=(32, 48), mode="bilinear", antialias=True)
    assert fitted.shape == (3, 32, 48)
    assert torch.equal(fitted, (resized[0].float() / 255 - 0.5) / 0.5)
    levels = (fitted / 2 + 0.5) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)


def test_the_condition_is_the_mask_then_the_image_s_latents(
    store: ComponentStore, files: Callable[[str], ModelFiles]
) -> None:
    model = store.open(files(I2V))
    lease = store.lease(model, ("vae",), stage="image", stage_bytes=0, budget_bytes=BUDGET)
    with lease as modules, torch.inference_mode():
        condition = image_condition(modules["vae"], torch.zeros(3, 32, 48), 3, lambda frame: None)
    assert condition.shape == (1, 20, 3, 4, 6)
    assert condition[:, :4, 0].eq(1).all()
    assert condition[:, :4, 1:].eq(0).all()
    assert condition[:, 4:].abs().sum() > 0
