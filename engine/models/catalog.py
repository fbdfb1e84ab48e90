"""The models below one folder, found again cheaply whenever somebody asks.

A folder in diffusers layout is a model; those of the demo models lie one level deeper. A folder
that did not change is not read again, and a damaged one is a model with a problem, never an
exception.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from engine.errors import NotFound
from engine.models.demo_files import DEMO_FOLDER, DEMO_MODELS, are_demo_models_complete, demo_folder
from engine.models.in_place import stamps_in_place
from engine.models.layout import NOT_DISTILLED
from engine.models.model import Model, printable, read_model
from engine.wire import ComponentState, ComponentStatus, ModelStatus, VaePrecision

SCAN_LIMIT = 4096
"""Entries of one folder that a scan looks at."""

Fingerprint: TypeAlias = tuple[tuple[str, int, int, int], ...]


class ComponentPresence(Protocol):
    """What the worker last said of a component."""

    @property
    def bytes(self) -> int: ...
    @property
    def state(self) -> ComponentState: ...
    @property
    def leased(self) -> bool: ...


class LoadRate(Protocol):
    """How fast loads have been."""

    def seconds(self, num_bytes: int, /) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What a look at the disk found."""

    known: Mapping[Path, tuple[Fingerprint, Model]]
    models: tuple[Model, ...]


class Catalog:
    """The models below one folder. Owned by one thread, but for `scan`, which any may call."""

    def __init__(self, models_dir: Path, vae_precision: VaePrecision = "auto") -> None:
        self._dir = models_dir
        self.vae_precision = vae_precision
        """In which VAEs are kept; what was found with another is looked at again at the next scan."""
        self._known: Mapping[Path, tuple[Fingerprint, Model]] = {}
        self._models: tuple[Model, ...] = ()
        self._scanned = False

    @property
    def scanned(self) -> bool:
        """Whether `models` answers without a look at the disk."""
        return self._scanned

    def rescan(self) -> bool:
        """Look at the disk again; True when anything about any model changed."""
        return self.apply(self.scan())

    def scan(self) -> Scan:
        """Look at the disk, for seconds where it is slow or asleep; changes nothing of what others read."""
        before_all = self._known  # replaced as a whole by `apply`, never changed
        precision = self.vae_precision
        known: dict[Path, tuple[Fingerprint, Model]] = {}
        models: dict[str, Model] = {}
        for folder in self._folders():
            fingerprint = ((precision, 0, 0, 0), *_fingerprint(folder))
            before = before_all.get(folder)
            model = before[1] if before and before[0] == fingerprint else read_model(folder, precision)
            known[folder] = (fingerprint, model)
            # The same name twice: the person's own model, which comes first, hides the demo.
            models.setdefault(model.name, model)
        return Scan(known=known, models=tuple(models.values()))

    def apply(self, scan: Scan) -> bool:
        """Take over what a scan found, the scans in the order they began; True when anything changed."""
        changed = not self._scanned or scan.models != self._models
        self._known, self._models, self._scanned = scan.known, scan.models, True
        return changed

    def models(self) -> tuple[Model, ...]:
        """All models by name, those for the demo last; scans on the first call."""
        if not self._scanned:
            self.rescan()
        return self._models

    def get(self, name: str) -> Model:
        """The model called `name`, usable or not.

        Raises:
            NotFound: there is none; lists the ones there are, the likeliest first.
        """
        for model in self.models():
            if model.name == name:
                return model
        names = [model.name for model in self.models()]
        shown = printable(name if len(name) <= 80 else name[:79] + "…")
        if not names:
            raise NotFound(
                f"there is no model {shown!r}, since {printable(self._dir)} holds none yet; "
                "put a model in diffusers layout there, or make the demo models"
            )
        close = difflib.get_close_matches(name[:80], names, n=1)
        hint = f"did you mean {close[0]}? There are" if close else "there are"
        raise NotFound(f"there is no model {shown!r}; {hint} {', '.join(names)}")

    def has_demo_models(self) -> bool:
        """Whether the demo models lie whole on disk, as this build makes them."""
        return are_demo_models_complete(self._dir)

    def status(
        self,
        model: Model,
        states: Mapping[str, ComponentPresence],
        *,
        rate: LoadRate | None,
        warm: Mapping[str, int] | None = None,
        active: bool,
        last_used_at: float | None,
    ) -> ModelStatus:
        """`model` as viewers see it; a component that `states` lacks is absent.

        `warm` are registered bytes by component, where they are known.
        """
        return model_status(model, states, rate=rate, warm=warm, active=active, last_used_at=last_used_at)

    def _folders(self) -> list[Path]:
        own = [folder for folder in _subfolders(self._dir) if folder.name != DEMO_FOLDER]
        order = {name: number for number, name in enumerate(DEMO_MODELS)}
        demo = _subfolders(demo_folder(self._dir))
        return own + sorted(demo, key=lambda folder: order.get(folder.name, len(order)))


def model_status(
    model: Model,
    states: Mapping[str, ComponentPresence],
    *,
    rate: LoadRate | None,
    warm: Mapping[str, int] | None = None,
    active: bool,
    last_used_at: float | None,
) -> ModelStatus:
    """`model` as viewers see it; a component that `states` lacks is absent."""
    components = []
    sizes = {component.name: component.bytes for component in model.components}
    # What lost its files since it was loaded is there all the same.
    sizes |= {name: state.bytes for name, state in states.items() if name not in sizes}
    for name, size in sizes.items():
        present = states.get(name)
        num_bytes = present.bytes if present and present.state == "resident" else size
        components.append(
            ComponentStatus(
                name=name,
                bytes=num_bytes,
                state=present.state if present else "absent",
                leased=bool(present and present.leased),
                warm_bytes=None if warm is None else min(num_bytes, warm.get(name, 0)),
                back_in_s=rate.seconds(num_bytes) if rate else None,
            )
        )
    card = model.card
    return ModelStatus(
        name=model.name,
        kind=model.kind,
        title=card.title,
        demo=card.demo,
        path=printable(model.path),
        dtype=model.dtype,
        bytes=model.bytes,
        active=active,
        problem=model.problem,
        no_jobs=None if model.problem or model.few_steps else NOT_DISTILLED,
        components=tuple(components),
        resolutions=card.table,
        default_resolution=card.default_resolution,
        default_aspect_ratio=card.default_aspect_ratio,
        default_frames=card.default_frames,
        default_steps=card.default_steps,
        max_frames=card.max_frames,
        last_used_at=last_used_at,
        attention=model.attention,
        quantised_from=card.quantised_from,
    )


# --------------------------------------------------------------------------- looking for change


def _subfolders(folder: Path) -> list[Path]:
    """Folders in `folder` by name, hidden ones left out; none when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        return []
    # os.path.isdir is False, not an error, for a link that leads nowhere or to itself.
    return [folder / name for name in names if os.path.isdir(folder / name)]


def _fingerprint(folder: Path) -> Fingerprint:
    """Name, inode, length and time of change of every file of a model, two levels deep, and of those
    elsewhere that it uses."""
    found: list[tuple[str, int, int, int]] = []
    for level in (folder, *_subfolders(folder)):
        try:
            with os.scandir(level) as entries:
                for number, entry in enumerate(entries):
                    if number >= SCAN_LIMIT:
                        break
                    try:
                        # Repositories from a download cache are links: what they lead to counts.
                        info = os.stat(entry.path)
                    except OSError:
                        found.append((entry.path, 0, -1, -1))
                        continue
                    found.append((entry.path, info.st_ino, info.st_size, info.st_mtime_ns))
        except OSError as error:
            found.append((str(level), 0, -1, error.errno or 0))
        found += stamps_in_place(level)
    return tuple(sorted(found))
