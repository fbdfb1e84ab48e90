"""The released models by name: which files of which repositories each needs.

Source: the repositories that TurboDiffusion's own documentation names. Sizes are those of the tensors,
by the shapes of the nets; files are a little larger.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from engine.errors import NotFound
from engine.models.folders import DIT, DIT_HIGH, DIT_LOW, TEXT, TOKENIZER, VAE
from engine.wire import ModelKind

SHARED_REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B"
"""Has the encoder, the VAE (of Wan2.1 and Wan2.2 alike) and the tokenizer of all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedFile:
    """A file that a model needs."""

    role: str
    repository: str
    path: str
    about_bytes: int
    optional: bool = False
    """Whether a model runs without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """A model as its authors released it."""

    name: str
    kind: ModelKind
    int8: bool
    repository: str
    files: tuple[ReleasedFile, ...]

    @property
    def about_bytes(self) -> int:
        return sum(file.about_bytes for file in self.files)


SHARED = (
    ReleasedFile(
        role=TEXT,
        repository=SHARED_REPOSITORY,
        path="models_t5_umt5-xxl-enc-bf16.pth",
        about_bytes=11_361_820_672,
    ),
    ReleasedFile(role=VAE, repository=SHARED_REPOSITORY, path="Wan2.1_VAE.pth", about_bytes=507_570_124),
    *(
        ReleasedFile(
            role=TOKENIZER,
            repository=SHARED_REPOSITORY,
            path=f"google/umt5-xxl/{name}",
            about_bytes=size,
            optional=name != "tokenizer.json",
        )
        for name, size in (
            ("tokenizer.json", 16_800_000),
            ("spiece.model", 4_500_000),
            ("tokenizer_config.json", 62_000),
            ("special_tokens_map.json", 7_000),
        )
    ),
)
SHARED_BYTES = sum(file.about_bytes for file in SHARED)


def _released(repository: str, size: str, dit_bytes: int, *, int8: bool) -> Released:
    quant = "-quant" if int8 else ""
    if size == "A14B":
        stem, pixels = repository.rsplit("-", 1)
        dits = {DIT_HIGH: f"{stem}-high-{pixels}{quant}.pth", DIT_LOW: f"{stem}-low-{pixels}{quant}.pth"}
    else:
        dits = {DIT: f"{repository}{quant}.pth"}
    whole = f"TurboDiffusion/{repository}"
    files = [
        ReleasedFile(role=role, repository=whole, path=path, about_bytes=dit_bytes)
        for role, path in dits.items()
    ]
    return Released(
        name=f"{repository}{quant}",
        kind="i2v" if size == "A14B" else "t2v",
        int8=int8,
        repository=whole,
        files=(*files, *SHARED),
    )


RELEASED = tuple(
    _released(repository, size, quant_bytes if int8 else plain_bytes, int8=int8)
    for repository, size, plain_bytes, quant_bytes in (
        ("TurboWan2.1-T2V-1.3B-480P", "1.3B", 2_839_537_280, 1_447_892_480),
        ("TurboWan2.1-T2V-14B-480P", "14B", 28_580_761_728, 14_533_273_728),
        ("TurboWan2.1-T2V-14B-720P", "14B", 28_580_761_728, 14_533_273_728),
        ("TurboWan2.2-I2V-A14B-720P", "A14B", 28_581_580_928, 14_534_092_928),
    )
    for int8 in (False, True)
)


def find_released(name: str) -> Released:
    """The one called `name`, in any case, with or without its organisation.

    Raises:
        NotFound: there is none; names the likeliest, and how to list them.
    """
    wanted = name.rpartition("/")[2].casefold()
    for model in RELEASED:
        if model.name.casefold() == wanted:
            return model
    names = {model.name.casefold(): model.name for model in RELEASED}
    close = difflib.get_close_matches(wanted[:80], names, n=1, cutoff=0.4)
    likeliest = names[close[0]] if close else RELEASED[0].name
    raise NotFound(
        f"no released model is called {name[:80]!r}; did you mean {likeliest}? "
        "`turbotui models get` lists them all"
    )
