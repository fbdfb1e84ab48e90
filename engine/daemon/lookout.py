"""What nobody announces is looked at once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from engine.daemon.logbook import LogBook

LOOK_S = 1.0


class Lookout:
    """Calls each look in turn, for as long as the engine runs. Event loop's thread only."""

    def __init__(self, looks: Sequence[Callable[[], None]], logbook: LogBook) -> None:
        self._looks = looks
        self._logbook = logbook

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """A look that fails is said to, and neither the last one nor the end of the others."""
        for look in self._looks:
            try:
                look()
            except Exception as error:  # whatever it was: the next look comes all the same
                text = f"looking around: {type(error).__name__}: {error}"
                self._logbook.write("bug", text, level="error")
