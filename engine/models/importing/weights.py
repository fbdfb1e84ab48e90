"""The tensors of one or more weight files by their bare names: what wrappers added in front is taken off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from engine.errors import ModelUnusable
from engine.models.dtypes import DTYPES
from engine.models.index import PTH_TABLES, TABLES, read_index, read_table
from engine.models.pth import PTH_ENDINGS
from engine.models.weight_file import FETCH_AGAIN, FileIndex, TensorEntry

WEIGHT_ENDINGS = (".safetensors", *PTH_ENDINGS)
PREFIXES = re.compile(r"(?:net\.|model\.diffusion_model\.|diffusion_model\.|module\.)+")
"""What trainers and other tools put before a net's own names."""
INFIXES = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""What torch's wrappers put into them."""
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.[a-z]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceTensor:
    """One tensor, where it lies and what its file calls it."""

    name: str
    """As the file has it."""
    path: Path
    entry: TensorEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The tensors of one net."""

    files: tuple[FileIndex, ...]
    """In the order of their names."""
    tensors: Mapping[str, SourceTensor]
    """By bare name."""

    @property
    def bytes(self) -> int:
        """Of all tensors, tied ones once."""
        return sum(file.weights_bytes for file in self.files)

    @property
    def dtype(self) -> str:
        """The number format of most of the bytes, as headers spell it."""
        share: dict[str, int] = {}
        for tensor in self.tensors.values():
            share[tensor.entry.dtype] = share.get(tensor.entry.dtype, 0) + tensor.entry.bytes
        return max(share, key=lambda dtype: share[dtype])

    @property
    def dtype_name(self) -> str:
        """The same as torch spells it."""
        return DTYPES[self.dtype].name

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Of the tensor called `name`; None where there is none."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.entry.shape


def read_weights(paths: Iterable[Path]) -> Weights:
    """The tensors of the files at `paths`, which belong to one net; reads their headers.

    Raises:
        ModelUnusable: as `read_index`, or two tensors have one name.
    """
    files = tuple(read_index(path) for path in sorted(paths))
    tensors: dict[str, SourceTensor] = {}
    for file in files:
        for name, entry in file.tensors.items():
            bare = bare_name(name)
            if bare in tensors:
                there = tensors[bare]
                raise ModelUnusable(
                    f"{file.path} holds {name!r}, which is {there.name!r} of {there.path.name} once more; "
                    f"{FETCH_AGAIN}"
                )
            tensors[bare] = SourceTensor(name=name, path=file.path, entry=entry)
    return Weights(files=files, tensors=MappingProxyType(tensors))


def bare_name(name: str) -> str:
    """`name` without what wrappers put before and into it."""
    for infix in INFIXES:
        name = name.replace(infix, "")
    return PREFIXES.sub("", name, count=1) if PREFIXES.match(name) else name


def groups_in(folder: Path) -> Iterator[tuple[Path, ...]]:
    """The weight files in `folder`, those of one net together: shards by their table or their names.

    A shard that is missing is named with the others; reading them says so.

    Raises:
        OSError: the folder cannot be listed.
    """
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    left = [name for name in names if name.endswith(WEIGHT_ENDINGS)]
    for table in (name for name in names if name.endswith((TABLES, PTH_TABLES))):
        try:
            shards, _ = read_table(folder / table)
        except ModelUnusable:
            continue  # what it names goes by the names of the shards
        if any(name in left for name in shards):
            left = [name for name in left if name not in shards]
            yield tuple(folder / name for name in shards)
    sharded: dict[tuple[str, int, str], None] = {}
    for name in left:
        found = SHARD.fullmatch(name)
        if found is None or not int(found["count"]):
            yield (folder / name,)
        else:
            sharded[found["stem"], int(found["count"]), found["ending"]] = None
    for stem, count, ending in sharded:
        yield tuple(folder / f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in range(1, count + 1))
