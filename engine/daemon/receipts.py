"""Receipts as the daemon completes and tells them: what was promised, what the probe saw, in words."""

from __future__ import annotations

from dataclasses import replace

from engine.errors import EngineError
from engine.telemetry.samples import Traced
from engine.units import size_text
from engine.wire import Proof, Receipt, ReceiptAction

PROOF_SLACK = 0.03
"""A process that is within this share of the expected bytes has given them back."""


HOST_SLACK_BYTES = 4 * 2**20
"""A process's resident set moves by so much by itself: 2.4 and 2.6 MiB were seen on a busy host."""


def slack(num_bytes: int) -> int:
    """How much of `num_bytes` may be missing where they count as given back."""
    return int(num_bytes * PROOF_SLACK)


def uncertain(num_bytes: int) -> int:
    """How far a process's resident set may be off after it gave back so many; of few, half must be seen."""
    return min(HOST_SLACK_BYTES, num_bytes // 2)


def proved(
    receipt: Receipt, traced: Traced | None, *, held: int, expected: int, on_cpu: bool, cached: int = 0
) -> Receipt:
    """`receipt` completed by the process's own bytes: `held` before the action, `traced` after it.

    Loads add to the process while unloads take from it, so what should be left is
    `held - cached - expected + loaded`; what is left beyond that is residue. Of `cached` bytes of cache
    that went first a heap may have taken some anew since: so on cpu the worker's own count, which is from
    right before and after, holds as far as what is seen from outside allows it.
    """
    if traced is None or traced.end_bytes is None:
        return replace(receipt, proof_reason="the probe did not answer")
    proof: Proof = "process-rss" if on_cpu else "nvml-process"
    gone = held + receipt.loaded_bytes - traced.end_bytes
    returned = gone - cached
    if on_cpu and receipt.returned_bytes is not None:
        returned = min(max(receipt.returned_bytes, returned), gone)
    missing = max(0, expected - returned)
    reached = missing <= max(slack(expected), uncertain(expected)) if on_cpu else traced.reached
    residue, within = (0, missing) if reached else (missing, 0)
    return replace(
        receipt,
        expected_bytes=expected,
        returned_bytes=max(0, returned),
        residue_bytes=residue,
        within_bytes=within,
        residue=("held by the worker's process beyond its weights",) if residue else (),
        proof=proof,
        proof_reason="no GPU: the worker's resident set is the proof" if on_cpu else None,
        elapsed_s=round(receipt.elapsed_s + traced.elapsed_s, 4),
    )


def receipt_text(receipt: Receipt) -> str:
    """A receipt as the log tells it."""
    if not receipt.ok:
        return f"{receipt.target}: {receipt.error}"
    parts = [receipt.target]
    if receipt.loaded_bytes:
        parts.append(f"{size_text(receipt.loaded_bytes)} in")
    if receipt.expected_bytes or not receipt.loaded_bytes:
        parts.append(f"expected back {size_text(receipt.expected_bytes)}")
    if receipt.returned_bytes is not None and receipt.expected_bytes:
        parts.append(f"back {size_text(receipt.returned_bytes)} by {receipt.proof}")
        parts.append(f"residue {size_text(receipt.residue_bytes or 0)}")
        if receipt.within_bytes:
            parts[-1] += f" ±{size_text(receipt.within_bytes)}"
    parts.append(f"{receipt.elapsed_s:.3f} s")
    return ", ".join(parts)


def given_up(action: ReceiptAction, target: str, error: EngineError, elapsed_s: float) -> Receipt:
    """The receipt of an action that was given up before the worker was asked."""
    return Receipt(
        action=action,
        target=target,
        ok=False,
        error=str(error),
        error_code=error.code,
        elapsed_s=elapsed_s,
        proof="device-delta",
        proof_reason="nothing was moved",
    )


def nothing_to_do(
    action: ReceiptAction,
    target: str,
    reason: str = "no worker runs, so nothing of ours is on the device",
) -> Receipt:
    """The receipt of an action that found nothing to do."""
    return Receipt(
        action=action,
        target=target,
        ok=True,
        returned_bytes=0,
        residue_bytes=0,
        elapsed_s=0.0,
        proof="device-delta",
        proof_reason=reason,
    )
