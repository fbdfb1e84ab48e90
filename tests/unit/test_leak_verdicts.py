"""Each verdict over made-up facts: what it finds, what only looks like it, and that none can be left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from facts import foreign, gpu, process, spoiled
from leak_facts import CLEAN, CUT, GPU, NOW, SITE, block, grows, held, looked, mapped

import engine.leaks.verdicts as package
from engine.checks.run import find
from engine.leaks.facts import ComponentUse, Facts, HostMemory
from engine.leaks.verdicts import ALL, verdicts
from engine.units import GIB, KIB, MIB
from engine.wire import DeviceView, Holder, Verdict, WorkerStatus

LARGE = ComponentUse(
    model="wan-large", component="dit", bytes=28 * GIB, leased=False, wanted=False, used_at=NOW - 7200
)
ORPHAN = process(777, name="tt-worker", role="worker", parent_name="init", left=True)
LEFT_OVER = foreign()
OTHER = Holder(path=("module m", "OTHER"), kind="global")


def checked(*devices: Any, **changes: Any) -> Facts:
    """With what the baseline check finds on these devices."""
    facts = spoiled(*changes.pop("processes", ()), devices=devices, **changes)
    return replace(CLEAN, device=devices[0], checked=find(facts))


def running(facts: Facts) -> Facts:
    """The same under a job."""
    worker = facts.worker
    assert isinstance(worker, WorkerStatus)
    return replace(facts, worker=replace(worker, state="running", job_id=9))


CASES: dict[str, tuple[Facts, str, bool]] = {
    "cache": (mapped(releasable_bytes=5 * GIB), "cache", False),
    "fragmentation": (replace(mapped(fragmented_bytes=2 * GIB)), "fragmented", False),
    "awaiting": (
        replace(mapped(awaiting={"7": 64 * MIB}), awaited_before=(("7", 64 * MIB),)), "awaiting_free", True,
    ),
    "component": (replace(CLEAN, components=(replace(LARGE, jobs_since=9),)), "component", True),
    "tensor": (looked(tensors=(held(),)), "tensor", True),
    "unowned": (looked(unowned=(block(),)), "unowned_tensor", True),
    "library": (looked(unowned=(block(library="cuBLAS"),)), "library", False),
    "context": (replace(CLEAN, device=gpu(context=600 * MIB)), "context", False),
    "process": (checked(gpu(LEFT_OVER), processes=(process(),)), "process", True),
    "orphan": (
        checked(gpu(foreign(777, name="tt-worker", bytes=28 * GIB)), processes=(ORPHAN,)), "orphan", True,
    ),
    "unseen": (checked(gpu(ghost=3 * GIB, unseen=0)), "ghost", True),
    "pinned": (replace(CLEAN, host=HostMemory(pinned_bytes=GIB, pinned_used_bytes=0)), "pinned", False),
    "host_heap": (replace(CLEAN, trends=(grows("host"),)), "host_heap", True),
}  # fmt: skip
"""By detector: facts in which only it finds something, the verdict's kind, and whether that is a leak."""


def only(facts: Facts) -> Verdict:
    """The one verdict that there is."""
    (found,) = verdicts(facts)
    return found


def test_a_worker_that_leaks_nothing_gets_no_verdict() -> None:
    assert verdicts(CLEAN) == ()
    assert verdicts(Facts(at=NOW)) == (), "nor does an engine that has read nothing yet"


@pytest.mark.parametrize("name", CASES)
def test_what_is_planted_is_found_with_its_kind_and_by_no_other_detector(name: str) -> None:
    facts, kind, leak = CASES[name]
    found = only(facts)
    assert (found.kind, found.leak) == (kind, leak)
    assert found.evidence and all(sentence.strip() for sentence in (found.title, *found.evidence))
    if found.bytes:
        figure = f"{found.bytes / GIB:.2f} GiB" if found.bytes >= GIB else f"{found.bytes / MIB:.1f} MiB"
        assert figure in " ".join((found.title, *found.evidence))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "ALL", {key: one for key, one in ALL.items() if key != name})
        assert verdicts(facts) == ()


def test_every_detector_has_a_file_a_place_in_the_registry_and_a_case() -> None:
    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", "words"}
    assert files == set(ALL) == set(CASES)


def test_leaks_come_first_and_the_largest_of_each_before_the_others() -> None:
    facts = replace(
        looked(tensors=(held(64 * MIB), held(2 * GIB, holder=OTHER)), unowned=(block(library="cuBLAS"),)),
        host=HostMemory(pinned_bytes=GIB, pinned_used_bytes=0),
    )
    found = [(one.leak, one.bytes) for one in verdicts(facts)]
    assert found == [(True, 2 * GIB), (True, 64 * MIB), (False, GIB), (False, 32 * MIB)]


# --------------------------------------------------------------------------- tensors


def test_a_held_tensor_is_told_with_its_owner_its_line_and_where_it_was_made() -> None:
    found = only(looked(tensors=(held(),)))
    assert found.site == SITE and found.holder is not None and found.holder.line == 7
    assert "module plants > KEPT > [0]" in found.evidence[1]
    assert "/srv/plants.py:7" in found.evidence[2] and "/srv/plants.py:12 in keep" in found.evidence[3]
    assert found.remedy is not None
    assert (found.remedy.action, found.remedy.predicted_bytes) == ("cleanup", 64 * MIB)


@pytest.mark.parametrize(
    ("kind", "path", "name"),
    [
        ("global", ("module plants", "KEPT", "[0]"), "plants.KEPT"),
        ("cache", ("cache of encode", "[3]"), "cache of encode"),
        ("attribute", ("the worker", "._store", "nets.WanNet.seen", "[0]"), "nets.WanNet.seen"),
        ("attribute", ("module m", "STATE", ".frames", "[0]"), "STATE.frames"),
        ("attribute", ("class nets.Stats", "history", "[0]"), "nets.Stats.history"),
        ("hook", ("module m", "NET", "hook of nets.Block", "function f"), "hook of nets.Block"),
        ("cycle", ("a cycle of a.A, b.B",), "a.A, b.B"),
        ("traceback", ("module m", "LAST", "local x of check", "..."), "local x of check"),
    ],
)
def test_the_title_names_the_holder_first(kind: Any, path: tuple[str, ...], name: str) -> None:
    told = only(looked(tensors=(held(holder=Holder(path=path, kind=kind)),)))
    assert told.title.startswith(f"{name} holds 64.0 MiB of tensors on GPU 0 (")


def test_a_memo_that_may_be_what_grows_does_not_say_that_it_is_none() -> None:
    memo = held(holder=Holder(path=("module m", "CACHE"), kind="cache"))
    told = only(looked(tensors=(memo,)))
    assert not told.leak and told.evidence[-1].endswith("it would be a leak if it grew with every job.")
    facts = replace(looked(tensors=(memo,)), trends=(grows("device", 8 * MIB),))
    told = next(one for one in verdicts(facts) if one.kind == "tensor")
    assert told.leak and told.evidence[-1].endswith("a mark tells whether it is.")


def test_cycles_of_the_same_types_are_one_leak_as_one_remedy_ends_them() -> None:
    cycle = Holder(path=("a cycle of nodes.Owner, nodes.Part",), kind="cycle")
    other = Holder(path=("a cycle of list",), kind="cycle")
    unknown = {"site": None, "site_reason": "older"}
    tensors = (held(holder=cycle, **unknown), held(holder=other), held(16 * MIB, holder=cycle, storages=2))
    first, second = verdicts(looked(tensors=tensors))
    assert (first.bytes, second.bytes) == (80 * MIB, 64 * MIB)
    assert first.evidence[0].startswith("3 tensors of 80.0 MiB") and first.site == SITE
    assert first.remedy is not None and first.remedy.predicted_bytes == 80 * MIB


def test_what_lies_in_objects_of_one_list_or_one_chain_is_one_leak() -> None:
    paths = [("module m", "KEPT", f"[{place}]", "m.Record.x") for place in range(20)]
    paths.append(("module m", "KEPT", "[3]", "m.Record.next", "m.Record.x"))
    small = [held(300 * KIB, holder=Holder(path=path, kind="global")) for path in paths]
    found = only(looked(tensors=(*small, held(4 * KIB, holder=OTHER))))
    assert found.title.startswith("m.KEPT holds 6.2 MiB") and found.evidence[0].startswith("21 tensors")
    facts = replace(looked(tensors=tuple(small)), trends=(grows("device", 300 * KIB, 21),))
    assert only(facts).leak, "and it is what the floors rise by"


def test_what_a_thread_waits_with_though_no_job_runs_is_told_and_a_leak_where_it_grows() -> None:
    local = Holder(path=("local x of wait",), kind="attribute", file="/srv/plants.py", line=4)
    threads = [held(4 * MIB, holder=local, running=True) for _ in range(10)]
    told = only(looked(tensors=tuple(threads)))
    assert not told.leak
    assert told.title == "local x of wait holds 40.0 MiB of tensors on GPU 0 (a call that has not ended)."
    assert "though no job runs" in told.evidence[-1]
    assert only(replace(looked(tensors=tuple(threads)), trends=(grows("device", 4 * MIB, 10),))).leak


def test_what_nobody_holds_is_told_apart_by_the_line_that_made_it() -> None:
    nobody = Holder(path=("no Python owner",), kind="none")
    other = replace(SITE, line=13)
    tensors = [held(holder=nobody, site=site) for site in (SITE, other, SITE)]
    found = verdicts(looked(tensors=tuple(tensors)))
    assert [one.bytes for one in found] == [128 * MIB, 64 * MIB]
    assert any(
        one.startswith("Suspected: a C++ owner such as an autograd graph") for one in found[0].evidence
    )


@pytest.mark.parametrize(
    ("age_s", "said"),
    [
        (-3, "less than a minute ago"), (59, "less than a minute ago"), (60, "1 minute ago"),
        (42 * 60, "42 minutes ago"), (2.9 * 3600, "2 hours ago"), (50 * 3600, "2 days ago"),
    ],
)  # fmt: skip
def test_the_last_use_of_a_component_is_told_as_people_say_it(age_s: float, said: str) -> None:
    item = replace(LARGE, used_at=NOW - age_s)
    (told,) = verdicts(replace(CLEAN, components=(item,)))
    assert told.evidence[1:3] == (
        f"Its model was last used {said}.", "No job of another model has ended since then.",
    )  # fmt: skip
    (told,) = verdicts(replace(CLEAN, components=(replace(item, jobs_since=1),)))
    assert told.evidence[2] == "1 job of other models ended since then."


def test_what_only_a_cycle_holds_is_given_back_by_looking_for_cycles() -> None:
    cycle = Holder(path=("a cycle of list, dict",), kind="cycle")
    found = only(looked(tensors=(held(holder=cycle),)))
    assert found.leak and found.remedy is not None and found.remedy.action == "collect"


@pytest.mark.parametrize(
    "facts",
    [
        looked(tensors=(held(running=True),), job_id=9),  # a call's own
        looked(tensors=(held(512 * KIB),)),  # a table or a constant
        looked(tensors=(held(8 * KIB),), job_id=9),
    ],
)
def test_tensors_that_are_no_leak_are_not_told(facts: Facts) -> None:
    assert verdicts(facts) == ()


def test_under_a_job_and_in_a_memo_they_are_told_and_called_no_leak() -> None:
    memo = Holder(path=("cache of grid",), kind="cache", file="/srv/grid.py", line=3)
    assert not only(looked(tensors=(held(holder=memo),))).leak
    assert not only(running(looked(tensors=(held(),)))).leak


def test_a_memo_that_grows_with_every_job_is_a_leak_and_tells_the_slope() -> None:
    memo = Holder(path=("cache of grid",), kind="cache")
    facts = replace(
        looked(tensors=(held(holder=memo),)),
        trends=(grows("device", stage="denoise dit.high", component="dit.high"),),
    )
    found = only(facts)
    assert found.leak and found.stage == "denoise dit.high" and found.component == "dit.high"
    assert any("+1.0 MiB a job" in line and "over 12 jobs" in line for line in found.evidence)


def test_a_memo_beside_growth_of_which_it_is_no_part_is_none() -> None:
    memo = Holder(path=("cache of grid",), kind="cache")
    facts = replace(looked(tensors=(held(16 * MIB, holder=memo),)), trends=(grows("device", 40 * MIB),))
    by_kind = {one.kind: one for one in verdicts(facts)}
    assert by_kind["unowned_tensor"].leak and not by_kind["tensor"].leak
    assert not any("Growth" in line for line in by_kind["tensor"].evidence)
    grown = only(replace(facts, trends=(grows("device"),)))
    assert grown.leak and not any("would be a leak" in line for line in grown.evidence)
    on_host = replace(looked(tensors=(held(holder=memo, place="host"),)), trends=(grows("pinned"),))
    assert {(one.kind, one.leak) for one in verdicts(on_host)} == {("pinned", True), ("tensor", False)}


@pytest.mark.parametrize("what", ["device", "pinned", "host"])
def test_a_last_floor_that_is_off_hides_no_growth_and_makes_it_no_smaller(what: str) -> None:
    trend = grows(what, 8 * MIB, count=200)
    shown = replace(trend, floors=(*trend.floors[-60:-1], 0))
    found = only(replace(CLEAN, trends=(shown,)))
    assert found.leak and found.bytes == 199 * 8 * MIB


def test_while_the_floors_rise_small_tensors_count_too() -> None:
    small = held(200 * KIB)
    assert verdicts(looked(tensors=(small,))) == ()
    facts = replace(looked(tensors=(small,)), trends=(grows("device", 16 * KIB),))
    assert only(facts).leak


def test_floors_that_rise_with_no_holder_in_sight_are_told_all_the_same() -> None:
    found = only(replace(CLEAN, trends=(grows("device", 4 * MIB, stage="decode", component="vae"),)))
    assert (found.kind, found.leak, found.stage) == ("unowned_tensor", True, "decode")
    assert found.site is None and found.site_reason
    blind = only(replace(CLEAN, look=None, trends=(grows("device", 4 * MIB),)))
    assert "could not be looked into" in blind.evidence[-1]


# --------------------------------------------------------------------------- the allocator's


def test_what_waits_for_a_stream_leaks_only_where_it_did_before_and_nothing_runs() -> None:
    facts = mapped(awaiting={"7": 64 * MIB})
    assert not only(facts).leak
    before = replace(facts, awaited_before=(("7", 64 * MIB),))
    assert only(before).leak and not only(running(before)).leak
    assert not only(replace(facts, awaited_before=(("8", 64 * MIB),))).leak, "another stream"
    assert verdicts(mapped(awaiting={"7": 2 * MIB})) == ()


def test_a_fresh_worker_is_not_promised_to_be_without_the_gaps_beside_its_weights() -> None:
    found = only(mapped(fragmented_bytes=80 * MIB, beside_weights_bytes=20 * MIB))
    assert found.remedy is not None and found.remedy.predicted_bytes == 60 * MIB
    assert any("20.0 MiB lie beside weights" in text for text in found.evidence)
    found = only(mapped(fragmented_bytes=20 * MIB, beside_weights_bytes=20 * MIB))
    assert found.bytes == 20 * MIB and found.remedy is None


def test_fragmentation_tells_the_longest_stretch_that_is_left() -> None:
    found = only(replace(mapped(fragmented_bytes=30 * MIB), look=mapped(fragmented_bytes=30 * MIB).look))
    assert not found.leak
    cut = looked(segments=(CUT,), allocator=mapped(fragmented_bytes=30 * MIB).look.allocator)  # type: ignore[union-attr]
    assert any("1 segment; the longest stretch is 30.0 MiB" in line for line in only(cut).evidence)


def test_without_a_look_the_balance_speaks_and_one_that_does_not_add_up_says_nothing() -> None:
    facts = replace(CLEAN, look=None, device=gpu(releasable=5 * GIB, fragmented=0))
    assert only(facts).kind == "cache"
    device = gpu(releasable=5 * GIB)
    assert device.balance is not None
    moving = replace(device, balance=replace(device.balance, coherent=False))
    assert verdicts(replace(facts, device=moving)) == ()


@pytest.mark.parametrize(
    ("part", "kind"),
    [("awaiting_free", "awaiting_free"), ("releasable", "cache"), ("fragmented", "fragmented")],
)
def test_each_part_of_the_balance_speaks_without_a_look(part: str, kind: str) -> None:
    found = only(replace(CLEAN, look=None, device=gpu(**{"releasable": 0, "fragmented": 0, part: GIB})))
    assert (found.kind, found.leak, found.bytes) == (kind, False, GIB)


@pytest.mark.parametrize(("library", "action"), [("cuBLAS", "collect"), ("cuBLASLt", "collect"), ("x", None)])
def test_a_workspace_that_torch_can_clear_is_cleared_and_no_other_is(library: str, action: str) -> None:
    remedy = only(looked(unowned=(block(library=library),))).remedy
    assert (None if remedy is None else remedy.action) == action


@pytest.mark.parametrize("what", ["device", "host", "pinned"])
@pytest.mark.parametrize("over", ["jobs", "switches"])
def test_growth_is_told_whether_jobs_or_switches_bring_it(what: str, over: str) -> None:
    found = only(replace(CLEAN, trends=(grows(what, 8 * MIB, over=over),)))
    each = "a job over 12 jobs" if over == "jobs" else "a switch over 12 switches"
    assert found.leak and any(
        f"+8.0 MiB a {'job' if over == 'jobs' else 'switch'}" in one for one in found.evidence
    )
    assert any(each.split(" over ")[1] in one for one in found.evidence)


@pytest.mark.parametrize(
    ("place", "pinned", "kind", "growing", "stays"),
    [
        ("device", False, "cuda", "device", "host"),
        ("host", False, "cuda", "host", "pinned"),
        ("host", True, "cuda", "pinned", "device"),
        ("host", False, "cpu", "device", "pinned"),
        ("host", False, "cpu", "host", "pinned"),
    ],
)
def test_a_tensor_is_of_the_floor_that_it_raises_and_of_no_other(
    place: str, pinned: bool, kind: str, growing: str, stays: str
) -> None:
    item = held(200 * KIB, place=place, pinned=pinned)
    device = CLEAN.device if kind == "cuda" else replace(gpu(), id="cpu", kind="cpu", balance=None)
    facts = replace(looked(tensors=(item,)), device=device)
    grown = verdicts(replace(facts, trends=(grows(growing, 160 * KIB, stage="decode"),)))
    assert [one.stage for one in grown if one.holder is not None] == ["decode"]
    others = verdicts(replace(facts, trends=(grows(stays, 160 * KIB),)))
    assert not [one for one in others if one.holder is not None]


# --------------------------------------------------------------------------- components


@pytest.mark.parametrize(
    ("changes", "told", "leak"),
    [
        ({"leased": True}, False, False),
        ({"wanted": True}, False, False),
        ({"used_at": NOW - 60}, True, False),  # the one before, to which a person may come back
        ({"used_at": NOW - 60, "jobs_since": 1}, True, False),  # two models by turns
        ({"used_at": NOW - 60, "jobs_since": 5}, True, False),  # a batch of another's
        ({"used_at": NOW - 60, "jobs_since": 20}, True, True),
        ({"used_at": NOW - 3600}, True, False),  # nobody ran anything
        ({"used_at": NOW - 3600, "jobs_since": 5}, True, True),
        ({"used_at": NOW - 3600, "jobs_since": 5, "bytes": 148 * 1024}, True, False),
        ({"used_at": None}, True, False),
        ({"used_at": None, "jobs_since": 9}, True, True),
    ],
)
def test_a_component_is_forgotten_only_after_long(changes: dict[str, Any], told: bool, leak: bool) -> None:
    found = verdicts(replace(CLEAN, components=(replace(LARGE, **changes),)))
    assert [one.leak for one in found] == ([leak] if told else [])
    for one in found:
        assert one.remedy is not None and one.remedy.target == "wan-large/dit" == one.component


# --------------------------------------------------------------------------- processes


def test_a_tenant_that_works_is_named_and_no_leak() -> None:
    found = only(checked(gpu(foreign(program="vLLM")), processes=(process(listens=True),)))
    assert (found.kind, found.leak, found.bytes) == ("process", False, 6 * GIB)
    assert found.remedy is not None and (found.remedy.pid, found.remedy.start_time) == (4242, 100.0)


def test_another_users_process_is_asked_about_and_never_ended() -> None:
    found = only(checked(gpu(foreign(user="liwei", program="vLLM")), processes=(process(uid=1001),)))
    assert found.remedy is None and found.admin_line is not None and "liwei" in found.admin_line


def test_an_orphan_on_a_card_is_ended_by_its_number_and_start() -> None:
    remedy = only(CASES["orphan"][0]).remedy
    assert remedy is not None and (remedy.action, remedy.pid, remedy.start_time) == ("kill", 777, 100.0)


def test_nothing_is_promised_of_what_hangs_in_the_kernel() -> None:
    stuck = process(777, role="worker", left=True, state="D", stuck_in="uvm_spin_loop")
    assert only(checked(gpu(), processes=(stuck,))).remedy is None


@pytest.mark.parametrize(
    ("state", "words"),
    [({"state": "D", "stuck_in": "uvm_spin_loop"}, "in the kernel"), ({"state": "Z"}, "ended")],
)
def test_what_hangs_or_has_ended_and_still_holds_the_card_is_a_leak_without_a_remedy(
    state: dict[str, Any], words: str
) -> None:
    found = only(checked(gpu(foreign()), processes=(process(**state),)))
    assert (found.kind, found.leak, found.remedy) == ("process", True, None) and words in found.title


def test_memory_of_ours_past_the_allocator_and_the_context_is_a_leak() -> None:
    device = gpu(context=8 * MIB)
    assert device.balance is not None
    facts = checked(replace(device, balance=replace(device.balance, unexplained_bytes=2 * GIB)))
    found = only(facts)
    assert (found.kind, found.leak, found.bytes) == ("context", True, 2 * GIB)
    assert found.remedy is not None and found.remedy.action == "cleanup" and found.site_reason


def test_unseen_memory_is_a_leak_only_where_nobody_can_hide() -> None:
    hidden = replace(
        gpu(unseen=3 * GIB), view=DeviceView(complete=False, reason="this engine is in a container")
    )
    found = only(checked(hidden))
    assert (found.kind, found.leak, found.device_id) == ("unseen", False, GPU)


# --------------------------------------------------------------------------- host memory


def test_a_pinned_buffer_that_python_holds_is_told_with_its_owner() -> None:
    found = only(looked(tensors=(held(place="host", pinned=True),)))
    assert (found.kind, found.leak) == ("pinned", True) and found.holder is not None
    assert found.remedy is not None and found.remedy.action == "cleanup"


def test_pinned_memory_that_grows_is_a_leak() -> None:
    found = only(replace(CLEAN, trends=(grows("pinned", 8 * MIB),)))
    assert (found.kind, found.leak) == ("pinned", True)
    assert found.remedy is not None and found.remedy.action == "free_pinned"


def test_a_heap_that_grew_by_tensors_is_told_once_as_tensors() -> None:
    facts = replace(
        looked(tensors=(held(16 * MIB, place="host"),)),
        device=replace(gpu(), id="cpu", kind="cpu", balance=None),
        trends=(grows("host", 2 * MIB),),
    )
    assert [one.kind for one in verdicts(facts)] == ["tensor"]
    # On cpu the device's floor is that of tensors: what grows beside it is none of them.
    both = replace(facts, trends=(grows("device", 2 * MIB), grows("host", MIB)))
    assert [one.kind for one in verdicts(both)] == ["tensor", "host_heap"]


def test_a_heap_that_is_only_kept_is_trimmed_and_one_that_grows_is_not() -> None:
    grown = replace(CLEAN, trends=(grows("host", 8 * MIB),))
    remedy = only(grown).remedy
    assert remedy is not None and remedy.action == "cleanup"
    kept = only(replace(CLEAN, host=HostMemory(heap_free_bytes=GIB)))
    assert not kept.leak and kept.remedy is not None and kept.remedy.action == "trim"
    assert kept.remedy.predicted_bytes is None, "its pages may have gone already"
    assert not any("/dev/shm" in sentence for sentence in only(grown).evidence)
    shared = only(replace(grown, host=HostMemory(shared_bytes=GIB)))
    assert any("1.00 GiB are shared mappings or files in `/dev/shm`" in told for told in shared.evidence)
    both = only(replace(grown, host=HostMemory(heap_free_bytes=GIB)))
    assert both.leak and both.remedy is not None and both.remedy.action == "trim"
