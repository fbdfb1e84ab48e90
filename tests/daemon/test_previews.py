"""What a running job shows of itself, from the worker to a client."""

from __future__ import annotations

import base64
import threading
from contextlib import suppress

import pytest

from engine.errors import EngineError, NotFound
from engine.wire import EventFrame, JobSpec, PreviewMade
from tests.daemon.live import LiveEngine, wait_for
from turbotui.client.base import Stream


def test_each_step_can_be_seen_and_the_stages_as_they_are_measured(live: LiveEngine) -> None:
    told: list[PreviewMade] = []
    streams: list[Stream] = []

    def heard(frame: EventFrame) -> None:
        if isinstance(frame.event, PreviewMade):
            told.append(frame.event)

    def listen() -> None:
        with suppress(EngineError):
            live.client.subscribe(heard, on_open=streams.append)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    wait_for(lambda: bool(streams), 5, "the stream")
    job = live.run(JobSpec(model="wan-demo-small", prompt="a kite", frames=5, steps=2, seed=3))
    wait_for(lambda: len(told) == 2, 5, "two previews")
    streams[0].close()
    listener.join(5)
    assert [(event.job_id, event.step) for event in told] == [(job.id, 1), (job.id, 2)]
    first, newest = live.client.preview(job.id, 1), live.client.preview(job.id)
    assert (first.step, newest.step, newest.steps) == (1, 2, 2)
    assert len(base64.b64decode(newest.rgb)) == newest.width * newest.height * 3
    assert first.rgb != newest.rgb
    course = live.client.course(job.id)
    assert [record.stage for record in course.ended] == ["text", "denoise", "decode", "write"]
    assert course.current is None
    assert set(course.shares) == {"text", "denoise", "decode", "write"}
    with pytest.raises(NotFound, match="after step 9"):
        live.client.preview(job.id, 9)
    with pytest.raises(NotFound, match="no preview of job 999"):
        live.client.preview(999)
