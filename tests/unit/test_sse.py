"""The event parser gives the same events however the bytes were cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineUnavailable
from turbotui.client import sse
from turbotui.client.sse import SseMessage, SseParser

WIRE = (
    b": hello\n\nid: 1\nevent: job\ndata: {}\n\nevent: log\r\ndata: a\r\ndata: b\r\n\r\n"
    b"data\n\nevent: nothing\n\nid:2\rdata:x\r\rretry: 5\n\n"
)
EVENTS = [
    SseMessage(event="job", data=b"{}", id=1),
    SseMessage(event="log", data=b"a\nb", id=1),
    SseMessage(event="message", data=b"", id=1),
    SseMessage(event="message", data=b"x", id=2),
]


@given(st.lists(st.integers(min_value=0, max_value=len(WIRE))))
def test_any_cut_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    parser = SseParser()
    bounds = [0, *sorted(cuts), len(WIRE)]
    pieces = [WIRE[start:end] for start, end in itertools.pairwise(bounds)]
    assert [message for piece in pieces for message in parser.feed(piece)] == EVENTS


def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_LIMIT_BYTES", 1000)
    parser = SseParser()
    with pytest.raises(EngineUnavailable, match="without an end"):
        for _ in range(200):
            list(parser.feed(b"data: 0123456789\n"))
