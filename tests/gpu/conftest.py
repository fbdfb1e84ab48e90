"""The GPU tests run wherever a driver answers, and say why they do not elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.wire import Status
from tests.daemon.live import LiveEngine, wait_for

HOLDER = """
import ctypes, signal, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
cuda = ctypes.CDLL("libcuda.so.1")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(2**30)) == 0
print("holds", flush=True)
time.sleep(120)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    present = Path("/dev/nvidia0").exists()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not present:
                item.add_marker(pytest.mark.skip(reason="no NVIDIA device file on this host"))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """A running engine on the emptiest GPU, with the demo models made."""
    engine = LiveEngine(tmp_path_factory.mktemp("engine"), TURBOTUI_ENGINE_DEVICE="auto")
    engine.start()
    try:
        engine.client.make_demo_models()
        wait_for(lambda: engine.status().engine.nursery.state == "ready", 90, "the nursery")
        yield engine
    finally:
        engine.close()


@pytest.fixture
def status(live: LiveEngine) -> Status:
    return live.status()


@pytest.fixture
def holder() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that holds 1 GiB of the first GPU; ends it afterwards, whatever happened."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLDER, kind], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline().strip() == "holds"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
