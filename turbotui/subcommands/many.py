"""What `turbotui generate --from FILE` does: every line of a file queued at once, or none of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineUnavailable, InvalidRequest
from engine.wire import BatchForecast, BatchLine, BatchQueued, JobBatch, JobSpec
from turbotui.client.http import HttpClient
from turbotui.format import bytes_text, seconds
from turbotui.job_file import JobFile, JobLine, parse_jobs, read_bytes, read_job_file
from turbotui.subcommands.output import note, table, titles
from turbotui.subcommands.session import Session
from turbotui.text.spoken import counted, spoken, tr, word

TOLD_LINES = 20
"""Of the bad lines of one file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a file is queued."""

    samples: int
    again: bool
    dry_run: bool


def read_many(name: str, base: JobSpec, samples: int) -> JobFile:
    """The lines of the file `name`, or of stdin where it is `-`.

    Raises:
        InvalidRequest: as `read_job_file`.
    """
    if name != "-":
        return read_job_file(name, base, samples=samples)
    raw = read_bytes(sys.stdin.buffer, "stdin")
    return parse_jobs(raw, base, name="stdin", folder=Path.cwd(), samples=samples)


def queue_many(session: Session, client: HttpClient, name: str, base: JobSpec, options: Options) -> None:
    """Queue every line of `name`, or tell what it would come to.

    Raises:
        InvalidRequest: a line is bad; each is told by its number, and nothing is queued.
        EngineUnavailable: the answer was lost; the same command makes nothing twice.
    """
    file = read_many(name, base, options.samples)
    batch = JobBatch(
        specs=tuple(line.spec for line in file.good if line.spec is not None), again=options.again
    )
    told = client.forecast_many(batch) if batch.specs else BatchForecast(lines=())
    _refuse_bad(name, file, told)
    if options.dry_run:
        session.show(told, lambda: _forecast_lines(file, told))
        return
    try:
        queued = client.submit_many(batch)
    except EngineUnavailable as error:
        way = "give --again no more" if options.again else "the same command again makes none of them twice"
        raise EngineUnavailable(f"{error}; whether the jobs are queued is not known: {way}") from error
    session.show(queued, lambda: _queued_lines(file, told, queued))


def _refuse_bad(name: str, file: JobFile, told: BatchForecast) -> None:
    bad = [(line, line.error) for line in file.lines if line.error is not None]
    bad += [
        (line, said.error) for line, said in zip(file.good, told.lines, strict=True) if said.error is not None
    ]
    if not bad:
        return
    for line, error in sorted(bad, key=lambda pair: pair[0].number)[:TOLD_LINES]:
        note(tr("{name}, line {number}: {error}", name=name, number=line.number, error=spoken(error)))
    if len(bad) > TOLD_LINES:
        note(tr("and {more} more", more=len(bad) - TOLD_LINES))
    count = len({line.number for line, _error in bad})
    raise InvalidRequest(
        f"{count} {'line' if count == 1 else 'lines'} of {name} cannot be queued, so none was; "
        "mend them or put a # before them"
    )


def _queued_lines(file: JobFile, told: BatchForecast, queued: BatchQueued) -> Iterable[str]:
    """Each line with its job, so that what was there before can be told from what is new."""
    known = {line.job_id for line in told.lines}
    rows = [[*titles("JOB", "LINE"), "", word("PROMPT")]]
    rows += [
        [str(job_id), str(line.number), tr("was there") if job_id in known else word("queued"), line.text]
        for line, job_id in zip(file.good, queued.job_ids, strict=True)
    ]
    yield from table(rows, right=frozenset({0, 1}))
    before = len(queued.job_ids) - queued.queued
    also = tr(", {count} there already (--again makes them again)", count=before) if before else ""
    yield tr("{jobs} queued{also}", jobs=counted(queued.queued, "job"), also=also)


def _forecast_lines(file: JobFile, told: BatchForecast) -> Iterable[str]:
    rows = [titles("LINE", "MODEL", "SIZE", "SEED", "PEAK", "TAKES", "PROMPT")]
    rows += [_forecast_row(line, said) for line, said in zip(file.good, told.lines, strict=True)]
    yield from table(rows, right=frozenset({0, 3, 4, 5}))
    new = sum(line.job_id is None and line.same_as is None for line in told.lines)
    yield tr(
        "{jobs} would be queued, {expected_s} in all",
        jobs=counted(new, "job"),
        expected_s=seconds(told.expected_s),
    )


def _forecast_row(line: JobLine, said: BatchLine) -> list[str]:
    forecast, spec = said.forecast, line.spec
    assert forecast is not None and spec is not None, "bad lines were refused"
    takes = seconds(forecast.expected_s)
    if said.job_id is not None:
        takes = tr("is job {job_id}", job_id=said.job_id)
    elif said.same_as is not None:
        takes = word("twice")
    size = f"{forecast.width}x{forecast.height}"
    model = spec.model if forecast.runs is None else forecast.runs.model
    return [
        str(line.number), model, size, str(spec.seed), bytes_text(forecast.peak_bytes), takes, line.text
    ]  # fmt: skip
