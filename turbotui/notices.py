"""Owns how a terminal is told of a job's end: a bell, or a notice of the terminal's own (OSC 9, OSC 777).

The bytes go through Textual's driver, between two pictures. What a job's name or error holds passes
the sanitiser first, since it stands within an escape sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from turbotui.format import clip
from turbotui.sanitize import clean
from turbotui.text import t
from turbotui.text.spoken import spoken

if TYPE_CHECKING:
    from engine.wire import Job
    from turbotui.state import ConsoleState

Mode = Literal["off", "bell", "osc9", "osc777", "auto"]
When = Literal["blurred", "always"]

INTERVAL_S = 5.0
"""Between two notices: a queue of quick jobs is told together."""
CELLS = 160
TITLE = "turbotui"
BELL = "\a"

# Which terminals show which, by what they call themselves. Sources: their manuals' pages on OSC 9 and 777.
_BY_PROGRAM: Mapping[str, Mode] = {
    "iterm.app": "osc9",
    "iterm2": "osc9",
    "wezterm": "osc777",
    "ghostty": "osc777",
}
_BY_TERM: tuple[tuple[str, Mode], ...] = (
    ("xterm-kitty", "osc777"),
    ("xterm-ghostty", "osc777"),
    ("wezterm", "osc777"),
    ("foot", "osc777"),
    ("rxvt-unicode", "osc777"),
)


def choose_mode(mode: Mode, environ: Mapping[str, str]) -> Mode:
    """What `auto` means here: a notice where the terminal is known to show it, else the bell.

    Over SSH and within tmux most terminals are not known; a bell reaches all of them.
    """
    if mode != "auto":
        return mode
    for name in ("LC_TERMINAL", "TERM_PROGRAM"):
        if found := _BY_PROGRAM.get(environ.get(name, "").lower()):
            return found
    term = environ.get("TERM", "")
    return next((found for start, found in _BY_TERM if term.startswith(start)), "bell")


def sequence(mode: Mode, text: str, environ: Mapping[str, str]) -> str:
    """What to write to the terminal; empty for `off`."""
    mode = choose_mode(mode, environ)
    if mode == "off":
        return ""
    if mode == "bell":
        return BELL  # tmux and screen pass it on by themselves
    # A semicolon would begin another field.
    safe = clip(clean(text), CELLS).replace(";", ",")
    body = f"\x1b]9;{safe}\a" if mode == "osc9" else f"\x1b]777;notify;{TITLE};{safe}\a"
    return through_multiplexer(body, environ)


def through_multiplexer(text: str, environ: Mapping[str, str]) -> str:
    """`text` wrapped so that tmux (`allow-passthrough on`) or screen hands it to the terminal outside."""
    if environ.get("TMUX"):
        doubled = text.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{doubled}\x1b\\"
    if environ.get("STY"):
        return f"\x1bP{text}\x1b\\"
    return text


class Notices:
    """Tells the terminal of jobs that ended, of several at once together."""

    def __init__(
        self,
        mode: Mode,
        when: When,
        *,
        environ: Mapping[str, str],
        write: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._mode = mode
        self._when = when
        self._environ = environ
        self._write = write
        self._monotonic = monotonic
        self._jobs: tuple[Job, ...] | None = None
        self._status: dict[int, str] = {}
        self._waiting: list[str] = []
        self._told_at = float("-inf")

    def look(self, state: ConsoleState, *, attentive: bool) -> None:
        """Called with every new state. What had ended before the first one is old news."""
        if self._mode == "off" or state.engine is None:
            return
        if state.jobs is not self._jobs:
            first, self._jobs = self._jobs is None, state.jobs
            before, self._status = self._status, {job.id: job.status for job in state.jobs}
            ended = [job for job in state.jobs if before.get(job.id) not in (None, job.status)]
            if not first:
                self._waiting += [text for job in ended if (text := end_text(job)) is not None]
        if attentive and self._when == "blurred":
            self._waiting.clear()
        now = self._monotonic()
        if self._waiting and now - self._told_at >= INTERVAL_S:
            text, more = self._waiting[-1], len(self._waiting) - 1
            self._waiting.clear()
            self._told_at = now
            self._write(
                sequence(self._mode, text + (t("notice.more", count=more) if more else ""), self._environ)
            )


def end_text(job: Job) -> str | None:
    """What is told of a job that has just become what it is; None for what needs nobody."""
    if job.status == "done":
        return t("notice.done", id=job.id, model=job.spec.model)
    if job.status in ("failed", "interrupted"):
        if job.error_code == "out_of_memory":
            return t("notice.oom", id=job.id, model=job.spec.model)
        return t(
            "notice.failed",
            id=job.id,
            model=job.spec.model,
            error=spoken(job.error or "") or t(f"status.{job.status}"),
        )
    return None
