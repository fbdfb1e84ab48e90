"""Which findings are new, from one check to the next and across restarts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from facts import CLEAN, GPU, NOW, foreign

from engine.checks.facts import CardChange, Facts
from engine.checks.ledger import FLAP_S, MAX_ENTRIES, Ledger, identity
from engine.units import GIB
from engine.wire import CheckReport, Finding, LogLine

UNSEEN = Finding(
    kind="unseen", severity="warning", title="14 GiB.", evidence=("x",), bytes=14 * GIB, remedy="y.",
    device_id=GPU,
)  # fmt: skip
ORPHAN = replace(UNSEEN, kind="orphan", pid=777, start_time=100.25)
CACHE = replace(UNSEEN, kind="cache", severity="info")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "findings.json"


def take(ledger: Ledger, *findings: Finding, at: float = NOW, **changes: object) -> CheckReport:
    return ledger.take(replace(CLEAN, at=at, **changes), findings, (), 0.1)  # type: ignore[arg-type]


def kept(ledger: Ledger, file: Path, boot: str = "b") -> Ledger:
    """As the next engine finds it."""
    ledger.write(ledger.encode())
    return Ledger(file, boot)


def test_a_finding_is_new_once(file: Path) -> None:
    ledger = Ledger(file, "b")
    first = take(ledger, UNSEEN)
    assert (first.new, first.findings[0].new, first.findings[0].since) == (1, True, NOW)
    again = take(ledger, UNSEEN, at=NOW + 3600)
    assert (again.new, again.findings[0].new, again.findings[0].since) == (0, False, NOW)


def test_a_restart_makes_nothing_new_again(file: Path) -> None:
    ledger = Ledger(file, "b")
    take(ledger, at=NOW - 100)
    take(ledger, UNSEEN, ORPHAN)
    after = take(kept(ledger, file), UNSEEN, ORPHAN, at=NOW + 60)
    assert after.new == 0 and after.clean_at == NOW - 100
    assert file.stat().st_mode & 0o777 == 0o600


def test_after_a_reboot_a_pid_means_somebody_else(file: Path) -> None:
    ledger = Ledger(file, "b")
    take(ledger, UNSEEN, ORPHAN)
    after = take(kept(ledger, file, "another boot"), UNSEEN, ORPHAN, at=NOW + 60)
    assert [finding.kind for finding in after.findings if finding.new] == ["orphan"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boot_id": 3}', b"\xff\xfe"])
def test_a_file_that_cannot_be_understood_is_begun_anew(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert take(Ledger(file, "b"), UNSEEN).new == 1


def test_what_comes_back_soon_was_not_gone_and_later_is_new(file: Path) -> None:
    ledger = Ledger(file, "b")
    take(ledger, UNSEEN)
    take(ledger, at=NOW + 10)
    assert take(ledger, UNSEEN, at=NOW + 20).findings[0].since == NOW
    take(ledger, at=NOW + 30)
    back = take(ledger, UNSEEN, at=NOW + 30 + FLAP_S)
    assert back.new == 1 and back.findings[0].since == NOW + 30 + FLAP_S


def test_another_process_or_device_or_component_is_another_finding(file: Path) -> None:
    ledger = Ledger(file, "b")
    take(ledger, ORPHAN)
    for other in (
        replace(ORPHAN, pid=778),
        replace(ORPHAN, start_time=101.0),
        replace(ORPHAN, device_id="GPU-2"),
        replace(ORPHAN, component="x"),
    ):
        assert identity(other) != identity(ORPHAN) and take(ledger, other).new == 1
    assert identity(replace(ORPHAN, bytes=1, title="z.")) == identity(ORPHAN)


def test_what_has_grown_or_become_worse_is_told_again(file: Path) -> None:
    ledger = Ledger(file, "b")
    take(ledger, replace(UNSEEN, bytes=GIB, severity="notice"))
    assert take(ledger, replace(UNSEEN, bytes=2 * GIB - 1, severity="notice")).new == 0
    assert take(ledger, replace(UNSEEN, bytes=2 * GIB, severity="notice")).new == 1
    assert take(ledger, replace(UNSEEN, bytes=2 * GIB)).new == 1
    assert take(ledger, replace(UNSEEN, bytes=2 * GIB)).new == 0


def test_only_a_whole_look_without_worse_than_info_counts_as_clean(file: Path) -> None:
    ledger = Ledger(file, "b")
    assert take(ledger, CACHE).clean_at == NOW
    assert take(ledger, UNSEEN, at=NOW + 1).clean_at == NOW
    assert take(ledger, at=NOW + 2, devices=()).clean_at == NOW
    assert take(ledger, at=NOW + 3, scanned=False).clean_at == NOW
    assert take(ledger, at=NOW + 4).clean_at == NOW + 4


def test_the_file_is_bounded(file: Path) -> None:
    ledger = Ledger(file, "b")
    for number in range(MAX_ENTRIES + 50):
        take(ledger, replace(ORPHAN, pid=number + 1), at=NOW + number)
    entries = msgspec.json.decode(ledger.encode())["entries"]
    assert len(entries) == MAX_ENTRIES and entries[0]["key"][2] == "51", "the longest unseen have gone"
    assert take(kept(ledger, file), replace(ORPHAN, pid=MAX_ENTRIES + 50), at=NOW + 1000).new == 0


def came(at: float, **changes: object) -> CardChange:
    change = CardChange(at=at, device_id=GPU, process=foreign(), came=True)
    return replace(change, **changes)  # type: ignore[arg-type]


def test_what_else_changed_when_it_began_is_told_and_kept(file: Path) -> None:
    began = replace(UNSEEN, since=NOW - 1000)
    facts: Facts = replace(
        CLEAN,
        changes=(
            came(NOW - 5000), came(NOW - 1010), came(NOW - 1005, came=False),
            came(NOW - 1001, device_id="GPU-2"), came(NOW - 10),
        ),
        log=(
            LogLine(seq=1, at=NOW - 1002, event="job", text="31 begins"),
            LogLine(seq=2, at=NOW - 1002, event="audit", text="not this"),
        ),
    )  # fmt: skip
    ledger = Ledger(file, "b")
    told = ledger.take(facts, (began,), (), 0.1).findings[0]
    assert told.since == NOW - 1000
    assert told.changed == (
        "job: 31 begins; me 4242 (ComfyUI) left with 6.00 GiB; me 4242 (ComfyUI) came"
    )  # fmt: skip
    assert take(ledger, began, at=NOW + 60).findings[0].changed == told.changed


def test_without_a_beginning_only_what_happened_since_the_last_check_is_told(file: Path) -> None:
    changes = (came(NOW - 50),)
    ledger = Ledger(file, "b")
    assert take(ledger, UNSEEN, changes=changes).findings[0].changed is None
    other = replace(UNSEEN, kind="fragmented")
    assert take(ledger, other, at=NOW + 60, changes=changes).findings[0].changed is None
    later = take(ledger, replace(UNSEEN, kind="warm"), at=NOW + 120, changes=(came(NOW + 90),))
    assert later.findings[0].changed == "me 4242 (ComfyUI) came"


def test_a_process_is_not_its_own_cause(file: Path) -> None:
    ledger = Ledger(file, "b")
    take(ledger)
    found = replace(ORPHAN, pid=4242)
    assert take(ledger, found, at=NOW + 60, changes=(came(NOW + 50),)).findings[0].changed is None
