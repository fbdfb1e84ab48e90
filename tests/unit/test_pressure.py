"""Pressure: its levels, who filled the memory, and what could go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.daemon.growth import GrowthWatch, Holder, holders_of
from engine.daemon.pressure import Ladder, Peak, device_offers, host_offers, judge, pressure_text
from engine.units import GIB, MIB
from engine.wire import Growth, Pressure, PressureOffer
from turbotui.client import scenes

NOW = 1_790_000_000.0
LIWEI = Holder(who="liwei 90112", owner="neighbour", pid=90112, started=1.0)


def judged(
    used: float,
    *,
    peak: float | None = None,
    ladder: Ladder | None = None,
    now: float = 0.0,
    offers: tuple[PressureOffer, ...] = (),
    grew: tuple[Growth, ...] = (),
) -> Pressure:
    return judge(
        scenes.GPU,
        ladder=ladder or Ladder(0.85, 0.95),
        now=now,
        total_bytes=100 * GIB,
        used_bytes=int(used * GIB),
        peak=None if peak is None else Peak(job_id=41, bytes=int(peak * GIB)),
        grew=grew,
        offers=offers,
    )


@pytest.mark.parametrize(
    ("used", "peak", "level"),
    [
        (84.9, None, "none"),
        (85, None, "warn"),
        (94.9, None, "warn"),
        (95, None, "act"),
        (20, 84, "none"),
        (20, 86, "warn"),
        (20, 120, "act"),
        (96, 20, "act"),
    ],
)
def test_the_level_is_that_of_what_is_used_or_of_what_is_predicted(
    used: float, peak: float | None, level: str
) -> None:
    assert judged(used, peak=peak).level == level


def test_a_share_that_trembles_about_a_threshold_changes_nothing() -> None:
    ladder = Ladder(0.85, 0.95)
    shares = [0.849, 0.851, 0.849, 0.851, 0.83, 0.86]
    levels = [ladder.step(share, float(now)) for now, share in enumerate(shares)]
    assert levels == ["none", "warn", "warn", "warn", "warn", "warn"]


def test_a_level_is_left_below_its_margin_and_not_at_once() -> None:
    ladder = Ladder(0.85, 0.95)
    assert ladder.step(0.99, 0.0) == "act"
    assert ladder.step(0.10, 1.0) == "act"  # a dip between two steps of a job
    assert ladder.step(0.93, 9.0) == "act"
    assert ladder.step(0.90, 10.0) == "warn"
    assert ladder.step(0.10, 11.0) == "warn"
    assert ladder.step(0.10, 16.0) == "none"
    assert ladder.step(0.96, 16.1) == "act"


def test_why_names_the_figures_and_who_grew() -> None:
    grew = (Growth(who="liwei 90112", owner="neighbour", pid=90112, bytes=int(6.2 * GIB), over_s=40.0),)
    told = judged(96, peak=99, grew=grew)
    assert told.why == (
        f"96 % of 100.00 GiB {scenes.GPU} in use, 99 % predicted at the peak of job 41: "
        "liwei 90112 +6.20 GiB in 40 s"
    )
    assert (told.used_share, told.predicted_share, told.predicted_job) == (0.96, 0.99, 41)


def test_what_can_go_names_bytes_commands_and_keys_and_nothing_in_use() -> None:
    models = list(scenes.gpu_models(NOW))
    parts = [replace(part, state="resident", leased=part.name == "vae") for part in models[1].components]
    models[1] = replace(models[1], name="my model", components=tuple(parts))
    offers = device_offers(scenes.gpu_balance(NOW), models)
    assert [(offer.what, offer.target, offer.command, offer.action) for offer in offers] == [
        ("free", "cache and idle components", "turbotui free", "free"),
        ("component", "my model/dit", "turbotui unload 'my model/dit'", "unload"),
    ]
    assert offers[0].bytes == scenes.gib(0.4) + scenes.gib(2.6)
    assert offers[1].bytes == scenes.gib(2.6)
    text = pressure_text(judged(96, offers=offers))
    assert text.startswith("act: 96 %") and "my model/dit 2.60 GiB (`turbotui unload" in text


def test_nothing_is_offered_where_nothing_presses_or_nothing_could_go() -> None:
    offers = device_offers(scenes.gpu_balance(NOW), scenes.gpu_models(NOW))
    assert [offer.target for offer in offers] == ["cache"]
    assert judged(50, offers=offers).offers == ()
    assert host_offers(0) == () and host_offers(57 * GIB)[0].command == "turbotui drop-warm"
    assert "nothing of ours" in pressure_text(judged(96))


def test_growth_is_told_since_it_began() -> None:
    watch = GrowthWatch()
    for second in range(101):
        size = 1 * GIB if second <= 60 else 1 * GIB + (second - 60) * 160 * MIB
        watch.heard(float(second), {LIWEI: size})
    (growth,) = watch.grew(100 * GIB)
    assert (growth.who, growth.bytes, growth.over_s) == ("liwei 90112", 40 * 160 * MIB, 40.0)


def test_one_that_was_not_there_held_nothing_and_what_is_older_than_the_window_is_forgotten() -> None:
    watch = GrowthWatch()
    watch.heard(0.0, {})
    watch.heard(10.0, {LIWEI: 6 * GIB})
    assert [(growth.bytes, growth.over_s) for growth in watch.grew(100 * GIB)] == [(6 * GIB, 10.0)]
    watch.heard(80.0, {LIWEI: 6 * GIB})
    assert watch.grew(100 * GIB) == ()


def test_who_shrank_or_grew_by_little_is_not_named() -> None:
    watch = GrowthWatch()
    other = replace(LIWEI, who="chen 5", pid=5)
    watch.heard(0.0, {LIWEI: 9 * GIB, other: GIB})
    watch.heard(5.0, {LIWEI: 4 * GIB, other: GIB + 200 * MIB})
    assert watch.grew(40 * GIB) == ()
    assert watch.grew(0) == ()
    watch.heard(6.0, {LIWEI: 8 * GIB, other: GIB})  # a second process of that pid would be another one
    assert [growth.who for growth in watch.grew(100 * GIB)] == ["liwei 90112"]


def test_every_holder_of_a_gpu_is_watched_by_its_name() -> None:
    held = holders_of(scenes.gpu(NOW))
    assert {holder.who: size for holder, size in held.items()} == {
        "our worker 81223": scenes.gib(17.9),
        "liwei 90112": scenes.gib(6.2),
        "unseen": scenes.gib(14.0),
    }
    assert {holder.who for holder in holders_of(scenes.host(NOW))} == {"others on this host", "our worker"}


def test_a_gpu_is_called_by_its_number_and_not_by_its_uuid() -> None:
    pressure = judge(
        scenes.GPU, name="GPU 3", ladder=Ladder(0.85, 0.95), now=0.0, total_bytes=100, used_bytes=90,
        peak=None, grew=(), offers=(),
    )  # fmt: skip
    assert pressure.why == "90 % of 100 B GPU 3 in use" and pressure.device_id == scenes.GPU
