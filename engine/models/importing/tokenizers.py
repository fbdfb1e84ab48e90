"""Finds the tokenizer that belongs to a text encoder, when it is imported and not at the first job.

Looked at: what was given, what lies beside the encoder, the models here, and the hub's caches.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from engine.errors import ModelUnusable
from engine.models.model import TOKENIZER_FILES

FILES = ("tokenizer.json", "spiece.model", "tokenizer_config.json", "special_tokens_map.json")
"""What a tokenizer is read from."""
BESIDE = ("google/umt5-xxl", "umt5-xxl", "tokenizer", "../tokenizer", "../google/umt5-xxl")
"""Where releases have it, from the text encoder's folder on."""
IN_CACHE = ("models--google--umt5-xxl/snapshots/*", "models--*/snapshots/*/google/umt5-xxl")
IN_CACHE_OF_WAN = ("models--*[Ww]an*/snapshots/*/tokenizer",)
SHARE = 0.9
"""Of the encoder's words that its tokenizer has at least; the rest fills up to a round number."""
MOST_BYTES = 256 * 2**20
"""Of a tokenizer's file; umT5's has 17 MB."""
LIMIT = 64
"""Folders of a cache that are looked at."""
PLAIN_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
"""For a `tokenizer.json` that lies alone. The words are umT5's."""


class _Model(msgspec.Struct, frozen=True):
    vocab: msgspec.Raw


class _Tokenizer(msgspec.Struct, frozen=True):
    model: _Model


def candidates(given: Iterable[Path], text_folder: Path, models: Iterable[Path]) -> Iterator[Path]:
    """Folders that may hold the tokenizer, the likeliest first."""
    yield from given
    for name in BESIDE:
        yield text_folder / name
    for model in models:
        yield model / "tokenizer"
    for cache in _hub_caches():
        for pattern in (*IN_CACHE, *IN_CACHE_OF_WAN):
            yield from sorted(cache.glob(pattern))[:LIMIT]


def fits(folder: Path, vocabulary: int) -> bool:
    """Whether the tokenizer in `folder` is that of an encoder of so many words; False where there is none."""
    try:
        words = count_words(folder)
    except (ModelUnusable, OSError):
        return False
    return SHARE * vocabulary <= words <= vocabulary


def count_words(folder: Path) -> int:
    """Words of the tokenizer in `folder`.

    Raises:
        ModelUnusable: it holds none, or a damaged one.
        OSError: it cannot be read.
    """
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            if path.stat().st_size > MOST_BYTES:
                raise ModelUnusable(f"{path} has {path.stat().st_size} bytes, which no tokenizer needs")
            try:
                data = path.read_bytes()
                return _words_in_json(data) if path.suffix == ".json" else _pieces_in(data)
            except (msgspec.MsgspecError, ValueError, IndexError, RecursionError) as error:
                raise ModelUnusable(f"{path} is no tokenizer ({error}); fetch the tokenizer again") from error
    raise ModelUnusable(f"{folder} has no tokenizer ({' or '.join(TOKENIZER_FILES)})")


def files_of_tokenizer(folder: Path) -> list[Path]:
    """The files in `folder` that a tokenizer is read from."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def copy_tokenizer(folder: Path, target: Path) -> None:
    """Put the tokenizer in `folder` into the folder `target`, which is made.

    Raises:
        OSError: a file cannot be read, or the disk is full.
    """
    target.mkdir()
    for path in files_of_tokenizer(folder):
        shutil.copyfile(path, target / path.name)
    if not (target / "tokenizer_config.json").exists():
        (target / "tokenizer_config.json").write_text(json.dumps(PLAIN_CONFIG, indent=1), "utf-8")


def _words_in_json(data: bytes) -> int:
    vocab = msgspec.json.decode(data, type=_Tokenizer).model.vocab
    return len(msgspec.json.decode(vocab, type=dict[str, int] | list[msgspec.Raw]))


def _pieces_in(data: bytes) -> int:
    """How many pieces a sentencepiece model has: its messages of field 1.

    Source: sentencepiece_model.proto, ModelProto; the wire format of protocol buffers.
    """
    at = pieces = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == 2:
            length, at = _varint(data, at)
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        else:
            at += {1: 8, 5: 4}[kind] if kind in (1, 5) else len(data)
        pieces += field == 1
    if at != len(data):
        raise ValueError("it is cut off")
    return pieces


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _hub_caches() -> list[Path]:
    """The folders of the hub's cache, as its library finds them."""
    found: list[Path] = []
    if named := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        found.append(Path(named))
    if home := os.environ.get("HF_HOME"):
        found.append(Path(home) / "hub")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    found.append(Path(cache) / "huggingface" / "hub")
    return list(dict.fromkeys(found))
