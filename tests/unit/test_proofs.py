"""What the receipt of a worker's end is proved by, as the probe sees much, little or nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.daemon.proofs import Proofs
from engine.daemon.receipts import proved
from engine.daemon.steps import Steps
from engine.telemetry.samples import Traced
from engine.units import MIB
from engine.wire import Receipt, ReceiptStep
from engine.worker.channel import CACHE_STEP


async def end(held: int | None, left: int | None, *, answers: bool = True) -> Receipt:
    async def trace(*_: Any, **__: Any) -> Traced | None:
        seen = Traced(trace_id=1, start_bytes=held, end_bytes=left, elapsed_s=0.0, reached=left == 0)
        return seen if answers else None

    async def wait_gone() -> bool:
        return True

    probe: Any = SimpleNamespace(trace=trace)
    worker: Any = SimpleNamespace(pid=7, device_id="GPU-1", wait_gone=wait_gone)
    return await Proofs(probe).of_end("park", worker, held, Steps(lambda step: None))


@pytest.mark.parametrize("left", [0, 2**20])
async def test_what_the_driver_counts_before_and_after_is_the_proof(left: int) -> None:
    receipt = await end(2**30, left)
    assert (receipt.proof, receipt.proof_reason) == ("nvml-process", None)
    assert (receipt.returned_bytes, receipt.residue_bytes) == (2**30 - left, left)


@pytest.mark.parametrize(("held", "answers"), [(None, True), (2**30, False)])
async def test_where_nobody_measured_the_end_of_the_process_is_all_there_is(
    held: int | None, answers: bool
) -> None:
    receipt = await end(held, 0, answers=answers)
    assert (receipt.proof, receipt.returned_bytes) == ("process-exit", None)
    assert receipt.proof_reason is not None and "the probe did not" in receipt.proof_reason


@pytest.mark.parametrize(
    ("on_cpu", "missing", "residue", "within"),
    [
        (True, 2, 0, 2),
        (True, 9, 9, 0),
        (False, 2, 2, 0),
    ],
)
def test_a_resident_set_is_no_more_certain_than_it_is_and_says_so(
    on_cpu: bool, missing: int, residue: int, within: int
) -> None:
    """In MiB, of 36 that should come back of 500."""
    asked = Receipt(action="unload", target="all", ok=True, elapsed_s=0.0, proof="allocator")
    left = (500 - 36 + missing) * MIB
    seen = Traced(trace_id=1, start_bytes=500 * MIB, end_bytes=left, elapsed_s=2.0, reached=False)
    told = proved(asked, seen, held=500 * MIB, expected=36 * MIB, on_cpu=on_cpu)
    assert (told.residue_bytes, told.within_bytes) == (residue * MIB, within * MIB)
    assert told.returned_bytes == (36 - missing) * MIB


@pytest.mark.parametrize(
    ("own", "end", "returned", "residue"),
    [
        (36, 464, 36, 0),  # the heap took the 4 of its cache anew
        (36, 460, 36, 0),
        (36, 490, 10, 26),  # the worker's word against what is seen from outside
        (0, 496, 0, 36),  # only the cache came back
        (0, 450, 46, 0),
    ],
)
def test_cache_that_went_first_and_is_taken_anew_is_neither_returned_nor_missed(
    own: int, end: int, returned: int, residue: int
) -> None:
    """In MiB, of 36 that should come back of 500, after 4 of cache; on cpu."""
    asked = Receipt(
        action="unload", target="m", ok=True, elapsed_s=0.0, proof="allocator", returned_bytes=own * MIB
    )
    seen = Traced(trace_id=1, start_bytes=500 * MIB, end_bytes=end * MIB, elapsed_s=0.0, reached=True)
    told = proved(asked, seen, held=500 * MIB, expected=36 * MIB, cached=4 * MIB, on_cpu=True)
    assert (told.returned_bytes, told.residue_bytes) == (returned * MIB, residue * MIB)


async def test_what_the_heap_took_anew_is_not_waited_for_on_cpu() -> None:
    """It would be waited for until the probe gives up, and then be called missing."""
    asked: list[int] = []

    async def trace(*_: Any, until_bytes: int, **__: Any) -> Traced:
        asked.append(until_bytes)
        return Traced(trace_id=1, start_bytes=0, end_bytes=488 * MIB, elapsed_s=0.0, reached=True)

    probe: Any = SimpleNamespace(trace=trace)
    steps = (ReceiptStep(name=CACHE_STEP, bytes=2 * MIB, elapsed_s=0.0),)
    told = Receipt(
        action="unload", target="m", ok=True, elapsed_s=0.0, proof="allocator", returned_bytes=12 * MIB,
        expected_bytes=12 * MIB, steps=steps,
    )  # fmt: skip
    for device in ("cpu", "GPU-1"):
        worker: Any = SimpleNamespace(pid=7, device_id=device)
        receipt = await Proofs(probe).of_return(worker, told, 500 * MIB, 0, running_job=None)
        assert (asked[-1] >= 488 * MIB) is (device == "cpu")
        assert receipt.returned_bytes == (12 if device == "cpu" else 10) * MIB
