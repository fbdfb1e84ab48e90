"""What a worker is told of a model: where its files are, and which of its components are meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.daemon.residents import Residents
from engine.errors import NotFound
from engine.models.model import Model
from engine.worker.channel import ModelFiles, Wanted


def files_of(model: Model) -> ModelFiles:
    """What a worker needs to open `model`."""
    return ModelFiles(name=model.name, kind=model.kind, path=str(model.path))


def wanted_of(model: Model, component: str | None) -> tuple[Wanted, ...]:
    """The components of `model`, or one of them.

    Raises:
        NotFound: it has none of that name.
    """
    names = [item.name for item in model.components]
    if component is not None:
        names = [model.component(component).name]
    return tuple(Wanted(model=files_of(model), component=name) for name in names)


def names_of(wanted: Sequence[Wanted]) -> str:
    """The models that these components are of, in words."""
    return ", ".join(dict.fromkeys(item.model.name for item in wanted))


def resident_now(residents: Residents, find: Callable[[str], Model]) -> tuple[Wanted, ...]:
    """What is on the device or on its way, but for models whose folder has gone from the disk."""
    found = []
    for name, component in residents.present():
        try:
            model = find(name)
        except NotFound:
            continue
        if model.problem is None:
            found.append(Wanted(model=files_of(model), component=component))
    return tuple(found)
