"""The net of each denoising step: leased when its step comes, and the experts' change of places.

Where the next step's net is the other expert and has no memory of its own, it takes this one's
bytes under the pass. A fault in that pass leaves a mixture that nothing may compute with: both
go, the step's net is loaded anew, and the step is made again from the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import Tensor

from engine.errors import DeviceFault, EngineError, JobCancelled
from engine.worker.components import Model
from engine.worker.faults import forget
from engine.worker.store import ComponentStore


class NetByStep:
    """Runs each step's forward on its net. Used by the thread that computes."""

    def __init__(
        self,
        store: ComponentStore,
        model: Model,
        nets: Sequence[str],
        lease: Callable[[str], AbstractContextManager[dict[str, Any]]],
        *,
        job_id: int | None,
    ) -> None:
        """`lease(name)` leases one net for as long as its block runs."""
        self._store = store
        self._model = model
        self._nets = nets
        self._lease = lease
        self._job_id = job_id
        self._leased: str | None = None
        self._net: Any = None
        self._stack = ExitStack()
        self._swapped = False
        """Whether the leased net came, or should have come, by a swap: its weights may fail late."""
        self._may_swap = True

    def run(self, step: int, forward: Callable[[Any], Tensor], *, last: bool = True) -> Tensor:
        """`forward(net)` with the net of `step`; once more with a net loaded anew after a failed swap.

        Without `last` another pass of the step follows, which needs the same weights: none swaps out.

        Raises:
            whatever `forward` or a load raises, but for the first fault around a swap.
        """
        failure: Exception | None = None
        try:
            return self._run(step, forward, last)
        except Exception as error:  # anything may have met the mixture, the device's refusal included
            if not self._swapped or isinstance(error, JobCancelled | DeviceFault):
                raise
            failure = error
        # Outside the except block: the frames that the error holds keep the pass's tensors.
        forget(failure)
        del failure
        self._start_over()
        return self._run(step, forward, last)

    def __enter__(self) -> NetByStep:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._leased, self._net = None, None
        self._stack.__exit__(*raised)

    def _run(self, step: int, forward: Callable[[Any], Tensor], last: bool) -> Tensor:
        name, following = self._nets[step], self._nets[min(step + 1, len(self._nets) - 1)]
        if name != self._leased:
            self._open(name)
        swap = None
        if last and following != name and self._may_swap:
            swap = self._store.begin_swap(self._model, name, following, job_id=self._job_id)
        if swap is None:
            return forward(self._net)
        self._swapped = True
        try:
            result = forward(self._net)
        except BaseException:
            self._store.end_swap(swap, finished=False)
            raise
        with self._store.hold(self._model, following):  # nothing may take it for idle before its step
            self._store.end_swap(swap, finished=True)
            self._open(following)
        return result

    def _open(self, name: str) -> None:
        self._close()
        self._net = self._stack.enter_context(self._lease(name))[name]
        self._leased = name

    def _close(self) -> None:
        self._leased, self._net = None, None
        self._stack.close()
        self._stack = ExitStack()

    def _start_over(self) -> None:
        """Nothing of either expert stays; both are loaded whole from here on."""
        self._may_swap = self._swapped = False
        try:
            self._close()
        except EngineError:  # the ledger's last look at a pass that failed
            self._stack = ExitStack()
        for name in dict.fromkeys(self._nets):
            self._store.drop(self._model, name)
