"""What all rows of `bench switch` share: the engine, the models, how often, and the usual way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import WorkFailed
from engine.wire import Receipt, ReceiptStep, SwitchRequest, UnloadRequest
from turbotui.bench.baseline import Baseline
from turbotui.bench.drift import device_in_use, unloaded
from turbotui.bench.roles import Cast, Role
from turbotui.bench.rows import Plain, Residency, Row, measured
from turbotui.bench.session import BenchEngine


@dataclass(kw_only=True, slots=True)
class Run:
    """One call of the command."""

    engine: BenchEngine
    cast: Cast
    roles: tuple[Role, ...]
    """Those whose models are there."""
    cycles: int
    rounds: int
    """How often each of the pairs of models is switched."""
    at_random: int
    """Switches after that, from a fixed seed."""
    say: Callable[[str], None]
    baseline: Baseline | None = None
    judged: bool = False
    """Whether the targets of speed bind: real sizes on a GPU."""
    on_gpu: bool = False
    device_id: str = "cpu"

    def look_at_device(self) -> str:
        """Learn which device the engine works on; its name.

        Raises:
            WorkFailed: it works on none.
        """
        device = device_in_use(self.engine.client)
        self.device_id, self.on_gpu = device.id, device.kind == "cuda"
        self.judged = self.on_gpu and not self.cast.demo
        self.engine.pin(device.id)
        return device.name

    # ----------------------------------------------------------------- requests, each timed

    def switch(self, role: Role) -> tuple[float, Receipt]:
        """Seconds from request to receipt, and the receipt.

        Raises:
            WorkFailed: it failed.
        """
        name = self.cast.name(role)
        return _timed(lambda: self.engine.client.switch(SwitchRequest(model=name)))

    def unload(self, role: Role, component: str) -> tuple[float, Receipt]:
        """The same for the unload of one component."""
        request = UnloadRequest(model=self.cast.name(role), component=component)
        return _timed(lambda: self.engine.client.unload(request))

    def timed(self, ask: Callable[[], Receipt]) -> tuple[float, Receipt]:
        """The same for any action."""
        return _timed(ask)

    def plain_once(self) -> None:
        """One run of the usual way, where more are due, with nothing of ours on the device.

        One that fails is told and is the last: our own figures are still worth having.
        """
        if self.baseline is not None and self.baseline.due:
            unloaded(self.engine)
            try:
                self.baseline.run(self.device_id)
            except (WorkFailed, OSError, ValueError) as error:
                self.say(str(error))
                self.baseline.give_up()

    def plain(self, row: str) -> Plain | None:
        return None if self.baseline is None else self.baseline.of(row)

    # ----------------------------------------------------------------- rows

    @contextmanager
    def drift(self) -> Iterator[Drift]:
        """What the worker holds more after the block than before it, everything unloaded both times."""
        before = unloaded(self.engine)
        drift = Drift()
        yield drift
        drift.bytes = unloaded(self.engine).drift_from(before)


@dataclass(kw_only=True, slots=True)
class Drift:
    """Filled in when the block has ended."""

    bytes: int | None = None


@dataclass(kw_only=True, slots=True)
class Series:
    """The runs of one row as they come."""

    name: str
    values: list[float] = field(default_factory=list)
    receipts: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, value: float, receipt: float | None = None) -> None:
        self.values.append(value)
        if receipt is not None:
            self.receipts.append(receipt)

    def note(self, text: str) -> None:
        """Said once, however often it happens."""
        if text not in self.notes:
            self.notes.append(text)

    def row(self, run: Run, *, drift: Drift | None = None, residency: Residency | None = None) -> Row:
        return measured(
            self.name,
            self.values,
            judged=run.judged,
            receipts=self.receipts,
            plain=run.plain(self.name),
            drift_bytes=None if drift is None else drift.bytes,
            residency=residency,
            note="; ".join(self.notes),
        )


def load_step(receipt: Receipt, label: str) -> ReceiptStep:
    """The step of a switch that loaded the component called `label`.

    Raises:
        WorkFailed: it was not loaded.
    """
    for step in receipt.steps:
        if step.name == f"load {label}" and step.bytes:
            return step
    steps = ", ".join(step.name for step in receipt.steps)
    raise WorkFailed(f"the switch to {receipt.target} did not load {label}; its steps: {steps}")


def steps_text(receipt: Receipt) -> str:
    """The steps of an action, each with its seconds and, where bytes moved, their rate."""
    parts = []
    for step in receipt.steps:
        moved = step.name.startswith("load ") and step.bytes and step.elapsed_s
        rate = f" ({(step.bytes or 0) / step.elapsed_s / 1e9:.1f} GB/s)" if moved else ""
        parts.append(f"{step.name} {step.elapsed_s:.3f} s{rate}")
    return f"the last run: {', '.join(parts)}"


def model_folder(run: Run, role: Role) -> Path:
    return Path(run.engine.model(run.cast.name(role)).path)


def _timed(ask: Callable[[], Receipt]) -> tuple[float, Receipt]:
    began = time.perf_counter()
    receipt = ask()
    taken = time.perf_counter() - began
    if not receipt.ok:
        raise WorkFailed(f"{receipt.action} {receipt.target} failed: {receipt.error}")
    return taken, receipt
