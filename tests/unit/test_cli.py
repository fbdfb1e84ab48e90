"""The commands, each against a real server that answers as an engine would."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from unix_server import Handler, serving

from engine.paths import find_paths
from engine.version import build_id
from engine.wire import (
    Balance,
    BalancePart,
    CacheCleared,
    CacheStatus,
    CancelAsked,
    ComponentStatus,
    DeviceStatus,
    EngineStatus,
    Explanation,
    Hello,
    Job,
    JobProgress,
    JobRuns,
    JobSpec,
    LockHolder,
    LogLine,
    ModelStatus,
    NurseryStatus,
    PlanStep,
    QueueStatus,
    Receipt,
    ReceiptStep,
    Resolution,
    Snapshot,
    Status,
    WorkerStatus,
)
from turbotui.cli import main
from turbotui.subcommands import waiting

HELLO = Hello(wire=1, build=build_id(), schema=1, pid=7, start_time=1.5, instance="i", host="h", user="u")


def model(name: str, kind: Any, *, demo: bool = True, bytes: int = 84 * 2**20) -> ModelStatus:
    return ModelStatus(
        name=name,
        kind=kind,
        title=name,
        demo=demo,
        path=f"/m/{name}",
        dtype="fp32",
        bytes=bytes,
        active=name == "small",
        components=(ComponentStatus(name="dit", bytes=2**20, state="resident"),),
        resolutions=(Resolution(name="tiny", aspect_ratio="16:9", width=128, height=80),),
        default_resolution="tiny",
        default_aspect_ratio="16:9",
        default_frames=17,
        default_steps=4,
        max_frames=81,
    )


MODELS = [
    model("real", "t2v", demo=False),
    model("large", "t2v", bytes=10**9),
    model("small", "t2v"),
    model("mover", "i2v"),
]
SPEC = JobSpec(model="small", prompt="一只猫\x1b]0;owned\x07\u202e")
JOB = Job(id=41, spec=SPEC, status="queued", position=2, created_at=1.0)
RECEIPT = Receipt(
    action="unload", target="small", ok=True, expected_bytes=2**20, returned_bytes=2**20,
    elapsed_s=0.024, proof="process-rss",
)  # fmt: skip
CLEANED = Receipt(
    action="cleanup", target="worker", ok=True, expected_bytes=2**30, returned_bytes=2**30, residue_bytes=0,
    loaded_bytes=2**20, elapsed_s=1.2, proof="nvml-process",
    steps=(
        ReceiptStep(name="worker ended", bytes=2**30, elapsed_s=0.12),
        ReceiptStep(name="gone from NVML", bytes=0, elapsed_s=0.011),
        ReceiptStep(name="worker 10 ready", elapsed_s=0.9),
    ),
)  # fmt: skip
WARMED = Receipt(
    action="drop_warm", target="small", ok=True, expected_bytes=2**20, returned_bytes=2**19,
    residue_bytes=2**19, residue=("pages that others map or use",), elapsed_s=0.5, proof="page-cache",
)  # fmt: skip
PLAN = Explanation(
    target="switch: small", fits=True, budget_bytes=100 * 2**30, tenants="liwei 90112 6.20 GiB",
    peak_bytes=2**31,
    steps=(
        PlanStep(stage="switch", action="evict", model="large", component="dit", bytes=2**30,
                 reason="small does not need it", held_bytes=0),
        PlanStep(stage="switch", action="adopt", model="small", component="vae", bytes=2**20,
                 reason="the same weights", held_bytes=2**20),
    ),
)  # fmt: skip
STATUS = Status(
    engine=EngineStatus(
        state="ready", pid=7, instance="i", build="b", started_at=1.0, uptime_s=192.0, home="/h",
        socket="/s", output_dir="/o", log_path="/l", nursery=NurseryStatus(state="ready", elapsed_s=9.0),
        queue=QueueStatus(waiting=2, held_reason="three jobs failed"),
    ),
    workers=(
        WorkerStatus(
            pid=9, device_id="cpu", state="running", started_at=1.0, forked=True, job_id=41,
            rss_bytes=3 * 2**20, allocator="expandable_segments:True", allocator_reason="auto: measured",
            warm_bytes=2**30, warm_rate=45 * 2.0**30,
        ),
    ),
    devices=(
        DeviceStatus(
            id="cpu", kind="cpu", name="EPYC", total_bytes=24 * 2**30, in_use=True,
            balance=Balance(
                device_id="cpu", taken_at=1.0, coherent=True, total_bytes=24 * 2**30, unexplained_bytes=0,
                parts=(
                    BalancePart(kind="weights", owner="ours", bytes=2**20, label="small/dit"),
                    BalancePart(kind="unseen", owner="unseen", bytes=None, reason="no NVML"),
                ),
            ),
        ),
    ),
    models=tuple(MODELS),
)  # fmt: skip

HELD = "the queue is held: three jobs failed; `turbotui queue resume` goes on"
CACHE = CacheStatus(folder="/c/embeddings", entries=3, bytes=3 * 2**20, max_bytes=2**29)


class StandIn:
    """Answers as an engine would, from what a test puts here, and keeps what it was asked."""

    def __init__(self, tmp_path: Path) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.events: list[list[tuple[str, Any]]] = []
        self.tmp_path = tmp_path
        self.given_up: threading.Event | None = None
        """Where a switch waits until it is given up."""

    def submitted(self) -> Any:
        """The newest job that was asked for."""
        return [body for method, path, body in self.asked if (method, path) == ("POST", "/jobs")][-1]

    def __call__(self, handler: Handler, method: str, body: bytes) -> None:
        if handler.path == "/hello":
            return handler.answer(200, HELLO)
        self.asked.append((method, handler.path, json.loads(body) if body else None))
        if handler.path == "/events":
            return self._stream(handler)
        if self.given_up is not None and handler.path == "/switch":
            self.given_up.wait(20)
        if self.given_up is not None and handler.path == "/switch/cancel":
            self.given_up.set()
        standard: dict[str, Any] = {
            "/models": MODELS,
            "/models/demo": MODELS,
            "/status": STATUS,
            "/jobs?all=false": [JOB],
            "/queue/resume": STATUS.engine.queue,
            "/logs?after=0&limit=5000": [
                LogLine(seq=1, at=1.0, event="job", text="begins"),
                LogLine(seq=2, at=2.0, event="unload", text="went\x9b31m", memory=True),
            ],
            "/free": RECEIPT,
            "/park": CLEANED,
            "/cleanup": CLEANED,
            "/warm": WARMED,
            "/warm/drop": WARMED,
            "/explain/switch": PLAN,
            "/explain/job": PLAN,
            "/cache": CACHE,
            "/cache/clear": CacheCleared(folder="/c/embeddings", entries=1, bytes=2**20),
            "/unload": RECEIPT,
            "/switch": RECEIPT,
            "/switch/cancel": CancelAsked(targets=("small",)),
        }
        status, answer = self.answers.get(handler.path, (200, standard.get(handler.path, JOB)))
        handler.answer(status, answer)

    def _stream(self, handler: Handler) -> None:
        handler.begin_events()
        for seq, (name, event) in enumerate(self.events.pop(0)):
            handler.send_events(
                f"id: {seq}\nevent: {name}\ndata: {msgspec.json.encode(event).decode()}\n\n".encode()
            )
        handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """An engine that runs: the lock is held, and its socket answers."""
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))
    monkeypatch.setattr(waiting, "RECONNECT_S", 0.0)
    paths = find_paths()
    paths.state.mkdir()
    lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    holder = LockHolder(pid=7, start_time=1.5, socket=str(tmp_path / "s"), instance="i", build="b")
    os.write(lock, msgspec.json.encode(holder))
    stand_in = StandIn(tmp_path)
    with serving(tmp_path / "s", stand_in):
        yield stand_in
    os.close(lock)


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBOTUI_HOME", str(tmp_path))


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("command", "request_", "words"),
    [
        ("jobs", ("GET", "/jobs?all=false", None), "small"),
        ("job show 41", ("GET", "/jobs/41", None), "small"),
        ("job cancel 41", ("POST", "/jobs/41/cancel", None), "job 41 waits at place 2"),
        ("job retry 41", ("POST", "/jobs/41/retry", None), "job 41"),
        ("job duplicate 41", ("POST", "/jobs/41/duplicate", None), "job 41"),
        ("job hold 41", ("POST", "/jobs/41/hold", None), "job 41"),
        ("job release 41", ("POST", "/jobs/41/release", None), "job 41"),
        ("job move 41 --position 1", ("POST", "/jobs/41/move", {"position": 1, "priority": None}), "job 41"),
        ("job move 41 --priority 5", ("POST", "/jobs/41/move", {"position": None, "priority": 5}), "job 41"),
        ("models", ("GET", "/models", None), "mover"),
        ("switch small", ("POST", "/switch", {"model": "small"}), "24 ms"),
        ("cancel-switch", ("POST", "/switch/cancel", {"model": None}), "small is given up"),
        ("cancel-switch small", ("POST", "/switch/cancel", {"model": "small"}), "small is given up"),
        ("unload", ("POST", "/unload", {"model": None, "component": None}), "back 1.00 MiB"),
        ("unload /", ("POST", "/unload", {"model": "", "component": None}), "back 1.00 MiB"),
        ("drop-warm /vae", ("POST", "/warm/drop", {"model": None, "component": "vae"}), "page cache"),
        ("unload small/dit", ("POST", "/unload", {"model": "small", "component": "dit"}), "back 1.00 MiB"),
        ("free", ("POST", "/free", None), "by the worker's memory"),
        ("park", ("POST", "/park", None), "cleanup worker  expected 1.00 GiB  back 1.00 GiB by NVML"),
        ("warm small", ("POST", "/warm", {"model": "small", "component": None}), "small"),
        ("warm small/dit", ("POST", "/warm", {"model": "small", "component": "dit"}), "small"),
        ("drop-warm", ("POST", "/warm/drop", {"model": None, "component": None}), "by the page cache"),
        (
            "drop-warm small/dit",
            ("POST", "/warm/drop", {"model": "small", "component": "dit"}),
            "drop-warm small  expected 1.00 MiB  back 512 KiB by the page cache  "
            "residue 512 KiB (pages that others map or use)",
        ),
        ("explain small", ("POST", "/explain/switch", {"model": "small"}), "switch: small"),
        ("cache", ("GET", "/cache", None), "3 prompt embeddings, 3.00 MiB of 512 MiB, in /c/embeddings"),
        ("cache clear", ("POST", "/cache/clear", None), "1 prompt embedding, 1.00 MiB, removed from /c"),
        ("status", ("GET", "/status", None), "no NVML"),
        ("status", ("GET", "/status", None), "expandable_segments:True  (auto: measured)"),
        (
            "status",
            ("GET", "/status", None),
            "1.00 GiB of weight files in host memory, registered at 45.0 GiB/s",
        ),
        ("queue resume", ("POST", "/queue/resume", None), "2 waiting"),
        ("logs", ("GET", "/logs?after=0&limit=5000", None), "begins"),
        ("engine status", ("GET", "/status", None), "up 3m12s"),
        ("engine start", ("GET", "/status", None), "runs already"),
    ],
)
def test_each_command_asks_its_route_and_tells_the_answer_both_ways(
    command: str, request_: Any, words: str, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 0
    text = capsys.readouterr()
    assert words in text.out and text.err == ""
    assert engine.asked[0] == request_
    assert main([*command.split(), "--json"]) == 0
    told = printed(capsys)
    assert told
    names = command.split()
    in_group = names[0] in ("job", "queue", "engine", "cache")
    for place in range(2 if in_group else 1):
        assert main([*names[:place], "--json", *names[place:]]) == 0
        assert printed(capsys) == told


def test_json_is_the_wire_model(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", "--json"])
    status = printed(capsys)
    assert status == json.loads(msgspec.json.encode(STATUS))
    assert status["workers"][0]["pid"] == 9 and status["devices"][0]["balance"]["parts"]
    main(["jobs", "--json"])
    assert [(job["id"], job["status"]) for job in printed(capsys)] == [(41, "queued")]


def test_nothing_that_a_terminal_acts_on_gets_through(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["jobs"], ["job", "show", "41"], ["logs"], ["jobs", "--json"], ["logs", "--json"]):
        main(command)
        output = capsys.readouterr().out
        assert not set(output) & set("\x1b\x07\x9b\u202e")
        assert "一只猫" in output or "31m" in output


def test_the_cache_is_told_in_json_wherever_that_is_asked_for(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "--json"]) == 0
    assert printed(capsys) == json.loads(msgspec.json.encode(CACHE))
    assert main(["cache", "clear", "--json"]) == 0
    assert printed(capsys) == {"folder": "/c/embeddings", "entries": 1, "bytes": 2**20}
    assert [request[:2] for request in engine.asked] == [("GET", "/cache"), ("POST", "/cache/clear")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--json", "the console prints no JSON"),
        ("--json engine run", "turbotui engine run prints no JSON"),
        ("engine --json run", "turbotui engine run prints no JSON"),
        ("models --json make-random wan2.1-t2v-1.3b", "turbotui models make-random prints no JSON"),
    ],
)
def test_json_is_refused_where_none_is_printed(
    command: str,
    words: str,
    engine: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("the engine took the place of this process"))
    assert main(command.split()) == 2
    output = capsys.readouterr()
    assert json.loads(output.out)["code"] == "invalid_request" and words in output.err


@pytest.mark.parametrize(
    "command", ["free", "park", "cleanup --yes", "cache", "cache clear", "unload", "warm small", "status"]
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_demo_counts_before_a_command_and_after_it(command: str, where: str, engine: StandIn) -> None:
    names = command.split()
    assert main(["--demo", *names] if where == "before" else [*names, "--demo"]) == 0
    assert engine.asked[0] == ("POST", "/models/demo", None)
    assert [path for _, path, _ in engine.asked].count("/models/demo") == 1


def test_a_log_that_is_followed_is_json_too_where_that_was_asked_for_before(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LogLine(seq=9, at=1.0, event="load", text="x")
    engine.events = [[("log", {"line": line}), ("goodbye", {"reason": "asked to stop"})]]
    assert main(["--json", "logs", "--follow"]) == 0
    told = [json.loads(text)["seq"] for text in capsys.readouterr().out.splitlines()]
    assert told == [1, 2, 9]


def test_a_cache_that_is_switched_off_says_so(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers["/cache"] = (200, CacheStatus(folder="/c", entries=0, bytes=0, max_bytes=0))
    assert main(["cache"]) == 0
    assert "embedding_cache_bytes is 0" in capsys.readouterr().out


def test_a_cache_that_cannot_be_cleared_is_refused(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/cache/clear"] = (507, {"code": "storage_unusable", "message": "read-only"})
    assert main(["cache", "clear", "--json"]) == 4
    assert printed(capsys)["code"] == "storage_unusable"


def test_a_receipt_shows_its_steps_and_a_single_one_is_the_action_itself(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["park"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  worker ended     1.00 GiB  0.12 s",
        "  gone from NVML        0 B  11 ms",
        "  worker 10 ready            0.90 s",
    ]
    engine.answers["/park"] = (200, replace(CLEANED, steps=CLEANED.steps[:1]))
    main(["park"])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_explanation_is_a_table_with_its_reasons(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "explain small -p cat --resolution 480p --frames 17 --steps 2 --residency dit_only --image /a.png "
        "--attention sla --sla-topk 0.2"
    )
    assert main(command.split()) == 0
    assert engine.asked[-1][:2] == ("POST", "/explain/job")
    spec = engine.asked[-1][2]
    assert {key: spec[key] for key in ("model", "prompt", "resolution", "frames", "steps", "image")} == {
        "model": "small", "prompt": "cat", "resolution": "480p", "frames": 17, "steps": 2, "image": "/a.png",
    }  # fmt: skip
    assert (spec["residency"], spec["attention"], spec["sla_topk"]) == ("dit_only", "sla", 0.2)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "switch: small",
        "fits: peak 2.00 GiB of 100 GiB",
        "the rest of the device: liwei 90112 6.20 GiB",
        "STAGE   ACTION  COMPONENT      SIZE  HELD AFTER  REASON",
        "switch  evict   large/dit  1.00 GiB         0 B  small does not need it",
        "switch  adopt   small/vae  1.00 MiB    1.00 MiB  the same weights",
    ]


def test_an_explanation_says_why_something_does_not_fit_and_that_nothing_moves(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    no = replace(PLAN, fits=False, reason="large/dit needs 20 GiB; free some", steps=())
    engine.answers["/explain/switch"] = (200, no)
    assert main(["explain", "small"]) == 0
    text = capsys.readouterr().out
    assert (
        "does not fit: peak" in text and "needs 20 GiB; free some" in text and "no weights move" not in text
    )
    engine.answers["/explain/switch"] = (200, replace(PLAN, steps=()))
    main(["explain", "small"])
    assert "no weights move" in capsys.readouterr().out


def test_an_explanation_says_what_it_rests_on(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers["/explain/job"] = (200, replace(PLAN, note="its embedding is kept"))
    assert main(["explain", "small", "-p", "cat"]) == 0
    assert capsys.readouterr().out.splitlines()[3] == "its embedding is kept"


def test_an_explanation_is_of_the_very_job(engine: StandIn) -> None:
    assert main(["explain", "small", "-p", "cat", "--samples", "3", "--adaptive"]) == 0
    asked = engine.asked[-1][2]
    assert asked is not None and (asked["samples"], asked["adaptive"]) == (3, True)
    assert main(["explain", "small", "--adaptive"]) == 2, "a switch has no image"


def test_a_model_that_takes_no_jobs_says_so(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answers["/models"] = (200, [replace(told, no_jobs="no proj_l") for told in MODELS])
    assert main(["models"]) == 0
    assert "; not distilled: it takes no jobs" in capsys.readouterr().out


def test_a_cleanup_without_a_worker_does_not_rule_out_one_that_starts(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/status"] = (200, replace(STATUS, workers=()))
    assert main(["cleanup", "--yes"]) == 0
    assert "no worker runs; one that is starting would be ended" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "reload"), [([], True), (["--no-reload"], False)])
def test_a_cleanup_tells_what_it_ends_before_it_does(
    options: list[str], reload: bool, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup", "--yes", "--json", *options]) == 0
    output = capsys.readouterr()
    assert "ends worker 9 on cpu: 3.00 MiB come back; job 41 is interrupted" in output.err
    assert json.loads(output.out)["action"] == "cleanup"
    assert [request[1:] for request in engine.asked] == [("/status", None), ("/cleanup", {"reload": reload})]


@pytest.mark.parametrize(
    ("answer", "code", "asked"), [("y\n", 0, True), ("\n", 130, False), ("", 130, False)]
)
def test_a_cleanup_asks_on_a_terminal_and_the_answer_counts(
    answer: str, code: int, asked: bool, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["cleanup"]) == code
    assert (("POST", "/cleanup", {"reload": True}) in engine.asked) is asked


def test_a_worker_that_keeps_nothing_warm_says_why(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = replace(
        STATUS.workers[0], warm_refusal="memlock is 64 KiB", allocator=None, allocator_reason=None
    )
    engine.answers["/status"] = (200, replace(STATUS, workers=(worker,)))
    main(["status"])
    text = capsys.readouterr().out
    assert "no files are registered: memlock is 64 KiB" in text and "allocator" not in text


def test_a_worker_that_says_nothing_is_shown_with_the_way_out(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/status"] = (200, replace(STATUS, workers=(replace(STATUS.workers[0], state="silent"),)))
    main(["status"])
    text = capsys.readouterr().out
    assert "pid 9 silent job 41" in text and "`turbotui cleanup` ends it" in text


@pytest.mark.parametrize("where", ["before", "after"])
def test_demo_makes_the_models_and_shows_only_them(
    where: str, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--demo", "models", "--json"] if where == "before" else ["models", "--json", "--demo"]) == 0
    assert [model["name"] for model in printed(capsys)] == ["large", "small", "mover"]
    assert [path for _, path, _ in engine.asked] == ["/models/demo", "/models"]


@pytest.mark.parametrize(("options", "name"), [([], "small"), (["--image", "a.png"], "mover")])
def test_demo_chooses_the_smallest_model_of_the_kind_that_is_asked_for(
    options: list[str], name: str, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(engine.tmp_path)
    assert main(["generate", "--demo", "--prompt", "x", *options, "--output-dir", "out"]) == 0
    spec = engine.submitted()
    assert spec["model"] == name
    assert spec["image"] == (f"{engine.tmp_path}/a.png" if options else None)
    assert spec["output_dir"] == f"{engine.tmp_path}/out"


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_a_sigma_that_is_no_number_is_refused_and_not_taken_for_none(engine: StandIn, value: str) -> None:
    assert main(["generate", "--model", "m", "--prompt", "x", "--sigma-max", value]) == 2
    assert all(path != "/jobs" for _, path, *_ in engine.asked)


@pytest.mark.parametrize("resumable", [True, False])
def test_the_way_on_is_told_only_where_there_is_one(
    engine: StandIn, capsys: pytest.CaptureFixture[str], resumable: bool
) -> None:
    queue = replace(STATUS.engine.queue, resumable=resumable)
    engine.answers["/status"] = (200, replace(STATUS, engine=replace(STATUS.engine, queue=queue)))
    assert main(["status"]) == 0
    assert ("`turbotui queue resume` goes on" in capsys.readouterr().out) is resumable


def test_every_option_of_generate_reaches_the_engine(engine: StandIn, capsys: Any) -> None:
    options = (
        "generate --model m --resolution 480p --aspect-ratio 9:16 --frames 17 --steps 2 --seed 7 "
        "--sigma-max 90 --ode --priority 3 --residency keep_text --attention sagesla --sla-topk 0.15 "
        "--quant int8 --json --prompt"
    )
    assert main([*options.split(), "--frames"]) == 0
    assert printed(capsys)["id"] == 41
    assert engine.asked[-1] == (
        "POST",
        "/jobs",
        json.loads(
            msgspec.json.encode(
                JobSpec(
                    model="m",
                    prompt="--frames",
                    resolution="480p",
                    aspect_ratio="9:16",
                    frames=17,
                    steps=2,
                    seed=7,
                    sigma_max=90.0,
                    ode=True,
                    priority=3,
                    residency="keep_text",
                    attention="sagesla",
                    sla_topk=0.15,
                    quant="int8",
                )
            )
        ),
    )


def test_what_runs_in_a_model_s_place_is_told_with_the_reason(engine: StandIn, capsys: Any) -> None:
    reason = "bf16 needs 33.10 GiB of 24.00 GiB; int8 needs 19.20 GiB"
    runs = JobRuns(model="small-int8", quant="int8", reason=reason)
    engine.answers["/jobs"] = (200, replace(JOB, runs=runs))
    engine.answers["/jobs/41"] = (200, replace(JOB, runs=runs))
    for command in ("generate --model small --prompt a", "job show 41"):
        assert main(command.split()) == 0
        assert f"runs as small-int8: {reason}" in capsys.readouterr().out


def test_a_prompt_comes_from_a_file_without_its_last_newline(engine: StandIn) -> None:
    file = engine.tmp_path / "prompt.txt"
    file.write_text("a cat\nin snow\n", "utf-8")
    assert main(["generate", "--model", "m", "--prompt-file", str(file)]) == 0
    assert engine.submitted()["prompt"] == "a cat\nin snow"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "not UTF-8"), (b"x" * (2**20 + 1), "longer than"), (None, "cannot be read")],
)
def test_a_prompt_file_that_is_no_prompt_is_a_usage_error(
    content: bytes | None, words: str, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    file = engine.tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    assert main(["generate", "--model", "m", "--prompt-file", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert engine.asked == []


@pytest.mark.parametrize(
    "command",
    [
        "generate --model m",
        "generate --model m --prompt a --prompt-file b",
        "generate --prompt a",
        "job move 41",
        "job move 41 --position 1 --priority 1",
        "job show zero",
        "job show 0",
        "generate --frames x",
        "generate --model m --prompt a --residency all",
        "generate --model m --prompt a --attention flash",
        "generate --model m --prompt a --sla-topk nan",
        "explain small --attention sla",
        "explain",
        "explain small --frames 17",
        "explain small --quant int8",
        "generate --model m --prompt a --quant fp8",
        "warm",
        "cleanup",
        "cleanup --no-reload",
        "dance",
        "cache dance",
        "jobs --colour",
        "job",
    ],
)
def test_what_could_never_work_exits_2_and_asks_nothing(
    command: str, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    assert capsys.readouterr().err and not engine.asked
    if command != "job":
        assert main([*command.split(), "--json"]) == 2
        assert printed(capsys)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [("invalid_request", 422, 2), ("does_not_fit", 409, 4), ("not_found", 404, 4)],
)
def test_a_refusal_is_one_sentence_and_an_exit_code(
    code: str, status: int, exit_code: int, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/jobs/41"] = (status, {"code": code, "message": "because\x1b[2J"})
    assert main(["job", "show", "41", "--json"]) == exit_code
    output = capsys.readouterr()
    assert json.loads(output.out) == {"code": code, "message": "because\x1b[2J"}
    assert output.err == "turbotui: because␛[2J\n"
    assert main(["job", "show", "41"]) == exit_code
    assert capsys.readouterr().out == ""


def test_a_receipt_of_a_failed_action_is_shown_and_exits_5(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Receipt(
        action="switch",
        target="small",
        ok=False,
        error="the file is gone",
        elapsed_s=0.1,
        proof="process-rss",
    )
    engine.answers["/switch"] = (200, failed)
    assert main(["switch", "small", "--json"]) == 5
    output = capsys.readouterr()
    assert json.loads(output.out)["ok"] is False and "the file is gone" in output.err


@pytest.mark.parametrize(
    ("command", "route", "code", "exit_code"),
    [
        ("switch small", "/switch", "does_not_fit", 4),
        ("unload small", "/unload", "not_now", 4),
        ("switch small", "/switch", "out_of_memory", 5),
        ("switch small", "/switch", "of_a_newer_engine", 5),
    ],
)
def test_a_refused_receipt_exits_as_a_refusal_and_a_failed_one_as_a_failure(
    command: str, route: str, code: str, exit_code: int, engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers[route] = (200, replace(RECEIPT, ok=False, error="because", error_code=code))
    assert main([*command.split(), "--json"]) == exit_code
    output = capsys.readouterr()
    assert json.loads(output.out)["error_code"] == code and output.err == "turbotui: because\n"


@pytest.mark.parametrize("command", ["engine status", "engine stop"])
def test_the_commands_about_the_engine_start_none(
    command: str, no_engine: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--json"]) == 3
    assert printed(capsys)["code"] == "engine_unavailable"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_the_version_needs_no_engine(asked: str, no_engine: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([asked, "--json"]) == 0
    assert printed(capsys)["build"] == build_id()


def test_the_console_is_refused_where_there_is_no_terminal(
    no_engine: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="utf-8"))
    assert main([]) == 2
    assert "needs a terminal" in capsys.readouterr().err
    sys.stdin.close()


def ended(**changes: Any) -> Job:
    return Job(id=41, spec=SPEC, created_at=1.0, started_at=2.0, finished_at=9.0, **changes)


def snapshot() -> tuple[str, Snapshot]:
    return "snapshot", Snapshot(status=STATUS, jobs=(), log=())


def running(step: int) -> tuple[str, Any]:
    progress = JobProgress(stage="denoise", step=step, steps=4, fraction=step / 4)
    return "job", {"job": Job(id=41, spec=SPEC, status="running", created_at=1.0, progress=progress)}


def test_waiting_ends_with_the_manifest(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = engine.tmp_path / "v.json"
    manifest.write_text(json.dumps({"output": "/v.mp4", "output_bytes": 2**20, "elapsed_s": 7.0, "later": 1}))
    done = ended(status="done", output="/v.mp4", manifest=str(manifest))
    other = Job(id=40, spec=SPEC, status="failed", created_at=1.0)
    script = [snapshot(), running(1), ("job", {"job": other}), ("job", {"job": done}), running(3)]
    engine.events = [list(script), list(script)]
    command = ["generate", "--model", "small", "--prompt", "x", "--wait"]
    assert main([*command, "--json"]) == 0
    assert printed(capsys) == {"output": "/v.mp4", "output_bytes": 2**20, "elapsed_s": 7.0, "later": 1}
    assert main(command) == 0
    output = capsys.readouterr()
    assert "/v.mp4" in output.out and "7.0 s" in output.out
    # No bar where stderr is no terminal; what holds the queue is told once.
    assert output.err == f"turbotui: {HELD}\n"


def test_a_queue_that_is_held_is_told_where_somebody_waits_for_it(engine: StandIn, capsys: Any) -> None:
    waits, runs = JOB, replace(JOB, status="running", position=None)
    engine.answers["/jobs/41"] = (200, waits)
    for command in (["jobs"], ["job", "show", "41"], ["generate", "--model", "small", "--prompt", "x"]):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines()[-1] == HELD
        assert main([*command, "--json"]) == 0
        printed(capsys)
    engine.answers |= {"/jobs/41": (200, runs), "/jobs?all=false": (200, [runs])}
    for command in (["jobs"], ["job", "show", "41"]):
        assert main(command) == 0
        assert "held" not in capsys.readouterr().out
    goes_on = replace(STATUS.engine, queue=replace(STATUS.engine.queue, held_reason=None))
    engine.answers |= {"/jobs/41": (200, waits), "/status": (200, replace(STATUS, engine=goes_on))}
    assert main(["job", "show", "41"]) == 0
    assert "held" not in capsys.readouterr().out
    changed = ("engine", {"engine": STATUS.engine, "workers": []})
    quiet = ("snapshot", Snapshot(status=replace(STATUS, engine=goes_on), jobs=(), log=()))
    engine.events = [[quiet, changed, changed, ("job", {"job": ended(status="cancelled")})]]
    assert main(["generate", "--model", "small", "--prompt", "x", "--wait"]) == 5
    assert capsys.readouterr().err.count(HELD) == 1


def test_a_job_that_ended_before_the_stream_began_is_still_seen(engine: StandIn, capsys: Any) -> None:
    engine.answers["/jobs/41"] = (200, ended(status="failed", error="no memory", error_code="out_of_memory"))
    engine.events = [[snapshot()]]
    assert main(["generate", "--model", "small", "--prompt", "x", "--wait", "--json"]) == 5
    output = capsys.readouterr()
    assert json.loads(output.out)["code"] == "out_of_memory" and "no memory" in output.err


def test_a_cancelled_job_ends_the_waiting_with_5(engine: StandIn, capsys: Any) -> None:
    engine.events = [[snapshot(), ("job", {"job": ended(status="cancelled")})]]
    assert main(["generate", "--model", "small", "--prompt", "x", "--wait", "--json"]) == 5
    assert printed(capsys)["code"] == "cancelled"


def test_a_lost_engine_is_asked_again_and_a_stopped_one_is_not(engine: StandIn, capsys: Any) -> None:
    goodbye = ("goodbye", {"reason": "asked to stop"})
    engine.events = [[snapshot(), running(1)], [snapshot(), running(2), goodbye]]
    assert main(["generate", "--model", "small", "--prompt", "x", "--wait"]) == 3
    output = capsys.readouterr().err
    assert "asking again" in output and "asked to stop" in output
    assert engine.events == []


def test_an_engine_that_is_lost_again_and_again_ends_the_waiting(engine: StandIn, capsys: Any) -> None:
    engine.events = [[]] * (waiting.RECONNECTS + 1)
    assert main(["generate", "--model", "small", "--prompt", "x", "--wait"]) == 3


def test_ctrl_c_leaves_the_job_running_and_says_how_to_find_it(
    engine: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting.ProgressBar, "draw", interrupt)
    engine.events = [[snapshot(), running(1)]]
    assert main(["generate", "--model", "small", "--prompt", "x", "--wait"]) == 130
    assert "turbotui job show 41" in capsys.readouterr().err
    assert not any(path.endswith("cancel") for _, path, _ in engine.asked)


def test_following_the_log_shows_each_line_once(engine: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    def line(seq: int, memory: bool = True) -> LogLine:
        return LogLine(seq=seq, at=1.0, event="load", text=f"line {seq}", memory=memory)

    engine.events = [
        [
            ("snapshot", Snapshot(status=STATUS, jobs=(), log=(line(2), line(3)))),
            ("log", {"line": line(4)}),
            ("log", {"line": line(5, memory=False)}),
            ("goodbye", {"reason": "asked to stop"}),
        ]
    ]
    assert main(["logs", "--follow", "--memory", "--json"]) == 0
    output = capsys.readouterr()
    assert [json.loads(text)["seq"] for text in output.out.splitlines()] == [2, 3, 4]
    assert "asked to stop" in output.err


def test_an_engine_of_another_build_is_told_on_stderr(
    engine: StandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbotui.client.launch.build_id", lambda: "9.9.9")
    assert main(["jobs", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) and "9.9.9" in output.err


def run_cli(engine: StandIn, command: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "turbotui", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


CANCELLED = replace(
    RECEIPT, action="switch", ok=False, error="cancelled; large is loaded as before", error_code="cancelled",
    steps=(
        ReceiptStep(name="unload large", bytes=2**20, elapsed_s=0.1),
        ReceiptStep(name="bring back large", bytes=2**20, elapsed_s=0.1),
    ),
)  # fmt: skip


def until_asked(engine: StandIn, path: str) -> None:
    deadline = time.monotonic() + 10
    while path not in [asked for _, asked, _ in engine.asked]:
        assert time.monotonic() < deadline, f"{path} was never asked"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("receipt", "exit_code", "words"),
    [(CANCELLED, 130, "cancelled; large is loaded as before"), (RECEIPT, 0, "giving up the switch")],
    ids=["given up", "too late"],
)
def test_ctrl_c_gives_a_switch_up_and_says_what_came_back(
    receipt: Receipt, exit_code: int, words: str, engine: StandIn
) -> None:
    engine.given_up = threading.Event()
    engine.answers["/switch"] = (200, receipt)
    with run_cli(engine, "switch small") as process:
        until_asked(engine, "/switch")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == exit_code
    assert words in err.decode() and "Traceback" not in err.decode()
    assert ("bring back large" in out.decode()) is (receipt is CANCELLED)
    assert engine.asked[-1] == ("POST", "/switch/cancel", {"model": "small"})


def test_ctrl_c_pressed_again_leaves_the_switch_to_the_engine(engine: StandIn) -> None:
    class Never(threading.Event):
        def set(self) -> None:
            pass

    engine.given_up = Never()
    with run_cli(engine, "switch small") as process:
        until_asked(engine, "/switch")
        process.send_signal(signal.SIGINT)
        until_asked(engine, "/switch/cancel")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        threading.Event.set(engine.given_up)
    assert process.returncode == 130
    assert out == b"" and "left;" in err.decode() and "Traceback" not in err.decode()


def test_a_switch_that_nobody_interrupts_and_is_given_up_elsewhere_has_failed(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answers["/switch"] = (200, CANCELLED)
    assert main(["switch", "small"]) == 5
    assert "cancelled; large is loaded as before" in capsys.readouterr().err


def test_a_reader_that_leaves_early_causes_no_noise(engine: StandIn) -> None:
    many = [LogLine(seq=seq, at=1.0, event="job", text="x" * 500) for seq in range(1, 1000)]
    engine.answers["/logs?after=0&limit=5000"] = (200, many)
    process = run_cli(engine, "logs --limit 5000")
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize("arguments", [["version", "--json"], ["version"]])
def test_a_full_disk_under_what_is_printed_is_one_sentence(no_engine: None, arguments: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "turbotui", *arguments], stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert ran.returncode == 4 and "Traceback" not in ran.stderr
    assert "what is printed cannot be written: No space left on device" in ran.stderr


def test_a_terminal_without_unicode_gets_question_marks_and_json_stays_utf8(engine: StandIn) -> None:
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    text, errors = run_cli(engine, "jobs", **plain).communicate()
    assert b"???" in text and errors == b""
    document, _ = run_cli(engine, "jobs --json", **plain).communicate()
    assert json.loads(document.decode("utf-8"))[0]["spec"]["prompt"].startswith("一只猫")


def test_an_image_in_a_folder_that_is_gone_is_refused_before_anything_is_asked(
    engine: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["generate", "-m", "mover", "-p", "x", "--image", "a.png"]) == 2
    assert "the path 'a.png' cannot be made absolute" in capsys.readouterr().err
    assert engine.asked == []


def test_an_image_of_nobody_is_left_to_the_engine_to_refuse(engine: StandIn) -> None:
    assert main(["generate", "-m", "mover", "-p", "x", "--image", "~nosuch/a.png"]) == 0
    assert engine.asked[0][2]["image"] == str(Path.cwd() / "~nosuch" / "a.png")
