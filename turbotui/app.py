"""Owns the running console: the app, its tie to the engine, and leaving cleanly.

The first picture is painted before any engine answers.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from textual import events
from textual.app import SystemCommand
from textual.binding import Binding
from textual.command import CommandPalette

from engine.errors import InvalidRequest, NotFound
from turbotui.actions import ACTIONS, Action
from turbotui.client.looking import only_looking
from turbotui.format import clock
from turbotui.keymap import keymap
from turbotui.link import Link
from turbotui.messages import StateChanged
from turbotui.notices import Mode, Notices, When
from turbotui.screens.dashboard import DashboardScreen
from turbotui.seen import load_seen, save_seen
from turbotui.symbols import Choice, guess
from turbotui.terminal import TerminalApp
from turbotui.text import LANGUAGES, choose_language, t, use_language
from turbotui.text.spoken import spoken
from turbotui.theme import (
    DEFAULT,
    Paint,
    Palette,
    greyed,
    textual_theme,
    theme_folders,
)
from turbotui.theme_folder import ThemeFolder
from turbotui.widgets.bottom import TABS, Notice, Tone
from turbotui.widgets.lines import LinePanel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.binding import BindingType
    from textual.command import Provider
    from textual.screen import Screen

    from engine.recording.reader import Recording
    from engine.wire import Hello, MemoryHistory
    from turbotui.client.base import Client
    from turbotui.commands import Commands
    from turbotui.draft_keeper import Drafts
    from turbotui.foreign_log import ForeignLog
    from turbotui.link import Ended
    from turbotui.remote.box import Box
    from turbotui.remote.recordings import Source
    from turbotui.state import Look

THEME_LOOK_S = 1.0
"""How soon an edited theme shows."""
PRELOAD_AFTER_S = 1.0
REPORT_S = 12 * 3600.0


class TurboApp(TerminalApp):
    """The console over one engine.

    Args:
        client_factory: Gives a client of a running engine, in the link's thread, each time it
            connects. Raises EngineError while there is none.
        start_engine: Called in the link's thread before the first connection: starts an engine
            unless one runs.
        restart_engine: Called in a thread when the person asks for it: ends the engine, if it
            still runs, and starts another.
        ended: Tells in the link's thread what became of an engine that answers no more.
        look_alone: Read the devices of this host by a child of our own while no engine answers.
        draft_path: Where the unsent job is kept between runs; None keeps it in memory only.
        seen_path: Where it is kept what this person has seen, in the same way.
        recordings: The folder or file of the flight recorder that a report is told from.
        logs_path: Where it is kept which other programs' logs were followed; `log` is one to begin with.
        read_only: Do nothing to the engine, whatever is asked; say so instead.
        making_demo: The demo models are about to be made by `start_engine`.
        symbols: Which symbols to draw with; `auto` asks the terminal.
        notify: How the terminal is told of a job's end, and `notify_when` the person may not look.
        box: The machine whose engine it is, where that is not this one.
        problems: What of the person's settings could not be taken, a sentence each.
        build: This console's own build; an engine of another one is named and a restart offered.
    """

    TITLE = "turbotui"
    ENABLE_COMMAND_PALETTE = True
    # Ours go through `act`, with the reason when they cannot.
    COMMAND_PALETTE_BINDING = "ctrl+backslash"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {lambda: _palette()}
    CSS_PATH = None
    CSS = """
    CommandPalette > Vertical { background: $panel; }
    Input:nocolor > .input--selection, TextArea:nocolor > .text-area--selection { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # With priority, since bindings of the app do not reach beyond a dialog otherwise.
        Binding("ctrl+c", "copy_or_leave", "leave", show=False, priority=True),
        Binding("ctrl+q", "leave", "leave", show=False, priority=True),
    ]

    def __init__(
        self,
        client_factory: Callable[[], Client],
        *,
        start_engine: Callable[[], None] | None = None,
        restart_engine: Callable[[], None] | None = None,
        ended: Callable[[Hello], Ended] | None = None,
        look_alone: bool = False,
        read_only: bool = False,
        making_demo: bool = False,
        theme: str = DEFAULT,
        language: str = "auto",
        keys: Mapping[str, str] | None = None,
        problems: tuple[str, ...] = (),
        config_dir: Path | None = None,
        draft_path: Path | None = None,
        seen_path: Path | None = None,
        recordings: Source | None = None,
        logs_path: Path | None = None,
        log: Path | None = None,
        mouse: bool = True,
        where: str | None = None,
        box: Box | None = None,
        build: str | None = None,
        symbols: Choice = "unicode",
        notify: Mode = "off",
        notify_when: When = "blurred",
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        use_language(choose_language(language))
        self._own_keymap = keymap(keys or {})
        self.problems = (*problems, *self._own_keymap.problems)
        """What of the settings was left out and why, a sentence each."""
        self._colourless = "NO_COLOR" in os.environ
        """As Textual takes it."""
        self._symbols_wanted = symbols
        self.symbols = guess(symbols, os.environ)
        self.themes = ThemeFolder(theme_folders(config_dir))
        palette, self._theme_problem = self.themes.first(theme)
        self._theme_wanted = theme
        self._paint_with(palette)
        super().__init__(mouse=mouse, monotonic=monotonic)
        self.animation_level = "none"
        self.read_only = read_only
        self.restart_engine = restart_engine
        self.draft_path = draft_path
        self._seen_path = seen_path
        self.recordings = recordings
        self.logs_path = logs_path
        self._first_log = log
        self.foreign: ForeignLog | None = None
        """Another program's log that is shown in place of the engine's."""
        self.seen = load_seen(seen_path)
        self.away_since = self.seen.away_since(wall())
        """When the last console was left, until the person was told or waved it away."""
        self.where = where
        self.box = box
        self.build = build
        self._greeted: Hello | None = None
        self.wall = wall
        self.link = Link(
            client_factory,
            on_change=self._changed,
            start_engine=start_engine,
            ended=ended,
            look_alone=look_alone,
            wall=wall,
            monotonic=monotonic,
        )
        self._notices = Notices(
            notify, notify_when, environ=os.environ, write=self._to_terminal, monotonic=monotonic
        )
        self._commands: Commands | None = None
        self.own_keys = self._own_keymap.own
        self.making_demo = making_demo
        """Set and cleared by whoever has them made, from any thread."""
        self.leaving_line = ""
        self._drafts: Drafts | None = None
        self.register_theme(textual_theme(self.paint.palette, colourless=self._colourless))
        self.theme = self.paint.palette.name

    @property
    def banner(self) -> str:
        """What the header says first where this is not an engine of now."""
        return ""

    # ------------------------------------------------------------------ life

    def get_default_screen(self) -> Screen[None]:
        return DashboardScreen()

    def on_mount(self) -> None:
        self.set_keymap(self._own_keymap.bound)
        self.watch_terminal()
        if self.problems:
            self.call_after_refresh(self._tell_problems)
        self.set_timer(THEME_LOOK_S / 2, self._look_at_themes)
        self.set_interval(THEME_LOOK_S, self._look_at_themes)
        # The engine's first words must not come before the first picture.
        self.call_after_refresh(self.link.start)
        if self._first_log is not None:
            self.call_after_refresh(self.follow_log, self._first_log)
        # What the first key will need, so that it need not wait for the disk.
        self.set_timer(PRELOAD_AFTER_S, threading.Thread(target=_preload, daemon=True).start)

    def follow_log(self, path: str | Path | None) -> None:
        """Show another program's log in place of the engine's; "" is the engine's own again."""
        from turbotui.foreign_log import ForeignLog, remember_log
        from turbotui.widgets.log import LogPanel

        if path is None:
            return
        if self.foreign is not None:
            self.foreign.close()
        self.foreign = ForeignLog(Path(path), wall=self.wall) if path != "" else None
        if self.foreign is not None:
            remember_log(self.logs_path, self.foreign.path)
        self.dashboard.query_one(LogPanel).show_foreign(self.foreign)
        self.dashboard.choose("log")

    def _tell_problems(self) -> None:
        more = len(self.problems) - 1
        self.say(self.problems[0] + (t("settings.more", count=more) if more else ""), "wait")

    def show_problems(self) -> None:
        """What of the settings was left out, in full."""
        from turbotui.screens.reader import ReaderScreen

        self.push_screen(ReaderScreen(t("settings.title"), "\n".join(self.left_out)))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the settings and of the themes cannot be taken as it is now, a sentence each."""
        return (*self.problems, *(spoken(why) for _name, why in sorted(self.themes.broken.items())))

    def on_unmount(self) -> None:
        if self.foreign is not None:
            self.foreign.close()
        self.link.close()
        save_seen(self._seen_path, replace(self.seen, left_at=self.wall()))
        if self._drafts is not None:
            self._drafts.close()

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

    def action_copy_or_leave(self) -> None:
        """ctrl+c: copy what is selected, else end the console."""
        selected = self.screen.get_selected_text() or getattr(self.focused, "selected_text", "")
        if selected:
            self.copy_text(selected)
            self.screen.clear_selection()
        else:
            self.action_leave()

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

    def news_came(self) -> None:
        self._changed()

    def _changed(self) -> None:
        """Called from the link's thread."""
        if self.is_running and not self._aside:
            self.post_message(StateChanged())

    def on_state_changed(self) -> None:
        if not self.screen_stack:
            return
        hello = self.link.state.hello
        if hello is not None and hello is not self._greeted:
            if self._greeted is None and self.problems:
                self._tell_problems()  # again: what was said before the first answer went with it
            self._greeted = hello
            if self.build is not None and hello.build != self.build:
                self.say(t("engine.other_build", theirs=hello.build, ours=self.build), "wait")
            elif self.box is not None and self.box.remark is not None:
                self.say(spoken(self.box.remark), "wait")
        self._notices.look(self.link.state, attentive=self.dashboard.attentive)
        self.dashboard.state_changed()

    def restart(self) -> None:
        """End the engine and start another, in a thread; the link comes back by itself."""
        if self.restart_engine is not None:
            self.run_apart(t("doing.restart"), self.restart_engine, then=lambda _none: self.link.retry_now())

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Show a sentence in the last line."""
        self.dashboard.say(Notice(text=text, tone=tone))

    @property
    def engine_client(self) -> Client | None:
        return only_looking(self.link.client) if self.read_only else self.link.client

    def calls_changed(self) -> None:
        self.dashboard.tick()

    @property
    def drafts(self) -> Drafts:
        """The unsent jobs."""
        if self._drafts is None:
            from turbotui.draft_keeper import Drafts

            self._drafts = Drafts(self.draft_path, wall=self.wall)
        return self._drafts

    def open_moment(self, at: float) -> None:
        """Enter on the history's cursor: all that there is of the moment is shown already."""

    def find_recording(self) -> Recording:
        """What the flight recorder keeps, of another machine the last hours; for a thread.

        Raises:
            NotFound: that is nothing.
        """
        from engine.recording.reader import Recording

        if self.recordings is None:
            raise NotFound(t("report.none"))
        source = self.recordings
        return Recording(source if isinstance(source, Path) else source.copy(self.wall() - REPORT_S))

    def ask_for_columns(self, device_id: str, seconds: float, columns: int) -> MemoryHistory:
        """What the engine tells of a device's past, in the caller's thread."""
        if self.link.client is None:
            raise NotFound(t("why.no_engine"))
        return self.link.client.history(device_id, seconds=seconds, columns=columns)

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

    # ------------------------------------------------------------------ actions

    def why_not(self, action: Action, look: Look) -> str | None:
        """Why an action would do nothing now, or None."""
        if action.tier == "look":
            return None
        if self.read_only:
            return t("why.read_only")
        if (at := self.dashboard.past_at) is not None:
            return t("why.past", at=clock(at), press=self.key_of("now"))
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
        self.dashboard.acts_again()
        self._commands.do(name, job_id)

    def key_of(self, name: str) -> str:
        """The key to show for an action: the person's own, if there is one."""
        if name in self.own_keys:
            return self.own_keys[name].split(",")[0]
        return self.symbols.key(next(action.shown_key for action in ACTIONS if action.id == name))

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
        for place, panel in enumerate(TABS if screen is self.dashboard else ()):
            title = f"{t('palette.panel', name=t(f'place.{panel}'))}  ({self.key_of(f'panel_{place + 1}')})"
            yield SystemCommand(title, t("help.panel"), partial(self.dashboard.choose, panel))
        if (left_out := self.left_out) and screen is self.dashboard:
            yield SystemCommand(t("settings.title"), left_out[0], self.show_problems)
        for name in self.themes.names():
            title = t("palette.theme", name=name)
            yield SystemCommand(title, t("palette.theme_help"), partial(self.use_theme, name))
        for choice in get_args(Choice):
            title = t("palette.symbols", name=choice)
            yield SystemCommand(title, t("palette.symbols_help"), partial(self.draw_with, choice))
        for language in LANGUAGES:
            title = t("palette.language", name=language)
            yield SystemCommand(title, t("palette.language_help"), partial(self.speak, language))

    # ------------------------------------------------------------------ looks

    def _paint_with(self, palette: Palette) -> None:
        whole_cells, colourless = self.symbols.ascii, self._colourless
        self.paint = Paint(palette, whole_cells=whole_cells, colourless=colourless)
        self.grey_paint = Paint(greyed(palette), whole_cells=whole_cells, colourless=colourless)

    def action_command_palette(self) -> None:
        """Textual's, that asks in the person's language."""
        if self.use_command_palette and not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(id="--command-palette", placeholder=t("palette.search")))

    def use_theme(self, name: str) -> None:
        """Change the colours at once; the file is read again, so an edited one shows."""
        try:
            palette = self.themes.read(name)
        except InvalidRequest as error:
            self.say(spoken(str(error)), "error")
            return
        self._theme_wanted = name
        self._paint_with(palette)
        self.register_theme(textual_theme(palette, colourless=self._colourless))
        if self.theme == palette.name:
            self._watch_theme(palette.name)  # the same name, other colours
        else:
            self.theme = palette.name
        self.dashboard.tick()
        for panel in self.screen.query(LinePanel):
            if panel.view is not None:
                panel.show(replace(panel.view, paint=self.paint))

    def _look_at_themes(self) -> None:
        """Take over what was edited; a file with errors is named and changes nothing."""
        changed, problems = self.themes.look()
        if self._theme_wanted in changed and self._theme_wanted in self.themes.names():
            self._theme_problem = None
            self.use_theme(self._theme_wanted)
        if self._theme_problem is not None:
            problems = [self._theme_problem, *(text for text in problems if text != self._theme_problem)]
            self._theme_problem = None
        if problems:
            self.say("; ".join(map(spoken, problems)), "error")

    def symbols_changed(self) -> None:
        self._paint_with(self.paint.palette)
        self.dashboard.redraw_all()

    def speak(self, language: str) -> None:
        """Change the language at once."""
        use_language(language)
        self.dashboard.redraw_all()


def _palette() -> type[Provider]:
    from turbotui.palette import PlainCommands

    return PlainCommands


def _preload() -> None:
    importlib.import_module("turbotui.commands")
    importlib.import_module("turbotui.screens.switch")
    importlib.import_module("turbotui.screens.new_job")
