"""Which switches and reloads a person asked to give up."""

from __future__ import annotations

from engine.errors import JobCancelled


class Cancels:
    """Asked by the thread that listens, looked at by the one that moves weights. Never waits."""

    def __init__(self) -> None:
        self._asked: set[int] = set()

    def ask(self, action_id: int) -> None:
        """Give up `action_id`, which may not have begun yet; harmless when it has ended."""
        self._asked.add(action_id)

    def check(self, action_id: int) -> None:
        """Raises: JobCancelled: it was asked to be given up."""
        if action_id in self._asked:
            raise JobCancelled("cancelled")

    def ended(self, action_id: int) -> None:
        """Forget what was asked of it and, since they end in their order, of those before it."""
        self._asked -= {asked for asked in tuple(self._asked) if asked <= action_id}
