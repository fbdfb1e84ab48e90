"""The command that serves the console to a browser on this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import click

from engine.errors import NotNow
from engine.paths import user_name
from turbotui.subcommands.output import note, print_json, say
from turbotui.subcommands.session import demo_option, find_meant, json_option
from turbotui.text.spoken import tr
from turbotui.web.door import loopback


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default: one that is free.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Of this machine's loopback.")
@json_option
@demo_option
@click.pass_context
def web(context: click.Context, port: int, address: str, json: bool, demo: bool) -> None:
    """Serve the console to a browser, on this machine only, until Ctrl-C.

    Prints an address with a token: whoever has it can do what you can. From elsewhere come by the `ssh -L`
    line. With --host each page signs in there without a question. Needs `pip install 'turbotui[web]'`.
    """
    address = loopback(address)
    try:
        from turbotui.web.server import ConsoleServer, listen
    except ImportError as error:
        raise NotNow(
            f"the console in a browser needs {error.name or 'textual-serve'}, which is not installed: "
            "pip install 'turbotui[web]'"
        ) from error
    target = find_meant()
    argv = [sys.executable, "-P", "-m", "turbotui", "--host", "" if target is None else target.host]
    if target is not None:
        argv += ["--remote-command", target.command]
    if demo or context.find_root().params.get("demo"):
        argv.append("--demo")
    name = socket.gethostname().split(".")[0] if target is None else target.host
    server = ConsoleServer(argv, listen(address, port), title=f"turbotui {name}")
    way = f"ssh -N -L {server.port}:{address}:{server.port} {user_name()}@{_own_address()}"
    if json:
        print_json({"address": server.address, "port": server.port, "ssh": way})
    else:
        say(server.address)
        note(tr("only on this machine; from elsewhere: {way}", way=way))
        note(tr("whoever has the address can do what you can; Ctrl-C ends it"))
    asyncio.run(server.serve_until_ended())


def _own_address() -> str:
    """What the person's ssh reached this machine by, else its name."""
    fields = os.environ.get("SSH_CONNECTION", "").split()
    return fields[2] if len(fields) == 4 else socket.gethostname()
