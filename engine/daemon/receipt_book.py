"""Where receipts are made known, and the steps that lead to them: to the viewers, and the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from engine.daemon.logbook import LogBook
from engine.daemon.receipts import receipt_text
from engine.wire import ActionProgressed, Event, Receipt, ReceiptIssued, ReceiptStep


class ReceiptBook:
    """Every receipt of this engine is issued here, once. Event loop's thread only."""

    def __init__(self, logbook: LogBook, publish: Callable[[Event], None]) -> None:
        self._logbook = logbook
        self._publish = publish
        self.newest: Receipt | None = None

    def issue(self, receipt: Receipt) -> Receipt:
        """Make a receipt known: to the viewers, the log, and whoever asks for the newest."""
        receipt = replace(receipt, at=time.time())
        self.newest = receipt
        self._publish(ReceiptIssued(receipt=receipt))
        self._logbook.write(
            receipt.action,
            receipt_text(receipt),
            level="info" if receipt.ok else "warning",
            job_id=receipt.job_id,
            memory=True,
        )
        return receipt

    def stepped(self, action: str, target: str, step: ReceiptStep) -> None:
        """Tell the viewers of a step of an action under way."""
        self._publish(ActionProgressed(action=action, target=target, step=step))
