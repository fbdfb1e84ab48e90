"""Last night in at most forty lines: what is told, what is not, and that nobody can write into it."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import pytest

from engine.recording.entries import (
    NOT_RUN,
    DeviceSeen,
    EngineStarted,
    EngineStopped,
    Entry,
    Gap,
    Happening,
    ProcessCame,
    ProcessWent,
)
from engine.recording.rows import Row, row_of
from engine.wire import DeviceProcess, Job, JobChanged, JobSpec, Logged, LogLine, Receipt, ReceiptIssued
from tests.unit.recordings import GIB, TOTAL, device
from turbotui.report.facts import Report, find_facts
from turbotui.report.lines import MOST_LINES, escape_markdown, report_lines

NIGHT = 1_700_000_000.0
UNTIL = NIGHT + 9 * 3600
NEIGHBOUR = DeviceProcess(
    pid=90112, bytes=6 * GIB, user="liwei", name="python", command="python ComfyUI main.py", start_time=4.0
)


def started(instance: str, at: float) -> Entry:
    return Entry(at, EngineStarted(instance=instance, build="1.0", pid=1, host="box", user="me"))


def job(number: int, at: float, status: str = "done", **more) -> Entry:
    fields = {
        "id": number, "spec": JobSpec(model="wan2.1-t2v-14b", prompt="x"), "status": status,
        "created_at": at - 9, "started_at": at - 5,
        "finished_at": None if status in ("running", "queued") else at,
    }  # fmt: skip
    return Entry(at, JobChanged(job=Job(**(fields | more))))


def receipt(at: float, action: str = "switch", elapsed_s: float = 0.5, **more) -> Entry:
    one = Receipt(
        action=action, target="wan2.1-t2v-14b", ok=True, elapsed_s=elapsed_s, proof="nvml-process", at=at
    )
    return Entry(at, ReceiptIssued(receipt=replace(one, **more)))


def line(at: float, event: str, text: str, level: str = "info") -> Entry:
    return Entry(at, Logged(line=LogLine(seq=1, at=at, level=level, event=event, text=text)))


def rows(count: int, unseen_from: int | None = None, full_at: int = -1) -> list[Row]:
    """One row each ten seconds up to the end of the night."""
    found = []
    for number in range(count):
        at = UNTIL - (count - number) * 10
        unseen = 14 * GIB if unseen_from is not None and number >= unseen_from else 20 * 2**20
        row = row_of(device(at, live=90 * GIB if number == full_at else GIB, unseen=unseen))
        assert row is not None
        found.append(replace(row, width_ms=10_000))
    return found


def facts(*entries: Entry, memory: list[Row] | None = None) -> Report:
    return find_facts(
        sorted(entries, key=lambda entry: entry.at), memory or rows(3), since=NIGHT, until=UNTIL
    )


def test_jobs_are_counted_by_how_they_ended_and_only_those_of_the_stretch() -> None:
    report = facts(
        started("a", NIGHT - 100),
        job(1, NIGHT - 50),
        job(2, NIGHT + 10, "running"),
        job(2, NIGHT + 20),
        job(3, NIGHT + 30),
        job(4, NIGHT + 40, "failed", error="no memory", error_code="out_of_memory"),
        job(5, NIGHT + 50, "interrupted", error="the worker died"),
        job(5, NIGHT + 60, "queued"),
        job(6, NIGHT + 70, "cancelled"),
        job(7, NIGHT + 80, "running"),
    )
    assert report.counts == {"done": 2, "failed": 1, "cancelled": 1, "oom": 1}
    assert [one.id for one in report.failures] == [4]
    text = "\n".join(report_lines(report))
    assert "2 done, 1 failed, 1 cancelled (1 for want of memory): 4 wan2.1-t2v-14b" in text
    assert "job 4 wan2.1-t2v-14b failed: no memory" in text


def test_engines_that_ran_died_and_stopped() -> None:
    report = facts(
        started("a", NIGHT - 5000),
        started("b", NIGHT + 2000),
        Entry(NIGHT + 2001, Gap(since=NIGHT + 1200, reason=NOT_RUN)),
        Entry(NIGHT + 3000, EngineStopped(instance="b")),
        started("c", NIGHT + 4000),
        Entry(NIGHT + 4001, Gap(since=NIGHT + 2999, reason=NOT_RUN)),
        Entry(NIGHT + 5000, Gap(since=NIGHT + 4990, reason="no reading came", device_id="GPU-a")),
    )
    assert [(run.since - NIGHT, run.until - NIGHT, run.end) for run in report.runs] == [
        (-5000, 1200, "died"),
        (2000, 3000, "stopped"),
        (4000, 9 * 3600, "runs"),
    ]
    assert [(gap.since - NIGHT, gap.until - NIGHT) for gap in report.gaps] == [
        (1200, 2001),
        (3000, 4001),
        (4990, 5000),
    ]
    silent = find_facts([started("a", NIGHT + 60)], [], since=NIGHT, until=UNTIL)
    assert silent.runs[0].end == "died"
    assert [(gap.since - NIGHT, gap.until - NIGHT) for gap in silent.gaps] == [(0, 60), (60, 9 * 3600)]


def test_unseen_memory_is_told_with_since_when_and_whether_it_is_still_there() -> None:
    (unseen,) = facts(memory=rows(100, unseen_from=40)).unseen
    assert unseen.bytes == 14 * GIB and unseen.still and not unseen.from_before
    assert unseen.since == UNTIL - 600
    assert facts(memory=rows(100)).unseen == ()
    (gone,) = facts(memory=rows(50, unseen_from=40)[:45] + rows(5)).unseen
    assert not gone.still and gone.until == UNTIL - 50
    whole = find_facts([], rows(100, unseen_from=0), since=UNTIL - 1000, until=UNTIL)
    assert whole.unseen[0].from_before


def test_the_peak_has_its_moment_and_its_device() -> None:
    seen = DeviceSeen(id="GPU-a", kind="cuda", index=2, name="NVIDIA H200", total_bytes=TOTAL, in_use=True)
    report = facts(Entry(NIGHT, seen), memory=rows(100, full_at=30))
    (peak,) = report.peaks
    assert (peak.index, peak.name, peak.at) == (2, "NVIDIA H200", UNTIL - 700)
    assert peak.used_bytes == 90 * GIB + 30 * GIB + 600 * 2**20 + 20 * 2**20
    report = facts(Entry(NIGHT, seen), memory=rows(100, unseen_from=40))
    assert "14.0 GiB on GPU 2 since" in "\n".join(report_lines(report)), "by its number, as the peak is"


def test_processes_that_came_and_went_are_others_and_those_that_only_stayed_are_not_told() -> None:
    def came(at: float, process: DeviceProcess, *, already: bool = False) -> Entry:
        return Entry(at, ProcessCame(device_id="GPU-a", process=process, already=already))

    def went(at: float, process: DeviceProcess, peak: int) -> Entry:
        what = ProcessWent(device_id="GPU-a", process=process, came_at=at - 60, peak_bytes=peak)
        return Entry(at, what)

    stays = replace(NEIGHBOUR, pid=1, start_time=1.0)
    left = replace(NEIGHBOUR, pid=2, start_time=2.0, container="docker 3f2a9c1b")
    ours = replace(NEIGHBOUR, pid=3, start_time=3.0, ours="worker")
    memory = [row_of(device(UNTIL - 5, processes=(replace(NEIGHBOUR, bytes=9 * GIB),)))]
    report = facts(
        came(NIGHT - 10, stays, already=True),
        came(NIGHT - 10, left, already=True),
        came(NIGHT + 10, ours),
        went(NIGHT + 60, left, 3 * GIB),
        came(NIGHT + 100, NEIGHBOUR),
        came(NIGHT + 3600, NEIGHBOUR, already=True),
        memory=memory,
    )
    assert [
        (visit.process.pid, visit.came_at, visit.went_at, visit.peak_bytes) for visit in report.visits
    ] == [
        (2, None, NIGHT + 60, 3 * GIB),
        (90112, NIGHT + 100, None, 9 * GIB),
    ]
    text = "\n".join(report_lines(report))
    assert "liwei 90112, up to 9.00 GiB, python ComfyUI main.py" in text and "still there" in text
    assert "liwei 2 in docker 3f2a9c1b, up to 3.00 GiB" in text


def test_switches_residues_and_findings() -> None:
    report = facts(
        receipt(NIGHT + 1),
        receipt(NIGHT + 2, elapsed_s=1.1),
        receipt(NIGHT + 3, "unload", residue_bytes=2**21, residue=("held by the worker",)),
        receipt(NIGHT + 4, "free", ok=False, error="it hangs"),
        line(NIGHT + 5, "check", "1 new finding"),
        line(NIGHT + 6, "worker", "worker 7 died", "error"),
        line(NIGHT + 7, "oom", "asked 2.10 GiB, free 0.62", "warning"),
        line(NIGHT + 8, "job", "queued"),
        line(NIGHT - 8, "worker", "of the evening before", "error"),
    )
    text = "\n".join(report_lines(report))
    assert report.switches == 2
    assert "2, the longest 1.1 s to wan2.1-t2v-14b" in text
    assert "unload wan2.1-t2v-14b: residue 2.00 MiB (held by the worker)" in text
    assert "free wan2.1-t2v-14b failed: it hangs" in text
    assert "check: 1 new finding" in text and "worker: worker 7 died" in text
    assert "asked 2.10 GiB" in text and "queued" not in text and "evening" not in text


def came(at: float, process: DeviceProcess, *, already: bool = False) -> Entry:
    return Entry(at, ProcessCame(device_id="GPU-a", process=process, already=already))


def test_who_was_not_seen_again_after_a_restart_or_a_gap_is_not_said_to_be_there() -> None:
    back, gone, paused, late = (
        replace(NEIGHBOUR, pid=number, start_time=float(number)) for number in (1, 2, 3, 4)
    )
    before = replace(NEIGHBOUR, pid=5, start_time=5.0)
    entries = [
        started("a", NIGHT - 500),
        came(NIGHT - 499, before, already=True),
        came(NIGHT + 10, back),
        came(NIGHT + 20, gone),
        Entry(NIGHT + 1000, Gap(since=NIGHT + 100, reason=NOT_RUN)),
        started("b", NIGHT + 1000),
        came(NIGHT + 1001, back, already=True),
        came(NIGHT + 1100, paused),
        Entry(NIGHT + 2000, Gap(since=NIGHT + 1900, reason="the disk is full")),
        came(NIGHT + 2000, back, already=True),
        came(NIGHT + 2100, late),
    ]
    report = facts(*entries)
    assert {visit.process.pid: visit.lost_at for visit in report.visits} == {
        1: None, 2: NIGHT + 100, 3: NIGHT + 1900, 4: None, 5: NIGHT + 100
    }  # fmt: skip
    text = "\n".join(report_lines(report))
    assert text.count("still there") == 2 and text.count("last seen") == 3
    stopped = find_facts(
        [*entries, Entry(NIGHT + 3000, EngineStopped(instance="b"))], [], since=NIGHT, until=UNTIL
    )
    assert {visit.process.pid for visit in stopped.visits if visit.lost_at == NIGHT + 3000} == {1, 4}
    assert "still there" not in "\n".join(report_lines(stopped))


def test_a_time_of_which_nothing_is_known_is_told_once_and_within_the_stretch() -> None:
    report = facts(
        Entry(NIGHT + 600, Gap(since=NIGHT - 3600, reason=NOT_RUN)),
        started("b", NIGHT + 600),
        Entry(NIGHT + 1000, Gap(since=NIGHT + 900, reason="the disk is full")),
        Entry(NIGHT + 1010, Gap(since=NIGHT + 900, reason="the disk is full")),
        Entry(NIGHT + 1005, Gap(since=NIGHT + 950, reason="no reading came", device_id="GPU-a")),
    )
    assert [(gap.since - NIGHT, gap.until - NIGHT, gap.reason) for gap in report.gaps] == [
        (0, 600, NOT_RUN),
        (900, 1010, "the disk is full"),
    ]


def test_what_was_ended_is_told_with_what_came_back_and_what_was_refused_is_no_finding() -> None:
    back = {"proof": "nvml-process", "returned_bytes": 6 * GIB, "residue_bytes": 0}
    refused = "kill of process 8, asked by uid:1000, pid 77, is refused: it is root's"
    report = facts(
        line(NIGHT + 1, "audit", "SIGTERM, asked by uid:1000, pid 77, to process 90112 of liwei: python x"),
        receipt(NIGHT + 2, "kill", target="90112 python", **back),
        line(NIGHT + 2, "kill", "90112 python, back 6 GiB"),
        receipt(NIGHT + 3, "cleanup", target="worker", **back),
        receipt(
            NIGHT + 4, "reset", target="GPU 0", returned_bytes=GIB, residue_bytes=2**20, proof="device-delta"
        ),
        line(NIGHT + 5, "audit", refused, "warning"),
        receipt(NIGHT + 6, "kill", target="9 python", ok=False, error="it hangs"),
        line(NIGHT + 6, "kill", "9 python: it hangs", "warning"),
        receipt(NIGHT + 7, "reset", target="GPU 1", residue_bytes=GIB, proof="device-delta"),
    )
    assert [(one.receipt.action, one.asked_by) for one in report.ended] == [
        ("kill", "uid:1000, pid 77"),
        ("cleanup", None),
        ("reset", None),
    ]
    assert [(one.action, one.target) for one in report.doubtful] == [("kill", "9 python"), ("reset", "GPU 1")]
    assert report.findings == () and [one.text for one in report.refused] == [refused]
    text = "\n".join(report_lines(report))
    assert "kill process 90112 of liwei: python x: 6.00 GiB came back in 0.50 s, asked by uid:1000" in text
    assert refused in text and "1.00 MiB" not in text


HOSTILE = "\x1b[31m</b><script>[x](http://e.vil)`#\n## owned\u202e"


def crowded() -> Report:
    """A night in which everything happened a hundred times, told by somebody hostile."""
    entries: list[Entry] = [started("a", NIGHT - 5)]
    for number in range(100):
        at = NIGHT + 60 * number
        bad = replace(NEIGHBOUR, pid=number + 10, command=HOSTILE * 20, user=HOSTILE, container=HOSTILE)
        hostile: list[Happening] = [
            ProcessCame(device_id="GPU-a", process=bad),
            Gap(since=at - 5, reason=HOSTILE, device_id=HOSTILE),
        ]
        entries += [Entry(at, what) for what in hostile]
        entries += [
            job(number, at, "failed", error=HOSTILE, spec=JobSpec(model=HOSTILE, prompt=HOSTILE)),
            receipt(at, target=HOSTILE, residue_bytes=5, residue=(HOSTILE,)),
            line(at, "oom", HOSTILE),
            line(at, "check", HOSTILE),
        ]
    return facts(*entries, memory=rows(20, unseen_from=3))


@pytest.mark.parametrize("markdown", [False, True])
def test_no_night_takes_more_than_forty_lines_and_nobody_writes_into_it(markdown: bool) -> None:
    found = report_lines(crowded(), markdown=markdown)
    assert 20 < len(found) <= MOST_LINES
    text = "\n".join(found)
    assert text.isprintable() or all(one.isprintable() for one in found)
    assert "\x1b" not in text and "\u202e" not in text
    assert "more" in text
    for section in ("engine", "jobs", "peak", "unseen", "others", "receipts", "findings", "gaps"):
        assert section in text
    if markdown:
        assert re.findall(r"(?<!\\)[<\[`]", text) == []
        assert len([one for one in found if one.startswith("## ")]) <= 11


def test_markdown_shows_the_text_itself() -> None:
    assert escape_markdown("# a_b *c* <d> `e` [f](g) x-y") == r"\# a\_b \*c\* \<d\> \`e\` \[f\](g) x-y"


def test_a_quiet_night_says_so_and_the_json_is_whole() -> None:
    report = facts(started("a", NIGHT - 5))
    lines = report_lines(report)
    assert len(lines) == 4 and "none ended" in "\n".join(lines)
    assert msgspec.json.decode(msgspec.json.encode(report))["host"] == "box"


def test_a_failed_job_is_told_once() -> None:
    told = LogLine(
        seq=1, at=NIGHT + 5, level="error", event="job", text="failed: the image is gone", job_id=5
    )
    report = facts(
        job(5, NIGHT + 5, "failed", error="the image is gone"),
        Entry(NIGHT + 5, Logged(line=told)),
        line(NIGHT + 6, "job", "of no job that is known", "error"),
    )
    assert [one.id for one in report.failures] == [5]
    assert [one.text for one in report.findings] == ["of no job that is known"]
