"""What is wrong, or only looks wrong, with the memory and the settings of our own worker."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.checks.facts import Facts, gpu_name
from engine.planning.allocator import unfulfilled
from engine.units import GIB, MIB, size_text
from engine.wire import DeviceStatus, Finding, WorkerStatus

CACHE_BYTES = GIB
"""A cache that is smaller is not worth a line."""
FRAGMENTED_BYTES = GIB
RESIDUE_BYTES = 256 * MIB
"""What a switch tolerates before it replaces the worker."""
UNEXPLAINED_BYTES = 128 * MIB
"""More than libraries add that are loaded after the context was measured."""
WARM_SHARE = 0.5
"""Of host memory; beyond it, other programs' files are crowded out."""
SHORT_SHARE = 0.1
"""Of host memory available beside warm files: little."""
CUDNN_LEAST = 91500
"""The first cuDNN whose bf16 conv3d needs no vol2col. Source: pytorch issue 166643 (7.3 GB against 2.5)."""
TORCH_CONCERNED = (2, 9)
"""Since then torch sends bf16 conv3d to it."""


def cache(facts: Facts) -> Iterator[Finding]:
    """Cached blocks that `free` returns: reserved, and no leak."""
    for device in facts.gpus:
        num_bytes = _part(device, "releasable")
        if num_bytes is None or num_bytes < CACHE_BYTES:
            continue
        yield Finding(
            kind="cache",
            severity="info",
            title=f"{size_text(num_bytes)} on {gpu_name(device)} are the worker's cache, which is no leak.",
            evidence=(
                f"The allocator keeps {size_text(num_bytes)} in segments with nothing alive in them.",
                "The next step of that size takes them without asking the driver.",
            ),
            bytes=num_bytes,
            remedy="Leave it, or give it back to others; it is safe under a running job.",
            remedy_command="turbotui free",
            device_id=device.id,
        )


def fragmentation(facts: Facts) -> Iterator[Finding]:
    """Cached blocks that share a segment with something alive, so that nothing returns them."""
    for device in facts.gpus:
        num_bytes = _part(device, "fragmented")
        if num_bytes is None or num_bytes < FRAGMENTED_BYTES:
            continue
        running = any(worker.job_id is not None for worker in facts.workers)
        yield Finding(
            kind="fragmented",
            severity="notice",
            title=f"{size_text(num_bytes)} on {gpu_name(device)} are cut up between live blocks.",
            evidence=(
                f"The allocator keeps {size_text(num_bytes)} free inside segments that are partly in use.",
                "`free` cannot return them; a large request may fail beside them.",
            ),
            bytes=num_bytes,
            remedy="Let the running job end, and clean up then."
            if running
            else "A fresh worker has none; weights come back at the bus's rate.",
            remedy_command=None if running else "turbotui cleanup",
            device_id=device.id,
        )


def pressure(facts: Facts) -> Iterator[Finding]:
    """The allocator had to flush its cache to go on, or could not: the early sign of an OOM."""
    counters = facts.counters
    if counters is None or not facts.workers:
        return
    retries, ooms = counters.num_alloc_retries or 0, counters.num_ooms or 0
    if not retries and not ooms:
        return
    worker = facts.workers[0]
    yield Finding(
        kind="memory_pressure",
        severity="notice",
        title=f"Worker {worker.pid} has run short of device memory since it started.",
        evidence=(
            f"The driver refused {_times(retries)}, after which the cache was flushed.",
            f"{_times(ooms)} that did not help.",
        ),
        remedy="Fewer frames, a lower resolution or another residency needs less; see what a job would take.",
        device_id=worker.device_id,
        pid=worker.pid,
    )


def allocator(facts: Facts) -> Iterator[Finding]:
    """Settings that were asked for and are not in force, and variables that decide instead."""
    for worker in facts.workers:
        missed = unfulfilled(facts.allocator_asked, worker.allocator)
        if missed:
            yield Finding(
                kind="allocator",
                severity="warning",
                title="The worker's allocator does not do what engine.allocator asks for.",
                evidence=(
                    f"Asked: {facts.allocator_asked}; not in force: {', '.join(missed)}.",
                    f"The allocator itself tells: {worker.allocator}.",
                ),
                remedy="Correct engine.allocator, and restart the engine when the running job has ended.",
                remedy_command="turbotui engine restart --after-job",
                device_id=worker.device_id,
                component="asked",
            )
    asked = facts.allocator_asked
    for name, value in sorted(facts.allocator_environment.items()):
        if value.strip() == asked.strip():
            continue
        yield Finding(
            kind="allocator",
            severity="notice",
            title=f"{name} in the engine's environment sets the allocator beside engine.allocator.",
            evidence=(
                f"{name}={value[:200]}; engine.allocator asks for {asked or 'the defaults'}.",
                "Which one a worker follows depends on how it was started.",
            ),
            remedy="Put the settings into config.toml as engine.allocator, and start without the variable.",
            remedy_command=f"env -u {name} turbotui engine restart --after-job",
            component=name,
        )


def cudnn(facts: Facts) -> Iterator[Finding]:
    """A cuDNN with which the VAE's bf16 convolutions take three times their memory."""
    versions = facts.versions
    if versions is None or not facts.gpus or "cudnn" not in versions:
        return
    number, torch = versions["cudnn"], versions.get("torch", "")
    if not number.isdecimal() or int(number) >= CUDNN_LEAST or _release(torch) < TORCH_CONCERNED:
        return
    yield Finding(
        kind="cudnn",
        severity="warning",
        title=f"cuDNN {_cudnn_text(int(number))} is too old for the VAE in bf16.",
        evidence=(
            f"torch {torch} brings cuDNN {number}; since {CUDNN_LEAST} bf16 conv3d needs no copy.",
            "Measured elsewhere: one such layer took 7.3 GB in bf16 and 2.5 GB in fp32.",
        ),
        remedy="Install a newer cuDNN beside this torch, or decode in fp32: engine.vae_precision.",
        remedy_command="python -m pip install 'nvidia-cudnn-cu13>=9.15'"
        if versions.get("cuda", "").startswith("13")
        else "python -m pip install 'nvidia-cudnn-cu12>=9.15'",
        component="cudnn",
    )


def residue(facts: Facts) -> Iterator[Finding]:
    """The last action that gave memory back left some behind."""
    last = next((r for r in reversed(facts.receipts) if r.action in _RETURNING and r.ok), None)
    if last is None or not last.residue_bytes or last.residue_bytes <= RESIDUE_BYTES:
        return
    if last.action not in _ENDING and not any(worker.started_at <= last.at for worker in facts.workers):
        return  # the worker that kept it is gone, and with it the residue
    if last.proof in ("process-rss", "page-cache"):
        return  # host memory, which the kernel gives back when it likes
    yield Finding(
        kind="residue",
        severity="warning",
        title=f"The last {last.action} left {size_text(last.residue_bytes)} behind.",
        evidence=(
            f"{last.action} {last.target}: expected back {size_text(last.expected_bytes)}, "
            f"residue {size_text(last.residue_bytes)} by {last.proof}.",
            *(f"It is {name}." for name in last.residue),
        ),
        bytes=last.residue_bytes,
        since=last.at or None,
        remedy="End the worker, which gives back all that it holds, and start a fresh one.",
        remedy_command="turbotui cleanup",
        component=f"{last.action} {last.at:.0f}",
    )


def unexplained(facts: Facts) -> Iterator[Finding]:
    """Memory of our worker's process that neither PyTorch nor the measured context accounts for."""
    for device in facts.gpus:
        balance = device.balance
        ours = any(worker.device_id == device.id and worker.job_id is None for worker in facts.workers)
        if not ours or balance is None or not balance.coherent or _part(device, "context") is None:
            continue  # a job's libraries come and go between two measurings of the context
        num_bytes = balance.unexplained_bytes
        if num_bytes < UNEXPLAINED_BYTES:
            continue
        yield Finding(
            kind="unexplained",
            severity="warning",
            title=f"{size_text(num_bytes)} of our worker on {gpu_name(device)} have no name.",
            evidence=(
                f"Its process holds {size_text(num_bytes)} more than its allocator's segments and its "
                "context, which was measured.",
                "Something in it has asked the driver past PyTorch's allocator.",
            ),
            bytes=num_bytes,
            remedy="Only the end of the process gives it back; weights come back at the bus's rate.",
            remedy_command="turbotui cleanup",
            device_id=device.id,
        )


def silence(facts: Facts) -> Iterator[Finding]:
    """A worker that says nothing."""
    for worker in facts.workers:
        if worker.state == "silent":
            job = f" It runs job {worker.job_id}, which would be interrupted." if worker.job_id else ""
            yield Finding(
                kind="worker_silent",
                severity="warning",
                title=f"Worker {worker.pid} says nothing, where a healthy one speaks ten times a second.",
                evidence=(f"It works on {worker.device_id}.{job}",),
                bytes=_held(facts, worker),
                remedy="Wait if it is in a long step; else end it, which starts another.",
                remedy_command="turbotui cleanup",
                device_id=worker.device_id,
                pid=worker.pid,
            )


def host_memory(facts: Facts) -> Iterator[Finding]:
    """Weight files that are registered in host memory, where that is much of it."""
    total, available = facts.host_total_bytes, facts.host_available_bytes
    for worker in facts.workers:
        warm = worker.warm_bytes
        if not warm or not total or available is None:
            continue
        short = available < SHORT_SHARE * total
        if warm < WARM_SHARE * total and not (short and warm >= GIB):
            continue
        limit = "its cgroup allows" if facts.host_limited_by_cgroup else "this host has"
        yield Finding(
            kind="warm",
            severity="notice" if short else "info",
            title=f"{size_text(warm)} of weight files are held in host memory.",
            evidence=(
                f"That is {warm / total:.0%} of the {size_text(total)} that {limit}; "
                f"{size_text(available)} are available.",
                "The driver holds registered pages, so the kernel cannot take them back by itself.",
            ),
            bytes=warm,
            remedy="Leave them if models are switched often; else let go of them, and loads read the disk.",
            remedy_command="turbotui drop-warm",
            component="host",
        )


_ENDING = frozenset({"park", "cleanup"})
"""Actions that end the worker: what they leave is counted for a process that is gone."""
_RETURNING = _ENDING | {"unload", "switch", "free"}


def _part(device: DeviceStatus, kind: str) -> int | None:
    """All parts of that kind, by a coherent balance."""
    if device.balance is None or not device.balance.coherent:
        return None
    return sum(part.bytes or 0 for part in device.balance.parts if part.kind == kind)


def _held(facts: Facts, worker: WorkerStatus) -> int | None:
    for device in facts.devices:
        if device.id == worker.device_id:
            return next((listed.bytes for listed in device.processes if listed.pid == worker.pid), None)
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _cudnn_text(number: int) -> str:
    return f"{number // 10000}.{number // 100 % 100}"
