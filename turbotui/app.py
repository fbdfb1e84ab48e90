"""Owns the running console: the app, its tie to the engine, and leaving cleanly.

The first picture is painted before any engine answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import SystemCommand
from textual.binding import Binding
from textual.command import CommandPalette

from engine.errors import NotFound
from turbotui import preload
from turbotui.actions import ACTIONS, Action
from turbotui.appearance import PaintedApp
from turbotui.client.looking import only_looking
from turbotui.format import clock
from turbotui.keymap import keymap
from turbotui.link import Link
from turbotui.messages import StateChanged
from turbotui.notices import Mode, Notices, When
from turbotui.own_jobs import OwnJobs
from turbotui.screens.dashboard import DashboardScreen
from turbotui.seen import load_seen, save_seen
from turbotui.symbols import Choice
from turbotui.text import t
from turbotui.text.spoken import spoken
from turbotui.theme import DEFAULT
from turbotui.widgets.bottom import Notice, Tone

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
    from turbotui.widgets.key_line import KeyHint

REPORT_S = 12 * 3600.0


class TurboApp(PaintedApp):
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
    CommandPalette #--input { border-top: hkey $muted; }
    CommandPalette SearchIcon { display: none; }  /* of two cells, or of none, by terminal and font */
    CommandPalette CommandList { border-bottom: hkey $muted; }
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
        super().__init__(
            theme=theme, language=language, symbols=symbols, config_dir=config_dir, mouse=mouse,
            monotonic=monotonic,
        )  # fmt: skip
        self._own_keymap = keymap(keys or {})
        self.problems = (*problems, *self._own_keymap.problems)
        """What of the settings was left out and why, a sentence each."""
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
        self.own_jobs = OwnJobs(self)
        self._commands: Commands | None = None
        self.own_keys = self._own_keymap.own
        self.making_demo = making_demo
        """Set and cleared by whoever has them made, from any thread."""
        self.leaving_line = ""
        self._drafts: Drafts | None = None

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
        self.watch_themes()
        # The engine's first words must not come before the first picture.
        self.call_after_refresh(self.link.start)
        if self._first_log is not None:
            self.call_after_refresh(lambda: self.commands.follow_log(self._first_log))
        self.set_timer(preload.AFTER_S, preload.begin)

    def _tell_problems(self) -> None:
        more = len(self.problems) - 1
        self.say(self.problems[0] + (t("settings.more", count=more) if more else ""), "wait")

    def tell_left_out(self, text: str) -> None:
        # What was said of the settings before would be gone with it.
        more = len(self.problems)
        self.say(text + (t("settings.more", count=more) if more else ""), "error")

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
        self.own_jobs.look()
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

    @property
    def commands(self) -> Commands:
        """Loaded with the first key, or a little after the first picture."""
        if self._commands is None:
            from turbotui.commands import Commands

            self._commands = Commands(self)
        return self._commands

    def act(self, name: str, job_id: int | None = None) -> None:
        """Do an action of `turbotui.actions`, on job `job_id` where one is given, or say why not."""
        action = next(action for action in ACTIONS if action.id == name)
        reason = self.why_not(action, self.link.state.look(self.monotonic()))
        if reason is not None:
            self.say(reason, "wait")
            return
        self.dashboard.acts_again()
        self.commands.do(name, job_id)

    def key_line(self, hints: Iterable[KeyHint]) -> tuple[KeyHint, ...]:
        """What of `hints` stands below the dashboard."""
        return tuple(hints)

    def key_of(self, name: str) -> str:
        """The key to show for an action: the person's own, if there is one."""
        if name in self.own_keys:
            return self.own_keys[name].split(",")[0]
        return self.symbols.key(next(action.shown_key for action in ACTIONS if action.id == name))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        from turbotui.palette import commands_of

        return commands_of(self, screen)

    def action_command_palette(self) -> None:
        """Textual's, that asks in the person's language."""
        if self.use_command_palette and not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(id="--command-palette", placeholder=t("palette.search")))


def _palette() -> type[Provider]:
    from turbotui.palette import PlainCommands

    return PlainCommands
