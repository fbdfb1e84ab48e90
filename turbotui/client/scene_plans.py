"""Owns what a made-up engine found on its busy GPU, and what it would do about it."""

from __future__ import annotations

from engine.wire import (
    CheckReport,
    CleanupCandidate,
    DeviceProcess,
    Finding,
    FullCleanupPlan,
    ResetCondition,
    ResetPlan,
)
from turbotui.client.scenes import GPU, gib, gpu


def found(now: float) -> CheckReport:
    """Memory of nobody since the night, a neighbour's leftover, and a setting that costs little."""
    findings = (
        Finding(
            kind="unseen", severity="warning", device_id=GPU, bytes=gib(14.0), since=now - 41520, new=True,
            title="14.0 GiB on GPU 2 has no process that can be seen.",
            evidence=(
                "The driver counts 14.0 GiB beyond its own reserve and the 2 processes that it lists.",
                "Likeliest: somebody whom this engine cannot see, since it runs in a container of its own.",
                "Else: process 4711 (python), since it has a GPU's file open and is on none of NVML's lists.",
            ),
            changed="liwei 90112 came 10 s before",
            remedy="Have it looked for where all is seen.",
            admin_line=f"gpubox01, GPU 2 ({GPU}, NVIDIA H200): the driver counts 14.0 GiB used that no "
            "process visible to me (uid 1000) holds; please look on the host with `fuser -v /dev/nvidia*`",
        ),
        Finding(
            kind="web_ui_leftover", severity="notice", device_id=GPU, bytes=gib(6.2), since=now - 40000,
            pid=90112, start_time=230000.25, title="Process 90112 of liwei is a web UI that nobody uses.",
            evidence=("It has held 6.2 GiB for 11 hours and computed nothing.",),
            remedy="Ask liwei whether it is still needed.", remedy_command="turbotui watch 90112",
        ),
        Finding(
            kind="warm", severity="info", bytes=gib(57.4), title="57.4 GiB of weight files are kept warm.",
            evidence=("They are a fifth of the host's memory.",), remedy="Nothing has to be done.",
        ),
    )  # fmt: skip
    return CheckReport(
        at=now - 60, elapsed_s=0.21, findings=findings, new=1, clean_at=now - 58000,
        unknown=("what the MPS server's clients hold: it does not answer",),
    )  # fmt: skip


def reset_plan(_device: str) -> ResetPlan:
    """The busy GPU, which a neighbour holds."""
    neighbour = "process 90112 of liwei holds it: ComfyUI main.py; `turbotui kill 90112`, or ask liwei"
    conditions = (
        ResetCondition(name="platform", state="ok", text="bare metal: the driver is this host's own"),
        ResetCondition(name="rights", state="ok", text="the helper may be run without a password"),
        ResetCondition(name="holders", state="blocks", text=neighbour),
        ResetCondition(name="nvlink", state="unknown", text="the driver refuses by itself where it has to"),
    )
    return ResetPlan(
        device_id=GPU, index=2, name="NVIDIA H200", bus_id="0000:3B:00.0", used_bytes=gib(38.7),
        recovery_action="none", conditions=conditions, holders=(),
        ends=("worker 81223; job 41 is queued again", "the probe, which comes back after"),
        commands=(("nvidia-smi", "--gpu-reset", "-i", "0000:3B:00.0"),),
    )  # fmt: skip


def full_cleanup_plan(now: float) -> FullCleanupPlan:
    """Ours, a process of the person's own, and a neighbour."""
    own = DeviceProcess(
        pid=91007, bytes=gib(2.0), user="me", name="python", command="python train.py --resume",
        started_at=now - 5400, start_time=260000.5,
    )  # fmt: skip
    neighbour = gpu(now).processes[1]
    return FullCleanupPlan(
        worker_pid=81223, worker_bytes=gib(17.9), job_id=41, waiting=3, nursery_pid=70010,
        nursery_bytes=gib(0.4),
        candidates=(
            CleanupCandidate(process=own, device_ids=(GPU,), bytes=own.bytes, mine=True),
            CleanupCandidate(process=neighbour, device_ids=(GPU,), bytes=neighbour.bytes, mine=False),
        ),
        device_id=GPU, videos=31, videos_bytes=gib(0.2), logs=2, logs_bytes=gib(0.1),
    )  # fmt: skip
