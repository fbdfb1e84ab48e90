"""What `turbotui leaks --log FILE` prints: an old log's timeline, and verdicts as on a live engine."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from engine.errors import InvalidRequest
from engine.wire import Trend, Verdict
from turbotui.format import bytes_text, pad
from turbotui.leaklog.graph import PLAIN, Glyphs, graph_lines, layers, marked
from turbotui.leaklog.read import LogReport, read_log
from turbotui.leaklog.scan import LogFact
from turbotui.subcommands.output import columns, note, print_json, say
from turbotui.text.spoken import counted, spoken, tr, word

FIRST_ROWS = 12
LAST_ROWS = 36
"""Of a timeline that has more, without --all."""
WIDEST = 120
KNOWN_AFTER_BYTES = 32 * 2**20
"""A file of less is read before anybody could read how far it is."""
SIGNS = {">": "loaded", "<": "unloaded", "#": "port", "^": "started", "!": "oom"}
PROGRAMS = {"webui": "WebUI", "comfyui": "ComfyUI", "pytorch": "PyTorch", "turbotui": "turbotui"}


def tell_log(path: Path, *, json: bool, all_: bool = False) -> bool:
    """Print what the log tells; whether there is a leak.

    Raises:
        InvalidRequest: it cannot be read.
    """
    with _file_of(path) as file:
        report = read_log(file, on_progress=_progress())
    if file != path:
        report = replace(report, path=str(path))
    if json:
        print_json(log_document(report))
    else:
        for line in log_lines(report, all_=all_):
            say(line)
    return report.leaks


@contextmanager
def _file_of(path: Path) -> Iterator[Path]:
    """The file itself, or of `-` one with all that stands in standard input; that is gone afterwards.

    Raises:
        InvalidRequest: there is no room for it.
    """
    if str(path) != "-":
        yield path
        return
    if sys.stdin.isatty():
        note(tr("the log is read from this terminal; Ctrl-D ends it"))
    with NamedTemporaryFile(prefix="turbotui-log-") as file:
        try:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.flush()
            given = os.fstat(sys.stdin.fileno())
        except OSError as error:
            raise InvalidRequest(
                f"standard input cannot be read: {error.strerror}; give a log's file"
            ) from error
        if stat.S_ISREG(given.st_mode):  # times without a day are counted back from when it was written
            os.utime(file.name, (given.st_atime, given.st_mtime))
        yield Path(file.name)


def log_document(report: LogReport) -> dict[str, Any]:
    """The report as JSON has it; what a line does not tell is left out of it."""
    return {
        "path": report.path,
        "bytes": report.bytes,
        "lines": report.lines,
        "program": report.program,
        "begin": report.begin,
        "end": report.end,
        "total_bytes": report.total_bytes,
        "told": report.told,
        "omitted": report.omitted,
        "facts": [_fact_document(fact) for fact in report.facts],
        "points": report.points,
        "trends": report.trends,
        "verdicts": report.verdicts,
    }


def _fact_document(fact: LogFact) -> dict[str, Any]:
    event = fact.event
    values: dict[str, Any] = {"line": fact.line, "at": fact.at, "what": event.kind}
    for name in type(event).__dataclass_fields__:
        value = getattr(event, name)
        if name not in ("kind", "at", "said") and value not in (None, ()):
            values[name] = value
    values["text"] = fact.text
    return values


def log_lines(report: LogReport, *, all_: bool = False) -> Iterator[str]:
    """The report for people."""
    yield _head(report)
    if not report.told:
        yield tr("No line of it tells anything of memory.")
        return
    yield ""
    yield from _graph(report)
    yield from _timeline(report, all_)
    yield ""
    for trend in report.trends:
        yield _trend_text(trend)
    if report.trends:
        yield ""
    for verdict in report.verdicts:
        yield from _verdict_lines(verdict)
    leaks = sum(verdict.leak for verdict in report.verdicts)
    others = counted(len(report.verdicts) - leaks, "other finding")
    if not report.verdicts:
        yield tr("no leak, and nothing else that stayed")
    elif not leaks:
        yield tr("no leak, only {others}", others=others)
    elif leaks == len(report.verdicts):
        yield counted(leaks, "leak")
    else:
        yield tr("{leaks}, and {others}", leaks=counted(leaks, "leak"), others=others)


def _head(report: LogReport) -> str:
    lines = counted(report.lines, "line")
    name = tr("standard input") if report.path == "-" else Path(report.path).name
    text = f"{name}: {bytes_text(report.bytes)}, {lines}, {PROGRAMS[report.program]}"
    if report.begin is None or report.end is None:
        return text + tr(", without times")
    begin, end = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in (report.begin, report.end))
    if begin[:10] == end[:10]:
        end = end[11:]
    return text + tr(", {begin} to {end}", begin=begin, end=end)


def _graph(report: LogReport) -> Iterator[str]:
    glyphs = Glyphs() if _can_show("█▒┤└─") else PLAIN
    lines = graph_lines(report, min(columns(sys.stdout) or 100, WIDEST), glyphs)
    if not lines:
        return
    yield "   GiB"
    yield from lines
    names = {
        "allocated": tr("allocated by PyTorch"),
        "used": tr("in use on the card"),
        "reserved": tr("reserved by PyTorch"),
        "loaded": tr("models that are loaded"),
    }
    legend = [
        f"{glyphs.allocated if layer == 'allocated' else glyphs.used} {names[layer]}"
        for layer in layers(report.points)
    ]
    legend += [f"{sign} {word(name)}" for sign, name in SIGNS.items() if sign in marked(report)]
    yield "        " + "   ".join(legend)
    yield ""


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _timeline(report: LogReport, all_: bool) -> Iterator[str]:
    facts = report.facts
    more = 0
    if not all_ and len(facts) > FIRST_ROWS + LAST_ROWS:
        more = len(facts) - FIRST_ROWS - LAST_ROWS
    line_cells = len(str(facts[-1].line))
    dated = report.begin is not None and report.end is not None and report.end - report.begin > 86400
    form = "%m-%d %H:%M:%S" if dated else "%H:%M:%S"
    for place, fact in enumerate(facts):
        if more and place == FIRST_ROWS:
            yield tr("  … {count} more; --all shows them", count=more + report.omitted)
        if more and FIRST_ROWS <= place < FIRST_ROWS + more:
            continue
        at = "" if fact.at is None else time.strftime(form, time.localtime(fact.at)) + "  "
        what = pad(word(fact.event.kind.replace("_", " ")), 10)
        yield f"  {fact.line:>{line_cells}}  {at}{what}  {fact.text}"


def _trend_text(trend: Trend) -> str:
    count = trend.count
    several = counted(count, "job") if trend.over == "jobs" else counted(count, "unload")
    if trend.bytes_each is None or trend.low is None or trend.high is None:
        return tr("floors of {several}: too few for a slope", several=several)
    values = {
        "several": several,
        "each": bytes_text(round(trend.bytes_each)),
        "low": bytes_text(round(trend.low)),
        "high": bytes_text(round(trend.high)),
    }
    if trend.grows:
        return tr("floors of {several}: +{each} with each (95 %: {low} to {high})", **values)
    return tr("floors of {several}: no growth (95 %: {low} to {high})", **values)


def _verdict_lines(verdict: Verdict) -> Iterable[str]:
    title = spoken(verdict.title)
    yield tr("leak: {title}", title=title) if verdict.leak else tr("also: {title}", title=title)
    for sentence in verdict.evidence:
        yield f"    {spoken(sentence)}"
    if verdict.remedy is not None:
        yield tr("    Remedy: {remedy}", remedy=spoken(verdict.remedy.text))
        if verdict.remedy.command:
            yield f"        {verdict.remedy.command}"
    yield ""


def _progress() -> Callable[[int, int], None] | None:
    """Say on a terminal how far a large file is read, in one line that goes again."""
    if not sys.stderr.isatty():
        return None
    said = [0.0]

    def tell(done: int, whole: int) -> None:
        if whole < KNOWN_AFTER_BYTES:
            return
        now = time.monotonic()
        if done >= whole:
            sys.stderr.write("\r\x1b[K")
        elif now - said[0] >= 0.2:
            said[0] = now
            sys.stderr.write(f"\r{bytes_text(done)} / {bytes_text(whole)}\x1b[K")
        sys.stderr.flush()

    return tell
