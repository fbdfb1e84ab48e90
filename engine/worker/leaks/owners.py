"""Who holds a tensor: the shortest way to it from something that lasts, in words.

What lasts is a module, a class, a running frame, a thread's own data or an exception that is being
handled. What nothing of the kind leads to is a cycle that the collector has not looked at, or held by no
Python object at all.
"""

from __future__ import annotations

import ast
import functools
import sys
import types
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from engine.wire import Holder
from engine.worker.leaks.graph import Heap

Kind: TypeAlias = Literal[
    "global", "attribute", "closure", "hook", "traceback", "generator", "cycle", "cache", "none"
]

MOST_HOPS = 24
MOST_VISITED = 20_000
"""Objects of one search; what is farther away is told as far as the search came."""
HOOKS = frozenset(
    {
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
        "_load_state_dict_pre_hooks",
    }
)
"""Attributes of a torch module that hold functions which are called with it."""


def holder_of(target: object, heap: Heap, *, without: Iterable[object] = ()) -> Holder:
    """Who holds `target`. `without` are objects that hold it only for the caller.

    The nearest root wins; running frames are left to the last, since what they hold is in use.
    """
    left_out = {id(found) for found in without} | {id(sys._getframe()), id(sys._getframe(1))}
    running = _running_frames()
    came_from: dict[int, object | None] = {id(target): None}
    waiting = deque([target])
    alive: list[object] = [target]
    in_use: list[object] | None = None
    while waiting and len(came_from) < MOST_VISITED:
        found = waiting.popleft()
        if found is not target and _is_root(found):
            return _told(_way(found, came_from))
        for referrer in heap.referrers(found):
            if id(referrer) in came_from or id(referrer) in left_out:
                continue
            came_from[id(referrer)] = found
            if isinstance(referrer, types.FrameType) and id(referrer) in running:
                in_use = in_use or _way(referrer, came_from)
                continue
            alive.append(referrer)
            waiting.append(referrer)
    if in_use is not None:
        return _told(in_use)
    if len(alive) > 1:
        names = tuple(dict.fromkeys(_type_name(found) for found in alive[1:7]))
        return Holder(path=(f"a cycle of {', '.join(names)}",), kind="cycle")
    return Holder(path=("no Python owner",), kind="none")


def _running_frames() -> set[int]:
    found = set()
    for frame in sys._current_frames().values():
        at: types.FrameType | None = frame
        while at is not None:
            found.add(id(at))
            at = at.f_back
    return found


def _is_root(found: object) -> bool:
    return isinstance(found, types.ModuleType | type)


def _way(root: object, came_from: dict[int, object | None]) -> list[object]:
    """From the root to the target."""
    way = [root]
    while (after := came_from[id(way[-1])]) is not None:
        way.append(after)
    return way


# --------------------------------------------------------------------------- in words


def _told(way: list[object]) -> Holder:
    path: list[str] = []
    kind: Kind = "attribute"
    file: str | None = None
    line: int | None = None
    at = 0
    while at < len(way) - 1:
        holder, held = way[at], way[at + 1]
        match holder:
            case types.ModuleType():
                path.append(f"module {holder.__name__}")
                if held is vars(holder) and at + 2 < len(way):
                    name = _key_of(vars(holder), way[at + 2])
                    path.append(name)
                    kind = "global"
                    file, line = _assignment(getattr(holder, "__file__", None), name)
                    at += 1
            case types.FunctionType():
                path.append(f"function {holder.__qualname__}")
                file, line = holder.__code__.co_filename, holder.__code__.co_firstlineno
            case types.CellType():
                functions = (step for step in reversed(way[:at]) if isinstance(step, types.FunctionType))
                owner = next(functions, None)
                path.append(f"closure cell {_cell_name(owner, holder)}")
                kind = "hook" if kind == "hook" else "closure"
            case types.TracebackType():
                frame = holder.tb_frame
                path.append(f"traceback in {frame.f_code.co_name}")
                kind, file, line = "traceback", frame.f_code.co_filename, holder.tb_lineno
            case types.FrameType():
                path.append(f"local {_key_of(holder.f_locals, held)} of {holder.f_code.co_name}")
                if kind not in ("traceback", "generator"):
                    file, line = holder.f_code.co_filename, holder.f_lineno
            case types.GeneratorType() | types.CoroutineType() | types.AsyncGeneratorType():
                made = _code_of(holder)
                path.append(f"generator {holder.__qualname__}, local {_local_of(holder, held)}")
                kind, file, line = "generator", made.co_filename, _line_of(holder)
            case functools._lru_cache_wrapper():
                path.append(f"cache of {getattr(holder, '__qualname__', holder)}")
                kind = "cache"
                code = getattr(getattr(holder, "__wrapped__", None), "__code__", None)
                if code is not None:
                    file, line = code.co_filename, code.co_firstlineno
            case dict():
                key = _key_of(holder, held)
                path.append(f"[{key}]")
            case list() | tuple() | deque():
                place = next((number for number, found in enumerate(holder) if found is held), None)
                path.append("[?]" if place is None else f"[{place}]")
            case BaseException():
                path.append(f"exception {_type_name(holder)}")
                kind = "traceback"
            case _:
                attribute = _attribute_of(holder, held, way[at + 2] if at + 2 < len(way) else None)
                if attribute in HOOKS:
                    path.append(f"hook of {_type_name(holder)}")
                    kind = "hook"
                elif attribute is not None:
                    path.append(f"{_type_name(holder)}.{attribute}")
                    if "cache" in attribute.lower():
                        kind = "cache"
                else:
                    path.append(_type_name(holder))
                if attribute is not None and getattr(holder, "__dict__", None) is held:
                    at += 1
        at += 1
        if len(path) >= MOST_HOPS:
            path.append("...")
            break
    return Holder(path=tuple(path), kind=kind, file=file, line=line)


def _key_of(found: dict[Any, Any], held: object) -> str:
    for key, value in list(found.items()):
        if value is held or key is held:
            return str(key)[:60]
    return "?"


def _attribute_of(holder: object, held: object, after: object) -> str | None:
    """The attribute of `holder` by which it holds `held`, or, where that is its own table, `after`."""
    table = getattr(holder, "__dict__", None)
    if isinstance(table, dict):
        wanted = after if table is held else held
        for name, value in list(table.items()):
            if value is wanted:
                return str(name)
    for kind in type(holder).__mro__:
        for name in kind.__dict__.get("__slots__", ()):
            if getattr(holder, name, None) is held:
                return str(name)
    return None


def _cell_name(owner: types.FunctionType | None, cell: types.CellType) -> str:
    if owner is not None:
        for name, found in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=False):
            if found is cell:
                return f"{name} of {owner.__qualname__}"
    return "of a function"


def _code_of(generator: Any) -> types.CodeType:
    for name in ("gi_code", "cr_code", "ag_code"):
        code = getattr(generator, name, None)
        if isinstance(code, types.CodeType):
            return code
    raise TypeError(f"{generator!r} is no generator")


def _frame_of(generator: Any) -> types.FrameType | None:
    for name in ("gi_frame", "cr_frame", "ag_frame"):
        frame = getattr(generator, name, None)
        if isinstance(frame, types.FrameType):
            return frame
    return None


def _local_of(generator: Any, held: object) -> str:
    frame = _frame_of(generator)
    return "?" if frame is None else _key_of(frame.f_locals, held)


def _line_of(generator: Any) -> int:
    frame = _frame_of(generator)
    return _code_of(generator).co_firstlineno if frame is None else frame.f_lineno


def _type_name(found: object) -> str:
    kind = type(found)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _assignment(file: str | None, name: str) -> tuple[str | None, int | None]:
    """The line of `file` that gives the module's `name` its value, where its source is there."""
    if file is None:
        return None, None
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return file, None
    for statement in tree.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return file, statement.lineno
    return file, None
