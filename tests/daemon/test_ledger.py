"""The memory ledger of a running engine: a line for each kind, and many jobs that leave nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.errors import InvalidRequest
from engine.leaks.trend import FIRST, LEAST_COUNT, NOISE, host_floor
from engine.units import MIB
from engine.wire import CleanupRequest, JobSpec, LedgerLine, SwitchRequest, Trend, UnloadRequest
from tests.daemon.live import LiveEngine
from turbotui.cli import main


@pytest.fixture
def spared(spare: LiveEngine) -> Iterator[LiveEngine]:
    """An engine whose only worker is this test's."""
    spare.start()
    yield spare


def by_kind(engine: LiveEngine, *kinds: str) -> list[LedgerLine]:
    return list(engine.client.ledger(limit=5000, kinds=kinds).lines[::-1])  # type: ignore[arg-type]


def jobs_trend(trends: tuple[Trend, ...], what: str) -> Trend:
    return next(trend for trend in trends if (trend.what, trend.over) == (what, "jobs"))


def test_each_kind_has_its_line_also_what_failed_and_what_was_cancelled(
    spared: LiveEngine,
    short: JobSpec,
    long: JobSpec,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = spared.client
    jobs = [spared.run(replace(short, seed=seed)).id for seed in range(2)]
    client.switch(SwitchRequest(model="wan-demo-large"))
    client.unload(UnloadRequest(model="wan-demo-large", component="vae"))
    cancelled = client.submit(long).id
    spared.until_running(cancelled)
    client.cancel(cancelled)
    assert spared.settle(cancelled).status == "cancelled"
    client.cleanup(CleanupRequest(reload=False))
    page = client.ledger(limit=5000)
    lines = page.lines[::-1]
    assert {line.kind for line in lines} == {"load", "unload", "switch", "cleanup", "job", "stage"}
    assert [line.id for line in lines] == list(range(1, len(lines) + 1)) and not page.older
    own = {line.job_id: line for line in lines if line.kind == "job"}
    assert [own[job].ok for job in (*jobs, cancelled)] == [True, True, False]
    assert own[jobs[1]].floor_bytes == own[jobs[1]].floor_before_bytes
    left = (own[cancelled].floor_bytes or 0) - (own[cancelled].floor_before_bytes or 0)
    assert left in (0, 17 * 3 * 4), "the colours that the first jobs taught to previews, and nothing else"
    (unload,) = by_kind(spared, "unload")
    assert unload.target == "wan-demo-large/vae" and (unload.weights.before or 0) > (
        unload.weights.after or 0
    )
    (cleanup,) = by_kind(spared, "cleanup")
    assert cleanup.worker == unload.worker and cleanup.allocated.after == 0 == cleanup.rss.after
    stages = client.ledger(job=jobs[1], kinds=("stage",)).lines[::-1]
    assert [line.target for line in stages] == ["denoise", "decode", "write"], "its prompt is known by then"
    picture = 3 * (128 // 8) * (80 // 8)
    left = [(line.floor_bytes or 0) - (own[jobs[1]].floor_bytes or 0) for line in stages]
    assert left[0] in (0, picture), "the last one may still be told as its step ends"
    assert 0 <= left[1] <= 5 * 3 * 128 * 80 + 2, "frames that the encoder has not taken yet"
    assert left[2] == 0
    with pytest.raises(InvalidRequest):
        client.ledger(limit=0)
    with pytest.raises(InvalidRequest):
        client.ledger(kinds=("nothing",))  # type: ignore[arg-type]
    monkeypatch.setenv("TURBOTUI_HOME", str(spared.home))
    assert main(["ledger", "--kind", "job", "--json"]) == 0
    assert [line["job_id"] for line in json.loads(capsys.readouterr().out)["lines"]] == [
        cancelled,
        *jobs[::-1],
    ]
    # What was written outlives the engine.
    spared.stop()
    spared.start()
    assert spared.client.ledger(limit=5000).lines[::-1] == lines


def clean_jobs(engine: LiveEngine, short: JobSpec, count: int) -> None:
    """Jobs of one shape, every second one with a prompt of its own; nothing may grow."""
    prompts = [f"{short.prompt} {seed if seed % 2 else ''}" for seed in range(count)]
    made = [engine.client.submit(replace(short, seed=seed, prompt=prompts[seed])).id for seed in range(count)]
    assert engine.settle(made[-1], timeout=30.0 * count).status == "done"
    page = engine.client.ledger(limit=5000)
    jobs = [line for line in page.lines[::-1] if line.kind == "job"]
    assert [line.ok for line in jobs] == [True] * count
    floors = {line.floor_bytes for line in jobs}
    assert len(floors) == 1, "to the byte"
    device, host = jobs_trend(page.trends, "device"), jobs_trend(page.trends, "host")
    assert device.count == count - FIRST and device.bytes_each == device.low == device.high == 0
    assert not any(trend.grows for trend in page.trends), host.text
    assert host.bytes_each is not None and host.bytes_each < NOISE["host"].bytes_each, host.text
    sizes = [size for line in jobs[FIRST:] if (size := host_floor(line)) is not None]
    assert max(sizes) - min(sizes) < 3 * MIB, "the figure that NOISE rests on: 0.9 MiB in 200 jobs"
    assert not [line for line in engine.client.logs() if "it grows" in line.text]
    assert not [finding for finding in engine.client.check().findings if finding.kind == "floor"]


@pytest.mark.long
def test_a_few_clean_jobs_grow_nothing(spared: LiveEngine, short: JobSpec) -> None:
    clean_jobs(spared, short, FIRST + LEAST_COUNT)


@pytest.mark.long
def test_two_hundred_clean_jobs_grow_nothing(spared: LiveEngine, short: JobSpec) -> None:
    clean_jobs(spared, short, 200)
