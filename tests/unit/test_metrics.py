"""The page of /metrics, read back by the rules of the format."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from engine.daemon.metrics import METRICS, PREFIX, ReceiptTally, metrics_text
from engine.daemon.prometheus import Exposition
from engine.wire import BalancePart, Pressure, ReceiptIssued, Status
from turbotui.client import scenes

NOW = 1_790_000_000.0
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)")
_PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')


def parse(page: str) -> Samples:
    """The samples, or an AssertionError for whatever a strict reader would refuse."""
    assert page.endswith("\n") and "\r" not in page
    samples: Samples = {}
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    current = ""
    for line in page.removesuffix("\n").split("\n"):
        if line.startswith("# "):
            _, keyword, name, rest = line.split(" ", 3)
            assert keyword in ("HELP", "TYPE"), line
            if keyword == "HELP":
                assert name not in helped and name not in kinds, f"{name} is described twice or late"
                helped.add(name)
                assert re.fullmatch(r"([^\\]|\\[\\n])*", rest), line
            else:
                assert name not in kinds and rest in ("gauge", "counter", "histogram", "summary", "untyped")
                kinds[name] = rest
            current = name
            continue
        found = _LINE.fullmatch(line)
        assert found, line
        name, braces, value = found.groups()
        assert name == current and name in kinds, f"{name} stands apart from its type"
        labels: list[tuple[str, str]] = []
        if braces:
            inner = braces[1:-1]
            place = 0
            while place < len(inner):
                pair = _PAIR.match(inner, place)
                assert pair, line
                text = re.sub(r'\\([\\"n])', lambda m: "\n" if m[1] == "n" else m[1], pair[2])
                labels.append((pair[1], text))
                place = pair.end()
                assert place == len(inner) or inner[place] == ",", line
                place += 1
        assert len(dict(labels)) == len(labels)
        key = (name, tuple(sorted(labels)))
        assert key not in samples, f"{key} is there twice"
        samples[key] = float({"+Inf": "inf", "-Inf": "-inf"}.get(value, value))
    return samples


def find(samples: Samples, name: str, **labels: str) -> list[float]:
    wanted = set(labels.items())
    return [
        value for (found, pairs), value in samples.items() if found == PREFIX + name and wanted <= set(pairs)
    ]


def test_the_reader_refuses_what_is_wrong() -> None:
    head = "# HELP a_b x\n# TYPE a_b gauge\n"
    assert parse(head + 'a_b{c="\\"\\\\\\n"} 1\n') == {("a_b", (("c", '"\\\n'),)): 1.0}
    for wrong in ('a_b{c="\\x"} 1\n', 'a_b{c="1"} 1\na_b{c="1"} 2\n', "a-b 1\n", 'a_b{c="x""} 1\n', "c 1\n"):
        with pytest.raises(AssertionError):
            parse(head + wrong)


def test_labels_helps_and_numbers_are_escaped_and_exact() -> None:
    page = Exposition()
    page.describe("a_bytes", "gauge", "back\\slash and\nline")
    nasty = 'a"b\\c\nd,e}f 很'
    page.add("a_bytes", 140 * 2**30, {"who": nasty, "empty": "", "none": None})
    page.add("a_bytes", 0.1, {"who": "x"})
    page.add("a_bytes", math.inf, {"who": "y"})
    page.add("a_bytes", None, {"who": "nobody knows"})
    samples = parse(page.text())
    assert samples == {
        ("a_bytes", (("who", nasty),)): 140 * 2**30,
        ("a_bytes", (("who", "x"),)): 0.1,
        ("a_bytes", (("who", "y"),)): math.inf,
    }


def test_names_and_labels_that_no_reader_takes_are_refused() -> None:
    page = Exposition()
    page.describe("a_total", "counter", "x")
    for name, kind in (("a b", "gauge"), ("a_total", "counter"), ("b_total", "gauge"), ("b", "counter")):
        with pytest.raises(ValueError):
            page.describe(name, kind, "x")  # type: ignore[arg-type]
    for label in ("1a", "a-b", "__name"):
        with pytest.raises(ValueError):
            page.add("a_total", 1, {label: "x"})


def page_of(status: Status, tally: ReceiptTally | None = None) -> Samples:
    return parse(metrics_text(status, {"done": 7, "queued": 2}, tally or ReceiptTally()))


def test_the_parts_of_every_device_make_its_total() -> None:
    samples = page_of(scenes.busy(NOW).status)
    parts = find(samples, "device_memory_part_bytes", device=scenes.GPU)
    (total,) = find(samples, "device_memory_total_bytes", device=scenes.GPU)
    (unexplained,) = find(samples, "device_memory_unexplained_bytes", device=scenes.GPU)
    assert len(parts) == 8 and sum(parts) + unexplained == total


def test_what_is_unknown_has_no_sample() -> None:
    status = scenes.busy(NOW).status
    device = status.devices[0]
    assert device.balance is not None
    parts = (*device.balance.parts, BalancePart(kind="rounding", owner="ours", bytes=None, reason="?"))
    unknown = replace(
        device, balance=replace(device.balance, parts=parts), temperature_c=None, utilisation_percent=None
    )
    samples = page_of(replace(status, devices=(unknown,)))
    assert find(samples, "device_memory_part_bytes", part="rounding") == []
    assert find(samples, "device_temperature_celsius") == find(samples, "device_utilisation_ratio") == []
    assert find(samples, "probe_age_seconds") == []


def test_jobs_workers_processes_and_pressure_are_there() -> None:
    status = scenes.busy(NOW).status
    pressure = Pressure(
        device_id=scenes.GPU, level="act", total_bytes=10, used_bytes=9, used_share=0.96, why=""
    )
    samples = page_of(replace(status, pressure=(pressure,)))
    assert find(samples, "jobs", state="done") == [7] and find(samples, "jobs", state="failed") == [0]
    assert find(samples, "worker_state", state="running") == [1]
    assert sum(find(samples, "worker_state")) == 1
    assert find(samples, "process_memory_bytes", user="liwei", pid="90112") == [scenes.gib(6.2)]
    assert find(samples, "pressure_level") == [2] and find(samples, "pressure_used_ratio") == [0.96]
    assert find(samples, "model_resident_bytes", model="wan2.2-a14b") == [scenes.gib(13.5) + scenes.gib(0.2)]


def test_names_of_others_become_safe_labels() -> None:
    status = scenes.busy(NOW).status
    device = status.devices[0]
    process = replace(device.processes[1], user='li"wei\\', name="\x1b]0;x\x07\n\u202e")
    samples = page_of(replace(status, devices=(replace(device, processes=(process,)),)))
    ((_, labels),) = [key for key in samples if key[0] == f"{PREFIX}process_memory_bytes"]
    assert dict(labels)["user"] == 'li"wei\\'
    assert not set(dict(labels)["name"]) & set("\x1b\x07\n\u202e")


def test_receipts_are_counted_by_action_and_result() -> None:
    tally = ReceiptTally()
    receipt = scenes.receipt(NOW)
    for one in (receipt, receipt, replace(receipt, ok=False, returned_bytes=None)):
        tally.heard(ReceiptIssued(receipt=one))
    samples = page_of(scenes.idle(NOW).status, tally)
    assert find(samples, "receipts_total", action="unload", result="ok") == [2]
    assert find(samples, "receipts_total", action="unload", result="failed") == [1]
    assert find(samples, "receipts_returned_bytes_total", result="ok") == [2 * scenes.gib(2.64)]
    assert find(samples, "receipts_seconds_total", result="ok") == [0.048]


def test_names_say_their_base_unit() -> None:
    units = ("_bytes", "_seconds", "_total", "_ratio", "_celsius", "_watts", "_info")
    plain = {name for name, _ in METRICS if not name.endswith(units)}
    assert plain == {
        *("engine_ready", "engine_problem", "device_memory_coherent", "device_in_use"),
        *("worker_state", "jobs", "queue_held", "pressure_level"),
    }
    assert not [name for name, _ in METRICS if re.search(r"(_mib|_gib|_ms|_percent|_mb)\b", name)]
