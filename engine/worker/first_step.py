"""When a job's first step begins to compute, as the device sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from engine.worker.backend import Backend


def note_first_step(net: Any, backend: Backend, note: Callable[[float], None]) -> None:
    """Call `note` with the wall clock when the device comes to the first block, whose weights may travel."""

    def reached(module: Any, args: Any) -> None:
        hook.remove()
        mark = backend.mark_compute()

        def wait() -> None:
            mark.wait()
            note(time.time())

        threading.Thread(target=wait, name="first-step", daemon=True).start()

    # After the arena's own hook, which waits for the block.
    hook = net.blocks[0].register_forward_pre_hook(reached)
