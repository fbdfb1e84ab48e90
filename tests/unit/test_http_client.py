"""The HTTP client against a real server on a real Unix socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from unix_server import Answerer, Handler, serving

from engine.errors import (
    DoesNotFit,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    NotFound,
)
from engine.wire import (
    CacheCleared,
    CacheStatus,
    EventFrame,
    Goodbye,
    Heartbeat,
    Hello,
    Job,
    JobMove,
    JobSpec,
    Receipt,
    StopRequest,
    SwitchRequest,
    UnloadRequest,
)
from turbotui.client import exchange
from turbotui.client.base import Client, Stream
from turbotui.client.http import HttpClient

HELLO = Hello(wire=1, build="0.1.0", schema=1, pid=7, start_time=1.5, instance="i", host="h", user="u")
JOB = Job(id=41, spec=JobSpec(model="wan", prompt="一只猫"), status="queued", created_at=1.0, position=1)
RECEIPT = Receipt(action="switch", target="wan", ok=True, elapsed_s=0.1, proof="process-rss")
CACHE = CacheStatus(folder="/c", entries=2, bytes=9, max_bytes=99)
CLEARED = CacheCleared(folder="/c", entries=2, bytes=9)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Answerer], HttpClient]]:
    """A function that starts a server with the given answers and returns a client of it."""
    with ExitStack() as servers:

        def start(answerer: Answerer) -> HttpClient:
            servers.enter_context(serving(tmp_path / "s", answerer))
            return HttpClient(tmp_path / "s", timeout=5)

        yield start


def test_every_call_asks_its_route_and_gives_the_wire_model(serve: Any) -> None:
    asked: list[tuple[str, str, Any]] = []
    answers: dict[str, Any] = {
        "/hello": HELLO,
        "/models": [],
        "/models/demo": [],
        "/jobs?all=true": [JOB],
        "/jobs?all=false": [JOB],
        "/queue/resume": {"waiting": 0},
        "/switch": RECEIPT,
        "/unload": RECEIPT,
        "/free": RECEIPT,
        "/cache": CACHE,
        "/cache/clear": CLEARED,
        "/logs?after=3&limit=9": [{"seq": 4, "at": 1.0, "event": "job", "text": "x", "later": "unknown"}],
    }

    def answer(handler: Handler, method: str, body: bytes) -> None:
        asked.append((method, handler.path, json.loads(body) if body else None))
        if handler.path == "/engine/stop":
            handler.answer(404, {"code": "not_found", "message": "no"})
        else:
            handler.answer(200, answers.get(handler.path, JOB))

    client: Client = serve(answer)
    assert client.hello() == HELLO
    assert client.models() == [] and client.make_demo_models() == []
    assert client.jobs() == [JOB] and client.jobs(all=True) == [JOB]
    assert client.submit(JOB.spec) == JOB and client.job(41) == JOB
    for call in (client.cancel, client.retry, client.duplicate):
        assert call(41) == JOB
    assert client.hold(41, held=True) == JOB and client.hold(41, held=False) == JOB
    assert client.move(41, JobMove(position=2)) == JOB
    client.resume_queue()
    assert client.switch(SwitchRequest(model="wan")) == RECEIPT
    assert client.unload(UnloadRequest()) == RECEIPT
    assert client.free() == RECEIPT
    assert client.cache() == CACHE and client.clear_cache() == CLEARED
    assert [line.seq for line in client.logs(after=3, limit=9)] == [4]
    with pytest.raises(NotFound):
        client.stop(StopRequest(after_job=True))
    spec = msgspec.to_builtins(JOB.spec)
    assert asked == [
        ("GET", "/hello", None),
        ("GET", "/models", None),
        ("POST", "/models/demo", None),
        ("GET", "/jobs?all=false", None),
        ("GET", "/jobs?all=true", None),
        ("POST", "/jobs", spec),
        ("GET", "/jobs/41", None),
        ("POST", "/jobs/41/cancel", None),
        ("POST", "/jobs/41/retry", None),
        ("POST", "/jobs/41/duplicate", None),
        ("POST", "/jobs/41/hold", None),
        ("POST", "/jobs/41/release", None),
        ("POST", "/jobs/41/move", {"position": 2, "priority": None}),
        ("POST", "/queue/resume", None),
        ("POST", "/switch", {"model": "wan"}),
        ("POST", "/unload", {"model": None, "component": None}),
        ("POST", "/free", None),
        ("GET", "/cache", None),
        ("POST", "/cache/clear", None),
        ("GET", "/logs?after=3&limit=9", None),
        ("POST", "/engine/stop", {"after_job": True}),
    ]


def test_a_refusal_comes_back_as_the_error_that_the_engine_raised(serve: Any) -> None:
    client = serve(
        lambda handler, *_: handler.answer(409, {"code": "does_not_fit", "message": "needs 9, has 4"})
    )
    with pytest.raises(DoesNotFit, match="needs 9, has 4"):
        client.switch(SwitchRequest(model="wan"))


def test_an_error_code_of_a_newer_engine_is_an_engine_error(serve: Any) -> None:
    client = serve(lambda handler, *_: handler.answer(409, {"code": "from_2030", "message": "because"}))
    with pytest.raises(EngineError, match="because"):
        client.free()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b'{"detail":"Not Found"}', "knows no POST /free.*engine restart"),
        (500, b"oops", "HTTP 500"),
        (200, b"not json", "different builds"),
        (200, b'{"action":"dance"}', "different builds"),
    ],
)
def test_an_answer_of_another_build_says_so(serve: Any, status: int, body: bytes, words: str) -> None:
    client = serve(lambda handler, *_: handler.answer(status, body))
    with pytest.raises(EngineError, match=words):
        client.free()


def test_a_prompt_that_is_no_text_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"udce9.*UTF-8"):
        HttpClient(tmp_path / "none").submit(JobSpec(model="wan", prompt="caf\udce9"))


def test_no_engine_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="socket is not there"):
        HttpClient(tmp_path / "none").hello()
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    with pytest.raises(EngineUnavailable, match="nobody listens"):
        HttpClient(stale).hello()
    with pytest.raises(EngineUnavailable, match="too long"):
        HttpClient("/tmp/" + "x" * 200).hello()


def test_an_engine_that_goes_away_under_a_call_is_unavailable(serve: Any) -> None:
    client = serve(lambda handler, *_: handler.connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(EngineUnavailable, match="went away"):
        client.hello()


def test_an_engine_that_says_nothing_is_unavailable_after_the_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(EngineUnavailable, match=r"said nothing for 0\.05 s"):
            HttpClient(tmp_path / "s", timeout=0.05).hello()


def test_a_full_backlog_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first.connect(str(tmp_path / "s"))
        with pytest.raises(EngineUnavailable, match="backlog stays full"):
            HttpClient(tmp_path / "s", timeout=0.1).hello()


def collect(client: HttpClient, *, close_after: int | None = None) -> list[EventFrame]:
    frames: list[EventFrame] = []
    streams: list[Stream] = []

    def keep(frame: EventFrame) -> None:
        frames.append(frame)
        if len(frames) == close_after:
            streams[0].close()

    client.subscribe(keep, on_open=streams.append)
    return frames


def test_events_arrive_in_order_with_their_numbers_until_goodbye(serve: Any) -> None:
    def answer(handler: Handler, *_: object) -> None:
        handler.begin_events()
        handler.send_events(b'id: 5\nevent: heartbeat\ndata: {"at"')
        handler.send_events(b": 1.5}\n")
        handler.send_events(
            b"\n: a comment\n\nid: 6\nevent: from_2030\ndata: {}\n\nid: 7\nevent: heartbeat\n"
        )
        handler.send_events(b'data: {"at": 2.5}\n\nid: 8\nevent: goodbye\ndata: {"reason": "stop"}\n\n')
        handler.send_events(b'id: 9\nevent: heartbeat\ndata: {"at": 3.5}\n\n')

    assert collect(serve(answer)) == [
        EventFrame(seq=5, event=Heartbeat(at=1.5)),
        EventFrame(seq=7, event=Heartbeat(at=2.5)),
        EventFrame(seq=8, event=Goodbye(reason="stop")),
    ]


def test_a_stream_that_breaks_without_goodbye_is_a_lost_engine(serve: Any) -> None:
    def answer(handler: Handler, *_: object) -> None:
        handler.begin_events()
        handler.send_events(b'event: heartbeat\ndata: {"at": 1.0}\n\n')
        handler.connection.shutdown(socket.SHUT_RDWR)

    with pytest.raises(EngineUnavailable):
        collect(serve(answer))


def test_a_stream_that_ends_in_order_but_without_goodbye_is_a_lost_engine(serve: Any) -> None:
    def answer(handler: Handler, *_: object) -> None:
        handler.begin_events()
        handler.wfile.write(b"0\r\n\r\n")

    with pytest.raises(EngineUnavailable, match="without a word"):
        collect(serve(answer))


def test_a_refused_stream_raises_what_the_engine_answered(serve: Any) -> None:
    client = serve(lambda handler, *_: handler.answer(404, {"code": "not_found", "message": "no such thing"}))
    with pytest.raises(NotFound, match="no such thing"):
        collect(client)


def test_three_heartbeats_of_silence_are_a_lost_engine(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SILENCE_S", 0.05)
    done = threading.Event()

    def answer(handler: Handler, *_: object) -> None:
        handler.begin_events()
        done.wait(5)

    client = serve(answer)
    with pytest.raises(EngineUnavailable, match="said nothing"):
        collect(client)
    done.set()


@pytest.mark.parametrize("headers_first", [True, False])
def test_closing_a_silent_stream_from_another_thread_ends_it_at_once(serve: Any, headers_first: bool) -> None:
    waiting, done = threading.Event(), threading.Event()

    def answer(handler: Handler, *_: object) -> None:
        if headers_first:
            handler.begin_events()
        waiting.set()
        done.wait(10)

    client = serve(answer)
    streams: list[Stream] = []
    reader = threading.Thread(
        target=client.subscribe, args=(lambda frame: None,), kwargs={"on_open": streams.append}
    )
    reader.start()
    assert waiting.wait(5)
    began = time.monotonic()
    streams[0].close()
    reader.join(5)
    assert not reader.is_alive() and time.monotonic() - began < 2
    streams[0].close()
    done.set()


def test_a_frame_handler_may_close_its_own_stream(serve: Any) -> None:
    def answer(handler: Handler, *_: object) -> None:
        handler.begin_events()
        handler.send_events(b'event: heartbeat\ndata: {"at": 1.0}\n\n' * 5)
        handler.rfile.read(1)

    assert len(collect(serve(answer), close_after=2)) == 2
