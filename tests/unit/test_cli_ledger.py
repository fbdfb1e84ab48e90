"""`turbotui ledger`: one line each in columns that line up, floors' sparkline, and what is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from engine.leaks.trend import trends
from engine.units import GIB, KIB, MIB
from engine.wire import Held, LedgerKind, LedgerLine, LedgerPage
from turbotui.cli import main
from turbotui.format import cell_width
from turbotui.sparkline import sparkline
from turbotui.subcommands import ledger, output
from turbotui.text import LANGUAGES, use_language
from turbotui.text.spoken import word


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    use_language("en")


def line(
    number: int, kind: LedgerKind, target: str, *, left: int = 0, ok: bool = True, **more: Any
) -> LedgerLine:
    weights = 13 * GIB
    return LedgerLine(
        id=number, at=1.8e9 + number, kind=kind, target=target, device_id="GPU-1", worker="7 1.00",
        model="万相模型-图生视频", job_id=number, shape="s", ok=ok, elapsed_s=1.5,
        weights=Held(before=weights, after=weights),
        allocated=Held(before=weights, peak=19 * GIB, after=weights + left),
        reserved=Held(before=1, after=20 * GIB), device=Held(before=1, peak=22 * GIB, after=21 * GIB),
        rss=Held(before=1, peak=512 * MIB, after=300 * MIB), pinned=Held(after=260 * MIB), **more,
    )  # fmt: skip


def jobs(count: int, each: int) -> list[LedgerLine]:
    found = []
    for job in range(1, count + 1):
        found.append(
            line(
                2 * job,
                "stage",
                "denoise dit.high",
                left=job * each + 512,
                kept_bytes=512,
            )
        )
        found.append(line(2 * job + 1, "job", f"job {job}", left=job * each))
    return found


def page(count: int = 12, each: int = KIB) -> LedgerPage:
    told = jobs(count, each)
    more = [
        line(100, "switch", "wan2.2-a14b"),
        line(101, "load", "wan2.2-a14b/dit.low"),
        line(102, "job", "job 77", ok=False),
    ]
    return LedgerPage(lines=tuple([*told, *more][::-1]), older=True, trends=trends(told), worker="7 1.00")


class Asked:
    """A session whose engine gives one page."""

    def __init__(self, given: LedgerPage) -> None:
        self.given = given
        self.calls: list[dict[str, Any]] = []

    def ledger(self, **asked: Any) -> LedgerPage:
        self.calls.append(asked)
        return self.given


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    client = Asked(page())
    monkeypatch.setattr("turbotui.subcommands.session.Session.client", lambda _self, **_more: client)
    return client


def test_lines_in_order_of_time_and_trends_below(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "more before that: --before 2"
    assert told[1] == "device, host: the peak → what was left"
    assert told[2].split() == [
        "when",
        "what",
        "took",
        "allocated",
        "reserved",
        "device",
        "host",
        "pinned",
        "floor",
    ]
    first, last = told[3], told[len(asked.given.lines) + 2]
    assert "denoise dit.high" in first and "13.0→19.0→13.0" in first and first.endswith("1.00 KiB")
    assert "20.0 GiB" in first and "22.0→21.0" in first and "512M→300M" in first and "260 MiB" in first
    assert "job 77 failed" in last and last.endswith("0 B +0 B")
    load = next(row for row in told if "load wan2.2-a14b/dit.low" in row)
    assert load.endswith(" -"), "what a load finds beside it is in use"
    device = next(row for row in told if "device floor" in row and " a job" in row)
    assert device == "! " + sparkline(tuple(range(10)), 40) + "  device floor +1.0 KiB a job over 10 jobs"
    assert asked.calls == [{"limit": 40, "before": None, "job": None, "kinds": (), "model": None}]


def test_what_is_asked_for_reaches_the_engine(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "ledger",
        "--job",
        "3",
        "--kind",
        "job",
        "--kind",
        "stage",
        "--model",
        "m",
        "--last",
        "7",
        "--before",
        "9",
        "--json",
    ]
    assert main(given) == 0
    assert asked.calls == [{"limit": 7, "before": 9, "job": 3, "kinds": ("job", "stage"), "model": "m"}]
    told = json.loads(capsys.readouterr().out)
    assert told["lines"][0]["id"] == 102 and told["worker"] == "7 1.00"
    assert {"device", "host", "pinned"} == {trend["what"] for trend in told["trends"]}


@pytest.mark.parametrize("given", [["--kind", "nothing"], ["--last", "0"], ["--job", "x"]])
def test_what_could_never_work_is_refused(given: list[str]) -> None:
    assert main(["ledger", *given]) == 2


def test_an_empty_ledger_and_one_that_is_not_kept(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    asked.given = LedgerPage(lines=(), older=False, problem="/x is no memory ledger")
    assert main(["ledger"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lines are not kept: /x is no memory ledger", "the ledger has no such line",
    ]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", [80, 120])
def test_columns_line_up_and_fit(monkeypatch: pytest.MonkeyPatch, width: int, language: str) -> None:
    use_language(language)
    for module in (output, ledger):
        monkeypatch.setattr(module, "columns", lambda _stream: width)
    told = list(ledger.ledger_lines(page()))
    assert max(map(cell_width, told)) <= width
    rows = told[2 : 3 + len(page().lines)]
    assert len({cell_width(row) for row in rows}) == 1, "each column ends together"
    assert all("→" in row for row in rows[1:])
    assert any(word in rows[0] for word in ("floor", "底线")), "what it is all about never goes"
    assert all("22.0→21.0" in row and "512M→300M" in row for row in rows[1:]), "the peaks of both, also here"
    assert any(word in told[1] for word in ("peak", "峰值"))


def test_a_device_that_is_never_known_goes_before_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the host alone, where the allocator tells no peak and there is no device."""
    for module in (output, ledger):
        monkeypatch.setattr(module, "columns", lambda _stream: 70)
    lines = tuple(
        replace(one, device=Held(), reserved=Held(), pinned=Held(), allocated=Held(after=34 * MIB))
        for one in page().lines
    )
    told = list(ledger.ledger_lines(LedgerPage(lines=lines, older=False)))
    assert "device" not in told[1] and "host" in told[1]
    assert all("512M→300M" in row and "34M" in row and "→34M" not in row for row in told[2 : 2 + len(lines)])


def test_each_column_is_headed_in_the_person_s_language() -> None:
    use_language("zh_CN")
    same = {column.head for column in ledger.COLUMNS if word(column.head) == column.head}
    assert not same


def test_sparkline_shows_the_newest_from_low_to_high() -> None:
    assert sparkline((0, 7, 3), 40) == "▁█▄"
    assert sparkline((9, 0, 7), 2) == "▁█"
    assert sparkline((5, 5, 5), 40) == "▁▁▁"
    assert sparkline((), 40) == sparkline((1, 2), 0) == ""
