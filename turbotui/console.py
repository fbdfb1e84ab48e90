"""Opens the console over this host's engine: joins the app to the ways of finding and starting one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineError, InvalidRequest
from engine.paths import Paths, find_paths
from engine.version import build_id
from turbotui.app import TurboApp
from turbotui.link import Ended
from turbotui.sanitize import clean
from turbotui.settings import load_console
from turbotui.text import t
from turbotui.text.spoken import spoken

if TYPE_CHECKING:
    from engine.wire import Hello
    from turbotui.client.http import HttpClient
    from turbotui.remote.box import Box
    from turbotui.remote.target import Target
    from turbotui.settings import ConsoleSettings

WEB_DRIVER = "textual.drivers.web_driver:WebDriver"
"""Textual's, by which a console of `turbotui web` speaks to its page."""
ANSWER_TIMEOUT_S = 2.0
"""The console says that it waits and asks again, rather than hang on an engine that is stopped."""


def open_console(
    *,
    demo: bool,
    target: Target | None = None,
    look_for_host: bool = False,
    log: str | None = None,
    mouse: bool = True,
    ascii: bool = False,
    read_only: bool = False,
) -> int:
    """The console of this environment, or one sentence why it cannot open; the exit code.

    Over the engine of `target`, or with `look_for_host` of the machine that the settings name. `log` is
    another program's to show in place of the engine's; without `mouse` there is none, whatever the
    settings say; `ascii` draws with ASCII alone; `read_only` does nothing to the engine and starts none.
    """
    try:
        browser = os.environ.get("TEXTUAL_DRIVER") == WEB_DRIVER
        if not browser and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise InvalidRequest(
                "the console needs a terminal; `turbotui status` and the other commands do not"
            )
        if os.environ.get("TERM") == "dumb":
            raise InvalidRequest(
                "the console needs a terminal that can move its cursor, and TERM says dumb; "
                "set TERM to what yours is, or use `turbotui status --watch`"
            )
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)  # exported, they would stand above every change of the size
        paths = find_paths()
        settings = load_console(paths.config_file, speak=True)
        if ascii:
            settings = replace(settings, config=replace(settings.config, symbols="ascii"))
        if read_only:
            settings = replace(settings, config=replace(settings.config, read_only=True))
        if demo and settings.config.read_only:
            raise InvalidRequest("a console that only looks makes no demo models; leave out one of the two")
        if look_for_host and (settings.config.host or "TURBOTUI_HOST" in os.environ):
            from turbotui.remote.target import find_target

            target = find_target(paths, None)
        if target is None:
            return run_console(paths, settings, demo=demo, log=log, mouse=mouse)
        from turbotui.remote.box import Box

        box = Box(target)
        box.sign_in(ask=not browser)  # before anything is painted, since ssh may ask
        return run_console(paths, settings, demo=demo, box=box, log=log, mouse=mouse)
    except EngineError as error:
        print(f"turbotui: {clean(spoken(str(error)))}", file=sys.stderr)
        return error.exit_code


def run_console(
    paths: Paths,
    settings: ConsoleSettings,
    *,
    demo: bool,
    box: Box | None = None,
    log: str | None = None,
    mouse: bool = True,
) -> int:
    """Show the console until the person leaves it, and give the exit code.

    The engine is found or started behind the first picture; with `demo` the demo models are
    made in it, whose progress the console then shows like any other change. With `box` all of it is
    about the engine of that machine.
    """

    config = settings.config
    log = log or config.log or None
    printed = 0

    # Imported in the link's thread, behind the first picture: the wire models cost 50 ms.
    def connect() -> HttpClient:
        if box is not None:
            return box.connect()
        from turbotui.client import launch

        nonlocal printed
        client = launch.connect(paths, start=False, timeout=ANSWER_TIMEOUT_S)
        printed = launch.printed_bytes(paths)
        return client

    def tell_put(name: str) -> None:
        app.call_later(lambda: app.say(t("did.put", name=name)))

    def start() -> None:
        if box is not None:
            client = box.connect(start=True)
        else:
            from turbotui.client import launch

            client = launch.connect(paths)
        if demo:
            threading.Thread(target=make_demo_models, args=(client,), name="demo", daemon=True).start()

    def make_demo_models(client: HttpClient) -> None:
        # A failure is in the engine's log, which the console shows.
        try:
            with contextlib.suppress(EngineError):
                client.make_demo_models()
        finally:
            app.making_demo = False

    def restart() -> None:
        if box is not None:
            box.restart()
            return
        from turbotui.client import launch

        launch.restart_engine(paths)

    draft, seen = paths.state / "draft.json", paths.state / "console.json"
    if box is not None:
        draft, seen = box.target.own_paths(paths)
        box.on_put = lambda file, _stored: tell_put(file.name)

    def ended(hello: Hello) -> Ended:
        from turbotui.client import launch

        # What it has printed since it answered; before that are the words of its elders.
        said = launch.last_log_lines(paths, printed).split(" | ")
        return Ended(how=launch.how_it_ended(hello.pid), printed=tuple(line for line in said if line))

    app = TurboApp(
        connect,
        start_engine=None if config.read_only else start,
        # Of another machine's engine and devices nothing can be seen from here, only of this one's.
        ended=ended if box is None else None,
        look_alone=box is None,
        restart_engine=restart,
        read_only=config.read_only,
        theme=config.theme,
        language=config.language,
        keys=config.keys,
        problems=settings.problems,
        mouse=mouse and config.mouse,
        logs_path=paths.state / "console-logs.json",
        log=None if log is None else Path(os.path.abspath(os.path.expanduser(log))),
        making_demo=demo,
        config_dir=paths.config,
        draft_path=draft,
        seen_path=seen,
        recordings=paths.recordings if box is None else box.recordings,
        box=box,
        where=None if box is None else box.name,
        build=build_id(),
        symbols=config.symbols,
        notify=config.notify,
        notify_when=config.notify_when,
    )
    app.run(mouse=app.mouse)
    if app.leaving_line and sys.stdout.isatty():
        print(app.leaving_line)
    return app.return_code or 0
