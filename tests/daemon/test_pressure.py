"""Memory that runs short is told, and something goes unasked only where the settings say so."""

from __future__ import annotations

import threading

from engine.wire import EventFrame, JobSpec, PressureChanged, ReceiptIssued
from tests.daemon.live import LiveEngine, wait_for
from turbotui.client.base import Stream


def test_what_is_idle_goes_unasked_where_the_settings_say_so_and_harms_no_job(
    spare: LiveEngine, short: JobSpec
) -> None:
    # On a host of any size more is in use than these shares of it.
    spare.environ.update(
        TURBOTUI_ENGINE_PRESSURE_WARN="0.0001",
        TURBOTUI_ENGINE_PRESSURE_ACT="0.0002",
        TURBOTUI_ENGINE_PRESSURE_DROP="idle",
    )
    spare.start()
    events: list[object] = []
    streams: list[Stream] = []

    def take(frame: EventFrame) -> None:
        events.append(frame.event)

    listener = threading.Thread(
        target=lambda: spare.client.subscribe(take, on_open=streams.append), daemon=True
    )
    listener.start()
    assert spare.run(short).status == "done"
    wait_for(lambda: any(line.event == "free" for line in spare.client.logs(limit=5000)), 15, "the receipt")
    (pressure,) = spare.status().pressure
    assert (pressure.device_id, pressure.level) == ("cpu", "act") and "host memory in use" in pressure.why
    receipts = [event.receipt for event in events if isinstance(event, ReceiptIssued)]
    (freed,) = [receipt for receipt in receipts if receipt.action == "free"]
    assert freed.ok and freed.target == "cache and idle components" and freed.expected_bytes >= 2**24
    told = [event.pressure[0] for event in events if isinstance(event, PressureChanged)]
    offered = {offer.action for pressure in told for offer in pressure.offers}
    assert told and offered == {"free"}
    lines = [line.text for line in spare.client.logs(limit=5000) if line.event == "pressure"]
    assert lines[0].startswith("act: ") and "engine.pressure_drop is idle: it goes unasked" in lines
    streams[0].close()
    listener.join(5)
