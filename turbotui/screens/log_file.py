"""Owns choosing a log to follow: a path that is typed and completed, or one of those used before."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from turbotui.format import bytes_text, clip_middle, seconds
from turbotui.screens.window import WindowScreen
from turbotui.text import t
from turbotui.widgets.lines import Row, View, width_of
from turbotui.widgets.panels import Key, ListPanel

if TYPE_CHECKING:
    from textual.events import Key as KeyEvent
    from textual.events import Paste

MOST = 400
"""Entries of one folder that are offered, the newest first."""
LOOKED_AT = 20_000
ENGINE = "engine"
"""The key of the row that goes back to the engine's own log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file or folder that may be chosen."""

    path: str
    folder: bool = False
    bytes: int | None = None
    written_at: float | None = None


def list_folder(folder: str) -> tuple[Entry, ...]:
    """What lies there, the newest first; empty where it cannot be read."""
    found: list[Entry] = []
    try:
        with os.scandir(folder or ".") as entries:
            for place, entry in enumerate(entries):
                if place >= LOOKED_AT:
                    break
                if (one := _entry(entry)) is not None:
                    found.append(one)
    except OSError:
        return ()
    return tuple(sorted(found, key=lambda one: -(one.written_at or 0.0)))


def _entry(entry: os.DirEntry[str]) -> Entry | None:
    try:
        about = entry.stat()
    except OSError:
        return None  # gone since, or a link to nowhere
    if stat.S_ISDIR(about.st_mode):
        return Entry(path=entry.path, folder=True, written_at=about.st_mtime)
    if not stat.S_ISREG(about.st_mode):
        return None
    return Entry(path=entry.path, bytes=about.st_size, written_at=about.st_mtime)


def split_typed(typed: str) -> tuple[str, str]:
    """Folder and the beginning of a name, as they were typed; `~` is the person's home."""
    folder, _, name = os.path.expanduser(typed).rpartition("/")
    return (folder or "/" if typed.startswith("/") or folder else ""), name


class LogFilePanel(ListPanel):
    """What was typed, and below it what it may become."""

    def __init__(self, recent: tuple[str, ...], *, foreign: bool) -> None:
        super().__init__(id="log_file")
        self.typed = ""
        self._recent = recent
        self._foreign = foreign
        self.folders: dict[str, tuple[Entry, ...]] = {}
        """What is known of each folder that was asked for."""

    def inputs(self, view: View) -> tuple[object, ...]:
        return (self.typed, len(self.folders), int(view.wall) // 10)

    def title(self, view: View) -> str:
        return t("log_file.title")

    def below(self, view: View) -> str:
        return t("log_file.keys")

    def offered(self) -> list[Entry]:
        """What the typed beginning may become; with nothing typed what was used before comes first."""
        folder, name = split_typed(self.typed)
        entries = self.folders.get(folder, ())
        wanted = name.casefold()
        found = [
            entry
            for entry in entries
            if os.path.basename(entry.path).casefold().startswith(wanted)
            and (name.startswith(".") or not os.path.basename(entry.path).startswith("."))
        ]
        if not self.typed:
            found = [entry for entry in found if not entry.folder and _may_be_log(entry.path)]
            return [*(Entry(path=path) for path in self._recent), *found][:MOST]
        return found[:MOST]

    def keys(self, view: View) -> list[Key]:
        back: list[Key] = [ENGINE] if self._foreign and not self.typed else []
        return [*back, *dict.fromkeys(entry.path for entry in self.offered())]

    def heading(self, view: View, width: int) -> list[Row]:
        paint = view.paint
        row = Row(width).add("> ", paint.key)
        # Its end is what is being typed.
        room, typed = width - 4, self.typed
        while width_of(typed) > room:
            typed = typed[1:]
        row.add(typed, paint.bold).add("▏", paint.key)
        if not self.typed:
            row.add(t("log_file.type"), paint.muted)
        return [row]

    def nothing(self, view: View, width: int) -> list[Row]:
        known = split_typed(self.typed)[0] in self.folders
        text = t("log_file.none" if known else "log_file.reading") if self.typed else t("log_file.hint")
        return [*self.heading(view, width), Row(width).add("  " + text, view.paint.muted)]

    def row(self, view: View, key: Key, width: int) -> Row:
        paint = view.paint
        row = Row(width).add("> " if key == self.chosen else "  ", paint.key)
        if key == ENGINE:
            return row.add(t("log_file.engine"), paint.text)
        entry = next(entry for entry in self.offered() if entry.path == key)
        name_cells = max(10, width - 2 - 22)
        name = os.path.basename(entry.path) if self.typed else entry.path
        row.field(clip_middle(name + ("/" if entry.folder else ""), name_cells), name_cells, paint.text)
        size = "" if entry.bytes is None else bytes_text(entry.bytes)
        age = "" if entry.written_at is None else seconds(max(0.0, view.wall - entry.written_at))
        return row.field(size, 10, paint.muted, right=True).field(age, 12, paint.muted, right=True)

    def complete(self) -> None:
        """Type what all that is offered have in common; a folder alone is gone into."""
        found = self.offered()
        if not self.typed and found:
            self.typed = str(self.chosen) if self.chosen not in (None, ENGINE) else found[0].path
        elif found:
            folder = split_typed(self.typed)[0]
            names = [os.path.basename(entry.path) for entry in found]
            common = os.path.commonprefix(names)  # noqa: RUF071  # of characters is what completes
            if len(common) >= len(split_typed(self.typed)[1]):
                self.typed = os.path.join(folder, common) if folder else common
            if len(found) == 1 and found[0].folder:
                self.typed += "/"
        self.redraw()


def _may_be_log(path: str) -> bool:
    return path.lower().endswith((".log", ".txt", ".out", ".err"))


class LogFileScreen(WindowScreen[str | None]):
    """Dismissed with the path to follow, with "" for the engine's own log, or with None."""

    panel: LogFilePanel
    key_help: ClassVar[tuple[tuple[str, str], ...]] = (
        ("↑ ↓", "screen.choose"),
        ("tab", "screen.complete"),
        ("ctrl+w ctrl+u", "screen.empty"),
        ("↵", "log_file.follow"),
    )

    def __init__(self, recent: tuple[str, ...], *, foreign: bool) -> None:
        super().__init__(LogFilePanel(recent, foreign=foreign))
        self._reading: set[str] = set()

    def on_mount(self) -> None:
        super().on_mount()
        self._look()

    def wanted_size(self, width: int, height: int) -> tuple[int, int]:
        return min(96, width - 4), min(18, height - 4)

    def _look(self) -> None:
        """Have the folder of what was typed read, in a thread: its disk may hang."""
        panel, folder = self.panel, split_typed(self.panel.typed)[0]
        # Each once, however many keys are typed meanwhile; one that hangs keeps no other from being read.
        if folder in self._reading or folder in panel.folders:
            return
        self._reading.add(folder)

        def listed(entries: tuple[Entry, ...]) -> None:
            self._reading.discard(folder)
            panel.folders[folder] = entries
            if self.is_attached:
                panel.redraw()

        def failed(_why: str) -> None:
            listed(())

        self.turbo.run_apart(
            t("log_file.reading"), lambda: list_folder(folder), then=listed, failed=failed, quiet=True
        )

    def on_key(self, event: KeyEvent) -> None:
        if event.key == "escape":
            return
        event.stop()
        event.prevent_default()
        panel = self.panel
        if event.character in ("?", "？") and not panel.typed:
            self.action_help()
            return
        if event.key == "enter":
            self._choose()
            return
        if event.key in ("down", "ctrl+n"):
            panel.move(1)
        elif event.key in ("up", "ctrl+p"):
            panel.move(-1)
        elif event.key == "pagedown":
            panel.page(2)
        elif event.key == "pageup":
            panel.page(-2)
        elif event.key == "tab":
            panel.complete()
        elif event.key in ("backspace", "ctrl+h"):
            self._type(panel.typed[:-1])
        elif event.key == "ctrl+w":
            folder, _, _name = panel.typed.rstrip("/").rpartition("/")
            self._type(f"{folder}/" if folder or panel.typed.startswith("/") else "")
        elif event.key == "ctrl+u":
            self._type("")
        elif event.is_printable and event.character:
            self._type(panel.typed + event.character)
        self._look()

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self._type(self.panel.typed + (event.text.splitlines() or [""])[0].strip())
        self._look()

    def _type(self, text: str) -> None:
        self.panel.typed, self.panel.walked, self.panel.chosen = text, False, None
        self.panel.redraw()

    def _choose(self) -> None:
        if not self.painted:
            return
        panel = self.panel
        typed = panel.typed
        if not typed or panel.walked:
            self._choose_row()
            return
        path = os.path.expanduser(typed)

        def told(is_file: bool) -> None:
            if not self.is_attached or panel.typed != typed or panel.walked:
                return  # the person has gone on
            if is_file:
                # What was typed in full is meant, whatever else begins so.
                self.dismiss(os.path.abspath(path))
            else:
                self._choose_row()

        # In a thread: its disk may hang.
        self.turbo.run_apart(t("log_file.reading"), lambda: os.path.isfile(path), then=told, quiet=True)

    def _choose_row(self) -> None:
        panel = self.panel
        typed = os.path.expanduser(panel.typed)
        if panel.chosen == ENGINE:
            self.dismiss("")
            return
        entry = next((entry for entry in panel.offered() if entry.path == panel.chosen), None)
        if entry is not None and entry.folder:
            self._type(entry.path + "/")
            self._look()
        elif entry is not None:
            self.dismiss(os.path.abspath(entry.path))
        elif typed:
            # It may not be there yet: a program that is about to start will write it.
            self.dismiss(os.path.abspath(typed))
