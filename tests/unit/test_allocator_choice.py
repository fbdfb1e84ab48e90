"""Allocator settings: what is asked for, and what of it the allocator does not confirm."""

from __future__ import annotations

import pytest

from engine.planning.allocator import GUIDE, choose_allocator, unfulfilled

TOLD = "max_split_size:134217728,garbage_collection_threshold:0.8,expandable_segments:True,backend:native"


def test_by_itself_the_engine_asks_for_nothing_and_says_why() -> None:
    choice = choose_allocator("auto")
    assert (choice.settings, choice.needs_fresh_import) == ("", False)
    assert "13 ms" in choice.reason
    assert unfulfilled(choice.settings, TOLD) == []


def test_the_guide_s_preset_is_read_back_in_bytes() -> None:
    choice = choose_allocator("guide")
    assert (choice.settings, choice.needs_fresh_import) == (GUIDE, False)
    assert unfulfilled(choice.settings, TOLD) == []
    assert unfulfilled(choice.settings, TOLD.replace("134217728", "18446744073709551615")) == [GUIDE]


@pytest.mark.parametrize(
    ("wanted", "fresh"),
    [
        ("expandable_segments:True", False),
        ("backend:cudaMallocAsync", True),
        ("max_split_size_mb:64, backend : cudaMallocAsync", True),
        ("garbage_collection_threshold:0.8,expandable_segments:False", False),
    ],
)
def test_only_what_torch_reads_at_its_import_needs_a_worker_that_imports_it(wanted: str, fresh: bool) -> None:
    choice = choose_allocator(wanted)
    assert (choice.settings, choice.needs_fresh_import) == (wanted, fresh)
    assert "config.toml" in choice.reason


@pytest.mark.parametrize(
    ("settings", "missed"),
    [
        ("expandable_segments:true", []),
        ("expandable_segments:False", ["expandable_segments:False"]),
        ("max_split_size_mb:128,garbage_collection_threshold:0.9", ["garbage_collection_threshold:0.9"]),
        ("max_split_size_mb:64, expandable_segments:True", ["max_split_size_mb:64"]),
        ("backend:cudaMallocAsync", ["backend:cudaMallocAsync"]),
        ("unheard_of:1", ["unheard_of:1"]),
    ],
)
def test_what_the_allocator_does_not_tell_of_itself_is_named_as_it_was_asked(
    settings: str, missed: list[str]
) -> None:
    assert unfulfilled(settings, TOLD) == missed


def test_where_nothing_is_told_nothing_is_called_missed() -> None:
    assert unfulfilled(GUIDE, None) == []
