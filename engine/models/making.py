"""A model in the making: its folder, made hidden, beside where it will lie, by one maker at a time.

Whoever looks sees nothing or all of it. What a maker leaves that was killed, the next one of the
same name removes. Also what made models have in common: two files, and whole folders where they
are of one family. Imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from engine.models.card import CARD_FILE, Card
from engine.models.model import MODEL_INDEX
from engine.planning.shapes import BOUNDARY
from engine.wire import ModelKind

SHARED = ("text_encoder", "tokenizer", "vae")
"""Folders that are alike in all models of a family, as in the released ones: on the disk once, they
are one to whoever loads them."""


@contextlib.contextmanager
def only_maker(folder: Path, name: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock of the makers called `name` in `folder`; False where the file system has no locks.

    `on_wait` is called once if another maker has it.
    """
    handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(handle)


@contextlib.contextmanager
def hidden_folder(folder: Path, name: str, *, alone: bool) -> Iterator[Path]:
    """A hidden folder in `folder` that is gone at the end, with all that was not moved out of it.

    With `alone` (the lock is held) those of killed makers called `name` go first.
    """
    prefix = f".{name}-making-"
    for orphan in folder.glob(f"{prefix}*") if alone else ():
        shutil.rmtree(orphan, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    try:
        yield making
    finally:
        shutil.rmtree(making, ignore_errors=True)


def files_in(folder: Path) -> list[str]:
    """Every file in `folder` and below, by its path relative to it."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def link_shared(donor: Path, target: Path, files: Iterable[str]) -> bool:
    """Hard-link those of `files`, relative to `donor`, that lie in the folders in `SHARED` into `target`.

    False where the file system has no links: then none of those folders is there.
    """
    try:
        for name in files:
            if name.split("/")[0] in SHARED:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(donor / name, path)
    except OSError:
        # As too many links, or none on this file system.
        for folder in SHARED:
            shutil.rmtree(target / folder, ignore_errors=True)
        return False
    return True


def write_model_index(folder: Path, kind: ModelKind) -> None:
    """`model_index.json` of a model with our tokenizer, as its pipeline's save_pretrained would write it."""
    transformer = ["diffusers", "WanTransformer3DModel"]
    parts: dict[str, object] = {
        "_class_name": "WanImageToVideoPipeline" if kind == "i2v" else "WanPipeline",
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": transformer,
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    if kind == "i2v":
        parts |= {"transformer_2": transformer, "boundary_ratio": BOUNDARY}
    (folder / MODEL_INDEX).write_text(json.dumps(parts, indent=1, sort_keys=True), "utf-8")


def write_card(folder: Path, card: Card) -> None:
    """The model's card."""
    (folder / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1))
