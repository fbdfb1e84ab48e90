"""The history keeps spikes, shows gaps as gaps and stays within its bounds."""

from __future__ import annotations

import pytest

from engine.telemetry.recorder import Range, Recorder
from engine.wire import Balance, BalancePart


def balance(
    at: float, weights: int | None, *, device_id: str = "cpu", coherent: bool = True, second: int = 0
):
    parts = (
        BalancePart(kind="weights", owner="ours", bytes=weights, label="a/dit"),
        BalancePart(kind="weights", owner="ours", bytes=second, label="a/vae"),
        BalancePart(kind="unseen", owner="unseen", bytes=None, reason="not told"),
    )
    return Balance(
        device_id=device_id,
        taken_at=at,
        coherent=coherent,
        total_bytes=1000,
        parts=parts,
        unexplained_bytes=1000 - (weights or 0) - second,
    )


def filled(values: list[int], step: float = 0.1) -> Recorder:
    recorder = Recorder()
    for number, value in enumerate(values):
        recorder.record(balance(1000 + number * step, value))
    return recorder


def test_a_spike_of_one_sample_shows_in_its_column():
    values = [100] * 100
    values[57] = 900
    columns = filled(values).history("cpu", seconds=10, columns=5)
    assert [column.parts["weights"].high_bytes for column in columns] == [100, 100, 900, 100, 100]
    assert all(column.parts["weights"].low_bytes == 100 for column in columns)


def test_columns_cover_the_asked_span_and_hold_every_sample_in_it_once():
    columns = filled(list(range(100))).history("cpu", seconds=5, columns=10)
    assert len(columns) == 10
    assert columns[-1].ends_at == pytest.approx(1009.9)
    assert columns[0].starts_at == pytest.approx(1004.9)
    assert sum(column.samples for column in columns) in (50, 51)
    assert columns[-1].parts["weights"].high_bytes == 99


def test_parts_of_one_kind_count_together_and_an_unknown_kind_is_absent():
    recorder = Recorder()
    recorder.record(balance(1.0, 100, second=20))
    (column,) = recorder.history("cpu", 1, 1)
    assert column.parts == {"weights": Range(low_bytes=120, high_bytes=120)}
    assert column.unexplained == Range(low_bytes=880, high_bytes=880)
    assert column.total_bytes == 1000


def test_a_span_without_samples_is_a_gap():
    recorder = Recorder()
    recorder.record(balance(1.0, 100))
    recorder.record(balance(10.0, 200))
    columns = recorder.history("cpu", 10, 10)
    assert [column.samples for column in columns] == [1] + [0] * 8 + [1]
    assert (columns[4].parts, columns[4].total_bytes, columns[4].unexplained) == ({}, None, None)


def test_incoherent_readings_are_counted():
    recorder = Recorder()
    recorder.record(balance(1.0, 1))
    recorder.record(balance(1.1, 1, coherent=False))
    assert recorder.history("cpu", 1, 1)[0].moving == 1


def test_old_samples_go_by_age_and_by_number():
    recorder = Recorder(keep_s=10, keep_samples=50)
    for number in range(200):
        recorder.record(balance(float(number), number))
    assert sum(column.samples for column in recorder.history("cpu", 100, 1)) == 11
    for number in range(200):
        recorder.record(balance(200 + number / 1000, number))
    assert sum(column.samples for column in recorder.history("cpu", 100, 1)) == 50


def test_devices_have_their_own_history():
    recorder = Recorder()
    recorder.record(balance(1.0, 1))
    recorder.record(balance(1.0, 2, device_id="GPU-1"))
    assert recorder.history("GPU-1", 1, 1)[0].parts["weights"].high_bytes == 2
    assert recorder.history("cpu", 1, 1)[0].parts["weights"].high_bytes == 1
    assert recorder.history("GPU-2", 1, 1) == ()
    assert recorder.device_ids == ("cpu", "GPU-1")


def test_a_clock_that_was_set_back_starts_the_history_afresh():
    recorder = Recorder()
    recorder.record(balance(1000.0, 1))
    recorder.record(balance(10.0, 2))
    assert recorder.history("cpu", 5000, 1)[0].samples == 1


@pytest.mark.parametrize(("seconds", "columns"), [(0, 1), (-1, 1), (1, 0)])
def test_a_history_of_nothing_is_refused(seconds, columns):
    with pytest.raises(ValueError, match="history"):
        filled([1]).history("cpu", seconds, columns)
