"""Owns writing a prompt in the person's own editor, so that whatever becomes of it nothing is lost."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidRequest
from turbotui.text import t
from turbotui.text.spoken import spoken

VARIABLES = ("VISUAL", "EDITOR")
USUAL = ("nano", "vim", "vi", "emacs")
"""Where neither variable is set, the first of these that is there."""
CHOOSES = "sensible-editor"
"""Debian's: the editor that the person has chosen, else it asks which one and keeps the answer."""
MOST_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Edited:
    """What came of it."""

    text: str | None
    """The new prompt; None leaves the old one."""
    word: str = ""
    """What is to be said of it, where it did not go as it should."""


def find_editor(environ: Mapping[str, str]) -> list[str]:
    """The command of the person's editor.

    Raises:
        InvalidRequest: there is none, naming what to set or install.
    """
    path = environ.get("PATH")
    for name in VARIABLES:
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            command = shlex.split(text)
        except ValueError as error:
            raise InvalidRequest(t("editor.unreadable", name=name, text=text, reason=error)) from error
        if command and shutil.which(command[0], path=path):
            return command
        raise InvalidRequest(t("editor.not_there", name=name, text=text))
    names = (CHOOSES, *USUAL) if _has_chosen(environ) else USUAL
    found = next((name for name in names if shutil.which(name, path=path)), None)
    if found is None:
        raise InvalidRequest(t("editor.none"))
    return [found]


def _has_chosen(environ: Mapping[str, str]) -> bool:
    home = environ.get("HOME")
    return bool(environ.get("SELECTED_EDITOR")) or (
        home is not None and Path(home, ".selected_editor").is_file()
    )


def edit(text: str, command: list[str]) -> Edited:
    """Let `command` edit `text` in a file of its own, on the terminal that this process has.

    The file goes once its text was taken, and stays, with its place told, where it was not.
    """
    name = command[0]
    try:
        folder = Path(tempfile.mkdtemp(prefix="turbotui-"))
        file = folder / "prompt.txt"
        file.write_text(text, "utf-8")
    except (OSError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", None) or error
        return Edited(text=None, word=t("editor.no_file", reason=spoken(str(reason))))
    try:
        with _interrupts_are_its_own():
            code = subprocess.run([*command, str(file)]).returncode
    except OSError as error:
        _remove(folder)
        return Edited(text=None, word=t("editor.no_start", name=name, reason=spoken(error.strerror or "")))
    edited = _read(file, name)
    if code != 0:
        changed = edited.text not in (None, text)
        word = t("editor.failed_kept" if changed else "editor.failed", name=name, code=code, path=file)
        if not changed:
            _remove(folder)
        return Edited(text=None, word=word)
    if edited.text is not None or edited.word == t("editor.emptied"):
        _remove(folder)
    return edited


def _read(file: Path, name: str) -> Edited:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except OSError:
        return Edited(text=None, word=t("editor.vanished", path=file))
    if len(raw) > MOST_BYTES:
        return Edited(text=None, word=t("editor.too_long", path=file))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = raw.decode("gb18030")
        except UnicodeDecodeError:
            return Edited(text=None, word=t("editor.no_text", path=file))
    # An editor's last newline is not part of what the person wrote.
    text = text.rstrip("\r\n")
    return Edited(text=text) if text.strip() else Edited(text=None, word=t("editor.emptied"))


@contextmanager
def _interrupts_are_its_own() -> Iterator[None]:
    """ctrl+c and ctrl+\\ in the editor's terminal reach this process too, and must not end it.

    Handlers that do nothing, since what is ignored would be ignored by the editor as well.
    """
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        for number in kept:
            signal.signal(number, lambda _number, _frame: None)
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
