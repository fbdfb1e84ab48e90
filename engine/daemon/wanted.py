"""What a worker is told of a model: where its files are, and which of its components are meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """What is to come back on a worker that has never seen it."""

    wanted: tuple[Wanted, ...]
    lost: tuple[str, ...] = ()
    """Of models that cannot be opened any more: their names, each with the reason."""

    @property
    def names(self) -> str:
        """The models that come back, in words."""
        return ", ".join(dict.fromkeys(item.model.name for item in self.wanted))


NOTHING = Resident(wanted=())


def resident_now(residents: Residents, find: Callable[[str], Model]) -> Resident:
    """What is on the device or on its way."""
    found: list[Wanted] = []
    lost: dict[str, str] = {}
    for name, component in residents.present():
        try:
            model = find(name)
        except NotFound:
            lost[name] = f"{name}: its folder is gone"
            continue
        if model.problem is not None:
            lost[name] = f"{name}: {model.problem}"
        else:
            found.append(Wanted(model=files_of(model), component=component))
    return Resident(wanted=tuple(found), lost=tuple(lost.values()))
