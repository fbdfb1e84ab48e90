"""Receipts of what this process did and counted itself; the daemon completes what it can see, too."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import EngineError
from engine.wire import Proof, Receipt, ReceiptAction, ReceiptStep


class ReceiptWriter:
    """Writes receipts that all have one kind of proof."""

    def __init__(self, proof: Proof, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._proof = proof
        self._clock = clock
        self._wall_clock = wall_clock

    def write(
        self,
        action: ReceiptAction,
        target: str,
        began: float,
        *,
        error: EngineError | str | None = None,
        expected_bytes: int = 0,
        returned_bytes: int | None = None,
        residue: str = "",
        loaded_bytes: int = 0,
        proof_reason: str | None = None,
        steps: tuple[ReceiptStep, ...] = (),
        job_id: int | None = None,
    ) -> Receipt:
        """The receipt of what began at `began` and ends now.

        `residue` names what was expected back and did not come, if there is any.
        """
        left = None if returned_bytes is None else max(0, expected_bytes - returned_bytes)
        return Receipt(
            action=action,
            target=target,
            ok=error is None,
            error=None if error is None else str(error),
            error_code=error.code if isinstance(error, EngineError) else None,
            expected_bytes=expected_bytes,
            returned_bytes=returned_bytes,
            residue_bytes=left,
            residue=(residue,) if left else (),
            loaded_bytes=loaded_bytes,
            elapsed_s=self._clock() - began,
            proof=self._proof,
            proof_reason=proof_reason,
            steps=steps,
            at=self._wall_clock(),
            job_id=job_id,
        )
