"""What holds for every test, whichever folder it is in."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from engine.daemon import reset_helper, reset_program

NO_RESET = Path(__file__).parent / "stand_ins/no_reset.sh"

# No test may reach the program that resets a GPU. The variable reaches every engine that a test starts,
# the rest this process; there is no way back to the real one but to name its path.
os.environ["TURBOTUI_ENGINE_RESET_PROGRAM"] = str(NO_RESET)
reset_program.PLACES = ()
reset_program.SUDO = "/nonexistent/sudo"
reset_helper.HELPER = Path("/nonexistent/turbotui-gpu-reset")

# Two suites share the cores: threads of one product that wait for each other's take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if not Path("/dev/nvidiactl").exists():
    # Triton looks at this as it is imported, whoever does so first; with a GPU kernels are compiled.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_sessionstart() -> None:
    """Nothing that is loaded dies before the end, and the collector takes half of the time of loading it."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()
