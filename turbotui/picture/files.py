"""Owns pictures in files: an image of a known format, and the frames of one of our videos.

Everything is bounded before it is decoded: what is no regular file, too large, or says that it has
too many pixels, is named and refused. Nothing here waits for a FIFO; ffmpeg is ended when it takes
too long. Called in threads, since a disk may take its time.
"""

from __future__ import annotations

import io
import os
import stat
import subprocess
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine.errors import InvalidRequest
from turbotui.format import bytes_text
from turbotui.picture.raster import Picture
from turbotui.text import t
from turbotui.text.spoken import spoken

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Those that a job takes as its first frame."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
MAX_VIDEO_BYTES = 2 * 2**30
VIDEO_S = 10.0
"""What ffmpeg may take; a video of 161 frames takes it 0.3 s."""
MAX_FRAMES = 161
MAX_FRAMES_BYTES = 12 * 2**20
"""Of all frames together, in the console's memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """A decoded image."""

    width: int
    """Of the file, upright."""
    height: int
    bytes: int
    picture: Picture
    """At most as large as was asked."""


def read_image(path: Path, most_pixels: tuple[int, int] = (640, 640)) -> ImageFile:
    """The image at `path`, scaled down by area to fit into `most_pixels`.

    Raises:
        InvalidRequest: it is missing, no regular file, too large, no image, cut off or broken.
    """
    with _opened(path, MAX_FILE_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        return _decoded(path, file, size, most_pixels)


def _opened(path: Path, most_bytes: int) -> IO[bytes]:
    name = path.name or str(path)
    try:
        # A FIFO without a writer, or a device, must not be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InvalidRequest(t("picture.gone", name=name)) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(t("picture.unreadable", name=name, why=spoken(why))) from error
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidRequest(t("picture.no_file", name=name))
        if info.st_size > most_bytes:
            raise InvalidRequest(
                t(
                    "picture.too_many_bytes",
                    name=name,
                    size=bytes_text(info.st_size),
                    most=bytes_text(most_bytes),
                )
            )
        return open(handle, "rb")
    except BaseException:
        with suppress(OSError):
            os.close(handle)
        raise


def _decoded(path: Path, file: IO[bytes], size: int, most: tuple[int, int]) -> ImageFile:
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = path.name
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images on its own scale; ours is below.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidRequest(
                        t(
                            "picture.too_many_pixels",
                            name=name,
                            width=image.width,
                            height=image.height,
                            most=MAX_PIXELS // 10**6,
                        )
                    )
                whole = (image.width, image.height)
                image.draft("RGB", (most[0] * 2, most[1] * 2))  # JPEGs are decoded at a part of their size
                upright = ImageOps.exif_transpose(image).convert("RGB")
                turned = upright.size != image.size and upright.size == image.size[::-1]
                upright.thumbnail(most, Image.Resampling.BOX, reducing_gap=None)
    except UnidentifiedImageError as error:
        raise InvalidRequest(t("picture.no_image", name=name, formats=", ".join(FORMATS))) from error
    except Image.DecompressionBombError as error:
        raise InvalidRequest(t("picture.far_too_many_pixels", name=name, most=MAX_PIXELS // 10**6)) from error
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's decoders answer damage with whatever they trip over
        why = str(error) or type(error).__name__
        raise InvalidRequest(t("picture.broken", name=name, why=why)) from error
    width, height = whole[::-1] if turned else whole
    picture = Picture(width=upright.width, height=upright.height, rgb=upright.tobytes())
    return ImageFile(width=width, height=height, bytes=size, picture=picture)


def read_frames(path: Path, most_pixels: tuple[int, int]) -> tuple[Picture, ...]:
    """All frames of the video at `path`, each scaled down by area to fit into `most_pixels`.

    Raises:
        InvalidRequest: it is missing, no regular file, too large, or no whole mp4.
    """
    with _opened(path, MAX_VIDEO_BYTES):
        pass
    from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-untyped]

    width, height = most_pixels
    scale = f"scale='min({width},iw)':'min({height},ih)':force_original_aspect_ratio=decrease:flags=area"
    command = [
        *(get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error"),
        # The one format that we write: a playlist must not make it open other files.
        *("-protocol_whitelist", "file", "-f", "mp4", "-i", f"file:{path}"),
        *("-an", "-vf", scale, "-frames:v", str(MAX_FRAMES)),
        *("-f", "image2pipe", "-c:v", "ppm", "-"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    timer = threading.Timer(VIDEO_S, process.kill)
    timer.daemon = True
    timer.start()
    assert process.stdout is not None and process.stderr is not None
    try:
        data = process.stdout.read(MAX_FRAMES_BYTES)
        process.stdout.close()
        said = process.stderr.read(4096).decode("utf-8", "replace").strip().splitlines()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        timer.cancel()
    frames = tuple(_pictures_in(data))
    if not frames:
        why = said[-1] if said else t("picture.no_frames")
        raise InvalidRequest(t("picture.broken", name=path.name, why=why))
    return frames


def _pictures_in(data: bytes) -> list[Picture]:
    """The whole pictures of a stream of PPMs, each `P6`, width, height, 255 and its bytes."""
    stream = io.BytesIO(data)
    found: list[Picture] = []
    while stream.readline() == b"P6\n":
        try:
            width, height = (int(word) for word in stream.readline().split())
        except ValueError:
            break
        stream.readline()
        rgb = stream.read(width * height * 3)
        if len(rgb) < width * height * 3 or not rgb:
            break
        found.append(Picture(width=width, height=height, rgb=rgb))
    return found
