"""What the nursery imports before it forks workers.

Importing this module is the nursery's whole work and the one import in the project with an
effect: it ties the nursery's life to the daemon's before the long imports begin. Nothing here
may open a driver file or start a thread; `engine.worker.entry.report_imports` looks.
"""

from __future__ import annotations

import gc
import os
import signal

from engine.tether import tether

tether(int(os.environ["_TURBOTUI_PARENT"]), "tt-nursery")
signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c in the terminal of `engine run` is the daemon's

gc.disable()  # of what is imported nothing dies, and the collector takes a sixth of the time

import diffusers  # noqa: E402, F401  # after the tether, as everything below
import imageio  # noqa: E402, F401
import torch  # noqa: E402, F401
import transformers  # noqa: E402, F401

from engine.worker import entry, loop  # noqa: E402, F401

# A million objects that never die: left to the collector, each worker would walk them again and
# again, and copy every page that they lie on (0.2 s for one walk).
gc.collect()
gc.freeze()
gc.enable()
