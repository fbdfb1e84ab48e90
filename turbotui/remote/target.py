"""Owns which machine is meant: the option, the variable or the setting that names it."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest
from engine.paths import Paths

HOST_VARIABLE = "TURBOTUI_HOST"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Another machine, and how it is reached."""

    host: str
    """As the person's ssh takes it: `user@box`, an alias of ~/.ssh/config, or `ssh://user@box:2222`."""
    command: str = "turbotui"
    """What runs turbotui there, as a shell there reads it, such as `/opt/turbotui/bin/turbotui`."""
    ssh: tuple[str, ...] = ("ssh",)
    """The program that connects, and options of its own."""

    def __post_init__(self) -> None:
        if self.host.startswith("-") or not self.host.isprintable() or any(c.isspace() for c in self.host):
            raise InvalidRequest(f"--host {self.host!r} is no name of a machine; give user@box")
        if not self.command.strip() or not self.command.isprintable():
            raise InvalidRequest("--remote-command names no program; it is `turbotui` unless given")

    @property
    def slug(self) -> str:
        """The host as part of a file's name."""
        return "".join(c if c.isalnum() or c in "@.-" else "_" for c in self.host)[:100]

    def own_paths(self, paths: Paths) -> tuple[Path, Path]:
        """Where this machine keeps the draft and what was seen of that one."""
        return paths.state / f"draft-{self.slug}.json", paths.state / f"console-{self.slug}.json"


def find_target(
    paths: Paths, host: str | None, command: str | None = None, environ: Mapping[str, str] = os.environ
) -> Target | None:
    """The machine that is meant, or None for this one, which an empty name also means.

    The option `host` comes before TURBOTUI_HOST, and that before `[console] host`. Reads only the three
    settings it needs: a mistake in any other must keep no command from running.

    Raises:
        InvalidRequest: the name, the command or ssh's options cannot be right.
    """
    settings = _settings(paths.config_file, environ)
    if host is None:
        host = environ.get(HOST_VARIABLE)
    if host is None:
        host = settings.get("host")
    if not host:
        return None
    words = settings.get("ssh_command") or "ssh"
    try:
        ssh = tuple(shlex.split(words))
    except ValueError as error:
        raise InvalidRequest(f"console.ssh_command cannot be split into words: {error}") from error
    return Target(host=host, command=command or settings.get("remote_command") or "turbotui", ssh=ssh)


def _settings(file: Path, environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, Any] = {}
    try:
        console = tomllib.loads(file.read_text("utf-8")).get("console", {})
        found = dict(console) if isinstance(console, dict) else {}
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        # It might name another machine; what was meant for that one must not be done here.
        if HOST_VARIABLE not in environ:
            raise InvalidRequest(f"{file} cannot be read: {error}") from error
    for key in ("host", "remote_command", "ssh_command"):
        value = environ.get(f"TURBOTUI_CONSOLE_{key.upper()}", found.get(key))
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{file} is wrong: console.{key} must be a text, not {value!r}")
        if value is not None:
            found[key] = value
    return {key: found[key] for key in ("host", "remote_command", "ssh_command") if key in found}
