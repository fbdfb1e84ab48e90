"""Whether a file could be the first frame of a video, found without decoding a pixel.

What a header and a file's end can tell is told when the job is submitted: missing, not an
image, cut off, too large. The worker checks again, decodes, and may still find it broken.
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from engine.errors import InvalidRequest
from engine.units import size_text

MAX_PIXELS = 40_000_000
"""Above 8K (33 million), below what a small host could not decode."""
MAX_FILE_BYTES = 64 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Decoders that may see the file, here and in the worker; Pillow knows dozens, of unequal care."""
REMEDY = f"give a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file of at most {MAX_PIXELS // 10**6} megapixels"
CHUNK = 2**20
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)
"""The EXIF entry by which cameras say how they were held, and its values for a quarter of a turn."""
JPEG_END = b"\xff\xd9"
TIFF_WIDTH, TIFF_HEIGHT, TIFF_TILE = 256, 257, (322, 323)
TIFF_PIECES = ((273, 279), (324, 325))
"""Of a TIFF's strips, and of its tiles: the tags of where they begin and of how many bytes each has."""


def check_image(path: Path) -> tuple[int, int]:
    """The image's (width, height) in pixels, upright, as its header says.

    Raises:
        InvalidRequest: no such file, not readable, too large, no image of a known format, or
            visibly cut off.
    """
    try:
        # A FIFO or a device must not block the engine.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InvalidRequest(f"the image {str(path)!r} does not exist; check the path") from error
    except OSError as error:
        raise InvalidRequest(f"the image {str(path)!r} cannot be read: {error.strerror}; {REMEDY}") from error
    try:
        info = os.fstat(handle)
        if stat.S_ISDIR(info.st_mode):
            raise InvalidRequest(f"the image {str(path)!r} is a folder; {REMEDY}")
        if not stat.S_ISREG(info.st_mode):
            raise InvalidRequest(f"the image {str(path)!r} is no regular file; {REMEDY}")
        if info.st_size == 0:
            raise InvalidRequest(f"the image {str(path)!r} is empty; {REMEDY}")
        if info.st_size > MAX_FILE_BYTES:
            raise InvalidRequest(
                f"the image {str(path)!r} has {size_text(info.st_size)}, more than "
                f"{size_text(MAX_FILE_BYTES)}; save it smaller"
            )
        with open(handle, "rb", closefd=False) as file:
            return _check_content(path, file, info.st_size)
    finally:
        os.close(handle)


class ImageLooks:
    """What `check_image` says of the images of many requests, each looked at once.

    `look` reads and belongs in a thread; `check` after it answers at once for what was looked at.
    """

    def __init__(self) -> None:
        self._said: dict[Path, tuple[int, int] | InvalidRequest] = {}

    def look(self, paths: Iterable[Path]) -> None:
        """Read the header and the end of each."""
        for path in dict.fromkeys(paths):
            try:
                self._said[path] = check_image(path)
            except InvalidRequest as error:
                self._said[path] = error
            except ValueError:
                pass  # no path at all; the request is refused for that

    def check(self, path: Path) -> tuple[int, int]:
        """As `check_image`."""
        said = self._said.get(path)
        if isinstance(said, InvalidRequest):
            raise InvalidRequest(str(said))
        return check_image(path) if said is None else said


def _check_content(path: Path, file: IO[bytes], size: int) -> tuple[int, int]:
    # Imported here since it costs the daemon's start 40 ms that only image-to-video jobs need.
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow warns of large images on its own scale; ours is below.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
                if tags:  # as the camera was held, which not every Pillow's size is
                    width, height = tags[TIFF_WIDTH], tags[TIFF_HEIGHT]
                # A PNG's getexif would decode it where the header tells nothing.
                if (image.format != "PNG" or "exif" in image.info) and image.getexif().get(
                    ORIENTATION
                ) in LYING:
                    width, height = height, width
                if width * height > MAX_PIXELS:
                    raise _too_large(path, f"{width}x{height} pixels")
                if math.prod(tags.get(tag, 1) for tag in TIFF_TILE) > MAX_PIXELS:
                    # A tile is decoded whole, however small the image.
                    raise _too_large(path, f"tiles of {'x'.join(str(tags[tag]) for tag in TIFF_TILE)} pixels")
                whole = _is_whole(image.format or "", file, size) and _has_pieces(tags, size)
                if whole and image.format == "PNG":
                    image.verify()
    except UnidentifiedImageError as error:
        raise InvalidRequest(
            f"the image {str(path)!r} is broken or of an unknown format; {REMEDY}"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far more pixels") from error
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they trip over
        raise InvalidRequest(f"the image {str(path)!r} is broken ({error}); {REMEDY}") from error
    if not whole:
        raise InvalidRequest(f"the image {str(path)!r} is cut off after {size} bytes; copy it again")
    return width, height


def _is_whole(image_format: str, file: IO[bytes], size: int) -> bool:
    """Whether the file's end is there, for the formats in which that is cheap to see."""
    if image_format == "JPEG":
        # Pillow has read up to the picture's data, in which no end marker can occur but its own.
        return _contains(file, JPEG_END)
    if image_format == "WEBP":
        file.seek(4)
        return 8 + int.from_bytes(file.read(4), "little") <= size
    return True


def _has_pieces(tags: Mapping[int, Any], size: int) -> bool:
    """Whether the strips and tiles of a TIFF lie in its `size` bytes; True of other formats."""
    for begins, lengths in TIFF_PIECES:
        places = zip(tags.get(begins, ()), tags.get(lengths, ()), strict=False)
        if any(begin + length > size for begin, length in places):
            return False
    return True


def _contains(file: IO[bytes], needle: bytes) -> bool:
    """Whether `needle` follows the file's position; phones append whole videos after it."""
    tail = b""
    while chunk := file.read(CHUNK):
        if needle in tail + chunk:
            return True
        tail = chunk[1 - len(needle) :]
    return False


def _too_large(path: Path, pixels: str) -> InvalidRequest:
    return InvalidRequest(
        f"the image {str(path)!r} has {pixels}, more than the {MAX_PIXELS // 10**6} megapixels "
        "that are accepted; scale it down"
    )
