"""Plants leaks in an engine's worker: Python imports this module by its name as each process starts.

It is found since this folder stands in PYTHONPATH of the engines that `tests.leaks.field` starts, and
does nothing without the variable that names the file of plants. No code of the product knows of it: it
waits for two modules to be imported, and wraps functions in them.

The worker reads the file before each job, so one engine can run one plant after another. The daemon,
where a second variable asks for it, keeps the facts of each report, so that tests can judge them again.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

PLANTED = os.environ.get("TURBOTUI_TEST_PLANTS")
"""A file with the names of the plants that the next jobs grow, a line each."""
FACTS = os.environ.get("TURBOTUI_TEST_FACTS")
"""A file for the facts of the newest report, as JSON."""
PLANTS = Path(__file__).parents[1] / "plants"
AT = {"denoise": "net_velocity", "decode": "decode_frames"}
"""What a plant may define, and the worker's function before which it is called with the same arguments.
`after` it may define too: it is called without any when the job has ended."""

_growing: list[ModuleType] = []
"""Plants of the job that runs."""


def _plant(name: str) -> ModuleType:
    known = sys.modules.get(f"plants_{name}")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(f"plants_{name}", PLANTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _wrap_pipeline(module: ModuleType) -> None:
    run_job = module.run_job

    @wraps(run_job)
    def planted_job(*args: Any, **options: Any) -> Any:
        assert PLANTED is not None
        _growing[:] = [_plant(name) for name in Path(PLANTED).read_text().split()]
        ended = run_job(*args, **options)
        for plant in _growing:
            if grow := getattr(plant, "after", None):
                grow()
        return ended

    module.run_job = planted_job  # type: ignore[attr-defined]
    for stage, name in AT.items():
        setattr(module, name, _preceded(getattr(module, name), stage))


def _preceded(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
    @wraps(function)
    def planted(*args: Any, **options: Any) -> Any:
        for module in _growing:
            if grow := getattr(module, stage, None):
                grow(*args)
        return function(*args, **options)

    return planted


def _wrap_verdicts(module: ModuleType) -> None:
    verdicts = module.verdicts

    @wraps(verdicts)
    def kept(facts: Any) -> Any:
        import msgspec

        assert FACTS is not None
        beside = Path(f"{FACTS}.part")
        beside.write_bytes(msgspec.json.encode(facts))
        beside.rename(FACTS)
        return verdicts(facts)

    module.verdicts = kept  # type: ignore[attr-defined]


class _Finder:
    """Finds the modules that are wrapped as they would be found without it."""

    def __init__(self, wrap: dict[str, Callable[[ModuleType], None]]) -> None:
        self._wrap = wrap

    def find_spec(self, name: str, path: Any = None, target: object = None) -> ModuleSpec | None:
        if name not in self._wrap:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        run, wrap = spec.loader.exec_module, self._wrap[name]

        def run_and_wrap(module: ModuleType) -> None:
            run(module)
            wrap(module)

        spec.loader.exec_module = run_and_wrap  # type: ignore[method-assign]
        return spec


if PLANTED:
    wrapped: dict[str, Callable[[ModuleType], None]] = {"engine.worker.pipeline": _wrap_pipeline}
    if FACTS:
        wrapped["engine.leaks.verdicts"] = _wrap_verdicts
    sys.meta_path.insert(0, _Finder(wrapped))  # type: ignore[arg-type]
