"""Gives every command `--host`, and runs on the other machine itself those that are about a machine."""

from __future__ import annotations

from typing import Any

import click

from engine.errors import InvalidRequest
from turbotui.subcommands.session import find_meant, host_option

THERE = frozenset(
    {
        "engine start",
        "engine stop",
        "engine restart",
        "engine status",
        "doctor",
        "models make-random",
        "models scan",
        "models get",
        "import",
        "quantize",
        "bench start",
        "bench switch",
        "bench balance",
        "recording status",
    }
)
"""These look at or change the machine, not its engine alone: turbotui there does them."""
HERE = frozenset({"engine run"})
"""These make no sense from afar."""
_RAW = "turbotui.raw"


def reach_everywhere(group: click.Group, path: str = "") -> None:
    """Add the option to `group`'s commands, and to those of its groups."""
    for name, command in group.commands.items():
        whole = f"{path} {name}".strip()
        command.params.append(host_option(hidden=True))
        if isinstance(command, click.Group):
            reach_everywhere(command, whole)
        elif whole in THERE or whole in HERE:
            _run_there(command, whole)


def _run_there(command: click.Command, whole: str) -> None:
    parse, invoke = command.parse_args, command.invoke

    def parse_args(context: click.Context, arguments: list[str]) -> list[str]:
        context.meta[_RAW] = list(arguments)
        return parse(context, arguments)

    def run(context: click.Context) -> Any:
        target = find_meant()
        if target is None:
            return invoke(context)
        if whole in HERE:
            raise InvalidRequest(f"`{whole}` runs on the machine itself: ssh {target.host}, and run it there")
        from turbotui.remote.box import run_there

        root = context.find_root().params
        flags = [f"--{name}" for name in ("json", "demo") if root.get(name)]
        if code := run_there(target, [*flags, *whole.split(), *_without_host(context.meta[_RAW])]):
            raise click.exceptions.Exit(code)
        return None

    command.parse_args = parse_args  # type: ignore[method-assign,assignment]  # click has no hook for it
    command.invoke = run  # type: ignore[method-assign,assignment]


def _without_host(arguments: list[str]) -> list[str]:
    left: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--host":
            next(words, None)
        elif not word.startswith("--host="):
            left.append(word)
    return left
