"""Who may import whom, read from the sources and from what a process really loads.

Every module is discovered, so a new one is held to the rules from its first day.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BRIDGE = {"engine.wire", "engine.errors", "engine.config", "engine.paths", "engine.version"}
"""All of the engine that the console may know."""
READING = {
    "engine.recording.columns",
    "engine.recording.entries",
    "engine.recording.export",
    "engine.recording.format",
    "engine.recording.reader",
    "engine.recording.rows",
    "engine.recording.tiers",
}
"""Besides, what reads a recording: a report of an engine that died, and a file that was copied from
another host, must be readable where no engine answers. Nothing of it writes into an engine's folder."""
SHARED = {"engine.leaks.slope"}
"""Arithmetic alone: the slope of floors that an old log tells is computed as that of the ledger's."""
BENEATH_BRIDGE = BRIDGE | {"engine.choices", "engine.units"}
"""What the bridge stands on comes along, for the bridge alone."""
NETS = {"torch", "diffusers", "transformers", "torchvision", "accelerate"}
NETS_ALLOWED = (
    "engine.worker",
    "engine.models.importers",
    "engine.models.demo",
    "engine.models.plain",
    "engine.models.quantised_tensors",
    "engine.models.quantising",
    "engine.models.plain_generation",
    "engine.models.random_models",
    "engine.models.random_noise",
)
ONLY_IN_TELEMETRY = {"pynvml", "psutil"}
CONSOLE_SIDE = {"turbotui", "textual"}


def modules(package: str) -> dict[str, Path]:
    """Every module of `package` by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """The full name of everything that `source` imports: also late, for types only, or by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                depth = node.level - is_package
                parents = module.split(".")
                above = parents[: len(parents) - depth]
                base = ".".join([*above, base] if base else above)
            # `from engine import wire` may name a module or a thing in one; both spellings count.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            first = node.args[0]
            by_name = called.endswith("import_module") or called == "__import__"
            if by_name and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def below(name: str, *packages: str) -> bool:
    """Whether `name` is one of `packages` or lies in it."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@cache
def imported(package: str) -> tuple[tuple[str, str], ...]:
    """(importing module, imported name) for everything in `package`."""
    return tuple(
        (name, target)
        for name, path in modules(package).items()
        for target in imports(path.read_text("utf-8"), name, is_package=path.name == "__init__.py")
    )


def test_every_way_to_import_is_seen() -> None:
    source = """
import torch.nn as nn
from engine import wire
if TYPE_CHECKING:
    from engine.worker.arena import Arena
def late():
    from . import sibling
    from ..planning import shapes
    importlib.import_module("pynvml")
    __import__("textual")
"""
    assert set(imports(source, "engine.daemon.app")) == {
        "torch.nn",
        "engine.wire",
        "engine.worker.arena.Arena",
        "engine.daemon.sibling",
        "engine.planning.shapes",
        "pynvml",
        "textual",
    }
    assert list(imports("from .x import y", "engine.daemon", is_package=True)) == ["engine.daemon.x.y"]


def test_the_modules_are_found() -> None:
    assert {"engine.wire", "engine.daemon", "engine.daemon.lock"} <= set(modules("engine"))
    assert "turbotui.cli" in modules("turbotui")


def test_the_console_knows_only_the_bridge_to_the_engine() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, target in imported("turbotui")
        if below(target, "engine")
        and not below(target, *BRIDGE, *READING, *SHARED)
        and target not in ("engine.recording", "engine.leaks")
    ]
    assert wrong == []


def test_what_both_sides_share_leans_on_nothing_of_either() -> None:
    wrong = [
        f"{module} imports {target}"
        for package in ("engine", "turbotui")
        for module, target in imported(package)
        if below(module, *SHARED) and below(target, "engine", "turbotui")
    ]
    assert wrong == []
    assert loaded_by(*SHARED) & set(modules("engine")) == {"engine", "engine.leaks", *SHARED}


def test_what_reads_a_recording_leans_on_the_bridge_alone() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, target in imported("engine")
        if below(module, *READING)
        and below(target, "engine")
        and not below(target, *BENEATH_BRIDGE, *READING)
    ]
    assert wrong == []
    assert not loaded_by(*READING) & (NETS | ONLY_IN_TELEMETRY | {"pydantic", "fastapi", "sqlite3"})


def test_the_bridge_itself_leans_on_nothing_else_of_the_engine() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, target in imported("engine")
        if below(module, *BENEATH_BRIDGE) and below(target, "engine") and not below(target, *BENEATH_BRIDGE)
    ]
    assert wrong == []


def test_wire_models_are_imported_from_the_wire_and_not_from_its_parts() -> None:
    parts = [name for name in modules("engine") if below(name, "engine.wire") and name != "engine.wire"]
    assert parts
    wrong = [
        f"{module} imports {target}"
        for package in ("engine", "turbotui")
        for module, target in imported(package)
        if below(target, *parts) and not below(module, "engine.wire")
    ]
    assert wrong == []


def test_the_engine_knows_nothing_of_the_console() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, target in imported("engine")
        if below(target, *CONSOLE_SIDE) or below(target, "rich")
    ]
    assert wrong == []


def test_nets_are_imported_only_where_weights_are_handled() -> None:
    wrong = [
        f"{module} imports {target}"
        for package in ("engine", "turbotui")
        for module, target in imported(package)
        if (below(target, *NETS) or below(target, "safetensors.torch")) and not below(module, *NETS_ALLOWED)
    ]
    assert wrong == []


def test_the_driver_and_the_process_table_are_asked_only_by_telemetry() -> None:
    wrong = [
        f"{module} imports {target}"
        for package in ("engine", "turbotui")
        for module, target in imported(package)
        if below(target, *ONLY_IN_TELEMETRY) and not below(module, "engine.telemetry")
    ]
    assert wrong == []


def test_whatever_is_imported_is_a_declared_dependency() -> None:
    """A package that comes along with another today may be gone tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def packages(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}

    declared = packages(project["dependencies"])
    # Who wants no console in a browser need not have what serves it.
    in_browser = packages(project["optional-dependencies"]["web"])
    names = {"PIL": "pillow", "pynvml": "nvidia-ml-py", "imageio_ffmpeg": "imageio", "starlette": "fastapi"}
    names["textual_serve"] = "textual-serve"
    missing = {
        f"{module} imports {top}"
        for package in ("engine", "turbotui")
        for module, target in imported(package)
        if (top := target.partition(".")[0]) not in sys.stdlib_module_names | {"engine", "turbotui"}
        and names.get(top, top) not in declared | (in_browser if module == "turbotui.web.server" else set())
        # torch's own, where it computes on a GPU: of the version that it wants.
        and not (top == "triton" and below(module, "engine.worker.nets.kernels"))
    }
    assert missing == set()


def loaded_by(*names: str) -> set[str]:
    """The top-level packages, and modules of ours, that a fresh process has after importing `names`."""
    code = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, cwd="/", timeout=60
    )
    assert run.returncode == 0, run.stderr
    found = set(run.stdout.split())
    return found | {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("module", ["turbotui.__main__", "turbotui.cli"])
def test_the_commands_load_nothing_heavy(module: str) -> None:
    loaded = loaded_by(module)
    heavy = NETS | {
        "textual",
        "pydantic",
        "fastapi",
        "uvicorn",
        "httpx",
        "typer",
        "rich.console",
        "numpy",
        "PIL",
    }
    assert not loaded & (heavy | ONLY_IN_TELEMETRY)
    assert not [name for name in loaded if name.startswith("engine.") and not below(name, *BENEATH_BRIDGE)]


def test_the_console_loads_no_nets_and_no_server() -> None:
    loaded = loaded_by(*modules("turbotui"))
    assert "textual" in loaded
    assert not loaded & (NETS | ONLY_IN_TELEMETRY | {"pydantic", "fastapi", "uvicorn", "numpy"})
    allowed = {*BENEATH_BRIDGE, *READING, *SHARED}
    extra = {name for name in loaded if name.startswith("engine.") and not below(name, *allowed)}
    assert extra <= {"engine.recording", "engine.leaks"}


def test_the_first_picture_waits_for_no_wire_models() -> None:
    loaded = loaded_by("turbotui.console")
    assert "textual" in loaded
    assert not [name for name in loaded if below(name, "engine.wire", "engine.recording")]
    assert not loaded & {
        "PIL",
        "click",
        "turbotui.commands",
        "turbotui.screens.new_job",
        "turbotui.past.archive",
    }


def test_the_daemon_loads_no_nets_no_driver_and_no_console() -> None:
    loaded = loaded_by(*(name for name in modules("engine") if below(name, "engine.daemon")))
    assert "fastapi" in loaded
    assert not loaded & (NETS | ONLY_IN_TELEMETRY | CONSOLE_SIDE)


def test_each_module_of_the_engine_outside_the_worker_loads_without_nets() -> None:
    names = [name for name in modules("engine") if not below(name, *NETS_ALLOWED)]
    assert not loaded_by(*names) & (NETS | CONSOLE_SIDE)
