"""Which of the found DiTs are the model's: one, or the two experts; what goes not together is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidRequest
from engine.models.folders import DIT, DIT_HIGH, DIT_LOW
from engine.models.importing.identify import Expert, Found
from engine.models.importing.mapping import Mapped, map_weights
from engine.models.importing.weights import read_weights
from engine.models.layout import NOT_DISTILLED
from engine.models.weight_file import open_weight_file

COMPARED_TENSORS = 64
COMPARED_BYTES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Dit:
    """One DiT that was given."""

    found: Found
    role: Expert | None
    """What it was given as with --high or --low."""


def choose_dits(
    dits: Sequence[Dit], *, force: bool, undistilled: bool
) -> tuple[dict[str, tuple[Found, Mapped]], list[Found]]:
    """The DiT of each component, and those that are left out.

    A DiT that is not distilled is left out beside one that is. `undistilled` takes it all the same,
    `force` believes --high and --low against the files' names.

    Raises:
        InvalidRequest: there is none, too many or the wrong ones.
        ModelUnusable: a tensor of one is missing or wrong, see `map_weights`.
    """
    distilled = [dit for dit in dits if dit.found.distilled]
    chosen = distilled or list(dits)
    left = [dit.found for dit in dits if dit not in chosen]
    if not chosen:
        raise InvalidRequest(
            "there is no DiT in what was given, only parts of a model; give a TurboWan checkpoint too"
        )
    if not distilled and not undistilled:
        raise InvalidRequest(
            f"{chosen[0].found.path} cannot be imported as a model: {NOT_DISTILLED}; --undistilled imports "
            "it all the same"
        )
    kinds = {dit.found.model_kind for dit in chosen}
    if len(kinds) > 1:
        told = " and ".join(f"{dit.found.path} ({dit.found.title})" for dit in chosen)
        raise InvalidRequest(f"{told} belong to different models; import them one after the other")
    roles = _one(chosen) if kinds == {"t2v"} else _two(chosen, force=force)
    mapped = {
        name: (found, map_weights("dit", found.path, read_weights(found.files)))
        for name, found in roles.items()
    }
    _check_pair(mapped)
    return mapped, left


def _one(dits: Sequence[Dit]) -> dict[str, Found]:
    given = next((dit for dit in dits if dit.role is not None), None)
    if given is not None:
        raise InvalidRequest(
            f"{given.found.path} is a text-to-video DiT, which has no experts; give it without --{given.role}"
        )
    if len(dits) > 1:
        raise InvalidRequest(f"{_listed(dits)} are DiTs of a model each; import them one after the other")
    return {DIT: dits[0].found}


def _two(dits: Sequence[Dit], *, force: bool) -> dict[str, Found]:
    by_role: dict[Expert, list[Dit]] = {"high": [], "low": []}
    untold: list[Dit] = []
    for dit in dits:
        if dit.role is not None and dit.found.expert not in (None, dit.role) and not force:
            raise InvalidRequest(
                f"{dit.found.path} was given as --{dit.role}, and its name says that it is the "
                f"{dit.found.expert}-noise expert; swap them, or add --force if the name is wrong"
            )
        role = dit.role or dit.found.expert
        if role is None:
            untold.append(dit)
        else:
            by_role[role].append(dit)
    if untold:
        raise InvalidRequest(
            f"nothing says which expert {untold[0].found.path} is; give it as --high or as --low"
        )
    for role, found in by_role.items():
        if len(found) > 1:
            raise InvalidRequest(
                f"{_listed(found)} are all {role}-noise experts; give one as --high and one as --low"
            )
    others: dict[Expert, Expert] = {"high": "low", "low": "high"}
    for role, other in others.items():
        if not by_role[role]:
            raise InvalidRequest(
                f"{by_role[other][0].found.path} is the {other}-noise expert of a model of two; give the "
                f"{role}-noise one too"
            )
    return {DIT_HIGH: by_role["high"][0].found, DIT_LOW: by_role["low"][0].found}


def _check_pair(dits: Mapping[str, tuple[Found, Mapped]]) -> None:
    if len(dits) < 2:
        return
    (high, one), (low, two) = dits[DIT_HIGH], dits[DIT_LOW]
    if high.quantised != low.quantised:
        quantised, other = (high, low) if high.quantised else (low, high)
        raise InvalidRequest(
            f"{quantised.path} is quantised and {other.path} is not; both experts must be stored alike"
        )
    if one.net != two.net:
        raise InvalidRequest(
            f"{high.path} ({high.title}) and {low.path} ({low.title}) are no experts of one model: their "
            "sizes differ"
        )
    if fingerprint(one) == fingerprint(two):
        raise InvalidRequest(
            f"{high.path} and {low.path} hold the same weights, so one expert was given twice; give the "
            "other one too"
        )


def fingerprint(mapped: Mapped) -> str:
    """Of bytes here and there in the weights, by name: equal for the same net in files of different formats.

    Raises:
        ModelUnusable: a file cannot be read.
    """
    names = sorted(mapped.tensors)
    digest = hashlib.sha256()
    sampled: dict[Path, list[str]] = {}
    for name in names[:: max(1, len(names) // COMPARED_TENSORS)]:
        sampled.setdefault(mapped.tensors[name].source.path, []).append(name)
    parts: dict[str, bytes] = {}
    for path, chosen in sampled.items():
        with open_weight_file(path) as file:
            for name in chosen:
                entry = mapped.tensors[name].entry
                parts[name] = file.read(entry.begin, min(COMPARED_BYTES, entry.bytes))
    for name in sorted(parts):
        digest.update(name.encode() + parts[name])
    return digest.hexdigest()


def _listed(dits: Sequence[Dit]) -> str:
    return " and ".join(str(dit.found.path) for dit in dits)
