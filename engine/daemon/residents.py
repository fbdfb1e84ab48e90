"""Which components are resident, as the worker last said, and how fast loads have been.

The daemon's copy of the truth: the worker owns the weights, this table is for showing and for
deciding. It empties itself when the worker ends, since the kernel gives everything back then.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.worker.channel import ComponentChanged

_SMOOTHING = 0.5
"""Weight of the newest load in the expected rate: few loads happen, and the newest knows best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Measured bytes per second of loads on this device."""

    bytes_per_s: float

    def seconds(self, num_bytes: int) -> float:
        return num_bytes / self.bytes_per_s


class Residents:
    """Component states by (model, component)."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], ComponentChanged] = {}
        self.rate: Rate | None = None

    def heard(self, change: ComponentChanged) -> None:
        key = (change.model, change.component)
        if change.state == "absent":
            self._states.pop(key, None)
        else:
            self._states[key] = change
        if change.state == "resident" and change.load_s:
            measured = change.bytes / change.load_s
            old = self.rate.bytes_per_s if self.rate else measured
            self.rate = Rate(bytes_per_s=old + _SMOOTHING * (measured - old))

    def clear(self) -> None:
        """The worker is gone, and with it all that it held."""
        self._states.clear()

    def of_model(self, model: str) -> dict[str, ComponentChanged]:
        """Present components of `model` by name."""
        return {component: state for (name, component), state in self._states.items() if name == model}

    def present(self) -> list[tuple[str, str]]:
        """(model, component) of all that is resident or on its way, in the order in which it came."""
        return list(self._states)

    def resident(self) -> list[ComponentChanged]:
        """All whose weights are there."""
        return [state for state in self._states.values() if state.state == "resident"]

    def resident_bytes(self, model: str | None = None, component: str | None = None) -> int:
        """Bytes that unloading this component, this model or (both None) everything would return now."""
        return sum(
            state.bytes
            for (name, part), state in self._states.items()
            if state.state == "resident"
            and not state.leased
            and model in (None, name)
            and component in (None, part)
        )
