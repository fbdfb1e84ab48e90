"""Owns what every command shares: its common options, where things live, and the way to the engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import InvalidRequest
from engine.paths import Paths, find_paths
from turbotui.client.http import HttpClient
from turbotui.client.launch import connect, version_notice
from turbotui.remote.target import Target, find_target
from turbotui.subcommands.output import note, print_json, say
from turbotui.subcommands.speaking import short_help
from turbotui.text.spoken import spoken, tr

if TYPE_CHECKING:
    from engine.wire import StoredImage
    from turbotui.remote.box import Box


def _also_before(context: click.Context, option: click.Parameter, given: bool) -> bool:
    """A flag counts before the command's name, and before its group's, as it does after them."""
    parent, name = context.parent, option.name or ""
    return given or (parent is not None and bool(parent.params.get(name)))


json_option = click.option(
    "--json", is_flag=True, callback=_also_before, help="Print JSON: the models of the engine's API."
)
demo_option = click.option(
    "--demo",
    is_flag=True,
    callback=_also_before,
    help="Use the demo models, making them first if need be.",
)
read_only_option = click.option(
    "--read-only", is_flag=True, help="Only look: the console does nothing to the engine, and starts none."
)
INTERRUPTED_EXIT = 130
"""Of a command that Ctrl-C ended, as shells have it."""
job_id_argument = click.argument("job_id", metavar="ID", type=click.IntRange(min=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One run of a command."""

    paths: Paths
    json: bool
    demo: bool
    target: Target | None = None
    """The machine whose engine is meant, where that is not this one."""
    _boxes: list[Box] = field(default_factory=list)

    @property
    def box(self) -> Box | None:
        """The other machine, where one is meant; signed in when it is first used."""
        if self.target is not None and not self._boxes:
            from turbotui.remote.box import Box

            box = Box(self.target)
            box.on_put = self._was_put
            self._boxes.append(box)
        return self._boxes[0] if self._boxes else None

    def client(self, *, start: bool = True) -> HttpClient:
        """An engine's client; with `start` one is started when none runs.

        Raises:
            EngineUnavailable: as `turbotui.client.launch.connect`, or the other machine cannot be reached.
        """
        if self.box is None:
            client = connect(self.paths, start=start, on_start=self._starting)
        else:
            client = self.box.connect(start=start, ask=True)
            if self.box.remark:
                note(spoken(self.box.remark))
        if notice := version_notice(client.hello()):
            note(spoken(notice))
        if self.demo:
            client.make_demo_models()
        return client

    def close(self) -> None:
        """End the connection to the other machine, if there is one."""
        for box in self._boxes:
            box.close()

    def show(self, value: object, lines: Callable[[], Iterable[str]]) -> None:
        """Print `value` as JSON, or for people the lines that tell it."""
        if self.json:
            print_json(value)
        else:
            for line in lines():
                say(line)

    def _was_put(self, file: Path, stored: StoredImage) -> None:
        note(tr("put {name} there: {path}", name=file.name, path=stored.path))

    def _starting(self) -> None:
        if sys.stderr.isatty():
            note(tr("no engine runs; starting one"))


class JsonGroup(click.Group):
    """A group that takes `--json` for those of its commands that print it, and for no other."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if ctx.params.get("json") and command is not None:
            if not any(option.name == "json" for option in command.params):
                raise click.UsageError(f"{ctx.command_path} {name} prints no JSON; leave --json out", ctx)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        room = formatter.width - 6 - max(map(len, names), default=0)
        commands = [(name, self.get_command(ctx, name)) for name in names]
        rows = [(name, short_help(command, room)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def open_session(*, json: bool, demo: bool = False) -> Session:
    """The session of the command that runs. `--demo` before its name counts for every command."""
    root = click.get_current_context().find_root()
    session = Session(
        paths=find_paths(),
        json=json,
        demo=demo or bool(root.params.get("demo")),
        target=find_meant(),
    )
    root.call_on_close(session.close)
    return session


def host_of(context: click.Context) -> str | None:
    """What `--host` named, before or after the command's name."""
    host: str | None = context.find_root().meta.get(HOST_KEY)
    return host


def find_meant() -> Target | None:
    """The machine that the running command means; None for this one."""
    context = click.get_current_context()
    command = context.find_root().params.get("remote_command")
    return find_target(find_paths(), host_of(context), command)


def _keep_host(context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    if given is not None:
        context.find_root().meta[HOST_KEY] = given
    return given


HOST_KEY = "turbotui.host"


def host_option(*, hidden: bool = False) -> click.Option:
    """`--host`, which every command takes."""
    return click.Option(
        ["--host"],
        metavar="USER@BOX",
        expose_value=False,
        hidden=hidden,
        callback=_keep_host,
        help="Of the engine on another machine, over your ssh; '' is this one. Also TURBOTUI_HOST.",
    )


def one_of(options: str, *given: object) -> None:
    """Refuse unless exactly one of the options was given.

    Raises:
        InvalidRequest: none or several were.
    """
    count = sum(value is not None for value in given)
    if count != 1:
        raise InvalidRequest(f"give exactly one of {options}, not {count or 'none'} of them")
