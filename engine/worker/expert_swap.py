"""The experts of one model change places in the same bytes, block by block, under a forward pass.

As the last high-noise step leaves a block, the low-noise expert's block streams into its bytes
behind an event of the device; what lies outside the blocks follows when the pass has ended. So
the change costs the memory of one expert and almost no time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from engine.errors import EngineError, JobCancelled
from engine.worker.components import Component
from engine.worker.loading import Loading, Vacancy
from engine.worker.mover import Mover


class ExpertSwap:
    """One change of experts under way; ended by `finish` or `abort`. The caller holds the leases."""

    def __init__(self, outgoing: Component, incoming: Component, mover: Mover, *, job_id: int | None) -> None:
        """`outgoing` is resident; both have the same layout."""
        self.outgoing = outgoing
        self.incoming = incoming
        self._mover = mover
        self._job_id = job_id
        self._left: set[int] = set()
        self._vacancies = [Vacancy() for _ in outgoing.arena.layout.segments]
        self._pass_ended: float | None = None
        self._loading = incoming.begin_load_into(
            outgoing, self._vacancies, mover.backend, mover.warm, mover.clock(), self._ended
        )
        self._hooks: list[RemovableHandle] = [
            block.register_forward_hook(self._leaving(segment)) for segment, block in _blocks(outgoing)
        ]
        mover.announce(incoming, state="loading")
        mover.carrier.carry(self._loading)

    def finish(self) -> None:
        """The pass has ended: what is left of the outgoing expert goes too, and it is absent."""
        self._remove_hooks()
        for segment in range(len(self._vacancies)):
            self._leave(segment)
        self._pass_ended = self._mover.clock()
        self.outgoing.arena.hand_over(self.incoming.arena)
        self.outgoing.loading = None
        self._mover.recount()
        self._mover.announce(self.outgoing)
        self._mover.announce(self.incoming)

    def abort(self) -> None:
        """Give up: both experts are absent and the bytes are free."""
        self._remove_hooks()
        self._loading.cancel()
        self._mover.backend.synchronize()
        # The region is the outgoing one's; the other only has views in it.
        self.incoming.arena.detach()
        self.incoming.loading = None
        self._mover.drop(self.outgoing)
        self._mover.recount()
        self._mover.announce(self.incoming)

    def _leaving(self, segment: int) -> Callable[[nn.Module, Any, Any], None]:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._leave(segment)

        return leave

    def _leave(self, segment: int) -> None:
        """What was queued so far is the last that reads this segment as it is."""
        if segment not in self._left:
            self._left.add(segment)
            gate = self.incoming.arena.take_segment(segment)
            self._vacancies[segment].leave(self._mover.backend.mark_compute(), gate)

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _ended(self, loading: Loading) -> None:
        """On the carrier's thread: all blocks have arrived, or none will."""
        mover, incoming = self._mover, self.incoming
        failure: EngineError | None = loading.failure
        if isinstance(failure, JobCancelled):
            return
        took = mover.clock() - loading.began
        after = f", {self._leftover_s() * 1e3:.0f} ms after it" if self._pass_ended is not None else ""
        mover.tell(
            "swap",
            incoming.label,
            loading.began,
            error=failure,
            loaded_bytes=0 if failure is not None else incoming.bytes,
            steps=((f"in place of {self.outgoing.name}, under its last step{after}", incoming.bytes, took),),
            job_id=self._job_id,
        )
        if failure is None:
            mover.announce(incoming)

    def _leftover_s(self) -> float:
        return max(0.0, self._mover.clock() - (self._pass_ended or 0.0))


def _blocks(component: Component) -> list[tuple[int, nn.Module]]:
    """The modules of the component's segments, but for what lies outside the blocks."""
    parts = dict(component.module.named_modules())
    return [(segment, parts[name]) for segment, name in enumerate(component.arena.layout.segments) if name]
