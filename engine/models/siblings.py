"""Which models are one and the same but for their numbers: a model and its int8 sibling.

A sibling says in its card what it was made of; of released models that come quantised, the one that is
called as the other and `-quant` is it. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from engine.models.configs import Configs
from engine.models.model import Model

RELEASED_ENDING = "-quant"
"""What the released quantised models add to the name of the others."""
MADE_ENDING = "-int8"
"""What `turbotui quantize` adds."""


def is_int8(model: Model) -> bool:
    """Whether the linear layers of its DiTs are int8 blocks."""
    return model.configs is not None and model.configs.dit.int8


def weights_digest(model: Model) -> str:
    """Of the weights of its DiTs, wherever they lie and whatever the model is called."""
    digest = hashlib.sha256()
    for component in model.components:
        if component.name.startswith("dit"):
            digest.update(f"{component.name} {component.identity}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def int8_siblings(model: Model, models: Iterable[Model]) -> list[Model]:
    """The usable models among `models` that are `model` with int8 weights, the best one first."""
    if model.configs is None or is_int8(model):
        return []
    return sorted(
        (other for other in models if _is_of(other, model)),
        key=lambda other: (other.card.quantised_from is None, other.name),
    )


def originals(model: Model, models: Iterable[Model]) -> list[Model]:
    """The usable models among `models` of which `model`, an int8 one, is the sibling."""
    if not is_int8(model):
        return []
    found = [other for other in models if not is_int8(other) and _is_of(model, other)]
    return sorted(found, key=lambda other: (other.name != model.card.quantised_from, other.name))


def other_of(model: Model, models: Iterable[Model]) -> Model | None:
    """The other one of a model and its int8 sibling, where both are there."""
    models = list(models)
    return next(iter(originals(model, models) or int8_siblings(model, models)), None)


def _is_of(quantised: Model, original: Model) -> bool:
    """Whether `quantised` is the int8 sibling of `original`."""
    if quantised.configs is None or original.configs is None or not is_int8(quantised):
        return False
    if quantised.kind != original.kind or not _same_nets(quantised.configs, original.configs):
        return False
    card = quantised.card
    if card.quantised_weights is not None:
        return card.quantised_weights == weights_digest(original)
    if card.quantised_from is not None:
        return card.quantised_from == original.name
    return quantised.name.lower() == f"{original.name}{RELEASED_ENDING}".lower()


def _same_nets(one: Configs, other: Configs) -> bool:
    return msgspec.structs.replace(one.dit, quantization_config=None) == msgspec.structs.replace(
        other.dit, quantization_config=None
    )
