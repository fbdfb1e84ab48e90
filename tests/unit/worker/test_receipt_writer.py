"""The worker's own receipts: what did not come back has its bytes and its name."""

from __future__ import annotations

import pytest

from engine.errors import NotNow
from engine.worker.receipts import ReceiptWriter


@pytest.fixture
def writer() -> ReceiptWriter:
    return ReceiptWriter("allocator", clock=lambda: 12.5, wall_clock=lambda: 1e9)


@pytest.mark.parametrize(
    ("returned", "left", "names"),
    [(70, 30, ("the cache",)), (100, 0, ()), (130, 0, ()), (None, None, ())],
)
def test_what_did_not_come_back_is_residue_by_name_and_what_nobody_counted_is_unknown(
    writer: ReceiptWriter, returned: int | None, left: int | None, names: tuple[str, ...]
) -> None:
    receipt = writer.write(
        "unload", "m/dit", 10.0, expected_bytes=100, returned_bytes=returned, residue="the cache"
    )
    assert (receipt.residue_bytes, receipt.residue) == (left, names)
    assert (receipt.elapsed_s, receipt.at, receipt.proof, receipt.ok) == (2.5, 1e9, "allocator", True)


@pytest.mark.parametrize(("error", "code"), [("no room", None), (NotNow("no room"), NotNow.code)])
def test_one_with_an_error_is_not_ok(writer: ReceiptWriter, error: NotNow | str, code: str | None) -> None:
    receipt = writer.write("load", "m/dit", 10.0, error=error, job_id=3)
    assert (receipt.ok, receipt.error, receipt.error_code, receipt.job_id) == (False, "no room", code, 3)
