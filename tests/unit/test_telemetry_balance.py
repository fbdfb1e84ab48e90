"""The balance adds up, whatever is known, and names what is not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.telemetry.balance import DRIVER_FLOOR_BYTES, cpu_balance, gpu_balance
from engine.telemetry.samples import DeviceReading, HostReading, ProcessReading
from engine.wire import Balance
from engine.worker.channel import AllocatorSample

GIB = 2**30
MIB = 2**20
OURS = 4242

COUNTERS = AllocatorSample(
    taken_at=9.9,
    device_allocs=10,
    weights={"wan-14b/dit": 27 * GIB, "wan-14b/vae": GIB},
    requested_bytes=30 * GIB,
    allocated_bytes=30 * GIB + 10 * MIB,
    active_bytes=31 * GIB,
    reserved_bytes=34 * GIB,
    inactive_split_bytes=GIB,
)
CONTEXT = 700 * MIB
READING = DeviceReading(
    taken_at=10.0,
    device_id="GPU-1",
    index=0,
    name="NVIDIA H200",
    total_bytes=140 * GIB,
    used_bytes=34 * GIB + CONTEXT + 8 * GIB + 100 * MIB,
    reserved_bytes=600 * MIB,
    reserved_inside_used=False,
    free_bytes=140 * GIB - (34 * GIB + CONTEXT + 8 * GIB + 100 * MIB) - 600 * MIB,
    processes=(
        ProcessReading(pid=OURS, bytes=34 * GIB + CONTEXT, name="tt-worker"),
        ProcessReading(pid=777, bytes=8 * GIB, name="trainer", user="ada"),
    ),
)
LATER = msgspec.structs.replace(COUNTERS, taken_at=10.1)


def compose(reading=READING, before=COUNTERS, after=LATER, context=CONTEXT, pids=(OURS,)) -> Balance:
    return gpu_balance(reading, before, after, context, pids, wall_offset_s=1000.0)


def of(balance: Balance, kind: str) -> int | None:
    """The bytes of the one part of that kind."""
    (part,) = [part for part in balance.parts if part.kind == kind]
    return part.bytes


def adds_up(balance: Balance) -> bool:
    return sum(part.bytes or 0 for part in balance.parts) + balance.unexplained_bytes == balance.total_bytes


def test_a_known_card_is_explained_to_the_byte():
    balance = compose()
    assert balance.unexplained_bytes == 0
    assert balance.coherent
    assert {part.label: part.bytes for part in balance.parts if part.kind == "weights"} == COUNTERS.weights
    assert of(balance, "live") == 2 * GIB
    assert of(balance, "rounding") == 10 * MIB
    assert of(balance, "awaiting_free") == GIB - 10 * MIB
    assert of(balance, "releasable") == 2 * GIB
    assert of(balance, "fragmented") == GIB
    assert of(balance, "context") == CONTEXT
    assert of(balance, "driver") == 600 * MIB
    assert of(balance, "unseen") == 100 * MIB
    assert of(balance, "free") == READING.free_bytes
    assert of(balance, "process") == 8 * GIB


def test_a_balance_tells_wall_time_and_its_device():
    balance = compose()
    assert (balance.taken_at, balance.device_id, balance.total_bytes) == (1010.0, "GPU-1", 140 * GIB)


def test_the_same_card_reads_the_same_where_used_includes_the_reserve():
    inside = msgspec.structs.replace(
        READING, used_bytes=READING.used_bytes + 600 * MIB, reserved_inside_used=True
    )
    assert compose(reading=inside) == compose()


def test_libraries_that_loaded_since_the_context_was_measured_are_unexplained_and_not_hidden():
    grown = msgspec.structs.replace(
        READING,
        used_bytes=READING.used_bytes + 50 * MIB,
        free_bytes=READING.free_bytes - 50 * MIB,
        processes=(
            ProcessReading(pid=OURS, bytes=34 * GIB + CONTEXT + 50 * MIB),
            READING.processes[1],
        ),
    )
    balance = compose(reading=grown)
    assert balance.unexplained_bytes == 50 * MIB
    assert of(balance, "unseen") == 100 * MIB


def test_memory_that_moved_between_the_counters_makes_a_balance_incoherent():
    moved = msgspec.structs.replace(LATER, device_allocs=11)
    assert not compose(after=moved).coherent


@pytest.mark.parametrize(("before_at", "after_at"), [(10.05, 10.1), (9.9, 9.95)])
def test_counters_that_do_not_enclose_the_reading_prove_nothing(before_at, after_at):
    before = msgspec.structs.replace(COUNTERS, taken_at=before_at)
    after = msgspec.structs.replace(COUNTERS, taken_at=after_at)
    assert not compose(before=before, after=after).coherent


def test_counters_from_one_side_only_prove_nothing():
    assert not compose(after=None).coherent
    assert not compose(before=None).coherent
    assert compose(after=None).unexplained_bytes == 0


def test_without_counters_our_process_is_one_part_of_ours():
    balance = compose(before=None, after=None)
    ours = [part for part in balance.parts if part.pid == OURS]
    assert [(part.kind, part.owner, part.bytes) for part in ours] == [("process", "ours", 34 * GIB + CONTEXT)]
    assert balance.unexplained_bytes == 0
    assert balance.coherent
    assert not [part for part in balance.parts if part.kind in ("weights", "live", "context")]


def test_a_card_without_our_worker_has_no_parts_of_ours():
    balance = compose(before=None, after=None, context=None, pids=())
    assert {part.owner for part in balance.parts} == {"neighbour", "driver", "unseen", "free"}
    assert balance.unexplained_bytes == 0


def test_a_context_that_was_not_measured_is_none_with_a_reason_and_lies_in_the_remainder():
    balance = compose(context=None)
    (part,) = [part for part in balance.parts if part.kind == "context"]
    assert part.bytes is None and "not measured" in part.reason
    assert balance.unexplained_bytes == CONTEXT


def test_a_process_whose_bytes_are_untold_makes_the_unseen_unknown_and_never_zero():
    untold = msgspec.structs.replace(
        READING, processes=(READING.processes[0], ProcessReading(pid=777, bytes=None))
    )
    balance = compose(reading=untold)
    unknown = {part.kind: part.reason for part in balance.parts if part.bytes is None}
    assert set(unknown) == {"process", "unseen"}
    assert "777" in unknown["unseen"]
    assert balance.unexplained_bytes == 8 * GIB + 100 * MIB


def test_a_worker_that_nvml_does_not_list_is_not_counted_as_unseen():
    balance = compose(reading=msgspec.structs.replace(READING, processes=READING.processes[1:]))
    assert of(balance, "unseen") == 100 * MIB
    assert balance.unexplained_bytes == 0


def test_a_driver_that_hides_its_reserve_leaves_it_unknown():
    hidden = msgspec.structs.replace(
        READING,
        used_bytes=READING.used_bytes + 600 * MIB,
        reserved_bytes=None,
        reserved_inside_used=True,
    )
    balance = compose(reading=hidden)
    assert of(balance, "driver") is None
    assert of(balance, "unseen") == 700 * MIB
    assert balance.unexplained_bytes == 0


def test_an_allocator_that_counts_less_leaves_parts_unknown_with_a_reason():
    poor = AllocatorSample(taken_at=9.9, device_allocs=0, weights={"m/dit": GIB})
    balance = compose(before=poor, after=msgspec.structs.replace(poor, taken_at=10.1))
    unknown = {part.kind for part in balance.parts if part.bytes is None}
    assert unknown == {"live", "rounding", "awaiting_free", "releasable", "fragmented"}
    assert all(part.reason for part in balance.parts if part.bytes is None)
    assert adds_up(balance)


# ------------------------------------------------------------------------- ghosts and contradictions

WHOLE = msgspec.structs.replace(READING, view_gap=None)


def kinds(balance: Balance) -> set[str]:
    return {part.kind for part in balance.parts if part.owner == "unseen"}


def test_memory_of_nobody_is_a_ghosts_only_where_nobody_can_hide():
    assert kinds(compose()) == {"unseen"}
    assert kinds(compose(reading=WHOLE)) == {"ghost"}
    assert of(compose(reading=WHOLE), "ghost") == 100 * MIB


def test_what_a_driver_keeps_in_nobodys_name_is_no_ghost():
    small = msgspec.structs.replace(
        WHOLE,
        used_bytes=WHOLE.used_bytes - 100 * MIB + DRIVER_FLOOR_BYTES,
        free_bytes=WHOLE.free_bytes + 100 * MIB - DRIVER_FLOOR_BYTES,
    )
    assert kinds(compose(reading=small)) == {"unseen"}


def test_processes_that_cannot_be_listed_make_unseen_unknown_and_not_everything_unseen():
    blind = msgspec.structs.replace(WHOLE, processes=(), processes_fault="no permission")
    for balance in (compose(reading=blind), compose(reading=blind, before=None, after=None)):
        (part,) = [part for part in balance.parts if part.owner == "unseen"]
        assert (part.kind, part.bytes) == ("unseen", None) and "no permission" in part.reason
        assert adds_up(balance)


def test_a_neighbour_that_moved_while_it_was_read_makes_a_balance_incoherent():
    balance = compose(reading=msgspec.structs.replace(READING, still=False))
    assert not balance.coherent and "processes were read" in balance.moving


def test_segments_that_grow_without_being_counted_are_noticed():
    grown = msgspec.structs.replace(LATER, reserved_bytes=LATER.reserved_bytes + 20 * MIB)
    balance = compose(after=grown)
    assert not balance.coherent and "took memory" in balance.moving


def test_counters_that_were_still_being_read_when_the_reading_began_do_not_precede_it():
    assert not compose(before=msgspec.structs.replace(COUNTERS, read_at=10.01)).coherent


def test_processes_that_hold_more_than_the_device_are_a_contradiction_and_no_negative_part():
    twice = msgspec.structs.replace(
        READING, processes=(*READING.processes, ProcessReading(pid=778, bytes=8 * GIB))
    )
    balance = compose(reading=twice)
    assert not balance.coherent and "more than the device" in balance.moving
    assert of(balance, "unseen") == 0 and balance.unexplained_bytes == 100 * MIB - 8 * GIB


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": {"wan-14b/dit": 35 * GIB}},
        {"active_bytes": 35 * GIB},
        {"inactive_split_bytes": 4 * GIB},
        {"requested_bytes": 31 * GIB},
    ],
)
def test_counters_that_contradict_each_other_are_told(wrong):
    before = msgspec.structs.replace(COUNTERS, **wrong)
    balance = compose(before=before, after=msgspec.structs.replace(LATER, **wrong))
    assert not balance.coherent and balance.moving == "the worker's counters contradict each other"
    assert is_honest(balance)


@pytest.mark.parametrize("counter", ["reserved_bytes", "active_bytes", "allocated_bytes"])
def test_one_counter_that_is_off_by_64_mib_is_noticed(counter):
    """What the test on a real card relies on: a wrong counter cannot pass as a coherent balance."""
    off = {counter: getattr(COUNTERS, counter) + 64 * MIB}
    true = compose()
    wrong = compose(
        before=msgspec.structs.replace(COUNTERS, **off), after=msgspec.structs.replace(LATER, **off)
    )
    moved = {
        kind
        for kind in ("live", "rounding", "awaiting_free", "releasable", "fragmented")
        if abs(of(wrong, kind) - of(true, kind)) > 4 * MIB
    }
    assert moved and (counter != "reserved_bytes" or abs(wrong.unexplained_bytes) == 64 * MIB)


sizes = st.integers(0, 200 * GIB)
maybe = st.none() | sizes


@st.composite
def counters(draw) -> AllocatorSample:
    return AllocatorSample(
        taken_at=draw(st.floats(0, 20)),
        device_allocs=draw(st.integers(0, 3)),
        weights=draw(st.dictionaries(st.sampled_from(["a/dit", "a/vae", "b/text"]), sizes)),
        allocated_bytes=draw(maybe),
        active_bytes=draw(maybe),
        reserved_bytes=draw(maybe),
        requested_bytes=draw(maybe),
        inactive_split_bytes=draw(maybe),
    )


@st.composite
def device_readings(draw) -> DeviceReading:
    pids = draw(st.lists(st.integers(1, 6), unique=True, max_size=4))
    return msgspec.structs.replace(
        READING,
        total_bytes=draw(sizes),
        used_bytes=draw(sizes),
        free_bytes=draw(sizes),
        reserved_bytes=draw(maybe),
        reserved_inside_used=draw(st.booleans()),
        processes=tuple(ProcessReading(pid=pid, bytes=draw(maybe)) for pid in pids),
    )


def is_honest(balance: Balance) -> bool:
    """Adds up; no part is negative, and each unknown one says why."""
    return adds_up(balance) and all(
        (part.bytes is None and part.reason)
        or (part.bytes is not None and part.bytes >= 0 and not part.reason)
        for part in balance.parts
    )


@given(device_readings(), st.none() | counters(), st.none() | counters(), maybe, st.sets(st.integers(1, 6)))
def test_known_parts_and_the_remainder_are_the_total_whatever_was_read(reading, before, after, context, pids):
    assert is_honest(gpu_balance(reading, before, after, context, pids))


@given(st.integers(-CONTEXT, 10 * GIB))
def test_in_a_coherent_balance_the_remainder_is_what_our_context_has_changed_by(change):
    """It may be negative, and nothing else makes it so: no part takes up the difference."""
    ours, neighbour = READING.processes
    reading = msgspec.structs.replace(
        READING,
        used_bytes=READING.used_bytes + change,
        free_bytes=READING.free_bytes - change,
        processes=(ProcessReading(pid=OURS, bytes=ours.bytes + change), neighbour),
    )
    balance = compose(reading=reading)
    assert balance.coherent and balance.unexplained_bytes == change
    assert of(balance, "unseen") == 100 * MIB and of(balance, "process") == 8 * GIB


@given(
    st.sampled_from(["requested_bytes", "allocated_bytes", "active_bytes", "inactive_split_bytes"]),
    st.integers(-(30 * GIB), 10 * GIB),
)
def test_a_balance_whose_counters_contradict_each_other_is_never_coherent(counter, change):
    off = {counter: max(0, getattr(COUNTERS, counter) + change)}
    after = msgspec.structs.replace(LATER, **off)
    consistent = (
        after.reserved_bytes - after.active_bytes >= after.inactive_split_bytes
        and after.active_bytes
        >= after.allocated_bytes
        >= after.requested_bytes
        >= sum(after.weights.values())
    )
    balance = compose(before=msgspec.structs.replace(COUNTERS, **off), after=after)
    assert balance.coherent == consistent
    assert is_honest(balance)
    if consistent:
        assert balance.unexplained_bytes == 0


@given(st.data())
def test_a_truthful_card_leaves_nothing_unexplained(data):
    """Build the card from its parts, take the readings from it, and get the parts back."""
    draw = lambda: data.draw(st.integers(0, 10 * GIB))  # noqa: E731
    weights, live, rounding, waiting, releasable, fragmented = (draw() for _ in range(6))
    context, neighbour, driver, unseen, free = (draw() for _ in range(5))
    inside = data.draw(st.booleans())
    allocated = weights + live + rounding
    reserved = allocated + waiting + releasable + fragmented
    used = reserved + context + neighbour + unseen
    reading = msgspec.structs.replace(
        READING,
        total_bytes=used + driver + free,
        used_bytes=used + (driver if inside else 0),
        reserved_bytes=driver,
        reserved_inside_used=inside,
        free_bytes=free,
        processes=(
            ProcessReading(pid=OURS, bytes=reserved + context),
            ProcessReading(pid=1, bytes=neighbour),
        ),
    )
    sample = AllocatorSample(
        taken_at=10.0,
        device_allocs=1,
        weights={"m/dit": weights},
        requested_bytes=weights + live,
        allocated_bytes=allocated,
        active_bytes=allocated + waiting,
        reserved_bytes=reserved,
        inactive_split_bytes=fragmented,
    )
    balance = gpu_balance(reading, sample, sample, context, {OURS})
    assert balance.coherent
    assert balance.unexplained_bytes == 0
    assert of(balance, "live") == live
    assert of(balance, "releasable") == releasable
    assert of(balance, "unseen") == unseen


# ------------------------------------------------------------------------- hosts without a GPU

HOST = HostReading(
    taken_at=10.0, total_bytes=16 * GIB, available_bytes=10 * GIB, limited_by_cgroup=False, rss_bytes={}
)
ON_CPU = AllocatorSample(taken_at=9.9, device_allocs=0, weights={"demo/dit": 60 * MIB, "demo/vae": 10 * MIB})


def test_a_worker_in_host_memory_is_split_into_weights_runtime_and_live_tensors():
    balance = cpu_balance(HOST, ON_CPU, 600 * MIB, 500 * MIB, wall_offset_s=0.0)
    assert (of(balance, "runtime"), of(balance, "live")) == (500 * MIB, 30 * MIB)
    assert (of(balance, "others"), of(balance, "free")) == (6 * GIB - 600 * MIB, 10 * GIB)
    assert [part.label for part in balance.parts if part.kind == "weights"] == ["demo/dit", "demo/vae"]
    assert (balance.unexplained_bytes, balance.coherent, balance.device_id) == (0, True, "cpu")


def test_a_host_without_a_worker_is_others_and_free():
    balance = cpu_balance(HOST, None, None, None)
    assert [(part.kind, part.bytes) for part in balance.parts] == [("others", 6 * GIB), ("free", 10 * GIB)]
    assert balance.unexplained_bytes == 0


def test_a_worker_whose_file_pages_count_as_available_still_adds_up():
    host = msgspec.structs.replace(HOST, available_bytes=16 * GIB - 100 * MIB)
    balance = cpu_balance(host, ON_CPU, 600 * MIB, 500 * MIB)
    assert (of(balance, "others"), of(balance, "free")) == (0, 16 * GIB - 600 * MIB)
    assert balance.unexplained_bytes == 0


def test_weights_beyond_the_resident_set_show_as_incoherent_and_unexplained():
    balance = cpu_balance(HOST, ON_CPU, 50 * MIB, 500 * MIB)
    assert not balance.coherent
    assert (of(balance, "runtime"), of(balance, "live")) == (0, 0)
    assert balance.unexplained_bytes == -20 * MIB


def test_a_worker_whose_resident_set_is_unknown_leaves_others_unknown():
    balance = cpu_balance(HOST, ON_CPU, None, 500 * MIB)
    assert of(balance, "others") is None
    assert is_honest(balance)


HELPERS = {"daemon": (11, 80 * MIB), "nursery": (12, 520 * MIB), "probe": (13, 30 * MIB)}


def helpers_of(balance: Balance) -> dict[str, tuple[int | None, int | None]]:
    return {
        part.label: (part.pid, part.bytes) for part in balance.parts if part.kind == "runtime" and part.pid
    }


def test_our_own_daemon_nursery_and_probe_are_ours_and_not_others():
    alone = cpu_balance(HOST, None, None, None, helpers=HELPERS)
    assert helpers_of(alone) == HELPERS
    assert (of(alone, "others"), of(alone, "free")) == (6 * GIB - 630 * MIB, 10 * GIB)
    assert all(part.owner == "ours" for part in alone.parts if part.kind == "runtime")
    # What the worker has from the nursery that it is forked from is counted once.
    both = cpu_balance(HOST, ON_CPU, 600 * MIB, 500 * MIB, helpers=HELPERS)
    assert helpers_of(both)["nursery"] == (12, 20 * MIB)
    assert of(both, "others") == 6 * GIB - 600 * MIB - 130 * MIB
    assert alone.unexplained_bytes == both.unexplained_bytes == 0 and both.coherent


@given(
    sizes,
    sizes,
    st.none() | counters(),
    maybe,
    maybe,
    st.dictionaries(st.sampled_from(["daemon", "nursery", "probe"]), st.tuples(st.integers(1, 9), sizes)),
)
def test_a_host_adds_up_whatever_was_read(total, available, allocator, rss, baseline, helpers):
    host = msgspec.structs.replace(HOST, total_bytes=total, available_bytes=available)
    assert is_honest(cpu_balance(host, allocator, rss, baseline, helpers=helpers))
