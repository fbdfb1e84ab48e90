"""The commands over the flight recorder: tell a stretch, show it again, put it into a file.

None needs an engine: a recording is read where it lies, or from a copied file or folder. That of
another machine is brought here by its engine, into a file that goes afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import NotFound
from turbotui.client.files import fetch_recording
from turbotui.format import bytes_text, seconds
from turbotui.moment import dated, parse_stretch
from turbotui.subcommands.output import note, say, table, titles
from turbotui.subcommands.session import Session, json_option, open_session
from turbotui.text.spoken import spoken, tr, word

if TYPE_CHECKING:
    from engine.recording.reader import Recording

REPORT_S = 12 * 3600.0
REPLAY_S = 900.0

since_option = click.option(
    "--since", metavar="WHEN", help="22:00, yesterday 22:00, 2026-11-28 22:00, or -8h."
)
until_option = click.option("--until", metavar="WHEN", help="In the same way; now where it is left out.")
source_argument = click.argument("source", metavar="[FILE|FOLDER]", required=False, type=Path)


@click.command()
@source_argument
@since_option
@until_option
@click.option("--md", is_flag=True, help="As Markdown.")
@json_option
def report(source: Path | None, since: str | None, until: str | None, md: bool, json: bool) -> None:
    """Tell what happened, the last 12 hours or any stretch, in at most 40 lines.

    From this engine's recording, whether it runs or not, or from a copied one.
    """
    from turbotui.report.lines import report_lines
    from turbotui.report.read import read_report

    session = open_session(json=json)
    begin, end = parse_stretch(since, until, now=time.time(), default_s=REPORT_S)
    with _stretch(session, source, begin, end) as recording:
        facts = read_report(recording, begin, end)
        _remark(recording)
    session.show(facts, lambda: report_lines(facts, markdown=md))


@click.command()
@source_argument
@since_option
@until_option
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    help="So many seconds of the recording in each second.",
)
def replay(source: Path | None, since: str | None, until: str | None, speed: float) -> None:
    """Show a stretch again in the console, the last 15 minutes where none is given.

    Of this engine's recording, whether it runs or not, or of a copied one, from its beginning.
    """
    from engine.recording.tiers import MEMORY
    from turbotui.replay.open import open_replay

    session = open_session(json=False)
    now = time.time()
    if source is None and session.box is not None:
        begin, end = parse_stretch(since, until, now=now, default_s=REPLAY_S)
        with _stretch(session, None, begin, end) as recording:
            _remark(recording)
            if code := open_replay(session.paths, recording, begin, end, speed=speed, where=session.box.name):
                raise click.exceptions.Exit(code)
        return
    recording = _open(source, session.paths.recordings)
    if since is None and until is None and source is not None:
        extents = [one for one in recording.extents() if one.tier in MEMORY]
        if not extents:
            raise NotFound(f"{source} holds nothing that can be read")
        begin, end = min(one.since for one in extents), max(one.until for one in extents)
    else:
        begin, end = parse_stretch(since, until, now=now, default_s=REPLAY_S)
    _remark(recording)
    if code := open_replay(session.paths, recording, begin, end, speed=speed):
        raise click.exceptions.Exit(code)


@click.command("export")
@click.argument("target", metavar="FILE", type=Path)
@since_option
@until_option
def export(target: Path, since: str | None, until: str | None) -> None:
    """Write a stretch of the recording, or all of it, into one new file to copy away.

    It holds prompts, paths and other people's command lines; it is made readable by you alone.
    """
    from engine.recording import export as exporting

    session = open_session(json=False)
    begin: float | None = None
    end: float | None = None
    if since is not None or until is not None:
        begin, end = parse_stretch(since, until, now=time.time(), default_s=REPORT_S)
    if session.box is not None:
        written = fetch_recording(session.client(), begin, end, target)
    else:
        recording = _open(None, session.paths.recordings)
        written = exporting.export(recording, target, since=begin, until=end)
        _remark(recording)
    say(
        tr(
            "{written} in {target}; `turbotui replay {target}` shows it",
            written=bytes_text(written),
            target=target,
        )
    )


@click.command("status")
@source_argument
def extent(source: Path | None) -> None:
    """Show what is recorded, from when to when and in how many bytes."""
    session = open_session(json=False)
    recording = _open(source, session.paths.recordings)
    now = time.time()
    rows = [titles("kind", "from", "until", "length", "bytes")]
    rows += [
        [
            word(found.tier.name),
            dated(found.since, now=now),
            dated(found.until, now=now),
            seconds(found.until - found.since),
            bytes_text(found.bytes),
        ]
        for found in recording.extents()
    ]
    _remark(recording)
    for line in table(rows, right=frozenset({4})):
        say(line)


@contextmanager
def _stretch(session: Session, source: Path | None, since: float, until: float) -> Iterator[Recording]:
    """The recording of `source`, of this engine or of the other machine's, with at least the stretch."""
    if source is not None or session.box is None:
        yield _open(source, session.paths.recordings)
    else:
        session.client()  # signs in, while ssh may ask
        with session.box.recordings.stretch(since, until) as path:
            yield _open(path, session.paths.recordings)


def _open(source: Path | None, own: Path) -> Recording:
    from engine.recording.reader import Recording

    try:
        recording = Recording(source or own)
    except NotFound as error:
        if source is not None:
            raise
        raise NotFound(f"nothing is recorded yet: {error}") from error
    if source is not None and next(recording.frames(), None) is None:
        why = next(iter(recording.remarks.values()), None)
        raise NotFound(f"{source} holds nothing that can be read" + (f": {why}" if why else ""))
    return recording


def _remark(recording: Recording) -> None:
    for remark in recording.remarks.values():
        note(spoken(remark))
