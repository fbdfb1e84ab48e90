"""Owns made-up engines for `turbotui.client.scene_console`: a busy GPU, a host without one, a first run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from engine.wire import (
    Balance,
    BalancePart,
    ComponentState,
    ComponentStatus,
    DeviceProcess,
    DeviceStatus,
    EngineStatus,
    Explanation,
    Growth,
    Heartbeat,
    Job,
    JobChanged,
    JobProgress,
    JobSpec,
    Logged,
    LogLine,
    MemorySampled,
    ModelKind,
    ModelStatus,
    NurseryStatus,
    PlanAction,
    PlanStep,
    Pressure,
    PressureOffer,
    QueueStatus,
    Receipt,
    ReceiptStep,
    Resolution,
    Snapshot,
    Status,
    SwitchRequest,
    WorkerStatus,
)
from turbotui.client.script import Step

GIB = 2**30
MIB = 2**20
GPU = "GPU-11111111-2222-3333-4444-555555555555"
RESOLUTIONS = (
    Resolution(name="480p", aspect_ratio="16:9", width=832, height=480),
    Resolution(name="480p", aspect_ratio="9:16", width=480, height=832),
    Resolution(name="480p", aspect_ratio="4:3", width=640, height=480),
    Resolution(name="480p", aspect_ratio="3:4", width=480, height=640),
    Resolution(name="480p", aspect_ratio="1:1", width=640, height=640),
    Resolution(name="720p", aspect_ratio="16:9", width=1280, height=720),
    Resolution(name="720p", aspect_ratio="1:1", width=960, height=960),
)


def gib(count: float) -> int:
    return int(count * GIB)


def gpu_balance(now: float, *, live: float = 3.1, weights: float = 13.7, unseen: float = 14.0) -> Balance:
    """An H200 with a neighbour and something nobody can name."""
    parts = [
        BalancePart(kind="weights", owner="ours", bytes=gib(weights), label="wan2.2-a14b/dit.low"),
        BalancePart(kind="live", owner="ours", bytes=gib(live)),
        BalancePart(kind="releasable", owner="ours", bytes=gib(0.4)),
        BalancePart(kind="context", owner="ours", bytes=gib(0.7)),
        BalancePart(kind="driver", owner="driver", bytes=gib(0.6)),
        BalancePart(kind="process", owner="neighbour", bytes=gib(6.2), label="python", pid=90112),
        BalancePart(kind="unseen", owner="unseen", bytes=gib(unseen)),
    ]
    total = gib(140.4)
    parts.append(BalancePart(kind="free", owner="free", bytes=total - sum(part.bytes or 0 for part in parts)))
    return Balance(
        device_id=GPU, taken_at=now, coherent=True, total_bytes=total, parts=tuple(parts), unexplained_bytes=0
    )


def gpu(now: float, balance: Balance | None = None) -> DeviceStatus:
    processes = (
        DeviceProcess(
            pid=81223, bytes=gib(17.9), user="me", name="python", started_at=now - 270000,
            start_time=12.5, ours="worker",
        ),
        DeviceProcess(
            pid=90112, bytes=gib(6.2), user="liwei", name="python", command="ComfyUI main.py --listen",
            started_at=now - 40000, start_time=230000.25,
        ),
    )  # fmt: skip
    return DeviceStatus(
        id=GPU, kind="cuda", index=2, name="NVIDIA H200", total_bytes=gib(140.4), in_use=True,
        balance=balance or gpu_balance(now), processes=processes, utilisation_percent=97,
        temperature_c=61, power_w=412.0, age_s=0.05,
    )  # fmt: skip


def component(
    name: str,
    size: float,
    state: ComponentState,
    *,
    leased: bool = False,
    warm: float | None = None,
    back: float = 0.3,
) -> ComponentStatus:
    return ComponentStatus(
        name=name, bytes=gib(size), state=state, leased=leased,
        warm_bytes=None if warm is None else int(gib(size) * warm), back_in_s=back,
    )  # fmt: skip


def model(
    name: str, kind: ModelKind, dtype: str, components: tuple[ComponentStatus, ...], *, active: bool = False,
    used: float | None = None,
) -> ModelStatus:  # fmt: skip
    return ModelStatus(
        name=name, kind=kind, title=name, demo=False, path=f"/data/models/{name}", dtype=dtype,
        bytes=sum(part.bytes for part in components), active=active, components=components,
        resolutions=RESOLUTIONS, default_resolution="480p", default_aspect_ratio="16:9", default_frames=81,
        default_steps=4, max_frames=161, last_used_at=used,
        attention="sla" if name.startswith("wan2") else "dense",
    )  # fmt: skip


def gpu_models(now: float) -> tuple[ModelStatus, ...]:
    return (
        model(
            "wan2.2-a14b", "i2v", "int8",
            (
                component("dit.high", 13.5, "absent", warm=1.0, back=0.31),
                component("dit.low", 13.5, "resident", leased=True, warm=1.0),
                component("text", 10.6, "absent", warm=1.0, back=0.21),
                component("vae", 0.2, "resident", leased=True),
            ),
            active=True, used=now,
        ),
        model(
            "wan2.1-1.3b", "t2v", "bfloat16",
            (
                component("dit", 2.6, "absent", warm=1.0, back=0.1),
                component("vae", 0.2, "absent", warm=1.0, back=0.01),
            ),
            used=now - 600,
        ),
        model("wan2.1-14b", "t2v", "bfloat16", (component("dit", 26.6, "absent", warm=0.62, back=2.9),)),
    )  # fmt: skip


def running_job(now: float, *, fraction: float = 0.71) -> Job:
    return Job(
        id=41,
        spec=JobSpec(model="wan2.2-a14b", prompt="a red fox in falling snow, slow pan", resolution="720p",
                     aspect_ratio="16:9", frames=81, steps=4, image="/home/me/fox.png"),
        status="running", created_at=now - 30, started_at=now - 24, attempt=1,
        progress=JobProgress(
            stage="denoise", step=3, steps=4, fraction=fraction, eta_s=6.0, peak_bytes=gib(19.2)
        ),
        expected_peak_bytes=gib(19.6),
    )  # fmt: skip


def gpu_jobs(now: float) -> tuple[Job, ...]:
    return (
        Job(id=30, spec=JobSpec(model="wan2.1-1.3b", prompt="a lighthouse in fog"), status="done",
            created_at=now - 9000, started_at=now - 8990, finished_at=now - 8977, attempt=1,
            output="/home/me/Videos/turbotui/30.mp4"),
        Job(id=31, spec=JobSpec(model="wan2.2-a14b", prompt="a city at night"), status="failed",
            created_at=now - 3000, started_at=now - 2990, finished_at=now - 2950, attempt=1,
            error="denoise asked 2.10 GiB and 0.62 GiB was free; lower the resolution or the frames",
            error_code="out_of_memory"),
        running_job(now),
        Job(id=42, spec=JobSpec(model="wan2.1-1.3b", prompt="一只猫在雪地里跑，慢镜头", resolution="480p"),
            status="queued", position=1, created_at=now - 20, expected_peak_bytes=gib(8.9)),
        Job(id=43, spec=JobSpec(model="wan2.1-14b", prompt="harbour at dawn, drone shot", resolution="720p"),
            status="queued", position=2, created_at=now - 18, expected_peak_bytes=gib(33)),
        Job(id=44, spec=JobSpec(model="wan2.1-14b", prompt="eight samples"), position=3,
            status="waiting_memory", created_at=now - 15,
            waits_for="needs 124 GiB, can have 119; liwei 6.2, unseen 14.0"),
    )  # fmt: skip


def switch_plan(request: SwitchRequest) -> Explanation:
    """What the engine would say of a switch on the busy GPU."""
    large = request.model == "wan2.1-14b"
    moves: tuple[tuple[PlanAction, str, str, float, float, str], ...] = (
        ("adopt", request.model, "vae", 0.2, 13.7, "the same weights as wan2.2-a14b/vae"),
        ("evict", "wan2.2-a14b", "dit.low", 13.5, 0.2, f"{request.model} does not use it"),
        ("load", request.model, "dit", 26.6 if large else 2.6, 26.8 if large else 2.8, "it is its own"),
        ("load", request.model, "text", 10.6, 37.4 if large else 13.4, "it fits beside the DiT"),
    )
    steps = tuple(
        PlanStep(
            stage="switch", action=action, model=model, component=component, bytes=gib(size),
            held_bytes=gib(held), reason=reason,
        )
        for action, model, component, size, held, reason in moves
    )  # fmt: skip
    return Explanation(
        target=f"switch: {request.model}", fits=True, budget_bytes=gib(118.9),
        peak_bytes=steps[-1].held_bytes, tenants="liwei 90112 6.20 GiB", steps=steps,
    )  # fmt: skip


LOG = (
    (-40870, "foreign", "liwei 90112 python ComfyUI main.py appeared", None, True, "info"),
    (-40860, "unseen", "+14.0 GiB, no process we can see", None, True, "warning"),
    (-2950, "oom", "asked 2.10 GiB, free 0.62; went down one rung: text out", 31, True, "error"),
    (-60, "floor", "job 39 left +0 B; last 20 jobs +0.0 MiB a job", 39, True, "info"),
    (-56, "switch", "1.3B → A14B 1.1 s  unload 24 ms · verify 9 ms · load 0.97 s", None, True, "info"),
    (-54, "evict", "text 10.6 GiB: expected 10.6, back 10.6 by NVML, residue 0, 12 ms", 41, True, "info"),
    (-26, "job", "41 started", 41, False, "info"),
    (-2, "load", "dit.low 13.5 GiB in 0.31 s, 43.5 GiB/s, in place under step 2", 41, True, "info"),
)


def log_lines(now: float) -> tuple[LogLine, ...]:
    return tuple(
        LogLine(seq=seq, at=now + at, level=level, event=event, text=text, job_id=job_id, memory=memory)  # type: ignore[arg-type]
        for seq, (at, event, text, job_id, memory, level) in enumerate(LOG, 1)
    )


def receipt(now: float) -> Receipt:
    return Receipt(
        action="unload", target="wan2.1-1.3b", ok=True, expected_bytes=gib(2.64), returned_bytes=gib(2.64),
        residue_bytes=0, elapsed_s=0.024, proof="nvml-process", at=now - 56,
        steps=(
            ReceiptStep(name="drop", bytes=gib(2.64), elapsed_s=0.013),
            ReceiptStep(name="verify", elapsed_s=0.011),
        ),
    )  # fmt: skip


def engine(now: float, *, uptime: float = 273600.0) -> EngineStatus:
    return EngineStatus(
        state="ready", pid=70001, instance="a1", build="0.1.0", started_at=now - uptime, uptime_s=uptime,
        home="/home/me/.local/state/turbotui", socket="/run/user/1000/turbotui/engine.sock",
        output_dir="/home/me/Videos/turbotui", log_path="/home/me/.local/state/turbotui/logs/engine.log",
        nursery=NurseryStatus(state="ready", elapsed_s=11.0, pid=70010), queue=QueueStatus(waiting=3),
        max_prompt_chars=8000,
    )  # fmt: skip


def busy(now: float) -> Snapshot:
    """A job denoises on an H200 that is shared."""
    worker = WorkerStatus(
        pid=81223,
        device_id=GPU,
        state="running",
        started_at=now - 270000,
        forked=True,
        job_id=41,
        allocator="expandable_segments:True",
        allocator_reason="expandable_segments:True: measured best here",
        warm_bytes=gib(57.4),
        warm_rate=45.0 * GIB,
    )
    status = Status(engine=engine(now), workers=(worker,), devices=(gpu(now),), models=gpu_models(now))
    return Snapshot(status=status, jobs=gpu_jobs(now), log=log_lines(now), receipt=receipt(now))


def pressed(now: float) -> Snapshot:
    """The same machine with its memory nearly full, and a neighbour who has just filled it."""
    pressure = Pressure(
        device_id=GPU, level="act", total_bytes=gib(140.4), used_bytes=gib(135), used_share=0.962,
        why="96 % in use",
        grew=(Growth(who="liwei 90112", owner="neighbour", pid=90112, bytes=gib(6.2), over_s=40.0),),
        offers=(
            PressureOffer(what="free", target="cache and idle components", bytes=gib(11.0),
                          command="turbotui free", action="free"),
            PressureOffer(what="component", target="wan2.1-1.3b/text", bytes=gib(10.6),
                          command="turbotui unload wan2.1-1.3b/text", action="unload"),
        ),
    )  # fmt: skip
    snapshot = busy(now)
    return replace(snapshot, status=replace(snapshot.status, pressure=(pressure,)))


def idle(now: float) -> Snapshot:
    """The same machine with nothing to do."""
    snapshot = busy(now)
    jobs = tuple(job for job in snapshot.jobs if job.status in ("done", "failed"))
    status = replace(snapshot.status, engine=replace(snapshot.status.engine, queue=QueueStatus(waiting=0)))
    return replace(snapshot, jobs=jobs, status=status)


def host_balance(now: float, *, weights: int = 0, live: int = 0) -> Balance:
    """A machine without a GPU: the worker's memory, and the rest of the host."""
    total = gib(15.6)
    parts = [
        BalancePart(kind="weights", owner="ours", bytes=weights),
        BalancePart(kind="live", owner="ours", bytes=live),
        BalancePart(kind="runtime", owner="ours", bytes=412 * MIB),
        BalancePart(kind="others", owner="neighbour", bytes=gib(2.4)),
    ]
    parts.append(BalancePart(kind="free", owner="free", bytes=total - sum(part.bytes or 0 for part in parts)))
    return Balance(
        device_id="cpu",
        taken_at=now,
        coherent=True,
        total_bytes=total,
        parts=tuple(parts),
        unexplained_bytes=0,
    )


def host(now: float, balance: Balance | None = None) -> DeviceStatus:
    processes = (
        DeviceProcess(pid=70030, bytes=512 * MIB, user="me", started_at=now - 60, ours="worker"),
        DeviceProcess(pid=70010, bytes=380 * MIB, user="me", started_at=now - 300, ours="nursery"),
        DeviceProcess(pid=70001, bytes=61 * MIB, user="me", started_at=now - 302, ours="daemon"),
    )
    return DeviceStatus(
        id="cpu", kind="cpu", name="host", total_bytes=gib(15.6), in_use=True,
        balance=balance or host_balance(now), processes=processes, age_s=0.05,
    )  # fmt: skip


def cpu(now: float) -> Snapshot:
    """A machine without a GPU after a first job on a demo model."""
    parts = (
        ComponentStatus(name="dit", bytes=41 * MIB, state="resident", warm_bytes=41 * MIB, back_in_s=0.05),
        ComponentStatus(name="text", bytes=31 * MIB, state="resident", warm_bytes=31 * MIB, back_in_s=0.04),
        ComponentStatus(name="vae", bytes=12 * MIB, state="resident", warm_bytes=12 * MIB, back_in_s=0.02),
    )
    small = replace(
        model("wan-demo-small", "t2v", "float32", parts, active=True, used=now - 5),
        default_frames=17,
        demo=True,
    )
    absent = tuple(replace(part, state="absent") for part in parts)
    image = model("wan-demo-i2v", "i2v", "float32", absent, used=now - 900)
    large = replace(model("wan-demo-large", "t2v", "float32", absent), bytes=108 * MIB)
    done = Job(
        id=1, status="done",
        spec=JobSpec(model="wan-demo-small", prompt="一只猫在雪地里跑，慢镜头，电影质感", resolution="480p"),
        created_at=now - 30, started_at=now - 29, finished_at=now - 17.7, attempt=1,
        output="/home/me/videos/1.mp4",
    )  # fmt: skip
    started = replace(engine(now, uptime=302.0), queue=QueueStatus(waiting=0))
    worker = WorkerStatus(pid=70030, device_id="cpu", state="idle", started_at=now - 60, forked=True)
    device = host(now, host_balance(now, weights=84 * MIB))
    return Snapshot(
        status=Status(engine=started, workers=(worker,), devices=(device,), models=(small, image, large)),
        jobs=(done,),
        log=log_lines(now)[-3:],
        receipt=Receipt(
            action="unload", target="wan-demo-i2v", ok=True, expected_bytes=84 * MIB, returned_bytes=84 * MIB,
            residue_bytes=0, elapsed_s=0.011, proof="process-rss", at=now - 31,
        ),
    )  # fmt: skip


def first_run(now: float) -> Snapshot:
    """A new engine on a machine without a GPU: no models, no jobs, the nursery warms up."""
    started = replace(
        engine(now, uptime=2.0),
        nursery=NurseryStatus(state="warming", elapsed_s=7.0, expected_s=12.0),
        queue=QueueStatus(waiting=0),
    )
    return Snapshot(
        status=Status(engine=started, workers=(), devices=(host(now),), models=()),
        jobs=(),
        log=(),
        receipt=None,
    )


def script(scene: str, now: float) -> Iterator[Step]:
    """Ten samples a second without end; on the busy scene the job moves and the log speaks."""
    if scene == "first":
        yield Step(event=first_run(now))
        device = host(now)
        while True:
            yield Step(event=MemorySampled(device=device), after_s=0.1)
    snapshot = busy(now) if scene == "busy" else idle(now)
    yield Step(event=snapshot)
    seq = len(LOG)
    resting = MemorySampled(device=gpu(now))
    for tick in itertools.count(1):
        at = now + tick / 10
        if scene != "busy":
            yield Step(event=resting, after_s=0.1)
            if tick % 20 == 0:
                yield Step(event=Heartbeat(at=at))
            continue
        live = 3.1 + 2.4 * abs(math.sin(tick / 17)) + (1.5 if tick % 40 < 3 else 0.0)
        device = replace(
            gpu(now), balance=gpu_balance(at, live=live), utilisation_percent=90 + tick // 10 % 10
        )
        yield Step(event=MemorySampled(device=device), after_s=0.1)
        if tick % 5 == 0:
            yield Step(event=JobChanged(job=running_job(now, fraction=tick / 5 % 100 / 100)))
        if tick % 50 == 0:
            seq += 1
            line = LogLine(
                seq=seq, at=at, event="load", text=f"block {tick} 0.31 GiB", job_id=41, memory=True
            )
            yield Step(event=Logged(line=line))
