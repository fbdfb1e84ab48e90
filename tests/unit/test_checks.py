"""Each detector of the baseline check over made-up facts: what it finds, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from facts import CLEAN, GPU, NOW, OURS, WORKER, foreign, gpu, process, spoiled

from engine.checks.facts import CardChange, Facts
from engine.checks.run import find, unknown
from engine.checks.unseen import rank_causes
from engine.units import GIB, MIB
from engine.wire import CardStatus, DeviceStatus, DeviceView, Finding, Receipt
from engine.worker.channel import AllocatorSample

ESCAPES = set("\x1b\x07\x9b\u202e")


def only(facts: Facts, kind: str) -> Finding:
    """The one finding that there is."""
    found = find(facts)
    assert [finding.kind for finding in found] == [kind]
    return found[0]


def nothing(facts: Facts) -> None:
    assert find(facts) == ()


def test_a_clean_engine_has_no_finding_and_nothing_unknown() -> None:
    nothing(CLEAN)
    assert unknown(CLEAN) == ()


def test_an_orphaned_worker_is_found_with_its_bytes_and_ended_by_number() -> None:
    orphan = process(777, name="tt-worker", role="worker", parent_name="init", left=True)
    listed = foreign(777, name="tt-worker", program="turbotui worker", bytes=28 * GIB)
    found = only(spoiled(orphan, devices=(gpu(listed),)), "orphan")
    assert found.severity == "warning" and found.bytes == 28 * GIB and found.device_id == GPU
    assert (found.pid, found.start_time) == (777, 100.0)
    assert found.remedy_command == "turbotui kill 777"
    assert "28.00 GiB" in found.title and any("process 1 (init)" in line for line in found.evidence)


def test_an_orphan_without_memory_is_a_notice_without_a_command_that_ends_a_bare_number() -> None:
    nursery = process(778, name="tt-nursery", role="nursery", holds_gpu=False, left=True)
    found = only(spoiled(nursery), "orphan")
    assert found.severity == "notice" and found.bytes is None
    assert found.remedy_command == "ps -o pid,user,stat,lstart,cmd -p 778"


def test_no_signal_is_promised_to_an_orphan_that_hangs_in_the_kernel() -> None:
    found = only(
        spoiled(process(778, role="worker", left=True, state="D", stuck_in="uvm_spin_loop")), "orphan"
    )
    assert found.remedy_command is None and "uvm_spin_loop" in " ".join(found.evidence)


@pytest.mark.parametrize(
    "changes",
    [
        {"left": False},
        {"uid": 1001},
        {"role": "daemon"},
        {"role": None},
        {"state": "Z"},
    ],
)
def test_what_is_no_orphan_of_ours(changes: dict[str, Any]) -> None:
    nothing(spoiled(process(777, **{"role": "worker", "name": "tt-worker", "left": True, **changes})))


def test_no_orphan_is_claimed_when_the_look_was_cut_short() -> None:
    facts = spoiled(process(777, role="worker", left=True), scanned=False)
    nothing(facts)
    assert "processes" in unknown(facts)[0]


def test_a_web_ui_that_nobody_can_reach_looks_like_a_leftover() -> None:
    found = only(spoiled(process(), devices=(gpu(foreign()),)), "web_ui_leftover")
    assert "looks like a leftover" in found.title and "ComfyUI" in found.title
    assert found.bytes == 6 * GIB and found.remedy_command == "turbotui kill 4242"


def test_another_users_leftover_is_asked_about_and_never_ended() -> None:
    facts = spoiled(process(uid=1001), devices=(gpu(foreign(user="liwei")),))
    found = only(facts, "web_ui_leftover")
    assert found.remedy_command is None and found.severity == "notice"
    assert "liwei" in found.remedy and found.admin_line and "4242" in found.admin_line


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ({}, {"listens": True}),  # people use it
        ({}, {"listens": None}),  # that cannot be known
        ({}, {"has_terminal": True}),
        ({}, {"parent": 900, "parent_name": "bash"}),
        ({}, {"start_time": 9_950.0}),  # it was started just now
        ({"program": "torchrun training"}, {}),  # it needs no port
        ({"program": None}, {}),
        ({"start_time": 200.0}, {}),  # the pid means another process there
        ({"start_time": None}, {}),
    ],
)
def test_what_is_no_leftover(listed: dict[str, Any], seen: dict[str, Any]) -> None:
    start = {"start_time": seen["start_time"]} if "start_time" in seen else {}
    nothing(spoiled(process(**seen), devices=(gpu(foreign(**{**start, **listed})),)))


def test_a_process_that_no_signal_reaches_is_told_with_its_place_and_no_promise() -> None:
    seen = process(state="D", stuck_in="os_acquire_rwlock_write", parent=900, parent_name="bash")
    found = only(spoiled(seen, devices=(gpu(foreign()),)), "stuck_process")
    assert "os_acquire_rwlock_write" in found.evidence[0] and found.remedy.startswith("Nothing is promised")
    assert found.remedy_command is None and found.admin_line


def test_a_process_that_waits_for_its_disk_is_not_stuck() -> None:
    # The second look saw it run: `stuck_in` is None.
    nothing(spoiled(process(state="D", parent=900, parent_name="bash"), devices=(gpu(foreign()),)))


def test_a_zombie_is_told_where_the_driver_still_counts_it() -> None:
    zombie = process(state="Z", parent=900, parent_name="bash")
    found = only(spoiled(zombie, devices=(gpu(foreign(program=None)),)), "zombie")
    assert "process 900 (bash)" in found.evidence[0] and found.remedy_command.endswith("-p 900")  # type: ignore[union-attr]
    nothing(spoiled(zombie, devices=(gpu(foreign(program=None, bytes=0)),)))


def test_another_engine_is_a_named_tenant_and_no_error() -> None:
    listed = foreign(program="turbotui worker", name="tt-worker", user="liwei")
    found = only(spoiled(devices=(gpu(listed),)), "other_engine")
    assert found.severity == "info" and "liwei" in found.title
    mine = process(role="worker", under_daemon=True, parent=3)
    assert (
        "TURBOTUI_HOME"
        in only(spoiled(mine, devices=(gpu(replace(listed, user="me")),)), "other_engine").remedy
    )


# ----------------------------------------------------------------- unseen


def test_unseen_memory_is_told_with_its_bytes_since_when_and_a_line_for_the_admin() -> None:
    device = replace(gpu(unseen=14 * GIB), view=DeviceView(complete=False, reason="this is a container"))
    facts = spoiled(devices=(device,), unseen_since={GPU: NOW - 60})
    found = only(facts, "unseen")
    assert found.severity == "warning" and found.bytes == 14 * GIB and found.since == NOW - 60
    assert "Likeliest: somebody whom this engine cannot see, since this is a container" in found.evidence[1]
    assert found.remedy_command is None and found.admin_line is not None
    assert "14.00 GiB" in found.admin_line and GPU in found.admin_line and "uid 1000" in found.admin_line


@pytest.mark.parametrize(
    "device",
    [
        gpu(unseen=100 * MIB),
        gpu(unseen=None),
        replace(gpu(unseen=14 * GIB), balance=replace(gpu(unseen=14 * GIB).balance, coherent=False)),  # type: ignore[type-var]
        replace(gpu(), balance=None),
        replace(gpu(unseen=14 * GIB), kind="cpu"),
    ],
)
def test_what_is_not_surely_unseen_is_no_finding(device: Any) -> None:
    nothing(spoiled(devices=(device,)))


def test_what_could_not_be_known_is_said_with_its_reason() -> None:
    assert "no NVML" in unknown(spoiled(devices=(gpu(unseen=None),)))[0]
    assert "not read yet" in unknown(spoiled(devices=(replace(gpu(), balance=None),)))[0]
    assert "old" in unknown(spoiled(devices=(replace(gpu(), age_s=9.0),)))[0]
    assert unknown(spoiled(devices=())) == ("devices: nothing was read yet",)
    assert "versions" in unknown(spoiled(versions=None))[0]


def test_a_ghost_is_claimed_only_where_all_processes_are_seen() -> None:
    devices = (gpu(unseen=14 * GIB),)
    assert "reset" in only(spoiled(devices=devices), "ghost").remedy
    for view in (None, DeviceView(complete=False), DeviceView(complete=False, reason="hidepid")):
        hidden = (replace(devices[0], view=view),)
        assert "ghost" not in " ".join(only(spoiled(devices=hidden), "unseen").evidence)
    assert "unseen" in {found.kind for found in find(spoiled(devices=devices, scanned=False))}


@pytest.mark.parametrize(
    ("view", "cause"),
    [
        (DeviceView(complete=False, reason="hidepid"), "somebody whom this engine cannot see"),
        (DeviceView(complete=False), "a process that cannot be seen"),
        (None, "a process that cannot be seen"),
        (DeviceView(complete=True), "a ghost"),
    ],
)
def test_the_likeliest_cause_follows_from_what_we_can_see(view: DeviceView | None, cause: str) -> None:
    device = replace(gpu(unseen=14 * GIB), view=view)
    assert rank_causes(spoiled(devices=(device,)), device)[0].name.startswith(cause)


def test_a_process_that_left_just_now_is_the_likeliest_cause_and_only_a_notice() -> None:
    left = CardChange(at=NOW - 2, device_id=GPU, process=foreign(), came=False)
    found = only(spoiled(devices=(gpu(unseen=6 * GIB),), changes=(left,)), "unseen")
    assert found.severity == "notice" and "torn down" in found.evidence[1] and "4242" in found.evidence[1]
    for other in (replace(left, at=NOW - 60), replace(left, device_id="GPU-2"), replace(left, came=True)):
        assert only(spoiled(devices=(gpu(unseen=6 * GIB),), changes=(other,)), "ghost").severity == "warning"


def test_mps_and_hanging_processes_and_holders_that_nvml_does_not_list_are_causes() -> None:
    device = gpu(unseen=6 * GIB)
    hanging = process(600, state="D", stuck_in="uvm_gpu_release")
    holder = process(601, name="Xorg")
    mps = process(602, name="nvidia-cuda-mps", holds_gpu=None)
    names = [cause.name for cause in rank_causes(spoiled(hanging, holder, mps), device)]
    assert names[:3] == [
        "process 600, which hangs in the kernel", "clients of the MPS server", "process 601 (Xorg)"
    ]  # fmt: skip
    assert names[-1].startswith("a ghost")


# ----------------------------------------------------------------- the worker


def test_a_cache_is_no_leak() -> None:
    found = only(spoiled(devices=(gpu(releasable=6 * GIB),)), "cache")
    assert found.severity == "info" and found.remedy_command == "turbotui free" and found.bytes == 6 * GIB
    nothing(spoiled(devices=(gpu(releasable=GIB - 1),)))


def test_fragments_are_not_returned_by_free() -> None:
    facts = spoiled(devices=(gpu(fragmented=3 * GIB),))
    assert only(facts, "fragmented").remedy_command == "turbotui cleanup"
    running = replace(facts, workers=(replace(WORKER, job_id=4, state="running"),))
    assert only(running, "fragmented").remedy_command is None
    nothing(spoiled(devices=(gpu(fragmented=GIB - 1),)))


def test_an_allocator_that_ran_short_is_told_of() -> None:
    counters = AllocatorSample(taken_at=1.0, device_allocs=3, weights={}, num_ooms=1, num_alloc_retries=3)
    found = only(spoiled(counters=counters), "memory_pressure")
    assert "3 times" in found.evidence[0] and "once" in found.evidence[1] and found.pid == WORKER.pid
    nothing(spoiled(counters=AllocatorSample(taken_at=1.0, device_allocs=3, weights={})))


def test_settings_that_were_asked_for_and_are_not_in_force() -> None:
    found = only(spoiled(allocator_asked="expandable_segments:True"), "allocator")
    assert found.severity == "warning" and "expandable_segments:True" in found.evidence[0]
    nothing(spoiled(allocator_asked="expandable_segments:False"))


def test_a_variable_that_decides_beside_the_settings() -> None:
    found = only(spoiled(allocator_environment={"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}), "allocator")
    assert found.remedy_command == "env -u PYTORCH_ALLOC_CONF turbotui engine restart --after-job"
    same = {"PYTORCH_ALLOC_CONF": "expandable_segments:False"}
    nothing(spoiled(allocator_environment=same, allocator_asked="expandable_segments:False"))


@pytest.mark.parametrize(
    ("versions", "is_found"),
    [
        ({"torch": "2.10.0", "cudnn": "91002", "cuda": "12.8"}, True),
        ({"torch": "2.10.0", "cudnn": "91500", "cuda": "12.8"}, False),
        ({"torch": "2.8.0", "cudnn": "91002", "cuda": "12.8"}, False),  # before torch relied on it
        ({"torch": "2.10.0", "cuda": "12.8"}, False),
        ({"torch": "2.10.0", "cudnn": "none"}, False),
        (None, False),
    ],
)
def test_a_cudnn_that_is_too_old_for_bf16(versions: dict[str, str] | None, is_found: bool) -> None:
    found = find(spoiled(versions=versions))
    assert [finding.kind for finding in found] == (["cudnn"] if is_found else [])
    assert not is_found or ("9.10 " in found[0].title and "cu12" in (found[0].remedy_command or ""))
    nothing(spoiled(versions=versions, devices=()))


def residue(**changes: Any) -> Receipt:
    receipt = Receipt(
        action="unload", target="wan", ok=True, expected_bytes=14 * GIB, residue_bytes=GIB, elapsed_s=0.03,
        residue=("held by the worker's process beyond its weights",), proof="nvml-process", at=NOW - 5,
    )  # fmt: skip
    return replace(receipt, **changes)


def test_what_the_last_unload_left_behind() -> None:
    found = only(spoiled(receipts=(residue(),)), "residue")
    assert found.bytes == GIB and found.since == NOW - 5 and "1.00 GiB" in found.title
    assert found.remedy_command == "turbotui cleanup"


@pytest.mark.parametrize(
    "receipts",
    [
        (residue(residue_bytes=256 * MIB),),
        (residue(residue_bytes=None),),
        (residue(ok=False),),
        (residue(), residue(residue_bytes=0, at=NOW - 1)),  # the next one gave it back
        (residue(at=NOW - 7200),),  # of a worker before this one
        (residue(proof="process-rss"),),
        (residue(action="load"),),
    ],
)
def test_what_is_no_residue(receipts: tuple[Receipt, ...]) -> None:
    nothing(spoiled(receipts=receipts))


def test_a_load_after_it_does_not_hide_a_residue_and_a_cleanups_own_is_told_without_a_worker() -> None:
    assert only(spoiled(receipts=(residue(), residue(action="load", residue_bytes=0))), "residue")
    gone = spoiled(receipts=(residue(action="cleanup"),), workers=(), counters=None)
    assert "cleanup" in only(gone, "residue").title
    nothing(spoiled(receipts=(residue(),), workers=(), counters=None))


def test_a_silent_worker_is_told_with_what_it_holds() -> None:
    found = only(spoiled(workers=(replace(WORKER, state="silent", job_id=7),)), "worker_silent")
    assert found.bytes == OURS.bytes and "job 7" in found.evidence[0]
    nothing(spoiled(workers=(replace(WORKER, state="running"),)))


def test_warm_files_that_take_much_of_the_host() -> None:
    assert only(spoiled(workers=(replace(WORKER, warm_bytes=70 * GIB),)), "warm").severity == "info"
    found = only(spoiled(host_available_bytes=5 * GIB), "warm")
    assert (
        found.severity == "notice"
        and found.remedy_command == "turbotui drop-warm"
        and "8%" in found.evidence[0]
    )
    nothing(spoiled(host_available_bytes=5 * GIB, workers=(replace(WORKER, warm_bytes=0),)))
    nothing(spoiled(host_available_bytes=None, workers=(replace(WORKER, warm_bytes=70 * GIB),)))


# ----------------------------------------------------------------- engine and driver


def test_a_nursery_that_failed_or_has_the_driver_open() -> None:
    assert "torch" in only(spoiled(nursery_state="failed", nursery_detail="no torch"), "nursery").evidence[0]
    found = only(spoiled(nursery_device_files=("/dev/nvidiactl",)), "nursery_driver")
    assert "/dev/nvidiactl" in found.evidence[0]
    nothing(spoiled(nursery_state="warming"))


def test_a_probe_that_does_not_answer() -> None:
    assert only(spoiled(probe_age_s=30.0), "probe").evidence == ("Its last word is 30 s old.",)
    nothing(spoiled(probe_age_s=None))


def without_name(num_bytes: int, **changes: Any) -> DeviceStatus:
    device = gpu(context=GIB)
    assert device.balance is not None
    return replace(device, balance=replace(device.balance, unexplained_bytes=num_bytes, **changes))


def test_memory_of_our_worker_that_has_no_name() -> None:
    found = only(spoiled(devices=(without_name(GIB),)), "unexplained")
    assert found.bytes == GIB and found.remedy_command == "turbotui cleanup"
    for harmless in (without_name(100 * MIB), without_name(-GIB), without_name(GIB, coherent=False)):
        nothing(spoiled(devices=(harmless,)))
    nothing(spoiled(devices=(without_name(GIB),), workers=(replace(WORKER, job_id=3, state="running"),)))
    nothing(spoiled(devices=(replace(without_name(GIB), id="GPU-2"),)))


def card(**told: Any) -> DeviceStatus:
    return replace(gpu(), card=CardStatus(**told))


def test_what_the_driver_asks_for_is_critical_and_its_events_are_kept_for_a_day() -> None:
    found = only(spoiled(devices=(card(recovery_action="reset the GPU"),)), "recovery_action")
    assert found.severity == "critical" and "reset the GPU" in found.title
    nothing(spoiled(devices=(card(recovery_action="none"),)))
    assert only(spoiled(devices=(card(xid=79, xid_age_s=60.0),)), "xid").severity == "warning"
    assert only(spoiled(devices=(card(xid=31, xid_age_s=60.0),)), "xid").severity == "notice"
    nothing(spoiled(devices=(card(xid=79, xid_age_s=90_000.0),)))


# ----------------------------------------------------------------- all of them


def test_the_worst_and_largest_come_first() -> None:
    device = gpu(foreign(777, program=None), unseen=14 * GIB, releasable=20 * GIB)
    asks = replace(device, card=CardStatus(recovery_action="reboot the host"))
    facts = spoiled(process(777, role="worker", left=True), devices=(asks,))
    assert [found.kind for found in find(facts)] == ["recovery_action", "ghost", "orphan", "cache"]


def every_finding() -> list[Finding]:
    hostile = foreign(user="li\x1bwei", name="py\x07", program="ComfyUI")
    facts: list[Callable[[], Facts]] = [
        lambda: spoiled(process(777, role="worker"), process(), devices=(gpu(hostile, unseen=14 * GIB),)),
        lambda: spoiled(process(uid=1001), devices=(gpu(hostile),)),
        lambda: spoiled(process(uid=1001, state="Z", parent=9), devices=(gpu(hostile),)),
        lambda: spoiled(process(stuck_in="x"), devices=(gpu(replace(hostile, program="turbotui worker")),)),
        lambda: spoiled(versions={"torch": "2.10", "cudnn": "91002"}),
        lambda: spoiled(devices=(gpu(releasable=6 * GIB, fragmented=6 * GIB),), probe_age_s=9.0),
        lambda: spoiled(receipts=(residue(),), workers=(replace(WORKER, state="silent"),)),
        lambda: spoiled(allocator_asked="backend:x", allocator_environment={"PYTORCH_ALLOC_CONF": "y"}),
    ]
    return [finding for made in facts for finding in find(made())]


def test_no_remedy_ends_anything_by_name_or_hits_a_neighbour() -> None:
    found = every_finding()
    assert len({finding.kind for finding in found}) >= 12
    for finding in found:
        command = finding.remedy_command or ""
        assert not any(word in command for word in ("pkill", "killall", "fuser -k", "--other-user", "-9 1 "))
        assert "--yes" not in command, "a remedy that is pasted still asks"
        if "kill" in command:
            assert str(finding.pid) in command.split()
        # Commands hold nothing that another user has written.
        assert not set(command) & ESCAPES and "wei" not in command
        assert finding.title.endswith(".") and finding.remedy.endswith((".", "?")) and finding.evidence
