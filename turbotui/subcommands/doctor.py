"""The command that looks at the installation; needs no engine and starts none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec

from engine import wire
from engine.wire import InstallationLine
from turbotui.format import pad
from turbotui.subcommands.check import EXIT_CODES
from turbotui.subcommands.output import note
from turbotui.subcommands.session import json_option, open_session
from turbotui.text.spoken import spoken, tr, word

TIMEOUT_S = 240.0
"""torch is imported and the driver opened in children, each with its own, shorter time."""
MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
MARK_CELLS, NAME_CELLS = 7, 11


@click.command()
@json_option
def doctor(json: bool) -> None:
    """Look at the installation: Python, torch, driver, ffmpeg, limits, disks, terminal; each with its fix.

    Starts no engine and changes nothing. Takes as long as torch takes to import. Exits 0, also with
    notes, or 7 if there is a problem.
    """
    session = open_session(json=json)
    if sys.stderr.isatty():
        note(tr("looking; importing torch takes some seconds"))
    lines = [*ask_doctor(), *settings_lines(session.paths.config_file)]
    session.show(lines, lambda: _lines(lines))
    if any(line.state == "problem" for line in lines):
        raise click.exceptions.Exit(EXIT_CODES["warning"])


def ask_doctor() -> list[InstallationLine]:
    """What a fresh process of this Python finds; a process that fails is itself the problem."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "engine.checks.doctor"],
            input=msgspec.json.encode(_caller()),
            capture_output=True,
            timeout=TIMEOUT_S,
            cwd="/",
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [_broken(str(error))]
    try:
        return msgspec.json.decode(done.stdout, type=list[InstallationLine])
    except msgspec.MsgspecError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return [_broken(said[-1] if said else tr("exit code {returncode}", returncode=done.returncode))]


def settings_lines(path: Path) -> list[InstallationLine]:
    """What a console would leave out of the settings, a line each."""
    from turbotui.keymap import keymap  # Textual knows which keys there are; only here it is needed
    from turbotui.settings import load_console

    settings = load_console(path)
    problems = (*settings.problems, *keymap(settings.config.keys).problems)
    fix = f"correct it in {path}, or leave it out"
    return [InstallationLine(name="settings", state="note", text=text, fix=fix) for text in problems]


def _caller() -> dict[str, object]:
    """As `engine.checks.installation.Caller`."""
    multiplexer = "tmux" if os.environ.get("TMUX") else "screen" if os.environ.get("STY") else None
    return {
        "engine_file": wire.__file__,
        "cwd": _cwd(),
        "path": sys.path,
        "pythonpath": os.environ.get("PYTHONPATH", ""),
        "term": os.environ.get("TERM"),
        "is_terminal": sys.stdout.isatty(),
        "encoding": sys.stdout.encoding or "",
        "colour": os.environ.get("COLORTERM"),
        "multiplexer": multiplexer,
    }


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"  # it was removed under us


def _broken(why: str) -> InstallationLine:
    return InstallationLine(
        name="installation",
        state="problem",
        text=tr(
            "{executable} cannot run the engine's own modules: {why}",
            executable=sys.executable,
            why=spoken(why),
        ),
        fix=f"{sys.executable} -m pip install -c constraints.txt -e .",
    )


def _lines(lines: list[InstallationLine]) -> list[str]:
    told = []
    for line in lines:
        mark = pad(word(MARKS[line.state]), MARK_CELLS)
        told.append(f"{mark}  {pad(spoken(line.name), NAME_CELLS)}  {spoken(line.text)}")
        if line.fix:
            told.append(f"{'':{MARK_CELLS + NAME_CELLS + 4}}{spoken(line.fix)}")
    return told
