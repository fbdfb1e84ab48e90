"""Which weight files the worker holds in host memory, as it last said."""

from __future__ import annotations

from engine.worker.channel import WarmChanged


class WarmFiles:
    """The daemon's copy: it is empty as soon as the worker ends. Event loop's thread only."""

    def __init__(self) -> None:
        self._told: WarmChanged | None = None

    def heard(self, told: WarmChanged) -> None:
        self._told = told

    def clear(self) -> None:
        """The worker is gone, and with it all that it held."""
        self._told = None

    @property
    def registered_bytes(self) -> int | None:
        """Of all files, each counted once; None without a worker that tells."""
        return None if self._told is None else self._told.total_bytes

    @property
    def rate(self) -> float | None:
        """Bytes a second at which they are registered."""
        return None if self._told is None else self._told.rate

    @property
    def refusal(self) -> str | None:
        """Why none can be."""
        return None if self._told is None else self._told.refusal

    def of_model(self, model: str) -> dict[str, int] | None:
        """Registered bytes by component of `model`; None where nothing can be known of it."""
        if self._told is None or self._told.refusal is not None:
            return None
        found = ((*label.rpartition("/")[::2], size) for label, size in self._told.warm.items())
        return {component: size for name, component, size in found if name == model}
