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
                "Likeliest: somebody whom this engine cannot see, since this is a container: processes "
                "outside of it are not shown.",
                "Else: process 4711 (python), since it has a GPU's file open and is on none of NVML's lists.",
            ),
            changed="liwei 90112 (python) came",
            remedy="Have it looked for where all is seen.",
            admin_line=f"gpubox01, GPU 2 ({GPU}, NVIDIA H200): the driver counts 14.0 GiB used that no "
            "process visible to me (uid 1000) holds; please look on the host with `fuser -v /dev/nvidia*`",
        ),
        Finding(
            kind="web_ui_leftover", severity="notice", device_id=GPU, bytes=gib(6.2), since=now - 40000,
            pid=90112, start_time=230000.25,
            title="liwei 90112 (ComfyUI) on GPU 2 looks like a leftover: nobody can reach it.",
            evidence=(
                "Its parent is 1 (systemd), so whoever started it is gone.",
                "It listens on no TCP port and has no terminal.",
                "It holds 6.20 GiB and has run for 11 h.",
            ),
            remedy="Ask liwei; it may be a job that needs no port.",
            admin_line=f"gpubox01, GPU 2 ({GPU}): process 90112 of liwei holds 6.20 GiB; is it still wanted?",
        ),
        Finding(
            kind="warm", severity="info", bytes=gib(57.4),
            title="57.4 GiB of weight files are held in host memory.",
            evidence=(
                "That is 22% of the 256 GiB that this host has; 171 GiB are available.",
                "The driver holds registered pages, so the kernel cannot take them back by itself.",
            ),
            remedy="Leave them if models are switched often; else let go of them, and loads read the disk.",
            remedy_command="turbotui drop-warm",
        ),
    )  # fmt: skip
    return CheckReport(
        at=now - 60, elapsed_s=0.21, findings=findings, new=1, clean_at=now - 58000,
        unknown=("GPU 2: memory moved while it was read: nothing is said of unseen memory or cache",),
    )  # fmt: skip


def reset_plan(_device: str) -> ResetPlan:
    """The busy GPU, which a neighbour holds."""
    neighbour = "process 90112 of liwei (main.py) holds the GPU; `turbotui kill PID` ends one, with its proof"
    conditions = (
        ResetCondition(name="platform", state="ok", text="neither a container nor WSL"),
        ResetCondition(name="rights", state="ok", text="sudo runs the helper as root, without a password"),
        ResetCondition(name="holders", state="blocks", text=neighbour),
        ResetCondition(
            name="NVLink", state="unknown", text="the driver does not tell whether it is linked with others"
        ),
    )
    return ResetPlan(
        device_id=GPU, index=2, name="NVIDIA H200", bus_id="0000:3B:00.0", used_bytes=gib(38.7),
        recovery_action="none", conditions=conditions, holders=(),
        ends=("worker 81223; job 41 is interrupted and queued again", "probe 70002"),
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
