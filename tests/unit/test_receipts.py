"""What a receipt says once the probe has looked."""

from __future__ import annotations

from engine.daemon.receipts import nothing_to_do, proved, receipt_text
from engine.telemetry.samples import Traced
from engine.wire import Receipt

MIB = 2**20


def unload(**changes: object) -> Receipt:
    return Receipt(
        action="unload",
        target="all",
        ok=True,
        elapsed_s=0.01,
        proof="allocator",
        **changes,  # type: ignore[arg-type]
    )


def traced(end: int | None, *, reached: bool = True) -> Traced:
    return Traced(trace_id=1, start_bytes=0, end_bytes=end, elapsed_s=0.02, reached=reached)


def test_what_came_back_is_what_the_process_lost() -> None:
    receipt = proved(unload(), traced(40 * MIB), held=100 * MIB, expected=60 * MIB, on_cpu=False)
    assert (receipt.proof, receipt.proof_reason) == ("nvml-process", None)
    assert (receipt.returned_bytes, receipt.residue_bytes) == (60 * MIB, 0)
    assert receipt.elapsed_s == 0.03


def test_what_did_not_come_back_in_time_is_residue_with_a_name() -> None:
    receipt = proved(
        unload(), traced(55 * MIB, reached=False), held=100 * MIB, expected=60 * MIB, on_cpu=True
    )
    assert (receipt.returned_bytes, receipt.residue_bytes) == (45 * MIB, 15 * MIB)
    assert receipt.residue and receipt.proof == "process-rss"
    assert "residue 15.0 MiB" in receipt_text(receipt)


def test_a_load_in_the_same_action_is_not_mistaken_for_residue() -> None:
    switch = unload(loaded_bytes=200 * MIB)
    receipt = proved(switch, traced(240 * MIB), held=100 * MIB, expected=60 * MIB, on_cpu=False)
    assert (receipt.returned_bytes, receipt.residue_bytes) == (60 * MIB, 0)


def test_without_an_answer_of_the_probe_the_weaker_proof_stays_and_says_why() -> None:
    for silent in (None, traced(None)):
        receipt = proved(unload(), silent, held=1, expected=1, on_cpu=False)
        assert receipt.proof == "allocator" and receipt.proof_reason == "the probe did not answer"


def test_an_action_that_found_nothing_says_so() -> None:
    receipt = nothing_to_do("unload", "everything")
    assert receipt.ok and receipt.returned_bytes == 0 and receipt.proof_reason
