"""Owns the console's settings: read so that a mistake, or a setting of a newer version, costs only itself.

The engine refuses what it does not know (`engine.config`), since it decides about memory by it. A console
that does not open because of a colour or a key helps nobody, so here each mistake is named and left out.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from engine.config import ENV_PREFIX, ConsoleConfig, load_config
from engine.errors import InvalidRequest
from turbotui.sanitize import clean
from turbotui.text import LANGUAGES, choose_language, t, use_language
from turbotui.text.spoken import spoken

VARIABLES = f"{ENV_PREFIX}CONSOLE_"
KNOWN_LANGUAGES = ("auto", "en", "en_US", "en_GB", "zh", *LANGUAGES)
SECTIONS = ("engine", "console", "notify")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleSettings:
    """What holds, and what was left out."""

    config: ConsoleConfig
    problems: tuple[str, ...]
    """A sentence each."""


def load_console(
    path: Path, environ: Mapping[str, str] | None = None, *, speak: bool = False
) -> ConsoleSettings:
    """Section `[console]` of the file, which may be missing, and the variables over it.

    With `speak` what is wrong is said in the language that is set, as the console will speak.
    """
    env = os.environ if environ is None else environ
    problems: list[str] = []
    try:
        tables = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        tables = {}
        problems.append(t("settings.unreadable", file=path.name, why=clean(str(error), limit=200)))
    table = tables.get("console", {})
    if speak:
        wanted = table.get("language", "auto") if isinstance(table, dict) else "auto"
        use_language(choose_language(str(env.get(f"{VARIABLES}LANGUAGE", wanted))))
    strangers = [name for name in tables if name not in SECTIONS]
    problems += [t("settings.section", name=clean(name, limit=60)) for name in strangers]
    if tables:
        # An engine that runs has read its part before it was changed: it would not start again.
        try:
            load_config(path, dict(env), section="engine")
        except InvalidRequest as error:
            problems.append(t("settings.engine", why=clean(spoken(str(error)), limit=300)))
    if not isinstance(table, dict):
        problems.append(t("settings.wrong", name="console", why=t("settings.no_table")))
        table = {}
    given: dict[str, Any] = {}
    types = get_type_hints(ConsoleConfig)
    for key, value in table.items():
        _take(given, types, key, value, key, problems)
    for name, text in env.items():
        if name.startswith(VARIABLES):
            _take(given, types, name.removeprefix(VARIABLES).lower(), text, name, problems)
    return ConsoleSettings(config=ConsoleConfig(**given), problems=tuple(problems))


def _take(
    given: dict[str, Any], types: Mapping[str, Any], key: str, value: Any, named: str, problems: list[str]
) -> None:
    """One setting, or why not."""
    shown = clean(named, limit=60)
    if key not in types:
        problems.append(t("settings.unknown", name=shown))
        return
    if key == "keys" and isinstance(value, dict):
        given[key] = {name: text for name, text in value.items() if isinstance(text, str)}
        for name, text in value.items():
            if not isinstance(text, str):
                problems.append(t("keys.no_key", name=clean(name, limit=60), sign=clean(str(text), limit=40)))
        return
    try:
        converted = msgspec.convert(value, types[key], strict=False)
        dataclasses.replace(ConsoleConfig(), **{key: converted})  # what the section itself refuses
    except (msgspec.ValidationError, ValueError) as error:
        problems.append(t("settings.wrong", name=shown, why=clean(str(error), limit=200)))
        return
    if key == "language" and converted.replace("-", "_").partition(".")[0] not in KNOWN_LANGUAGES:
        why = t("settings.language", name=clean(converted, limit=40))
        problems.append(t("settings.wrong", name=shown, why=why))
        return
    given[key] = converted
