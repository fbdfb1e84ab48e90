"""The event hub: nobody who listens can slow the engine, and nobody misses what is not coalesced."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.daemon import events
from engine.daemon.events import EventHub
from engine.wire import DeviceStatus, Event, Logged, LogLine, MemorySampled, Snapshot


def snapshot() -> Snapshot:
    return Snapshot.__new__(Snapshot)


def sample(age: float, device: str = "cpu") -> MemorySampled:
    return MemorySampled(
        device=DeviceStatus(id=device, kind="cpu", name="host", total_bytes=1, in_use=True, age_s=age)
    )


def line(number: int) -> Logged:
    return Logged(line=LogLine(seq=number, at=0.0, event="test", text=str(number)))


def names(data: bytes) -> list[str]:
    return [row.removeprefix("event: ") for row in data.decode().splitlines() if row.startswith("event: ")]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> EventHub:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)
    encode = events.encode_sse

    def encode_any(seq: int, event: Event) -> bytes:
        return b"event: snapshot\n\n" if isinstance(event, Snapshot) else encode(seq, event)

    monkeypatch.setattr(events, "encode_sse", encode_any)
    return EventHub()


async def opened(hub: EventHub) -> AsyncIterator[bytes]:
    stream = hub.stream(snapshot)
    assert names(await anext(stream)) == ["snapshot"]
    return stream


async def test_a_silent_stream_still_says_that_it_lives(hub: EventHub) -> None:
    stream = await opened(hub)
    assert names(await anext(stream)) == ["heartbeat"]


async def test_a_slow_reader_gets_the_newest_sample_of_each_device_and_every_line(hub: EventHub) -> None:
    stream = await opened(hub)
    for number in range(50):
        hub.publish(sample(number))
        hub.publish(sample(number, "GPU-1"))
        hub.publish(line(number))
    data = await anext(stream)
    assert names(data).count("memory") == 2
    assert names(data).count("log") == 50
    assert b'"age_s":49' in data and b'"age_s":48' not in data


async def test_a_reader_that_never_reads_is_dropped_and_costs_nothing_more(
    hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BACKLOG_EVENTS", 10)
    stream = await opened(hub)
    for number in range(25):
        hub.publish(line(number))
    with pytest.raises(StopAsyncIteration):
        while True:
            await anext(stream)
    assert not hub.watched


async def test_goodbye_is_the_last_word_also_for_those_who_come_late(hub: EventHub) -> None:
    stream = await opened(hub)
    hub.publish(line(1))
    hub.close("stopped")
    assert names(await anext(stream)) == ["log", "goodbye"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [names(data) async for data in hub.stream(snapshot)] == [["goodbye"]]


async def test_a_closed_stream_is_forgotten(hub: EventHub) -> None:
    stream = await opened(hub)
    assert hub.watched
    await stream.aclose()  # type: ignore[attr-defined]
    assert not hub.watched
