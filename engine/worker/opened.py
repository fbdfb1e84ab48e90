"""The models that a worker has opened: each once, and anew where its files are others."""

from __future__ import annotations

from pathlib import Path

from engine.errors import NotFound, NotNow
from engine.wire import VaePrecision
from engine.worker.backend import Backend
from engine.worker.channel import ModelFiles
from engine.worker.components import Component, Model, open_model, reopen_changed
from engine.worker.mover import Mover


class OpenedModels:
    """By name, kind and folder. Looking waits for nothing; whoever opens holds the store's lock."""

    def __init__(self, backend: Backend, vae_precision: VaePrecision) -> None:
        self._backend = backend
        self._vae_precision = vae_precision
        self._models: dict[tuple[str, str, str], Model] = {}

    # ----------------------------------------------------------------- looking

    def components(self) -> list[Component]:
        """All of every model."""
        return [item for model in list(self._models.values()) for item in list(model.components.values())]

    def files(self) -> dict[str, list[Path]]:
        """`model/component` to its weight files."""
        return {item.label: [file.path for file in item.index.files] for item in self.components()}

    def find(self, model: str, component: str) -> Component:
        """One that was opened.

        Raises:
            NotFound: it was not.
        """
        for item in self.components():
            if (item.model, item.name) == (model, component):
                return item
        raise NotFound(f"no component {model}/{component} is known to this worker")

    def choose(self, model: str | None, component: str | None) -> list[Component]:
        """Those of this name, of this model, or (both None) all.

        Raises:
            NotFound: nothing of a name that was given was opened.
        """
        chosen = [
            item
            for item in self.components()
            if model in (None, item.model) and component in (None, item.name)
        ]
        if not chosen and (model or component):
            known = ", ".join(item.label for item in self.components()) or "none"
            asked = "/".join(part for part in (model, component) if part)
            raise NotFound(f"nothing called {asked} was loaded by this worker; it knows {known}")
        return chosen

    # ----------------------------------------------------------------- opening

    def open(self, files: ModelFiles, mover: Mover) -> Model:
        """The model; what changed in its files is read anew unless some of it is leased.

        Raises:
            ModelUnusable: something in its folder is missing or damaged.
            NotNow: a model of its name is in use from another folder.
        """
        key = (files.name, files.kind, files.path)
        model = self._models.get(key)
        if model is None:
            self._forget_namesakes(files, mover)
            model = self._models[key] = open_model(files, self._backend, self._vae_precision)
        elif not any(item.leases for item in model.components.values()):
            for name, component in reopen_changed(model, self._backend, self._vae_precision).items():
                old = model.components[name]
                if old.arena.attached:
                    mover.unload(old, reason="its files were replaced")
                model.components[name] = component
        return model

    def _forget_namesakes(self, files: ModelFiles, mover: Mover) -> None:
        """A model that moved to another folder: its old self must not stay resident under its name."""
        for key, model in list(self._models.items()):
            if model.name == files.name:
                if any(item.leases for item in model.components.values()):
                    raise NotNow(f"{files.name} is in use from {model.files.path}; wait for that job to end")
                for item in model.components.values():
                    if item.arena.attached:
                        mover.unload(item, reason="its folder changed")
                del self._models[key]
