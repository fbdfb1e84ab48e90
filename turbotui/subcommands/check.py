"""The command that looks for what holds memory and should not: the baseline check."""

from __future__ import annotations

from collections.abc import Iterable

import click

from engine.wire import CheckReport, Finding, Severity
from turbotui.format import bytes_text, clock, seconds
from turbotui.subcommands.session import json_option, open_session
from turbotui.text.spoken import counted, spoken, tr, word

EXIT_CODES: dict[Severity, int] = {"info": 0, "notice": 6, "warning": 7, "critical": 8}
"""By the worst finding; the others are taken by the errors of all commands."""


@click.command()
@click.option("--all", "all_", is_flag=True, help="In full also what is only good to know.")
@json_option
def check(all_: bool, json: bool) -> None:
    """Look for leftovers, unseen memory and wrong settings; say what each costs and what ends it.

    What is only good to know takes a line unless --all is given. The engine itself looks hourly and
    tells in its log what is new. With --json: the whole report. Exits 0 if nothing is worse than
    info, else 6 (notice), 7 (warning) or 8 (critical).
    """
    session = open_session(json=json)
    report = session.client().check()
    session.show(report, lambda: _lines(report, all_))
    if code := exit_code(report):
        raise click.exceptions.Exit(code)


def exit_code(report: CheckReport) -> int:
    """By the worst finding."""
    return max((EXIT_CODES.get(finding.severity, 8) for finding in report.findings), default=0)


def _lines(report: CheckReport, all_: bool) -> Iterable[str]:
    for finding in report.findings:
        if all_ or finding.severity != "info":
            yield from _whole(finding)
        else:
            command = f"  ({finding.remedy_command})" if finding.remedy_command else ""
            yield f"{word('info')}: {spoken(finding.title)}{command}"
    for unknown in report.unknown:
        yield f"{word('unknown')}: {spoken(unknown)}"
    yield _summary(report)


def _whole(finding: Finding) -> Iterable[str]:
    size = f"  {bytes_text(finding.bytes)}" if finding.bytes is not None else ""
    since = tr("  since {since}", since=clock(finding.since)) if finding.since is not None else ""
    new = tr(", new") if finding.new else ""
    yield f"{word(finding.severity)}{new}: {spoken(finding.title)}{size}{since}"
    for sentence in finding.evidence:
        yield f"    {spoken(sentence)}"
    if finding.changed:
        yield tr("    About then: {changed}", changed=spoken(finding.changed))
    yield tr("    Remedy: {remedy}", remedy=spoken(finding.remedy))
    if finding.remedy_command:
        yield f"        {finding.remedy_command}"
    if finding.admin_line:
        yield tr("    For whoever administers the host:")
        yield f"        {finding.admin_line}"


def _summary(report: CheckReport) -> str:
    took = tr("in {elapsed_s}", elapsed_s=seconds(report.elapsed_s))
    if not report.findings:
        return tr("nothing found {took}", took=took)
    count = len(report.findings)
    clean = (
        tr(", clean at {clean_at}", clean_at=clock(report.clean_at)) if report.clean_at is not None else ""
    )
    return tr(
        "{findings}, {new} new{clean}; {took}",
        findings=counted(count, "finding"),
        new=report.new,
        clean=clean,
        took=took,
    )
