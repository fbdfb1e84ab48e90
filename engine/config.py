"""The person's settings: `config.toml`, overridden by `TURBOTUI_*` variables.

Read once at start by whoever needs it. Unknown keys are refused by name, since a setting that
is silently ignored is worse than none. Whatever ends in `_bytes` may be written as `"8 GiB"`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.choices import Residency, VaePrecision
from engine.errors import InvalidRequest
from engine.units import parse_size

ENV_PREFIX = "TURBOTUI_"
NOT_SETTINGS = frozenset({"TURBOTUI_HOME"})
"""Variables with our prefix that are read elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Section `[engine]`. Each field takes effect when the engine starts."""

    device: str = "auto"
    """`auto`: the GPU of CUDA_VISIBLE_DEVICES or the emptiest one, or cpu where there is none;
    `cpu`; or a GPU by UUID or index."""
    output_dir: str | None = None
    """Where videos go; None takes the platform's place for videos."""
    memory_budget_bytes: int | None = None
    """The most that the worker may hold on its device; None takes what is free."""
    keep_free_bytes: int = 0
    """Left alone on the device for others."""
    idle_unload_s: float = 0.0
    """Seconds without a job or an action after which everything leaves the device, the worker's
    context too; 0: never."""
    residency: Residency = "auto"
    """What a job keeps on the device beside what its running stage uses, where it does not say."""
    warm_budget_bytes: int | None = None
    """Host memory that weight files may hold registered; None: what the host can spare."""
    stream: Literal["auto", "registered", "ring"] = "auto"
    """How weights reach the device: from registered pages, through pinned buffers, or by measuring."""
    allocator: str = "auto"
    """Settings of the device's caching allocator: `auto`, `guide`, or as PYTORCH_ALLOC_CONF spells them."""
    vae_precision: VaePrecision = "auto"
    """`bf16`, `fp32`, or `auto`: bf16 on a GPU, as the reference has it, on cpu as the file."""
    preview: bool = True
    """Whether a job shows its latents after each step; the frames are the same either way."""
    nan_guard: bool = True
    """Whether a job ends before its decode where its latents are not finite: one sum after each step. Without
    it such latents reach the decoder, which refuses frames that are not finite and does not know whose fault
    they are."""
    max_prompt_chars: int = 8000
    max_queue: int = 1000
    log_bytes: int = 16 * 2**20
    """Each log file is turned over at this size; three are kept."""
    embedding_cache_bytes: int = 512 * 2**20
    """What the embeddings of earlier prompts may take on disk; 0 keeps none."""
    reset_program: str | None = None
    """What is run in nvidia-smi's place to reset a GPU, as this user; None: nvidia-smi, as root."""
    pressure_warn: float = 0.85
    """Share of the device's or the host's memory, in use or predicted, from which everybody is told."""
    pressure_act: float = 0.95
    """The share from which something should go now."""
    pressure_drop: Literal["none", "cache", "idle"] = "none"
    """What goes unasked where the device's use reaches `pressure_act`: the cache, or idle components too."""

    recording_bytes: int = 200 * 2**20
    """What the flight recorder may take on disk; 0 keeps nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.pressure_warn <= self.pressure_act <= 1:
            raise ValueError(
                "engine.pressure_warn must be above 0 and not above engine.pressure_act, which is at most 1; "
                f"got {self.pressure_warn:g} and {self.pressure_act:g}"
            )
        for name, least in (
            ("keep_free_bytes", 0),
            ("max_prompt_chars", 1),
            ("max_queue", 1),
            ("log_bytes", 64 * 1024),
            ("embedding_cache_bytes", 0),
            ("recording_bytes", 0),
            ("memory_budget_bytes", 1),
            ("idle_unload_s", 0),
            ("warm_budget_bytes", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"engine.{name} must be at least {least}, got {value}")
        if self.reset_program is not None and not self.reset_program.startswith("/"):
            raise ValueError(f"engine.reset_program must be absolute, got {self.reset_program!r}")
        if self.output_dir is not None and not self.output_dir.startswith(("/", "~/")):
            raise ValueError(f"engine.output_dir must be absolute or begin with ~/, got {self.output_dir!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsoleConfig:
    """Section `[console]`."""

    theme: str = "dark"
    language: str = "auto"
    """`en`, `zh_CN`, or `auto` from LC_MESSAGES."""
    mouse: bool = True
    read_only: bool = False
    """Whether the console only looks: it asks an engine to do nothing, and starts none."""
    log: str | None = None
    """Another program's log that is shown in place of the engine's."""
    symbols: Literal["auto", "unicode", "ascii"] = "auto"
    """What the console draws with; `auto` asks the terminal how wide its symbols are."""
    notify: Literal["off", "bell", "osc9", "osc777", "auto"] = "auto"
    """How the terminal is told of a job's end: a bell, or a notice of the terminal's own."""
    notify_when: Literal["blurred", "always"] = "blurred"
    """`blurred`: only while the terminal says that it has not the focus."""
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    """Action id to key."""
    host: str | None = None
    """Another machine whose engine is meant, as ssh takes it: `user@box`; None or empty: this one."""
    remote_command: str = "turbotui"
    """What runs turbotui there, as a shell there reads it."""
    ssh_command: str = "ssh"
    """What connects there, with options of its own such as `ssh -F FILE`."""


NotifyKind = Literal["done", "failed", "oom", "unseen", "queue_empty", "pressure"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifyConfig:
    """Section `[notify]`: a command that the engine runs to tell of what happened. Read with `[engine]`."""

    command: str | tuple[str, ...] = ()
    """Program and arguments, or both in one string as a shell would split them; no shell runs it. Empty:
    nobody is told."""
    on: tuple[NotifyKind, ...] = ("done", "failed", "oom", "unseen", "queue_empty", "pressure")
    min_interval_s: float = 10.0
    """Between two of one kind; what comes sooner is told together after it."""
    timeout_s: float = 10.0
    """The command is ended after it."""

    def __post_init__(self) -> None:
        try:
            words = self.argv
        except ValueError as error:
            raise ValueError(f"notify.command cannot be split into words: {error}") from error
        if any("\0" in word for word in words) or (words and not words[0]):
            raise ValueError(f"notify.command names no program: {self.command!r}")
        if not 0 <= self.min_interval_s <= 86400:
            raise ValueError(f"notify.min_interval_s must be 0 to 86400, got {self.min_interval_s:g}")
        if not 0 < self.timeout_s <= 600:
            raise ValueError(f"notify.timeout_s must be above 0 and at most 600, got {self.timeout_s:g}")

    @property
    def argv(self) -> tuple[str, ...]:
        """Program and arguments; empty where nobody is to be told."""
        return tuple(shlex.split(self.command)) if isinstance(self.command, str) else self.command


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    engine: EngineConfig = EngineConfig()
    console: ConsoleConfig = ConsoleConfig()
    notify: NotifyConfig = NotifyConfig()


SECTIONS_OF = {"engine": ("engine", "notify"), "console": ("console",)}
"""What the engine reads, and what the console does."""


def load_config(path: Path, environ: dict[str, str] | None = None, *, section: str | None = None) -> Config:
    """Settings from `path` (which may be missing) and the environment.

    A variable names a setting as `TURBOTUI_ENGINE_DEVICE` names `engine.device`. With `section`
    only that one is read: a mistake in the console's must not keep the engine from starting.

    Raises:
        InvalidRequest: the file is no TOML, or names an unknown or wrongly typed setting.
    """
    env = dict(os.environ) if environ is None else environ
    try:
        tables = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    read = ("engine", "console", "notify") if section is None else SECTIONS_OF[section]
    if section is not None:
        tables = {name: table for name, table in tables.items() if name in read}
    _refuse_unknown(tables, Config, str(path), "")
    variables: dict[str, str] = {}
    for name, value in env.items():
        if name.startswith(ENV_PREFIX) and name not in NOT_SETTINGS:
            table, _, key = name.removeprefix(ENV_PREFIX).lower().partition("_")
            if table in read:
                tables.setdefault(table, {})[key] = value
                variables[f"{table}.{key}"] = name
    _refuse_unknown(tables, Config, "the environment", "")
    _read_sizes(tables)
    _read_lists(tables)
    try:
        return msgspec.convert(tables, Config, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidRequest(_told(str(error), path, variables)) from error


def _told(error: str, path: Path, variables: dict[str, str]) -> str:
    """What is wrong with which setting, and whether the file has it or a variable; those by setting."""
    text, _, place = error.partition(" - at `$.")
    setting = place.rstrip("`")
    if "." in setting:  # else it is a sentence of ours, which names its setting
        text = f"{setting}: {text}"
    words = re.split(r"[^\w.]+", text.replace(":", " "))
    where = next((name for setting, name in variables.items() if setting in words), str(path))
    return f"{where} is wrong: {text}"


def _read_sizes(tables: dict[str, Any]) -> None:
    """Put bytes where a size stands in words."""
    for section, table in tables.items():
        for key, value in table.items():
            if key.endswith("_bytes") and isinstance(value, str):
                try:
                    table[key] = parse_size(value)
                except ValueError as error:
                    raise InvalidRequest(f"{section}.{key} in the settings: {error}") from error


def _read_lists(tables: dict[str, Any]) -> None:
    """Put a list where a variable has its words between commas."""
    notify = tables.get("notify", {})
    if isinstance(notify.get("on"), str):
        notify["on"] = [word for word in re.split(r"[,\s]+", notify["on"]) if word]


def _refuse_unknown(table: Any, model: Any, source: str, prefix: str) -> None:
    if not isinstance(table, dict):
        raise InvalidRequest(
            f"{source} sets {prefix.rstrip('.')} to {table!r}; it must be a table of settings"
        )
    known = {field.name: field for field in dataclasses.fields(model)}
    for key, value in table.items():
        if key not in known:
            raise InvalidRequest(
                f"{source} sets {prefix}{key}, which is no setting; known: {', '.join(sorted(known))}"
            )
        default = known[key].default
        if dataclasses.is_dataclass(default):
            _refuse_unknown(value, type(default), source, f"{prefix}{key}.")
