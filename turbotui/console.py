"""Opens the console over this host's engine: joins the app to the ways of finding and starting one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.config import ConsoleConfig, load_config
from engine.errors import EngineError, InvalidRequest
from engine.paths import Paths, find_paths
from engine.version import build_id
from turbotui.app import TurboApp
from turbotui.link import Ended
from turbotui.sanitize import clean

if TYPE_CHECKING:
    from engine.wire import Hello
    from turbotui.client.http import HttpClient

ANSWER_TIMEOUT_S = 2.0
"""The console says that it waits and asks again, rather than hang on an engine that is stopped."""


def open_console(*, demo: bool, ascii: bool = False) -> int:
    """The console of this environment, or one sentence why it cannot open; the exit code."""
    try:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
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
        config = load_config(paths.config_file).console
        if ascii:
            config = replace(config, symbols="ascii")
        return run_console(paths, config, demo=demo)
    except EngineError as error:
        print(f"turbotui: {clean(str(error))}", file=sys.stderr)
        return error.exit_code


def run_console(paths: Paths, config: ConsoleConfig, *, demo: bool) -> int:
    """Show the console until the person leaves it, and give the exit code.

    The engine is found or started behind the first picture; with `demo` the demo models are
    made in it, whose progress the console then shows like any other change.
    """

    printed = 0

    # Imported in the link's thread, behind the first picture: the wire models cost 50 ms.
    def connect() -> HttpClient:
        from turbotui.client import launch

        nonlocal printed
        client = launch.connect(paths, start=False, timeout=ANSWER_TIMEOUT_S)
        printed = launch.printed_bytes(paths)
        return client

    def start() -> None:
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
        from turbotui.client import launch

        launch.restart_engine(paths)

    def ended(hello: Hello) -> Ended:
        from turbotui.client import launch

        # What it has printed since it answered; before that are the words of its elders.
        said = launch.last_log_lines(paths, printed).split(" | ")
        return Ended(how=launch.how_it_ended(hello.pid), printed=tuple(line for line in said if line))

    app = TurboApp(
        connect,
        start_engine=start,
        ended=ended,
        look_alone=True,
        restart_engine=restart,
        theme=config.theme,
        language=config.language,
        keys=config.keys,
        making_demo=demo,
        config_dir=paths.config,
        draft_path=paths.state / "draft.json",
        seen_path=paths.state / "console.json",
        recordings=paths.recordings,
        build=build_id(),
        symbols=config.symbols,
        notify=config.notify,
        notify_when=config.notify_when,
    )
    app.run(mouse=config.mouse)
    if app.leaving_line:
        print(app.leaving_line)
    return app.return_code or 0
