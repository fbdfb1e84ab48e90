"""Owns the running console: the app, its tie to the engine, questions in threads, and leaving cleanly.

The first picture is painted before any engine answers. Threads are daemon threads of our own and
never Textual's, since those are waited for at the end: a call that hangs in a socket must not
keep the console from closing.
"""

from __future__ import annotations

import importlib
import itertools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding

from engine.errors import EngineError, InvalidRequest
from turbotui.actions import ACTIONS, Action, keymap
from turbotui.link import Link
from turbotui.messages import CallEnded, StateChanged
from turbotui.notices import Mode, Notices, When
from turbotui.screens.dashboard import DashboardScreen
from turbotui.seen import load_seen, save_seen
from turbotui.text import LANGUAGES, choose_language, t, use_language
from turbotui.text.spoken import spoken
from turbotui.theme import (
    DEFAULT,
    Paint,
    Palette,
    greyed,
    read_palette,
    textual_theme,
    theme_files,
    theme_folders,
)
from turbotui.widgets.bottom import Notice, Pending, Tone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.binding import BindingType
    from textual.screen import Screen

    from engine.wire import Hello
    from turbotui.client.base import Client
    from turbotui.commands import Commands
    from turbotui.draft import Draft
    from turbotui.state import Look

Answer = TypeVar("Answer")

TERMINAL_CHECK_S = 1.0
PRELOAD_AFTER_S = 1.0
REPORT_S = 12 * 3600.0
HARD_EXIT_S = 2.0
"""A console that was told to end and cannot (a stalled terminal) ends anyway after this."""


class TurboApp(App[None]):
    """The console over one engine.

    Args:
        client_factory: Gives a client of a running engine, in the link's thread, each time it
            connects. Raises EngineError while there is none.
        start_engine: Called in the link's thread before the first connection: starts an engine
            unless one runs.
        restart_engine: Called in a thread when the person asks for it: ends the engine, if it
            still runs, and starts another.
        draft_path: Where the unsent job is kept between runs; None keeps it in memory only.
        seen_path: Where it is kept what this person has seen, in the same way.
        recordings: The folder or file of the flight recorder that a report is told from.
        making_demo: The demo models are about to be made by `start_engine`.
        notify: How the terminal is told of a job's end, and `notify_when` the person may not look.
        build: This console's own build; an engine of another one is named and a restart offered.
    """

    TITLE = "turbotui"
    ENABLE_COMMAND_PALETTE = True
    # Ours go through `act`, with the reason when they cannot.
    COMMAND_PALETTE_BINDING = "ctrl+backslash"
    CSS_PATH = None
    CSS = """
    CommandPalette > Vertical { background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # With priority, since bindings of the app do not reach beyond a dialog otherwise.
        Binding("ctrl+c,ctrl+q", "leave", "leave", show=False, priority=True),
    ]

    def __init__(
        self,
        client_factory: Callable[[], Client],
        *,
        start_engine: Callable[[], None] | None = None,
        restart_engine: Callable[[], None] | None = None,
        read_only: bool = False,
        making_demo: bool = False,
        theme: str = DEFAULT,
        language: str = "auto",
        keys: Mapping[str, str] | None = None,
        config_dir: Path | None = None,
        draft_path: Path | None = None,
        seen_path: Path | None = None,
        recordings: Path | None = None,
        where: str | None = None,
        build: str | None = None,
        notify: Mode = "off",
        notify_when: When = "blurred",
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keymap_wanted = keymap(keys or {})
        use_language(choose_language(language))
        self._theme_files = theme_files(theme_folders(config_dir))
        self._paint_with(self._read_theme(theme))
        super().__init__()
        self.animation_level = "none"
        self.read_only = read_only
        self.restart_engine = restart_engine
        self.draft_path = draft_path
        self._seen_path = seen_path
        self.recordings = recordings
        self.seen = load_seen(seen_path)
        self.away_since = self.seen.away_since(wall())
        """When the last console was left, until the person was told or waved it away."""
        self.where = where
        self.build = build
        self._greeted: Hello | None = None
        self.wall = wall
        self.monotonic = monotonic
        self.link = Link(
            client_factory,
            on_change=self._changed,
            start_engine=start_engine,
            wall=wall,
            monotonic=monotonic,
        )
        self._notices = Notices(
            notify, notify_when, environ=os.environ, write=self._to_terminal, monotonic=monotonic
        )
        self._calls: dict[int, Pending] = {}
        self._call_ids = itertools.count(1)
        self._commands: Commands | None = None
        self.own_keys = dict(keys or {})
        self.making_demo = making_demo
        """Set and cleared by whoever has them made, from any thread."""
        self._signalled: int | None = None
        self.leaving_line = ""
        self._draft: Draft | None = None
        self.register_theme(textual_theme(self.paint.palette))
        self.theme = self.paint.palette.name

    @property
    def banner(self) -> str:
        """What the header says first where this is not an engine of now."""
        return ""

    # ------------------------------------------------------------------ life

    def get_default_screen(self) -> Screen[None]:
        return DashboardScreen()

    def on_mount(self) -> None:
        self.set_keymap(self._keymap_wanted)
        if not self.is_headless:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, self._on_signal)
            self.set_interval(TERMINAL_CHECK_S, self._check_terminal)
        # The engine's first words must not come before the first picture.
        self.call_after_refresh(self.link.start)
        # What the first key will need, so that it need not wait for the disk.
        self.set_timer(PRELOAD_AFTER_S, threading.Thread(target=_preload, daemon=True).start)

    def on_unmount(self) -> None:
        self.link.close()
        save_seen(self._seen_path, replace(self.seen, left_at=self.wall()))
        if self._draft is not None:
            from turbotui.draft import save_draft

            save_draft(self.draft_path, self._draft)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._signalled is None:
            self._signalled = number
            threading.Thread(target=_exit_hard, args=(128 + number,), daemon=True).start()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end_by_signal)

    def _end_by_signal(self) -> None:
        self.exit(return_code=128 + (self._signalled or 0))

    def _check_terminal(self) -> None:
        """End when the terminal is gone, also where SIGHUP is ignored: Textual would spin on its end."""
        if sys.__stdin__ is None:
            return
        poll = select.poll()
        poll.register(sys.__stdin__.fileno(), 0)
        if any(flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _fd, flags in poll.poll(0)):
            self._on_signal(signal.SIGHUP, None)

    def action_leave(self) -> None:
        """End the console; the engine goes on."""
        state = self.link.state
        waiting = len(state.waiting)
        if state.link == "connected" and state.engine is not None:
            running = state.running
            if running is not None:
                self.leaving_line = t("leave.running", id=running.id, count=waiting)
            else:
                self.leaving_line = t("leave.idle", count=waiting)
        self.exit()

    def on_app_focus(self, event: events.AppFocus) -> None:
        self.dashboard.set_attentive(True)

    def on_app_blur(self, event: events.AppBlur) -> None:
        self.dashboard.set_attentive(False)

    @property
    def dashboard(self) -> DashboardScreen:
        screen = self.screen_stack[0]
        assert isinstance(screen, DashboardScreen)
        return screen

    # ------------------------------------------------------------------ the engine

    def _changed(self) -> None:
        """Called from the link's thread."""
        if self.is_running:
            self.post_message(StateChanged())

    def on_state_changed(self) -> None:
        if not self.screen_stack:
            return
        hello = self.link.state.hello
        if hello is not None and hello is not self._greeted:
            self._greeted = hello
            if self.build is not None and hello.build != self.build:
                self.say(t("engine.other_build", theirs=hello.build, ours=self.build), "wait")
        self._notices.look(self.link.state, attentive=self.dashboard.attentive)
        self.dashboard.state_changed()

    def _to_terminal(self, text: str) -> None:
        """Write what moves no cursor, as Textual writes its own bell: whole, between two pictures."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(text)

    @property
    def pending(self) -> Pending | None:
        """The newest question without an answer."""
        return next(reversed(self._calls.values()), None)

    def ask(
        self,
        label: str,
        work: Callable[[Client], Answer],
        *,
        then: Callable[[Answer], None] | None = None,
        failed: Callable[[str], None] | None = None,
        quiet: bool = False,
        given_up_by: str | None = None,
    ) -> None:
        """Do `work` in a thread; `then` gets its answer and `failed` its error in the loop.

        Without `failed` an error becomes a notice. `quiet` keeps it out of the last line, which
        otherwise names the key of the action `given_up_by`, where there is one.
        """
        client = self.link.client
        if client is None:
            self._call_failed(t("why.no_engine"), failed)
            return
        self.run_apart(
            label, lambda: work(client), then=then, failed=failed, quiet=quiet, given_up_by=given_up_by
        )

    def restart(self) -> None:
        """End the engine and start another, in a thread; the link comes back by itself."""
        if self.restart_engine is not None:
            self.run_apart(t("doing.restart"), self.restart_engine, then=lambda _none: self.link.retry_now())

    def run_apart(
        self,
        label: str,
        work: Callable[[], Answer],
        *,
        then: Callable[[Answer], None] | None = None,
        failed: Callable[[str], None] | None = None,
        quiet: bool = False,
        given_up_by: str | None = None,
    ) -> None:
        """As `ask`, for work that needs no engine."""
        call_id = next(self._call_ids)
        if not quiet:
            key = None if given_up_by is None else self.key_of(given_up_by)
            self._calls[call_id] = Pending(label=label, since=self.monotonic(), give_up_key=key)

        def run() -> None:
            try:
                result: Any = work()
                error = None
            except EngineError as problem:
                result, error = None, str(problem)
            except Exception as problem:  # The edge of this thread; the person sees what broke.
                result, error = None, f"{label}: {type(problem).__name__}: {problem}"
            if self.is_running:
                self.post_message(CallEnded(call_id, result=result, error=error, then=then, failed=failed))

        threading.Thread(target=run, name=f"call-{call_id}", daemon=True).start()
        self.dashboard.tick()

    def on_call_ended(self, message: CallEnded) -> None:
        self._calls.pop(message.call_id, None)
        if message.error is not None:
            self._call_failed(message.error, message.failed)
        elif message.then is not None:
            message.then(message.result)
        self.dashboard.tick()

    def _call_failed(self, error: str, failed: Callable[[str], None] | None) -> None:
        if failed is not None:
            failed(spoken(error))
        else:
            self.say(spoken(error), "error")

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Show a sentence in the last line."""
        self.dashboard.say(Notice(text=text, tone=tone))

    @property
    def draft(self) -> Draft:
        """The unsent job; read from disk when it is first needed."""
        if self._draft is None:
            from turbotui.draft import load_draft

            self._draft = load_draft(self.draft_path)
        return self._draft

    @draft.setter
    def draft(self, draft: Draft) -> None:
        self._draft = draft

    def report_stretches(self) -> tuple[tuple[float, float], ...]:
        """What a report may be of, the first one first: since this person last looked, and a night."""
        now = self.wall()
        away = self.seen.away_since(now)
        return (*(() if away is None else ((away, now),)), (now - REPORT_S, now))

    def why_no_check(self) -> str:
        """What is said of findings while no check is known."""
        return t("findings.none_known")

    def read_findings(self, names: frozenset[str]) -> None:
        """The findings called so are on the screen; what went and comes back is news again."""
        if names != self.seen.findings:
            self.seen = replace(self.seen, findings=names)

    def copy_text(self, text: str | None) -> None:
        """Put `text` on the clipboard of the person's terminal (OSC 52)."""
        if text:
            self.copy_to_clipboard(text)
            self.say(t("did.copy", text=text))
        else:
            self.say(t("copy.nothing"), "wait")

    # ------------------------------------------------------------------ actions

    def why_not(self, action: Action, look: Look) -> str | None:
        """Why an action would do nothing now, or None."""
        if action.tier == "look":
            return None
        if self.read_only:
            return t("why.read_only")
        if action.id == "restart" and self.restart_engine is None:
            return t("why.not_ours")
        if look in ("starting", "lost") and not action.without_engine:
            return t(f"why.{look}")
        return None

    def act(self, name: str, job_id: int | None = None) -> None:
        """Do an action of `turbotui.actions`, on job `job_id` where one is given, or say why not."""
        from turbotui.commands import Commands

        if self._commands is None:
            self._commands = Commands(self)
        action = next(action for action in ACTIONS if action.id == name)
        reason = self.why_not(action, self.link.state.look(self.monotonic()))
        if reason is not None:
            self.say(reason, "wait")
            return
        self._commands.do(name, job_id)

    def key_of(self, name: str) -> str:
        """The key to show for an action: the person's own, if there is one."""
        if name in self.own_keys:
            return self.own_keys[name].split(",")[0]
        return next(action.shown_key for action in ACTIONS if action.id == name)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette offers: every action, the themes and the languages."""
        # Over a dialog there are no actions: they would open another one above it.
        actions = ACTIONS if screen is self.dashboard else ()
        for action in actions:
            if action.in_palette:
                title = f"{t(f'action.{action.id}')}  ({self.key_of(action.id)})"
                yield SystemCommand(
                    title, t(f"help.{action.id}"), partial(self.dashboard.action_act, action.id)
                )
        for name in sorted(self._theme_files):
            title = t("palette.theme", name=name)
            yield SystemCommand(title, t("palette.theme_help"), partial(self.use_theme, name))
        for language in LANGUAGES:
            title = t("palette.language", name=language)
            yield SystemCommand(title, t("palette.language_help"), partial(self.speak, language))

    # ------------------------------------------------------------------ looks

    def _read_theme(self, name: str) -> Palette:
        path = self._theme_files.get(name)
        if path is None:
            known = ", ".join(sorted(self._theme_files))
            raise InvalidRequest(f"there is no theme {name!r}; known: {known}")
        return read_palette(path)

    def _paint_with(self, palette: Palette) -> None:
        self.paint = Paint(palette)
        self.grey_paint = Paint(greyed(palette))

    def use_theme(self, name: str) -> None:
        """Change the colours at once; the file is read again, so an edited one shows."""
        try:
            palette = self._read_theme(name)
        except InvalidRequest as error:
            self.say(spoken(str(error)), "error")
            return
        self._paint_with(palette)
        self.register_theme(textual_theme(palette))
        self.theme = palette.name
        self.dashboard.tick()

    def speak(self, language: str) -> None:
        """Change the language at once."""
        use_language(language)
        self.dashboard.redraw_all()


def _preload() -> None:
    importlib.import_module("turbotui.commands")
    importlib.import_module("turbotui.screens.switch")
    importlib.import_module("turbotui.screens.new_job")


def _exit_hard(code: int) -> None:
    """End the process although its loop cannot: put the terminal back as far as it takes bytes."""
    time.sleep(HARD_EXIT_S)
    try:
        os.set_blocking(2, False)
        os.write(2, b"\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[<u")
    except OSError:
        pass
    os._exit(code)
