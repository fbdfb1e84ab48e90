"""The weights of a component of a model that is here already, for another model to use where they lie."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from engine.errors import ModelUnusable
from engine.models.importing.weights import SourceTensor, Weights, groups_in, read_weights
from engine.models.in_place import IN_PLACE, read_in_place


def weights_of_component(folder: Path) -> Weights | None:
    """The weights of the component in `folder`, its own or those that its table names; None without any.

    Raises:
        ModelUnusable: they are damaged or gone, or there are several nets.
        OSError: the folder cannot be listed.
    """
    if not folder.is_dir():
        return None
    if (folder / IN_PLACE).is_file():
        found = read_in_place(folder)
        tensors = {
            name: SourceTensor(name=found.sources[name], path=found.file_of[name], entry=entry)
            for name, entry in found.tensors.items()
        }
        return Weights(files=found.files, tensors=MappingProxyType(tensors))
    groups = list(groups_in(folder))
    if len(groups) > 1:
        raise ModelUnusable(f"{folder} holds the weights of {len(groups)} nets where a component has one")
    return read_weights(groups[0]) if groups else None
