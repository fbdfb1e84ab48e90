"""Host memory as the machine and both cgroup versions limit it, read from made-up /proc trees."""

from __future__ import annotations

import os

import pytest

from engine.telemetry.host import HostMemory, HostProbe, find_levels, read_rss, read_swapped
from tests.host_tree import HostTree

MIB = 2**20
GIB = 2**30


@pytest.fixture
def tree(tmp_path) -> HostTree:
    return HostTree(tmp_path)


def read(tree: HostTree) -> HostMemory:
    probe = tree.probe()
    probe.refresh_limits()
    return probe.read()


def test_without_a_limit_the_machine_counts(tree):
    tree.member_of("0::/user")
    tree.level("user", memory__max="max", memory__current=GIB)
    memory = read(tree)
    assert (memory.total_bytes, memory.available_bytes) == (16 * GIB, 8 * GIB)
    assert not memory.limited_by_cgroup


def test_a_limit_is_the_total_and_its_headroom_counts_idle_file_pages(tree):
    tree.member_of("0::/job")
    tree.level(
        "job",
        memory__max=4 * GIB,
        memory__current=3 * GIB,
        memory__stat=f"anon {2 * GIB}\ninactive_file {512 * MIB}\nactive_file 7",
    )
    memory = read(tree)
    assert (memory.total_bytes, memory.available_bytes) == (4 * GIB, GIB + 512 * MIB)
    assert memory.limited_by_cgroup


def test_the_machine_counts_where_it_has_less_left_than_the_limit_allows(tree):
    tree.member_of("0::/job")
    tree.level("job", memory__max=12 * GIB, memory__current=0, memory__stat="inactive_file 0")
    memory = read(tree)
    assert (memory.total_bytes, memory.available_bytes) == (12 * GIB, 8 * GIB)


def test_a_parent_may_be_the_tight_one(tree):
    tree.member_of("0::/slice/job")
    tree.level("slice", memory__max=2 * GIB, memory__current=GIB, memory__stat="inactive_file 0")
    tree.level("slice/job", memory__max=6 * GIB, memory__current=GIB, memory__stat="inactive_file 0")
    memory = read(tree)
    assert (memory.total_bytes, memory.available_bytes) == (2 * GIB, GIB)


def test_a_group_above_its_limit_has_nothing_left_and_not_less(tree):
    tree.member_of("0::/job")
    tree.level("job", memory__max=GIB, memory__current=2 * GIB, memory__stat="inactive_file 0")
    assert read(tree).available_bytes == 0


def test_the_first_version_of_cgroups_is_read_too(tree):
    tree.mounted(version=1)
    tree.member_of("4:cpu:/elsewhere\n3:memory:/job\n0::/")
    tree.level(
        "job",
        memory__limit_in_bytes=4 * GIB,
        memory__usage_in_bytes=3 * GIB,
        memory__stat=f"inactive_file 1\ntotal_inactive_file {256 * MIB}",
    )
    memory = read(tree)
    assert (memory.total_bytes, memory.available_bytes) == (4 * GIB, GIB + 256 * MIB)


def test_the_first_versions_word_for_no_limit_is_a_huge_number(tree):
    tree.mounted(version=1)
    tree.member_of("3:memory:/")
    tree.level(".", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=GIB)
    assert not read(tree).limited_by_cgroup


@pytest.mark.parametrize(
    ("root", "path"), [("/docker/abc", "/docker/abc"), ("/", "/docker/abc"), ("/", "/../../other")]
)
def test_in_a_container_the_mount_itself_is_the_group(tree, root, path):
    tree.mounted(root=root)
    tree.member_of(f"0::{path}")
    tree.level(".", memory__max=GIB, memory__current=0, memory__stat="inactive_file 0")
    assert read(tree).total_bytes == GIB


def test_a_limit_that_changes_is_seen_after_looking_again(tree):
    tree.member_of("0::/job")
    tree.level("job", memory__max="max", memory__current=0, memory__stat="inactive_file 0")
    probe = tree.probe()
    probe.refresh_limits()
    assert not probe.read().limited_by_cgroup
    tree.level("job", memory__max=GIB)
    probe.refresh_limits()
    assert probe.read().total_bytes == GIB


def test_a_host_without_cgroups_is_not_limited(tree):
    assert find_levels(tree.proc) == []
    assert read(tree).total_bytes == 16 * GIB


def test_this_host_can_be_read():
    probe = HostProbe()
    probe.refresh_limits()
    memory = probe.read()
    assert 0 < memory.available_bytes <= memory.total_bytes


def test_the_resident_set_of_a_process_is_in_bytes_and_of_a_gone_one_none(tree):
    (tree.proc / "7").mkdir()
    (tree.proc / "7/statm").write_text("5000 300 100 1 0 900 0\n")
    assert read_rss(7, tree.proc) == 300 * os.sysconf("SC_PAGE_SIZE")
    assert read_rss(8, tree.proc) is None
    mine = read_rss(os.getpid())
    assert mine is not None and mine > MIB


def test_pressure_is_the_machines_or_that_of_the_cgroup_which_limits(tree):
    (tree.proc / "pressure").mkdir()
    (tree.proc / "pressure/memory").write_text("some avg10=1.50 avg60=0 avg300=0 total=9\nfull avg10=0.00\n")
    probe = tree.probe()
    probe.refresh_limits()
    assert probe.read_pressure() == 1.5
    tree.limit(2 * GIB, current=GIB)
    probe = tree.probe()
    probe.refresh_limits()
    assert probe.read_pressure() is None, "the group tells none, and the machine's would be another's"
    tree.level("job", memory__pressure="some avg10=37.25 avg60=0.00 avg300=0.00 total=1")
    assert probe.read_pressure() == 37.25


def test_what_is_swapped_out_is_read_and_unknown_for_a_process_that_is_gone(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text("Name:\tx\nVmSwap:\t    2048 kB\n")
    assert read_swapped(7, tmp_path) == 2 * MIB
    assert read_swapped(8, tmp_path) is None
    (tmp_path / "7/status").write_text("Name:\tx\n")
    assert read_swapped(7, tmp_path) is None
