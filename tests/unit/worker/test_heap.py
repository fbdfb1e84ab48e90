"""What of the heap is free, as its C library tells it: pages that are gone already do not count again."""

from __future__ import annotations

import pytest

from engine.worker import heap


def test_what_was_given_back_is_not_free_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [100]
    monkeypatch.setattr(heap, "_count", object())
    monkeypatch.setattr(heap, "_free_bytes", lambda: free[0])
    monkeypatch.setattr(heap, "_gone_bytes", 0)
    assert heap.heap_free_bytes() == 100
    heap.trim_heap()
    assert heap.heap_free_bytes() == 0
    free[0] = 130
    assert heap.heap_free_bytes() == 30
    free[0] = 60  # pieces without pages are used anew
    assert heap.heap_free_bytes() == 0
    free[0] = 100
    assert heap.heap_free_bytes() == 40
