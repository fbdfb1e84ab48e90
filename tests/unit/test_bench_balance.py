"""How the benchmark of the balance counts and judges, on samples made up here."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from engine.wire import Balance, BalancePart, DeviceStatus, EventFrame, MemorySampled
from turbotui.bench.balance import MIB, Collector, Figure, Tally, figures
from turbotui.client.http import HttpClient

SAMPLE = Balance(
    device_id="GPU-1",
    taken_at=1.0,
    coherent=True,
    total_bytes=100 * MIB,
    parts=(
        BalancePart(kind="live", owner="ours", bytes=30 * MIB),
        BalancePart(kind="free", owner="free", bytes=69 * MIB),
    ),
    unexplained_bytes=MIB,
)
MOVING = replace(SAMPLE, coherent=False, moving="the worker took memory or gave it back")


def tally(*balances: Balance) -> Tally:
    found = Tally()
    for balance in balances:
        found.add(balance)
    return found


def judged(rest: Tally, denoise: Tally, *, on_gpu: bool = True) -> dict[str, Figure]:
    tallies = {"rest": rest, "denoise": denoise, "other": Tally()}
    return {figure.name: figure for figure in figures(tallies, half=2, jobs=1, on_gpu=on_gpu)}


def test_what_adds_up_reaches_every_aim() -> None:
    found = judged(tally(SAMPLE, SAMPLE), tally(SAMPLE, SAMPLE))
    assert all(figure.ok is not False for figure in found.values())
    assert found["coherent_rest"].value == 1 and found["unexplained_rest"].value == MIB


@pytest.mark.parametrize(
    ("wrong", "missed"),
    [
        (replace(SAMPLE, unexplained_bytes=MIB + 1), {"wrong_sums"}),
        (replace(SAMPLE, total_bytes=102 * MIB, unexplained_bytes=3 * MIB), {"unexplained_rest"}),
        (replace(SAMPLE, total_bytes=96 * MIB, unexplained_bytes=-3 * MIB), {"unexplained_rest"}),
        (
            replace(
                SAMPLE, parts=(replace(SAMPLE.parts[0], bytes=-1), SAMPLE.parts[1]), total_bytes=70 * MIB - 1
            ),
            {"lowest_part"},
        ),
        (MOVING, {"coherent_rest"}),
    ],
)
def test_one_wrong_sample_misses_its_aim_and_no_other(wrong: Balance, missed: set[str]) -> None:
    found = judged(tally(SAMPLE, wrong), tally(SAMPLE, SAMPLE))
    assert {name for name, figure in found.items() if figure.ok is False} == missed


def test_why_samples_moved_is_told() -> None:
    found = judged(tally(SAMPLE, MOVING, MOVING), tally(SAMPLE, SAMPLE))
    assert "2 times the worker took memory" in found["coherent_rest"].note


def test_without_a_gpu_its_aims_are_not_judged_and_say_so() -> None:
    found = judged(tally(MOVING, MOVING), tally(SAMPLE, SAMPLE), on_gpu=False)
    assert found["coherent_rest"].ok is None and "no GPU" in found["coherent_rest"].note
    assert found["wrong_sums"].ok is True


def test_too_few_samples_are_a_miss() -> None:
    assert judged(tally(SAMPLE), tally(SAMPLE, SAMPLE))["samples_rest"].ok is False


def test_a_sample_that_is_told_twice_counts_once() -> None:
    collector = Collector(HttpClient("/nowhere"))
    collector.rest(True)
    for taken_at in (1.0, 1.0, 2.0):
        device = DeviceStatus(
            id="GPU-1",
            kind="cuda",
            name="x",
            total_bytes=1,
            in_use=True,
            balance=replace(SAMPLE, taken_at=time.time() + taken_at if taken_at > 1 else taken_at),
        )
        collector.take(EventFrame(seq=1, event=MemorySampled(device=device)))
    assert collector.tallies["rest"].samples == 2
