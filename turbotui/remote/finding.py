"""Owns the question to the other machine where its engine listens, and what it answers."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import msgspec

from engine.errors import EngineUnavailable
from engine.wire import EngineStatus, ErrorBody, LockHolder
from turbotui.remote.target import Target
from turbotui.sanitize import clean

MARK = "turbotui-box"
"""Begins each line of ours: a shell there may greet people before."""

_SCRIPT = """
PATH="$PATH:$HOME/.local/bin"; export PATH
TURBOTUI_HOST=; export TURBOTUI_HOST
say() {{ printf '\\n{mark} %s %s\\n' "$1" "$(printf %s "$2" | tr '\\n' ' ')"; }}
said=$({command} engine status --json 2>/dev/null </dev/null); code=$?
if [ $code -ne 0 ] && [ $code -ne 127 ] && [ $code -ne 126 ] && [ {start} = 1 ]; then
    said=$({command} engine start --json 2>/dev/null </dev/null); code=$?
fi
say code "$code"
say said "$said"
state=${{TURBOTUI_HOME:+$TURBOTUI_HOME/state}}
lock=${{state:-${{XDG_STATE_HOME:-$HOME/.local/state}}/turbotui}}/engine.lock
if [ -r "$lock" ]; then say lock "$(cat "$lock")"; fi
for pid in $(sed -n 's/.*"pid":\\([0-9]*\\).*/\\1/p' "$lock" 2>/dev/null); do
    kill -0 "$pid" 2>/dev/null && say lives "$pid"
done
say end
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An engine there."""

    socket: str
    build: str


def question(target: Target, *, start: bool) -> str:
    """What a POSIX shell there is given; with `start` it starts an engine if none runs."""
    return _SCRIPT.format(mark=MARK, command=target.command, start=int(start))


def read_place(target: Target, answer: str) -> Place:
    """Where the engine listens, by what that shell printed.

    Raises:
        EngineUnavailable: no turbotui there, no engine, or no answer that can be understood.
    """
    said: dict[str, str] = {}
    for line in answer.splitlines():
        mark, _, rest = line.partition(" ")
        if mark == MARK:
            name, _, value = rest.partition(" ")
            said[name] = value.strip()
    host, command = target.host, target.command
    if "end" not in said:
        told = clean(" ".join(answer.split()))[:200] or "nothing"
        raise EngineUnavailable(f"no POSIX shell answers on {host}; it said: {told}")
    if said.get("code") == "0":
        try:
            status = msgspec.json.decode(said.get("said", ""), type=EngineStatus)
            return _place(status.socket, status.build)
        except (msgspec.MsgspecError, ValueError) as error:
            raise EngineUnavailable(
                f"`{command}` on {host} answers in a way that this turbotui does not know ({error}); "
                "they are of different builds"
            ) from error
    if said.get("code") not in ("126", "127"):
        try:
            why = msgspec.json.decode(said.get("said", ""), type=ErrorBody).message
        except msgspec.MsgspecError:
            why = clean(said.get("said", ""))[:200] or f"exit {said.get('code')}"
        raise EngineUnavailable(
            f"no engine on {host}: {why}; start one with `turbotui --host {shlex.quote(host)} engine start`"
        )
    if "lives" in said:
        try:
            holder = msgspec.json.decode(said.get("lock", ""), type=LockHolder)
            return _place(holder.socket, holder.build)
        except (msgspec.MsgspecError, ValueError):
            pass
    raise EngineUnavailable(
        f"there is no `{command}` on {host}: install it there (pip install turbotui), or say where it is "
        "with --remote-command or console.remote_command, such as /opt/turbotui/.venv/bin/turbotui"
    )


def _place(socket: str, build: str) -> Place:
    """Raises ValueError: that is no socket's path."""
    if not socket.startswith("/") or clean(socket) != socket:
        raise ValueError("its socket has no path")
    return Place(socket=socket, build=build)
