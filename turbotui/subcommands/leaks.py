"""The command that tells leaks from caches: who holds memory, where it came from, and what gives it back."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from engine.errors import EngineError, InvalidRequest
from engine.wire import (
    ExportRequest,
    Grown,
    LeakReport,
    Mark,
    MarkRequest,
    Remedy,
    RemedyRequest,
    RemedyResult,
    SinceMark,
    TraceRequest,
    Verdict,
)
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, clock, seconds
from turbotui.leak_text import at_least, evidence, fix_command, holder_steps, snapshot_format, unseen
from turbotui.subcommands.output import note, print_json_line, say
from turbotui.subcommands.receipts import receipt_lines
from turbotui.subcommands.session import INTERRUPTED_EXIT, Session, json_option, open_session
from turbotui.subcommands.tracing import tracing_line
from turbotui.text.spoken import counted, spoken, tr, word

LEAK_EXIT = 7
"""As of a check that warns, or a doctor that finds a problem."""
WATCH_S = 5.0
"""Between two looks; one takes half a second of the worker."""
NEWS = 0.1
"""Of its size: what moves by less is no news."""
MILD = ("free", "collect", "free_pinned", "trim", "unload", "kill")
"""In this order `--fix all` tries them; what ends the worker comes last, and once."""
ENDING = ("cleanup", "park")
MOST_SITES = 8


@click.command()
@click.option(
    "--trace",
    type=click.Choice(["on", "off"]),
    help="Note where memory is allocated, or no more; a GPU's steps take about 2 % longer, a CPU's up to "
    "three times as long.",
)
@click.option("--mark", type=click.Choice(["on", "off"]), help="Compare later reports with now, or no more.")
@click.option(
    "--export", metavar="FILE", help="Write the allocator's snapshot: .json, or .pickle for memory_viz."
)
@click.option("--fix", metavar="N|all", help="Run the remedy of verdict N, or those of all leaks.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
@click.option("--watch", is_flag=True, help="Look again every few seconds, and tell what changes.")
@click.option(
    "--log", metavar="FILE", type=Path, help="Of an old log, also another program's; no engine. - is stdin."
)
@click.option("--all", "all_", is_flag=True, help="With --log: the whole timeline, however long it is.")
@json_option
def leaks(
    trace: str | None,
    mark: str | None,
    export: str | None,
    fix: str | None,
    yes: bool,
    watch: bool,
    log: Path | None,
    all_: bool,
    json: bool,
) -> None:
    """Say of all held memory whether it is a leak or a cache, who holds it, and what gives it back.

    Each verdict has its evidence and a numbered remedy with the bytes that it should return; --fix runs
    one and compares. Tracing, while on, adds the file and line of what is allocated from then on. After
    --mark each report also tells what has grown since, by line and by holder. With --json: the whole
    report. Exits 7 if there is a leak, or if a remedy gave back less than it promised, else 0.

    --log tells the same of a log: of a WebUI, of ComfyUI, of PyTorch or of this engine, in UTF-8 or GBK.
    """
    if sum(given is not None for given in (trace, mark, export, fix, log)) + watch > 1:
        raise InvalidRequest(
            "--trace, --mark, --export, --fix, --watch and --log are different deeds; one at a time"
        )
    if all_ and log is None:
        raise InvalidRequest("--all is for a log's timeline; give the log with --log")
    if log is not None:
        # Reading logs takes modules that no other command does.
        from turbotui.subcommands.leaks_log import tell_log

        if tell_log(log, json=json, all_=all_):
            raise click.exceptions.Exit(LEAK_EXIT)
        return
    if export is not None:
        snapshot_format(export)  # refused before an engine is asked for
    session = open_session(json=json)
    client = session.client()
    if trace is not None:
        state = client.trace(TraceRequest(on=trace == "on"))
        session.show(state, lambda: [tracing_line(state)])
    elif mark is not None:
        marked = client.mark(MarkRequest(on=mark == "on"))
        session.show(marked, lambda: [mark_line(marked)])
    elif export is not None:
        _export(session, client, export)
    elif fix is not None:
        _fix(session, client, fix, yes=yes)
    elif watch:
        _watch(session, client)
    else:
        report = client.leaks()
        session.show(report, lambda: report_lines(report))
        if code := exit_code(report):
            raise click.exceptions.Exit(code)


def exit_code(report: LeakReport) -> int:
    return LEAK_EXIT if any(verdict.leak for verdict in report.verdicts) else 0


# --------------------------------------------------------------------------- in words


def report_lines(report: LeakReport) -> Iterator[str]:
    """The whole of it: verdicts by number, growth, sites, and what is unknown."""
    untold = _alike_reasons(report.verdicts)
    for place, verdict in enumerate(report.verdicts, 1):
        yield from verdict_lines(verdict.number or place, verdict, untold=untold)
    for reason in untold:
        yield tr("Where several leaks came from is not known: {reason}", reason=spoken(reason))
    for trend in report.trends:
        if trend.bytes_each is not None:
            yield f"{'!' if trend.grows else ' '} {spoken(trend.text)}"
    for site in report.sites[:MOST_SITES]:
        yield tr(
            "live: {bytes} from {file}:{line} in {function}",
            bytes=bytes_text(site.bytes),
            file=site.file,
            line=site.line,
            function=site.function,
        )
    if report.since is not None:
        yield from since_lines(report.since)
    for unknown in report.unknown:
        yield f"{word('unknown')}: {spoken(unknown)}"
    if report.tracing.on:
        yield tracing_line(report.tracing)
    if sum(one.leak and one.remedy is not None for one in report.verdicts) > 1:
        yield tr("`turbotui leaks --fix all` runs the remedies of all leaks, the mildest first.")
    yield _summary(report)


def _alike_reasons(verdicts: Iterable[Verdict]) -> frozenset[str]:
    """Why several leaks have no site, where that is the same: it is said once."""
    reasons = Counter(one.site_reason for one in verdicts if one.leak and one.site is None)
    return frozenset(reason for reason, count in reasons.items() if reason and count > 1)


def verdict_lines(number: int, verdict: Verdict, *, untold: frozenset[str] = frozenset()) -> Iterator[str]:
    """One verdict with its evidence, who holds it, its place in the sources and its remedy."""
    mark = word("leak") if verdict.leak else word("no leak")
    yield tr(
        "{number}. {mark}, {kind}: {title}",
        number=number,
        mark=mark,
        kind=word(verdict.kind.replace("_", " ")),
        title=spoken(verdict.title),
    )
    for sentence in evidence(verdict):
        yield f"    {sentence}"
    holder, site = verdict.holder, verdict.site
    if holder is not None and holder.path:
        yield tr("    Held by: {path}", path=" > ".join(holder_steps(holder)))
        if holder.file is not None:
            yield f"        {holder.file}" + ("" if holder.line is None else f":{holder.line}")
    if site is not None:
        yield tr(
            "    Made in: {file}:{line} in {function}", file=site.file, line=site.line, function=site.function
        )
    elif verdict.leak and verdict.site_reason and verdict.site_reason not in untold:
        yield tr("    Where it came from is not known: {reason}", reason=spoken(verdict.site_reason))
    remedy = verdict.remedy
    if remedy is not None:
        yield tr("    Remedy: {remedy}", remedy=spoken(remedy.text)) + _promised(remedy)
        yield f"        {fix_command(number)}"
    if verdict.admin_line:
        yield tr("    For whoever administers the host:")
        yield f"        {verdict.admin_line}"


def _promised(remedy: Remedy) -> str:
    if remedy.predicted_bytes is None:
        return ""
    predicted = bytes_text(remedy.predicted_bytes)
    if at_least(remedy):
        return tr("  Gives back at least {predicted}.", predicted=predicted)
    return tr("  Gives back {predicted}.", predicted=predicted)


def mark_line(mark: Mark) -> str:
    """What later reports are compared with."""
    if mark.at is None:
        return tr("nothing is marked")
    return tr("marked at {at}; `turbotui leaks` tells what has grown since", at=clock(mark.at))


def since_lines(since: SinceMark) -> Iterator[str]:
    """What has come and gone since the mark: by the line that allocates it, then by who holds it."""
    at = clock(since.at)
    if since.lost is not None:
        yield tr("since the mark at {at}: {reason}", at=at, reason=spoken(since.lost))
        return
    if not since.sites and not since.holders:
        yield tr("since the mark at {at}: nothing has come or gone", at=at)
        return
    yield tr("since the mark at {at}:", at=at)
    for grown in (*since.sites[:MOST_SITES], *since.holders[:MOST_SITES]):
        yield f"    {grown_text(grown)}"


def grown_text(grown: Grown) -> str:
    """How much more or less there is of it, and who allocates or holds it."""
    size = ("+" if grown.bytes >= 0 else "-") + bytes_text(abs(grown.bytes))
    if grown.holder is not None:
        return tr("{bytes} held by {path}", bytes=size, path=" > ".join(holder_steps(grown.holder)))
    if grown.site is None:
        return size
    site = grown.site
    return tr(
        "{bytes} from {file}:{line} in {function}",
        bytes=size,
        file=site.file,
        line=site.line,
        function=site.function,
    )


def _summary(report: LeakReport) -> str:
    took = tr("in {elapsed_s}", elapsed_s=seconds(report.elapsed_s))
    found = [verdict for verdict in report.verdicts if verdict.leak]
    others = len(report.verdicts) - len(found)
    if not found:
        text = (
            tr("no leak among {holders}", holders=counted(others, "holder"))
            if others
            else tr("no leak found")
        )
        if unseen(report):
            text = tr("{text}, but the worker could not be looked into", text=text)
    else:
        known = [verdict.bytes for verdict in found if verdict.bytes is not None]
        size = bytes_text(sum(known)) if known else tr("bytes unknown")
        text = tr("{leaks}, {size}", leaks=counted(len(found), "leak"), size=size)
        if others:
            held = counted(others, "other holder is no leak", "other holders are no leaks")
            text = tr("{text}; {held}", text=text, held=held)
    return tr("{text}; {took}", text=text, took=took)


# --------------------------------------------------------------------------- what is done


def _fix(session: Session, client: HttpClient, wanted: str, *, yes: bool) -> None:
    """Run one remedy or those of all leaks, and say what came back of what was promised.

    The command fails where a remedy did, or where less came back: what is held then is held still.
    """
    if wanted != "all" and not wanted.isdecimal():
        raise InvalidRequest(f"--fix takes a verdict's number or `all`, not {wanted!r}")
    report = client.leaks()
    if wanted != "all":
        _numbered(report.verdicts, int(wanted))  # which tells first that there is none
    if not yes and not sys.stdin.isatty():
        raise InvalidRequest("a remedy changes what is held and there is no terminal to ask on; add --yes")
    chosen = _all(report.verdicts) if wanted == "all" else [_numbered(report.verdicts, int(wanted))]
    if not chosen:
        note(tr("no leak with a remedy; nothing was done"))
        session.show([], list)
        return
    if wanted != "all":
        verdict = next(one for one in report.verdicts if one.remedy is chosen[0])
        note(tr("{number}. {title}", number=int(wanted), title=spoken(verdict.title)))
    for remedy in chosen:
        note(
            f"{word(remedy.action.replace('_', '-'))} {remedy.target or remedy.pid or ''}".strip()
            + _promised(remedy)
        )
    if not yes:
        click.confirm(tr("Do it?"), abort=True, err=True)
    results = [client.remedy(RemedyRequest(remedy=remedy)) for remedy in chosen]
    session.show(results, lambda: [line for result in results for line in result_lines(result)])
    if failed := next((result for result in results if not result.receipt.ok), None):
        note(spoken(failed.receipt.error or ""))
        raise click.exceptions.Exit(EngineError.exit_code)
    if any(result.kept is False for result in results):
        raise click.exceptions.Exit(LEAK_EXIT)


def _numbered(verdicts: Sequence[Verdict], number: int) -> Remedy:
    """The remedy of the verdict of this number, which it has in every report, whatever came or went."""
    verdict = next((one for place, one in enumerate(verdicts, 1) if (one.number or place) == number), None)
    if verdict is None:
        raise InvalidRequest(f"there is no verdict {number} now; look again")
    if verdict.remedy is None:
        raise InvalidRequest(f"verdict {number} has no remedy that this engine can run: {verdict.title}")
    return verdict.remedy


def _all(verdicts: Iterable[Verdict]) -> list[Remedy]:
    """Those of all leaks, the same only once with all that it gives back; a worker's end comes last."""
    found = [verdict.remedy for verdict in verdicts if verdict.leak and verdict.remedy is not None]
    chosen = [remedy for action in MILD for remedy in _merged([one for one in found if one.action == action])]
    endings = [one for one in found if one.action in ENDING]
    return chosen + _merged([replace(one, action="cleanup") for one in endings])


def _merged(remedies: Sequence[Remedy]) -> list[Remedy]:
    merged: dict[tuple[object, ...], Remedy] = {}
    for remedy in remedies:
        key = (remedy.action, remedy.target, remedy.pid)
        before = merged.get(key)
        if before is not None:
            known = [size for size in (before.predicted_bytes, remedy.predicted_bytes) if size is not None]
            remedy = replace(remedy, predicted_bytes=sum(known) if len(known) == 2 else None)
        merged[key] = remedy
    return list(merged.values())


def result_lines(result: RemedyResult) -> Iterator[str]:
    """What was promised and what came back, then the receipt."""
    predicted, returned = bytes_text(result.predicted_bytes), bytes_text(result.returned_bytes)
    if not result.receipt.ok:
        text = tr("predicted {predicted}, and it failed", predicted=predicted)
    elif result.predicted_bytes is None:
        text = tr("nothing was predicted, {returned} came back", returned=returned)
    elif result.returned_bytes is None:
        text = tr("predicted {predicted}; nobody could see what came back", predicted=predicted)
    elif result.kept:
        text = tr("predicted {predicted}, {returned} came back", predicted=predicted, returned=returned)
    else:
        text = tr("predicted {predicted}, only {returned} came back", predicted=predicted, returned=returned)
    yield text
    yield from (f"  {line}" for line in receipt_lines(result.receipt))


def _export(session: Session, client: HttpClient, path: str) -> None:
    # A relative path is this shell's; of another machine's folders nothing is known here.
    whole = path if session.target is not None else os.path.abspath(os.path.expanduser(path))
    written = client.export_snapshot(ExportRequest(path=whole, format=snapshot_format(path)))
    session.show(
        written,
        lambda: [tr("{path} written, {bytes}", path=written.path, bytes=bytes_text(written.bytes))],
    )


def _watch(session: Session, client: HttpClient) -> None:
    """Until Ctrl-C: the report whenever its verdicts are others than before."""
    told: dict[int, Verdict] | None = None
    try:
        while True:
            report = client.leaks()
            found = {one.number or place: one for place, one in enumerate(report.verdicts, 1)}
            if told is None or _is_news(told, found):
                told = found
                if session.json:
                    print_json_line(report)
                else:
                    say(clock(report.at))
                    for line in report_lines(report):
                        say(line)
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED_EXIT) from None


def _is_news(told: Mapping[int, Verdict], found: Mapping[int, Verdict]) -> bool:
    """Whether something came, went, became a leak or changed by a tenth; a heap's guess moves by itself."""
    if {number for number in told if told[number].kind != "host_heap"} != {
        number for number in found if found[number].kind != "host_heap"
    }:
        return True
    for number in told.keys() & found.keys():
        before, after = told[number], found[number]
        if before.leak != after.leak:
            return True
        moved = abs((after.bytes or 0) - (before.bytes or 0))
        if after.kind != "host_heap" and moved > NEWS * max(before.bytes or 0, after.bytes or 0):
            return True
    return any(found[number].leak for number in found.keys() - told.keys())
