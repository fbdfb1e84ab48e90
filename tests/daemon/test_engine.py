"""The engine's process, socket and promises about itself."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import time

import httpx
import pytest

from engine.config import EngineConfig
from engine.embeddings import EmbeddingStore
from engine.errors import EngineUnavailable
from engine.wire import WIRE_VERSION, EventFrame, JobSpec, Snapshot
from tests.daemon.live import LiveEngine, wait_for
from turbotui.client.base import Stream
from turbotui.client.launch import find_engine


def test_the_socket_answers_any_http_client_with_status_and_its_openapi_document(live: LiveEngine) -> None:
    transport = httpx.HTTPTransport(uds=str(live.paths.socket))
    with httpx.Client(transport=transport, base_url="http://engine") as client:
        status = client.get("/status").json()
        document = client.get("/openapi.json").json()
    assert status["engine"]["state"] == "ready"
    assert status["engine"]["max_prompt_chars"] == EngineConfig().max_prompt_chars
    assert {"engine", "workers", "devices", "models"} <= set(status)
    assert {"/status", "/jobs", "/switch", "/events"} <= set(document["paths"])
    spec = document["components"]["schemas"]["JobSpec"]
    assert spec["additionalProperties"] is False
    assert spec["properties"]["steps"]["description"] == "1 to 4."
    answers = document["paths"]["/jobs"]["post"]["responses"]
    assert set(answers) == {"201", "4XX", "5XX"}
    assert answers["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


def test_hello_names_the_versions_that_a_client_compares(live: LiveEngine) -> None:
    hello = live.client.hello()
    assert hello.wire == WIRE_VERSION
    assert hello.schema >= 1
    assert hello.build


def test_the_lock_file_names_the_holder_and_its_socket(live: LiveEngine) -> None:
    holder = find_engine(live.paths)
    assert holder is not None
    assert holder.pid == live.client.hello().pid
    assert holder.socket == str(live.paths.socket)


def test_a_second_engine_ends_at_once_and_names_the_first(live: LiveEngine) -> None:
    second = subprocess.run(
        [sys.executable, "-P", "-m", "engine.daemon"],
        env=live.environ,
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert second.returncode == EngineUnavailable.exit_code
    assert str(live.client.hello().pid) in second.stderr
    assert live.client.status().engine.state == "ready"


def test_only_the_owner_may_open_the_socket(live: LiveEngine) -> None:
    assert stat.S_IMODE(live.paths.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(live.paths.socket.parent.stat().st_mode) == 0o700


def test_a_deleted_socket_folder_comes_back_and_answers_as_the_same_engine(live: LiveEngine) -> None:
    before = live.client.hello().instance
    shutil.rmtree(live.paths.runtime)
    wait_for(live.answers, 5, "the socket's return")
    assert live.client.hello().instance == before


def test_the_daemon_has_no_torch_and_no_driver_library_mapped(live: LiveEngine, short: JobSpec) -> None:
    assert live.run(short).status == "done"
    maps = live.mapped_files()
    assert not [name for name in ("libtorch", "libcuda", "libnvidia-ml") if name in maps]


def test_the_nursery_holds_no_driver_file_and_has_one_thread(live: LiveEngine) -> None:
    nursery = live.status().engine.nursery
    assert nursery.state == "ready"
    assert nursery.device_files == ()
    assert nursery.threads == 1


def test_a_stream_begins_with_a_snapshot_and_then_brings_memory(live: LiveEngine) -> None:
    frames: list[EventFrame] = []
    stream: list[Stream] = []

    def take(frame: EventFrame) -> None:
        frames.append(frame)
        if len(frames) == 4:
            stream[0].close()

    live.client.subscribe(take, on_open=stream.append)
    first = frames[0].event
    assert isinstance(first, Snapshot)
    assert first.status.devices[0].balance is not None
    assert {type(frame.event).__name__ for frame in frames[1:]} & {"MemorySampled", "EngineChanged"}


def test_the_parts_of_a_balance_add_up_to_the_total(live: LiveEngine) -> None:
    balance = live.status().devices[0].balance
    assert balance is not None
    assert sum(part.bytes or 0 for part in balance.parts) + balance.unexplained_bytes == balance.total_bytes


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/jobs", {"model": "wan-demo-small"}, 422, "prompt"),
        ("/jobs", {"model": "wan-demo-small", "prompt": "x", "colour": 1}, 422, "colour"),
        ("/jobs", {"model": "no-such-model", "prompt": "x"}, 404, "wan-demo-small"),
        ("/jobs/999999/cancel", None, 404, "999999"),
        ("/switch", {"model": "no-such-model"}, 404, "no-such-model"),
        ("/unload", {"model": "wan-demo-small", "component": "nose"}, 404, "nose"),
    ],
)
def test_a_refusal_is_one_sentence_that_names_the_value(
    live: LiveEngine, path: str, body: object, status: int, words: str
) -> None:
    transport = httpx.HTTPTransport(uds=str(live.paths.socket))
    with httpx.Client(transport=transport, base_url="http://engine") as client:
        answer = client.post(path, json=body) if body is not None else client.post(path)
    assert answer.status_code == status
    assert words in answer.json()["message"]
    assert set(answer.json()) == {"code", "message"}


def test_the_embeddings_of_earlier_prompts_are_counted_and_cleared(live: LiveEngine) -> None:
    live.client.clear_cache()
    store = EmbeddingStore(live.paths.embeddings, 2**20)
    assert store.put("a" * 64, bytes(1000)) is None
    status = live.client.cache()
    assert (status.folder, status.max_bytes) == (str(live.paths.embeddings), 512 * 2**20)
    assert status.entries == 1 and status.bytes > 1000
    cleared = live.client.clear_cache()
    assert (cleared.entries, cleared.bytes) == (1, status.bytes)
    assert live.client.cache().entries == 0 and store.get("a" * 64) is None
    assert any(line.event == "cache" for line in live.client.logs(limit=5000))


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(live: LiveEngine) -> None:
    transport = httpx.HTTPTransport(uds=str(live.paths.socket))
    with httpx.Client(transport=transport, base_url="http://engine") as client:
        answer = client.post("/jobs", content=json.dumps({"model": "m", "prompt": "x" * 2_000_000}))
    assert answer.status_code == 413


def test_the_probe_is_replaced_when_it_is_killed(live: LiveEngine) -> None:
    probe = next(p.pid for p in live.status().devices[0].processes if p.ours == "probe")
    subprocess.run(["kill", "-9", str(probe)], check=True)

    def replaced() -> bool:
        return any(p.ours == "probe" and p.pid != probe for p in live.status().devices[0].processes)

    wait_for(replaced, 10, "a new probe")
    time.sleep(0.3)
    age = live.status().engine.probe_age_s
    assert age is not None and age < 1.0


def test_a_socket_folder_that_cannot_be_made_for_a_while_comes_back_when_it_can(live: LiveEngine) -> None:
    shutil.rmtree(live.paths.runtime)
    live.paths.runtime.touch()  # as after a logout: nobody may make the folder
    time.sleep(1.2)
    live.paths.runtime.unlink()
    wait_for(live.answers, 5, "the socket's return")
