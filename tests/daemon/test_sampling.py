"""Memory read faster on request, and the host's share of it, from a real engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.wire import SamplingRequest
from tests.daemon.live import LiveEngine, wait_for


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    engine = LiveEngine(Path(tmp_path_factory.mktemp("engine")))
    engine.start()
    yield engine
    engine.close()


def _taken(live: LiveEngine, seconds: float) -> set[float]:
    """When the balances were taken that can be seen in so many seconds."""
    taken, ends = set(), time.monotonic() + seconds
    while time.monotonic() < ends:
        taken |= {device.balance.taken_at for device in live.status().devices if device.balance is not None}
    return taken


def test_a_benchmark_gets_more_samples_for_as_long_as_it_asked(live: LiveEngine) -> None:
    wait_for(lambda: live.status().devices, 10, "the first reading")
    live.client.sample(SamplingRequest(hz=100, seconds=60))
    assert len(_taken(live, 1.0)) > 25
    live.client.sample(SamplingRequest(hz=100, seconds=0))
    assert len(_taken(live, 1.0)) < 15
    with pytest.raises(EngineError, match="hz is 1 to 500"):
        live.client.sample(SamplingRequest(hz=5000, seconds=1))


def test_a_killed_probe_leaves_a_gap_and_another_takes_over(live: LiveEngine) -> None:
    host = wait_for(lambda: live.status().host, 10, "the first reading of the host")
    assert 0 < host.available_bytes <= host.total_bytes and host.ours_rss_bytes > 0 and host.age_s < 2
    probe = wait_for(lambda: _probe(live), 5, "the probe among our processes")
    os.kill(probe, signal.SIGKILL)  # our own engine's
    oldest = wait_for(lambda: (age := _age(live)) > 0.3 and age, 5, "a gap that shows as age")
    assert oldest > 0.3
    wait_for(lambda: _age(live) < 0.3, 10, "a reading by the next probe")
    assert wait_for(lambda: _probe(live), 5, "the next probe among our processes") != probe
    columns = live.client.history("cpu", seconds=5, columns=25).columns
    assert any(column.samples == 0 for column in columns), "the gap is a gap"


def _probe(live: LiveEngine) -> int | None:
    processes = live.status().devices[0].processes
    return next((process.pid for process in processes if process.ours == "probe"), None)


def _age(live: LiveEngine) -> float:
    return live.status().devices[0].age_s or 0.0
