"""Owns what a made-up engine holds that it should not, and what a remedy of it would bring."""

from __future__ import annotations

from engine.wire import (
    Holder,
    LeakReport,
    Receipt,
    ReceiptStep,
    Remedy,
    RemedyRequest,
    RemedyResult,
    Segment,
    Site,
    Tracing,
    Trend,
    Verdict,
)
from turbotui.client.scenes import GPU, MIB, gib

SITES = (
    Site(file="/home/me/nodes/preview.py", line=41, function="remember", bytes=gib(2.1), blocks=18),
    Site(
        file="/opt/turbotui/engine/worker/pipeline.py",
        line=212,
        function="denoise",
        bytes=gib(0.62),
        blocks=7,
    ),
    Site(
        file="/opt/turbotui/engine/worker/nets/vae.py", line=88, function="cached", bytes=96 * MIB, blocks=33
    ),
)
FIX = Remedy(
    action="cleanup",
    text="End the worker, which gives back all that it holds, and start a fresh one.",
    command="turbotui cleanup",
    predicted_bytes=gib(2.1),
)  # fmt: skip


def _device(place: int) -> int:
    """Floors of jobs, which rise by 118 MiB each, now and then by a little more."""
    return gib(0.31) + place * 118 * MIB + (place % 3) * 2 * MIB


TRENDS = (
    Trend(
        what="device", over="jobs", count=18, bytes_each=118.2 * MIB, low=116.0 * MIB, high=120.5 * MIB,
        grows=True, component="vae", stage="decode", floors=tuple(map(_device, range(18))),
    ),
    Trend(
        what="host", over="jobs", count=18, bytes_each=0.02 * MIB, low=-0.2 * MIB, high=0.3 * MIB,
        floors=tuple(gib(5.2) + (place * 7 % 5) * MIB for place in range(18)),
    ),
    Trend(what="pinned", over="jobs", count=18, bytes_each=0.0, low=0.0, high=0.0, floors=(gib(1.0),) * 18),
    Trend(what="device", over="switches", count=3, bytes_each=None, floors=(gib(0.3), gib(0.3), gib(0.4))),
)  # fmt: skip


def segments() -> tuple[Segment, ...]:
    """Weights in whole segments, work that came and went between them, and a cache."""
    whole = [Segment(bytes=gib(size), blocks=(("live", gib(size)),)) for size in (6.7, 3.4, 2.0, 1.6)]
    torn = Segment(
        bytes=gib(2.0),
        stream="7",
        blocks=tuple(
            ("live", gib(0.1)) if place % 3 == 0 else ("free", gib(0.15)) for place in range(15)
        ),
    )  # fmt: skip
    waits = Segment(bytes=gib(0.8), stream="7", blocks=(("awaiting", gib(0.3)), ("live", gib(0.5))))
    cache = [Segment(bytes=gib(size), blocks=(("free", gib(size)),)) for size in (1.5, 1.2, 0.8)]
    small = [
        Segment(bytes=2 * MIB, pool="small", blocks=(("live", MIB // 2), ("free", 3 * MIB // 2)))
        for _ in range(40)
    ]
    return (*whole, torn, waits, *cache, *small)


def leak_report(now: float) -> LeakReport:
    """Two leaks, and what only looks like one."""
    verdicts = (
        Verdict(
            kind="tensor", leak=True, bytes=gib(2.1), device_id=GPU, component="vae", stage="decode",
            title="preview.STORE holds 2.10 GiB of tensors on GPU 2 (a module's variable).",
            evidence=(
                "18 tensors of 2.10 GiB, the largest 1x16x21x60x104 in torch.float32.",
                "It is reached by module preview > STORE > Store.frames > [17].",
                "The holder is written at /home/me/nodes/preview.py:12.",
                "It was allocated at /home/me/nodes/preview.py:41 in remember.",
                "Growth: device floor +118.2 MiB a job (116.0 MiB to 120.5 MiB) over 18 jobs, in decode of "
                "vae.",
                "Neither the engine's own bookkeeping nor a running call needs it.",
            ),
            site=SITES[0],
            holder=Holder(
                path=("module preview", "STORE", "Store.frames", "[17]"), kind="global",
                file="/home/me/nodes/preview.py", line=12,
            ),
            remedy=FIX,
        ),
        Verdict(
            kind="unseen", leak=False, bytes=gib(14.0), device_id=GPU,
            title="14.0 GiB on GPU 2 has no process that can be seen.",
            evidence=(
                "Likeliest: somebody whom this engine cannot see, since this is a container: processes "
                "outside of it are not shown.",
            ),
            admin_line=f"gpubox01, GPU 2 ({GPU}): the driver counts 14.0 GiB used that no process visible "
            "to me (uid 1000) holds; please look on the host with `fuser -v /dev/nvidia*`",
        ),
        Verdict(
            kind="component", leak=False, bytes=gib(10.6), device_id=GPU, component="wan2.2-a14b/text",
            title="wan2.2-a14b/text is resident with 10.60 GiB beside the active model.",
            evidence=(
                "Another model is the active one, and no job that waits asks for it.",
                "Its model was last used 42 minutes ago.",
                "2 jobs of other models ended since then.",
                "It was kept since there was room, so that its next job need not load it.",
            ),
            remedy=Remedy(
                action="unload", text="Unload it; its next job loads it again.",
                command="turbotui unload wan2.2-a14b/text", target="wan2.2-a14b/text",
                predicted_bytes=gib(10.6),
            ),
        ),
        Verdict(
            kind="cache", leak=False, bytes=gib(3.5), device_id=GPU,
            title="3.50 GiB on GPU 2 are cache, which is no leak.",
            evidence=(
                "The allocator keeps 3.50 GiB in segments with nothing alive in them.",
                "The next step of that size takes them without asking the driver.",
            ),
            remedy=Remedy(
                action="free", text="Leave it, or give it back to others; it is safe under a running job.",
                command="turbotui free", predicted_bytes=gib(3.5),
            ),
        ),
        Verdict(
            kind="fragmented", leak=False, bytes=gib(1.5), device_id=GPU,
            title="1.50 GiB on GPU 2 are free and cut up between live blocks.",
            evidence=(
                "The allocator keeps 1.50 GiB free inside segments that are partly in use.",
                "They lie in 1 segment; the longest stretch is 153.6 MiB.",
            ),
        ),
        Verdict(
            kind="process", leak=False, bytes=gib(6.2), device_id=GPU,
            title="6.20 GiB on GPU 2 are held by process 90112 of liwei.",
            evidence=(
                "It runs ComfyUI, and is not this engine's.",
                "The driver lists it with its bytes, so they are its own and no leak of ours.",
            ),
            remedy=Remedy(
                action="kill", text="Look whether it still does anything that you want; then end it.",
                pid=90112, start_time=230000.25, predicted_bytes=gib(6.2),
            ),
        ),
    )  # fmt: skip
    return LeakReport(
        at=now - 2,
        elapsed_s=0.41,
        verdicts=tuple(sorted(verdicts, key=lambda one: (not one.leak, -(one.bytes or 0)))),
        trends=TRENDS,
        tracing=Tracing(on=True, since=now - 3600, entries=41_203, limit=100_000, cost_share=0.018),
        sites=SITES,
        segments=segments(),
        objects=81_204,
        unknown=("processes and the driver: the check has not ended within 1.7 s",),
    )


def remedied(request: RemedyRequest) -> RemedyResult:
    """All of it came back but for a rest."""
    remedy = request.remedy
    predicted = remedy.predicted_bytes or 0
    returned = predicted - 12 * MIB
    receipt = Receipt(
        action="cleanup" if remedy.action == "cleanup" else "free",
        target=remedy.target or "worker and everything on it",
        ok=True, expected_bytes=predicted, returned_bytes=returned, residue_bytes=12 * MIB, elapsed_s=0.43,
        proof="nvml-process", steps=(ReceiptStep(name="worker ended", bytes=returned, elapsed_s=0.4),),
    )  # fmt: skip
    return RemedyResult(
        remedy=remedy, predicted_bytes=predicted, returned_bytes=returned, kept=True, receipt=receipt
    )
